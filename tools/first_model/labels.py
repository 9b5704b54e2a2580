"""What can be read off a picture, as numbers: an index for each kind of tag."""

from __future__ import annotations

from dataclasses import asdict

import torch
from torch import Tensor

from .tags import BACKGROUNDS, CLOTHES, EYE_COLOURS, EYES, HAIR_COLOURS, HAIR_STYLES, HEADGEAR, MOUTHS, QUALITIES, Tags

WORDS: dict[str, tuple] = {
    "hair": tuple(HAIR_COLOURS), "style": HAIR_STYLES, "eye_colour": tuple(EYE_COLOURS), "eyes": EYES, "mouth": MOUTHS,
    "blush": (False, True), "headgear": HEADGEAR,
    "glasses": (False, True), "clothes": CLOTHES, "background": BACKGROUNDS, "quality": QUALITIES,
}


def labels(tags: list[Tags]) -> dict[str, Tensor]:
    """Index of each tag's word; -1 where it cannot be seen (the eyes' colour when both are closed)."""
    rows = [asdict(one) for one in tags]
    found = {kind: torch.tensor([words.index(row[kind]) for row in rows]) for kind, words in WORDS.items()}
    found["eye_colour"][[one.eyes == "closed eyes" for one in tags]] = -1
    return found
