"""Captions as tokens: which tags are said, in which order, and rows of 77 tokens for the text encoder."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from nbsd.conditioning.tokens import END, START, Vocabulary

from .tags import BACKGROUNDS, CLOTHES, EYE_COLOURS, EYES, FLAWS, HAIR_COLOURS, HAIR_STYLES, HEADGEAR, MOUTHS, VIEWS, Tags, caption

EVERY = (
    *HAIR_COLOURS, *HAIR_STYLES, *EYE_COLOURS, *EYES[1:], *MOUTHS, *HEADGEAR[1:], *CLOTHES, *BACKGROUNDS, *FLAWS, *VIEWS, "blush", "glasses",
    "1girl", "solo", "masterpiece", "best quality", "worst quality", "low quality",
)
SPARSE, EMPTY, NOISY = 0.3, 0.1, 0.12   # shares of captions: with most tags left out, without any, with words that mean nothing


class Captions:
    """Turns tags into rows of tokens; remembers the tokens of each tag."""

    def __init__(self) -> None:
        vocabulary = Vocabulary()
        self._tokens = {word: vocabulary.encode(word) for word in EVERY}
        self._joined = {word: vocabulary.encode(word.replace(" ", "_")) for word in EVERY}
        self.comma = vocabulary.comma
        self.used = sorted({token for tokens in self._tokens.values() for token in tokens} | {self.comma, START, END})

    def row(self, text: str, rng: random.Random, noise: int = 0) -> list[int]:
        """START, the text's tokens, END up to 77; `noise` tokens that no tag uses are thrown in between the tags."""
        return self.placed(text, rng, noise)[0]

    def placed(
        self, text: str, rng: random.Random, noise: int = 0, joined: bool = False, commas: bool = True
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """The row, and for each tag the place of its last token and its number in EVERY. `joined` writes blue_hair for blue hair."""
        found, places = [START], []
        for word in text.split(", ") if text else ():
            found += (self._joined if joined else self._tokens)[word]
            places.append((len(found) - 1, EVERY.index(word)))
            found += [self.comma] * commas
            while noise and rng.random() < 0.3:
                found.append(rng.randrange(300, 40000))
                noise -= 1
        found = found[:-1] if len(found) > 1 and found[-1] == self.comma else found
        return (found[:76] + [END] * 77)[:77], [(at, word) for at, word in places if at < 76]

    def training_text(self, tags: Tags, rng: random.Random) -> tuple[str, int]:
        """A caption as it is trained on: sometimes sparse, sometimes empty (for guidance); and how many foreign tokens it gets."""
        if rng.random() < EMPTY:
            return "", 0
        drop = rng.uniform(0.2, 0.85) if rng.random() < SPARSE else 0.05
        return caption(tags, rng, drop), rng.randint(1, 6) if rng.random() < NOISY else 0

    def training_row(self, tags: Tags, rng: random.Random) -> list[int]:
        text, noise = self.training_text(tags, rng)
        return self.row(text, rng, noise)

    def batch(self, tags: list[Tags], rng: random.Random) -> Tensor:
        """int64 [len(tags), 77]"""
        return torch.tensor([self.training_row(one, rng) for one in tags])
