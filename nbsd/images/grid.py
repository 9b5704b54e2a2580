"""A picture cut into tiles that reach into each other, and put together again: to the pixel as the web UI does it (modules/images.py).

SD upscale and the upscalers' models work so; where a tile begins decides what the network sees in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

Place = tuple[int, int]     # left, top in pixels


def starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin, evenly spaced, so that they cover `length` and reach into each other by at least `overlap` (less than `tile`).

    A tile that is longer than `length` begins before it: what lies there is black.
    """
    count = max(1, math.ceil((length - overlap) / (tile - overlap)))
    step = (length - tile) / (count - 1) if count > 1 else 0.0
    return [*(int(i * step) for i in range(count - 1)), length - tile]


def places(size: Place, tile: Place, overlap: int) -> list[list[Place]]:
    """The rows of tiles, each with its left and top; sizes are width and height."""
    return [[(x, y) for x in starts(size[0], tile[0], overlap)] for y in starts(size[1], tile[1], overlap)]


def joined(rows: Sequence[Sequence[Place]], tiles: Iterable[Image.Image], size: Place, overlap: int) -> Image.Image:
    """The RGB picture of the tiles, row after row at these places.

    In its first `overlap` columns a tile fades in over its neighbour, and beyond them it covers it; so does a row over the one above.
    """
    out, coming = Image.new("RGB", size), iter(tiles)
    for number, row in enumerate(rows):
        strip, top = None, row[0][1]
        for index, place in enumerate(row):
            image = next(coming)
            strip = strip or Image.new("RGB", (size[0], image.height))
            strip.paste(image, (place[0], 0), _fading(image.size, overlap, across=True) if index else None)
        if strip is not None:
            out.paste(strip, (0, top), _fading(strip.size, overlap, across=False) if number else None)
    return out


def _fading(size: Place, overlap: int, *, across: bool) -> Image.Image:
    """The mask "L" that rises over the first `overlap` columns (or rows) and is white behind them."""
    length = size[0] if across else size[1]
    rising = np.full(length, 255, dtype=np.uint8)
    rising[:overlap] = (np.arange(overlap, dtype=np.float32) * 255 / max(overlap, 1)).astype(np.uint8)[:length]
    line = rising[None, :] if across else rising[:, None]
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(line, (size[1], size[0]))))
