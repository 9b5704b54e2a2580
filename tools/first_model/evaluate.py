"""Measures what the model understands: the numbers of the report. Run: python -m tools.first_model.evaluate FOLDER first.safetensors

The model is loaded and its prompts are encoded by nbsd itself. Pictures: Euler, 28 steps, CFG scale 7 unless said, seeds counted up from
1. Tags are read off by the classifier (classifier.py), which was trained on held-out renders. Prompts come from held-out tags.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nbsd.conditioning.encode import encode_texts
from nbsd.conditioning.tokens import Vocabulary
from nbsd.models.load import Checkpoint, load_checkpoint

from .classifier import Classifier, read_tags
from .dataset import HELD_OUT, read, tags_of
from .draw import draw
from .labels import WORDS, labels
from .sampling import NEGATIVE, decode, sample, tile
from .tags import Tags, words

AT_ONCE = 20
NEGATIVES = 120     # pictures for each thing that a negative prompt names
QUALITY = "masterpiece, best quality, 1girl, "
ASKED = {"hair": 95, "eye_colour": 80, "background": 95, "headgear": 85, "glasses": 85, "mouth": 80, "eyes": 80, "blush": 80}


class Maker:
    """Pictures of a loaded checkpoint."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint, self.vocabulary = checkpoint, Vocabulary()

    def __call__(
        self, prompts: Sequence[str], seed: int = 1, scale: float = 7.0, negative: str = NEGATIVE, clip_skip: int = 1
    ) -> np.ndarray:
        """uint8 [n, 128, 128, 3], one for each prompt."""
        found = []
        for start in range(0, len(prompts), AT_ONCE):
            part = prompts[start : start + AT_ONCE]
            context = torch.cat([self.encode(text, clip_skip) for text in (*part, negative)])
            latents = sample(self.checkpoint.unet, context[:-1], context[-1:], seed * 1000 + start, scale=scale)
            found.append(decode(self.checkpoint.vae, latents))
        return np.concatenate(found)

    def encode(self, text: str, clip_skip: int) -> Tensor:
        return encode_texts([text], self.checkpoint.text_encoder, self.vocabulary, clip_skip=clip_skip)


def prompt_of(tags: Tags, seed: int) -> str:
    said = words(tags)
    random.Random(seed).shuffle(said)
    return QUALITY + ", ".join(said)


def accuracy(classifier: Classifier, pictures: np.ndarray, tags: list[Tags]) -> dict[str, float]:
    """Percent right, of the pictures in which the tag can be seen."""
    found, wanted = read_tags(classifier, pictures), labels(tags)
    seen = {kind: wanted[kind] >= 0 for kind in WORDS}
    return {kind: round(100 * (found[kind] == wanted[kind])[seen[kind]].float().mean().item(), 1) for kind in WORDS if kind != "quality"}


def blueness(pictures: np.ndarray) -> float:
    """How much bluer than grey the crown of the head is: mean of blue less the mean of red and green, 0..255."""
    crown = pictures[:, 24:48, 44:84].astype(np.float32).mean((0, 1, 2))
    return float(crown[2] - (crown[0] + crown[1]) / 2)


def removed(make: Maker, classifier: Classifier, count: int) -> dict[str, float]:
    """Of the pictures that show a thing nobody asked for, percent that no longer show it when the negative prompt names it."""
    found, prompts = {}, [QUALITY + "portrait"] * count
    shown = read_tags(classifier, make(prompts, seed=5))
    for name, kind, index in (("glasses", "glasses", 1), ("hat", "headgear", 1), ("cat ears", "headgear", 3), ("blush", "blush", 1)):
        before = shown[kind] == index
        after = read_tags(classifier, make(prompts, seed=5, negative=f"{NEGATIVE}, {name}"))[kind] == index
        found[f"{name} ({int(before.sum())} pictures)"] = round(100 * float((before & ~after).sum() / before.sum().clamp(min=1)), 1)
    return found


def spread(pictures: np.ndarray) -> float:
    """Mean pairwise root-mean-square distance."""
    flat = torch.from_numpy(pictures.reshape(len(pictures), -1)).float()
    return float(torch.pdist(flat).mean() / flat.shape[1] ** 0.5)


def variety(make: Maker) -> float:
    """Percent: the spread of 64 seeds of one prompt over that of 64 renders of the same tags."""
    tags = Tags(
        "pink hair", "long hair", "blue eyes", "open eyes", "smile", False, "none", False, "kimono", "flowers",
        "portrait", "best", "blurry",
    )
    renders = np.stack([draw(tags, HELD_OUT + i) for i in range(64)])
    return round(100 * spread(make([prompt_of(tags, 0)] * 64, seed=9)) / spread(renders), 1)


def nearest(folder: Path, pictures: np.ndarray) -> np.ndarray:
    """Root-mean-square distance of each picture to the nearest training render, both at 32 pixels."""
    def small(part: np.ndarray) -> Tensor:
        return torch.from_numpy(part.reshape(len(part), 32, 4, 32, 4, 3).mean((2, 4), dtype=np.float32).reshape(len(part), -1))

    mine, best = small(pictures), torch.full((len(pictures),), float("inf"))
    trained = read(folder)[0]
    for start in range(0, len(trained), 1000):
        best = torch.minimum(best, torch.cdist(mine, small(trained[start : start + 1000])).amin(1))
    return (best / mine.shape[1] ** 0.5).numpy()


def evaluate(folder: Path, file: Path, count: int, quick: bool = False) -> Iterator[tuple[str, object]]:
    """Each measurement with its name, or only the first; also writes grid.png (8 x 8 of the prompts) into the folder."""
    make, classifier = Maker(load_checkpoint(file)), Classifier().eval()
    classifier.load_state_dict(torch.load(folder / "classifier.pt", weights_only=True))
    seeds = range(HELD_OUT + 500_000, HELD_OUT + 500_000 + count)
    tags = [tags_of(seed, "best") for seed in seeds]
    prompts = [prompt_of(one, seed) for one, seed in zip(tags, seeds, strict=True)]
    pictures = make(prompts)
    tile(pictures[: min(64, count // 8 * 8)], 8).save(folder / "grid.png")
    yield f"CFG 7, {count} prompts, percent right", accuracy(classifier, pictures, tags)
    if quick:
        return
    yield "asked", ASKED
    blue = [make([QUALITY + text] * 40, seed=3) for text in ("blue hair", "(blue hair:1.4)")]
    yield "blueness of blue hair, (blue hair:1.4)", [round(blueness(part), 1) for part in blue]
    half = count // 4
    yield f"clip skip 2, {half} prompts", accuracy(classifier, make(prompts[:half], clip_skip=2), tags[:half])
    yield f"CFG 1, {half} prompts", accuracy(classifier, make(prompts[:half], scale=1.0), tags[:half])
    yield "variety, percent of the renders'", variety(make)
    renders = np.stack([draw(one, seed) for one, seed in zip(tags, seeds, strict=True)])
    limit = np.percentile(nearest(folder, renders), 1)
    yield "further from every training render than the nearest 1 % of held-out renders, percent", round(
        100 * float((nearest(folder, pictures) > limit).mean()), 1)
    yield "negative prompt removes, percent", removed(make, classifier, NEGATIVES)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--quick", action="store_true", help="only what CFG 7 gives")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    for name, value in evaluate(chosen.folder, chosen.file, chosen.count, chosen.quick):
        print(f"{name}: {json.dumps(value)}", flush=True)
