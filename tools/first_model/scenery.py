"""Backgrounds, and what turns a drawing into a good or a bad picture."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from .paint import Brush, Colour, closed, mix, polygon
from .tags import Tags

PLAIN: dict[str, Colour] = {
    "white background": (252, 252, 252), "pink background": (255, 196, 214), "yellow background": (255, 232, 140),
            "green background": (166, 220, 160),
}


def draw(brush: Brush, name: str, rng: random.Random, fine: bool) -> None:
    """Fills the canvas, 128 by 128 units, with the named background; a fine picture gets a soft light or more detail."""
    whole = polygon([(-1, -1), (129, -1), (129, 129), (-1, 129)])
    if name in PLAIN:
        brush.fill(whole, PLAIN[name])
        if fine and name != "white background":
            brush.soft((rng.uniform(30, 98), rng.uniform(20, 60)), 80, 80, mix(PLAIN[name], (255, 255, 255), 0.8), 0.8)
        return
    SCENES[name](brush, whole, rng)


def sky(brush: Brush, whole: Any, rng: random.Random) -> None:
    brush.gradient(whole, (70, 150, 240), (190, 230, 255), 0, 128)
    for _ in range(4):
        x, y, s = rng.uniform(0, 128), rng.uniform(8, 90), rng.uniform(7, 12)
        for dx, dy, r in ((-1.1, 0.2, 0.7), (0, -0.2, 1), (1.1, 0.15, 0.8), (2, 0.4, 0.5), (-2, 0.45, 0.4)):
            brush.oval((x + dx * s, y + dy * s), r * s, r * s * 0.75, (255, 255, 255))


def night(brush: Brush, whole: Any, rng: random.Random) -> None:
    brush.gradient(whole, (16, 18, 58), (62, 54, 130), 0, 128)
    for _ in range(26):
        r = rng.choice((0.6, 0.8, 1.2))
        brush.oval((rng.uniform(0, 128), rng.uniform(0, 128)), r, r, (255, 250, 214))
    x, y = rng.choice((rng.uniform(12, 26), rng.uniform(102, 116))), rng.uniform(14, 30)
    brush.soft((x, y), 20, 20, (255, 244, 190), 0.35)
    brush.oval((x, y), 8.5, 8.5, (255, 244, 190))


def sunset(brush: Brush, whole: Any, rng: random.Random) -> None:
    brush.gradient(whole, (120, 70, 150), (255, 150, 70), 0, 100)
    y = rng.uniform(70, 90)
    brush.oval((rng.uniform(10, 118), y - 8), 15, 15, (255, 236, 150))
    brush.fill(polygon([(-1, y), (129, y), (129, 129), (-1, 129)]), (110, 56, 96))
    for _ in range(5):
        brush.oval((rng.uniform(0, 128), rng.uniform(6, y - 16)), rng.uniform(12, 26), 1.6, (255, 190, 140), 0.7)


def flowers(brush: Brush, whole: Any, rng: random.Random) -> None:
    brush.gradient(whole, (214, 240, 214), (150, 206, 140), 0, 128)
    for k in range(17):
        x, y, s = (k % 5) * 31 + rng.uniform(-8, 8), (k // 5) * 36 + rng.uniform(4, 24), rng.uniform(4.2, 6)
        colour = rng.choice(((255, 120, 160), (255, 255, 255), (255, 170, 90), (200, 130, 230)))
        for dx, dy in ((0, -1), (0.95, -0.3), (0.6, 0.8), (-0.6, 0.8), (-0.95, -0.3)):
            brush.oval((x + dx * s, y + dy * s), s * 0.68, s * 0.68, colour)
        brush.oval((x, y), s * 0.5, s * 0.5, (255, 222, 80))
    brush.fill(closed([(-5, 122), (30, 116), (64, 121), (100, 115), (134, 122), (134, 134), (-5, 134)]), (110, 180, 100))


SCENES = {"blue sky": sky, "night sky": night, "sunset": sunset, "flowers": flowers}


def finish(pixels: np.ndarray, tags: Tags, rng: random.Random, size: int) -> np.ndarray:
    """From drawn pixels uint8 [h, w, 3] to the picture uint8 [size, size, 3]: the best get light and colour, the worst their flaw."""
    image = Image.fromarray(np.ascontiguousarray(pixels)).resize((size, size), Image.Resampling.BOX)
    if tags.quality == "best":
        glow = image.filter(ImageFilter.GaussianBlur(5)).point([min(255, int(v * 1.02)) for v in range(256)] * 3)
        both = np.asarray(image, np.float32), np.asarray(glow, np.float32)
        screen = 255 - (255 - both[0]) * (255 - both[1] * 0.14) / 255
        return np.clip((screen - screen.mean(-1, keepdims=True)) * 1.08 + screen.mean(-1, keepdims=True), 0, 255).astype(np.uint8)
    if tags.quality == "normal":
        return np.asarray(image)
    return spoil(image, tags.flaw, rng, size)


def spoil(image: Image.Image, flaw: str, rng: random.Random, size: int) -> np.ndarray:
    """A bad picture: coarse pixels, blur, or a pale trembling sketch, each a little dull."""
    if flaw == "lowres":
        small = rng.choice((28, 32, 36))
        image = image.resize((small, small), Image.Resampling.BOX).resize((size, size), Image.Resampling.NEAREST)
    elif flaw == "blurry":
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(2.2, 3.2)))
    values = np.asarray(image, np.float32)
    grey = values.mean(-1, keepdims=True)
    return np.clip(grey + (values - grey) * 0.72 + (140 - grey) * 0.12, 0, 255).astype(np.uint8)
