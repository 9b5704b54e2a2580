"""What a portrait can show, how often, and how it is written as tags: the vocabulary of the first model."""

from __future__ import annotations

import random
from dataclasses import dataclass

HAIR_COLOURS = {
    "black hair": (46, 44, 58), "brown hair": (134, 84, 54), "blonde hair": (245, 207, 110), "red hair": (206, 52, 48),
    "pink hair": (248, 150, 184), "blue hair": (74, 124, 226), "green hair": (78, 178, 104), "purple hair": (146, 92, 200),
    "silver hair": (206, 212, 226),
}
EYE_COLOURS = {
    "blue eyes": (52, 120, 232), "green eyes": (44, 168, 84), "red eyes": (220, 42, 52), "purple eyes": (150, 70, 214),
    "yellow eyes": (240, 184, 28), "brown eyes": (124, 70, 36),
}
HAIR_STYLES = ("short hair", "long hair", "twintails", "ponytail", "bob cut")
MOUTHS = ("smile", "open mouth", "closed mouth", "frown")
EYES = ("open eyes", "closed eyes", "one eye closed")      # "open eyes" is never written: it is what is meant without a tag
HEADGEAR = ("none", "hat", "hair ribbon", "cat ears", "hairband")
CLOTHES = ("school uniform", "hoodie", "kimono", "sweater")
BACKGROUNDS = (
    "white background", "pink background", "yellow background", "green background", "blue sky", "night sky", "sunset", "flowers",
)
QUALITIES = ("best", "normal", "worst")
FLAWS = ("lowres", "blurry", "sketch")
VIEWS = ("portrait", "upper body")


@dataclass(frozen=True)
class Tags:
    """All that the caption can say about one picture. Each value is a word of the tables above."""

    hair: str
    style: str
    eye_colour: str
    eyes: str
    mouth: str
    blush: bool
    headgear: str
    glasses: bool
    clothes: str
    background: str
    view: str
    quality: str
    flaw: str


def draw_tags(rng: random.Random, quality: str | None = None) -> Tags:
    """Tags of one picture, drawn at random; `quality` fixes the drawing quality."""
    return Tags(
        hair=rng.choice(tuple(HAIR_COLOURS)), style=rng.choice(HAIR_STYLES), eye_colour=rng.choice(tuple(EYE_COLOURS)),
        eyes=rng.choices(EYES, (66, 17, 17))[0], mouth=rng.choice(MOUTHS), blush=rng.random() < 0.3,
        headgear=rng.choices(HEADGEAR, (32, 17, 17, 17, 17))[0], glasses=rng.random() < 0.3, clothes=rng.choice(CLOTHES),
        background=rng.choice(BACKGROUNDS), view=rng.choices(VIEWS, (60, 40))[0],
        quality=quality or rng.choices(QUALITIES, (64, 20, 16))[0], flaw=rng.choice(FLAWS),
    )


def words(tags: Tags) -> list[str]:
    """The picture's tags as a Danbooru-style list, without the quality words, in a fixed order."""
    said = [tags.hair, tags.style, tags.mouth, tags.clothes, tags.background, tags.view]
    if tags.eyes != "open eyes":
        said.append(tags.eyes)
    if tags.eyes != "closed eyes":
        said.append(tags.eye_colour)
    said += ["blush"] * tags.blush + ["glasses"] * tags.glasses
    if tags.headgear != "none":
        said.append(tags.headgear)
    return said


def quality_words(tags: Tags, rng: random.Random) -> list[str]:
    """Words that go with the drawing quality; a worst picture also names its flaw most of the time."""
    if tags.quality == "best":
        return ["masterpiece", "best quality"] if rng.random() < 0.75 else [rng.choice(("masterpiece", "best quality"))]
    if tags.quality == "normal":
        return []
    said = ["worst quality", "low quality"] if rng.random() < 0.5 else ["worst quality"]
    return said + [tags.flaw] * (rng.random() < 0.8)


def caption(tags: Tags, rng: random.Random, drop: float = 0.08) -> str:
    """A caption in random order: each tag is left out with probability `drop`, the quality words come first or last."""
    said = [word for word in words(tags) if rng.random() >= drop]
    rng.shuffle(said)
    start = ["1girl"] * (rng.random() < 0.7) + ["solo"] * (rng.random() < 0.3)
    quality = quality_words(tags, rng) if rng.random() > 0.1 else []
    parts = quality + start + said if rng.random() < 0.7 else start + said + quality
    return ", ".join(parts)
