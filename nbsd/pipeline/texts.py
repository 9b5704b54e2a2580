"""From a recipe's prompts to what the UNet reads: one context per text, with the denoiser call until which it holds."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nbsd.conditioning.embeddings import Embeddings as EmbeddingFiles
from nbsd.conditioning.encode import Embeddings, Encoded, Encoder, chunk_text, encode
from nbsd.conditioning.tokens import OpenVocabulary, Vocabulary
from nbsd.models.families import HIGH_SCORE, LOW_SCORE, SD1, Family
from nbsd.models.hashes import NETWORK, sha256
from nbsd.names import SAMPLER_FACTS
from nbsd.prompt.networks import split_networks, strip_comments
from nbsd.prompt.schedule import and_parts, prompt_schedule
from nbsd.recipe import OF_2022, Recipe
from nbsd.sampling.guidance import Part, Text

if TYPE_CHECKING:
    from nbsd.models.load import Checkpoint

Size = tuple[int, int]      # width, height in pixels

_BREAK = re.compile(r"\bBREAK\b")
UNSAID = str.maketrans("", "", ":,")        # the web UI leaves these out of the names in "TI hashes" and "Lora hashes"
REMEMBERED = 16     # encoded schedules kept, so that only the changed prompt of the next picture is encoded


def planned_calls(recipe: Recipe) -> int:
    """How many denoiser calls a prompt's timeline is laid out for. In 2022 the steps, also where a step makes two calls."""
    twice = SAMPLER_FACTS[recipe.sampler].second_order and recipe.rules != OF_2022
    return recipe.steps * (2 if twice else 1)


def encoders_of(checkpoint: Checkpoint) -> list[Encoder]:
    """A model's text encoders, as its family uses them."""
    return [
        Encoder(module, OpenVocabulary() if part.open_clip else Vocabulary(), part.open_clip, part.layer, part.norm, part.pooled, part.vectors)
        for module, part in zip(checkpoint.text_encoders, checkpoint.text_parts, strict=True)
    ]


class Texts:
    """Encodes the prompts of recipes with a model's text encoders."""

    def __init__(self, encoders: Sequence[Encoder], family: Family = SD1, embeddings: Embeddings | None = None) -> None:
        self._encoders, self._family, self.embeddings = list(encoders), family, embeddings
        self.vocabulary = self._encoders[0].vocabulary
        self.networks: tuple[object, ...] = ()      # what is at work in the text encoder; other networks, other vectors
        self._known: OrderedDict[tuple[object, ...], tuple[Text, ...]] = OrderedDict()

    def positive(self, recipe: Recipe, first_calls: int | None = None, size: Size | None = None) -> tuple[Part, ...]:
        """The parts of the prompt, each with its weight; one part where the prompt has no AND.

        `first_calls`: in the second pass of the hires fix, the planned calls of the first one. `size`: the width and height that a model
        is told which is told one, if not the recipe's.
        """
        return tuple(Part(self.timeline(text, recipe, first_calls, size=size), weight) for text, weight in _parts(recipe))

    def negative(self, recipe: Recipe, first_calls: int | None = None, size: Size | None = None) -> tuple[Text, ...]:
        """The negative prompt; AND is plain text there. `first_calls`, `size`: as in `positive`."""
        return self.timeline(strip_comments(recipe.negative_prompt), recipe, first_calls, negative=True, size=size)

    def empty(self, recipe: Recipe) -> Tensor:
        """The context [77, width] of the empty prompt."""
        return self.timeline("", recipe)[0].context

    def forget(self) -> None:
        """Encode everything anew from here on."""
        self._known.clear()

    def signature(self, recipe: Recipe) -> str:
        """What "TI hashes" says in an infotext of the embeddings that the prompts use.

        Those of the text that the web UI encodes last stand first, and it encodes the negative prompt before the others.
        """
        said: list[str] = []
        if not isinstance(self.embeddings, EmbeddingFiles):
            return ""
        for text in (strip_comments(recipe.negative_prompt), *(part for part, _ in _parts(recipe))):
            how = {name: value for name, value in _how(recipe).items() if name != "clip_skip"}
            texts = dict.fromkeys(one for _, one in _timed(text, recipe))
            rows = [chunk_text(one, self.vocabulary, embeddings=self.embeddings, **how) for one in texts]
            columns = zip_longest(*([one.fixes for one in row] for row in rows), fillvalue=())
            names = dict.fromkeys(fix.embedding for column in columns for fixes in column for fix in fixes)
            said[:0] = [f"{name.translate(UNSAID)}: {sha256(self.embeddings.path(name))[:NETWORK]}" for name in names]
        return ", ".join(said)

    def timeline(
        self, text: str, recipe: Recipe, first_calls: int | None = None, *, negative: bool = False, size: Size | None = None
    ) -> tuple[Text, ...]:
        """The stretches of a text's schedule, encoded together. `first_calls`, `size`: as in `positive`."""
        timed, how = _timed(text, recipe, first_calls), _how(recipe)
        numbers = self._numbers(size or (recipe.width, recipe.height), negative)
        zeros = negative and self._family.zero_empty_negative and not any(one for _, one in timed)
        key = (self.networks, tuple(timed), zeros, tuple(numbers), *how.values())
        if key not in self._known:
            # all texts of one schedule are encoded together: the web UI's emphasis rescales by the mean of the whole tensor
            with torch.inference_mode():
                encoded = encode([one for _, one in timed], self._encoders, embeddings=self.embeddings, **how)
                if zeros:
                    encoded = Encoded(encoded.context * 0, encoded.pooled * 0 if encoded.pooled is not None else None)
            vectors = _with_numbers(encoded.pooled, numbers) if encoded.pooled is not None else [None] * len(timed)
            stretches = zip(timed, encoded.context, vectors, strict=True)
            self._known[key] = tuple(Text(until, context, vector) for (until, _), context, vector in stretches)
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]

    def _numbers(self, size: Size, negative: bool) -> list[float]:
        """What the UNet is told of the picture besides the texts: its size as the original's and the target's, and no crop."""
        known = {"width": size[0], "height": size[1], "top": 0, "left": 0, "score": LOW_SCORE if negative else HIGH_SCORE}
        return [float(known[name]) for name in self._family.numbers]


def _with_numbers(pooled: Tensor, numbers: Sequence[float]) -> Sequence[Tensor]:
    """Pooled texts [N, width], each with the numbers behind it."""
    behind = torch.tensor(numbers, dtype=pooled.dtype, device=pooled.device)
    return list(torch.cat([pooled, behind.expand(len(pooled), -1)], dim=1))


def _parts(recipe: Recipe) -> list[tuple[str, float]]:
    """The prompt's parts, each with its weight."""
    text = split_networks(strip_comments(recipe.prompt))[0]
    return [(part.text, part.weight) for part in and_parts(text)] if recipe.dialect == "webui" else [(text, 1.0)]


def _timed(text: str, recipe: Recipe, first_calls: int | None = None) -> list[tuple[int, str]]:
    """The texts of a schedule, each with the denoiser call until which it holds. `first_calls`: of a first pass, in the second one."""
    calls = planned_calls(recipe)
    if recipe.rules == OF_2022:
        text = _BREAK.sub("break", text)        # not yet a keyword then; CLIP reads small letters anyway
    if recipe.dialect != "webui":       # NovelAI's language has no prompt editing: its [ ] only weaken
        return [(calls, text)]
    if first_calls is not None:
        return prompt_schedule(text, first_calls, calls, old_timelines=recipe.old_prompt_timelines)
    return prompt_schedule(text, calls, old_timelines=recipe.old_prompt_timelines)


def _how(recipe: Recipe) -> dict[str, Any]:
    """How the texts of a recipe are encoded, as `encode_texts` takes it."""
    return {
        "clip_skip": recipe.clip_skip, "emphasis": recipe.emphasis, "backtrack": recipe.comma_backtrack,
        "old_emphasis": recipe.old_emphasis, "dialect": recipe.dialect,
    }
