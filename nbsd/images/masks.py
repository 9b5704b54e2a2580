"""Masks: pictures of mode "L" that are white where a picture is to change. What the web UI does with them, by Pillow and numpy."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from nbsd.errors import RecipeError
from nbsd.images.resize import CROP, LANCZOS, resize

Box = tuple[int, int, int, int]     # left, top, right, bottom in pixels
Array = np.ndarray[Any, np.dtype[Any]]

HALF = 128              # alpha from here on (not included) counts as painted where masks are rounded
OPAQUE = (255, 255)
WEIGHTS = 256           # the blur's weights are whole numbers that sum up to it
# Masked content "fill": the picture is blurred with each radius and laid over the rougher ones, so many times.
SMEARS = ((256, 1), (64, 1), (16, 2), (4, 4), (2, 2), (0, 1))


def read_mask(mask: Image.Image, *, rounded: bool = True) -> Image.Image:
    """The mask that a picture says, as "L": its alpha channel where it has one that is not all opaque, else its brightness.

    `rounded`: the alpha channel counts as all or nothing.
    """
    if mask.mode == "RGBA" and mask.getchannel("A").getextrema() != OPAQUE:
        alpha = mask.getchannel("A")
        return alpha.point([255 if value > HALF else 0 for value in range(256)]) if rounded else alpha
    return mask.convert("L")


def transparent_places(image: Image.Image) -> Image.Image:
    """The mask that paints what is transparent in a picture. Raises RecipeError where nothing is."""
    if image.mode != "RGBA":
        raise RecipeError("this picture has no transparent places to make a mask of: give one with mask=")
    return ImageOps.invert(image.getchannel("A"))


def matched(mask: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The mask in the size of the picture. Raises RecipeError where it has another shape."""
    require_shape(mask, size)
    return mask if mask.size == size else mask.resize(size, LANCZOS)


def require_shape(mask: Image.Image, size: tuple[int, int]) -> None:
    """Raise RecipeError where a mask has another shape than the picture of this size."""
    if abs(mask.width / mask.height / (size[0] / size[1]) - 1) > 0.02:
        raise RecipeError(f"the mask is {mask.width}x{mask.height} and the picture {size[0]}x{size[1]}: give a mask of the picture's size")


def require_painted(mask: Image.Image, inverted: bool = False) -> None:
    """Raise RecipeError where a mask leaves nothing to change."""
    if mask.getbbox() is None:
        where = "covers everything, and what is not masked is to change" if inverted else "is empty: paint where the picture is to change"
        raise RecipeError(f"the mask {where}, or make the picture without a mask")


def blurred(mask: Image.Image, radius: int) -> Image.Image:
    """The mask blurred by a Gaussian with this standard deviation in pixels, cut at 2.5 of them.

    Exactly OpenCV's blur of bytes, which the web UI uses: whole weights, first along the rows, then along the columns, each result
    rounded; beyond the edge the picture is mirrored without repeating its outermost pixels.
    """
    if radius <= 0:
        return mask
    weights, values = gaussian_weights(radius), np.asarray(mask, dtype=np.int32)
    for axis in (1, 0):
        values = _weighed(values, weights, axis)
    return Image.fromarray(values.astype(np.uint8))


def gaussian_weights(deviation: float) -> list[int]:
    """The blur's weights: each is rounded with what its predecessors lost or gained, and the middle one takes what is left of 256."""
    half = int(2.5 * deviation + 0.5)
    curve = [math.exp(-((i - half) ** 2) / (2 * deviation * deviation)) for i in range(2 * half + 1)]
    total, owed, side = sum(curve), 0.0, []
    for value in curve[:half]:
        wanted = value / total * WEIGHTS + owed
        side.append(round(wanted))
        owed = wanted - side[-1]
    return [*side, WEIGHTS - 2 * sum(side), *reversed(side)]


def _weighed(values: Array, weights: list[int], axis: int) -> Array:
    half = len(weights) // 2
    padded = np.take(values, _mirrored(values.shape[axis], half), axis)
    length = values.shape[axis]
    total = sum(weight * np.take(padded, range(i, i + length), axis) for i, weight in enumerate(weights))
    return (np.asarray(total) + WEIGHTS // 2) // WEIGHTS


def _mirrored(length: int, beyond: int) -> list[int]:
    """The numbers 0 to length - 1 with `beyond` more at each end: 2 1 0 1 2 ... n-2 n-1 n-2."""
    if length == 1:
        return [0] * (1 + 2 * beyond)
    period = 2 * (length - 1)
    return [min(i % period, period - i % period) for i in range(-beyond, length + beyond)]


# --- which part of the picture is worked on


def padded_box(mask: Image.Image, padding: int) -> Box:
    """The box around all that is painted, with so many pixels around it."""
    left, top, right, bottom = mask.getbbox() or (0, 0, *mask.size)
    return max(left - padding, 0), max(top - padding, 0), min(right + padding, mask.width), min(bottom + padding, mask.height)


def shaped_box(box: Box, size: tuple[int, int], image: tuple[int, int]) -> Box:
    """The box made wider or higher until it has the shape of `size`, as far as the picture reaches."""
    left, top, right, bottom = box
    if (right - left) / (bottom - top) > size[0] / size[1]:
        top, bottom = _stretched(top, bottom, (right - left) / (size[0] / size[1]), image[1])
    else:
        left, right = _stretched(left, right, (bottom - top) * (size[0] / size[1]), image[0])
    return left, top, right, bottom


def _stretched(start: int, end: int, length: float, limit: int) -> tuple[int, int]:
    """A stretch made about `length` long around its middle, moved into 0 to `limit`, and cut where it is still too long."""
    more = int(length - (end - start))
    start -= more // 2
    end += more - more // 2
    if end >= limit:
        start, end = start - (end - limit), limit
    if start < 0:
        start, end = 0, end - start
    return start, min(end, limit)


# --- pictures with holes


def outside(image: Image.Image, mask: Image.Image) -> Image.Image:
    """The picture as RGBA, transparent where the mask is white: what is laid over the new one at the end."""
    return _cut_out(image, mask).convert("RGBA")


def _cut_out(image: Image.Image, mask: Image.Image) -> Image.Image:
    """With colours premultiplied, so that half transparent places blend as light does."""
    out = Image.new("RGBa", image.size)
    out.paste(image.convert("RGBA").convert("RGBa"), mask=ImageOps.invert(mask.convert("L")))
    return out


def smeared(image: Image.Image, mask: Image.Image) -> Image.Image:
    """Masked content "fill": the colours around the mask drawn into it."""
    out, rest = Image.new("RGBA", image.size), _cut_out(image, mask)
    for radius, times in SMEARS:
        layer = rest.filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
        for _ in range(times):
            out.alpha_composite(layer)
    return out.convert("RGB")


def laid_over(image: Image.Image, overlay: Image.Image, box: Box | None = None) -> Image.Image:
    """The new picture under the rest of the old one. `box`: where in the old one the new one belongs; it is scaled to it."""
    below = image.convert("RGBA")
    if box is not None:
        below = Image.new("RGBA", overlay.size)
        below.paste(resize(image, (box[2] - box[0], box[3] - box[1]), CROP), box[:2])
    below.alpha_composite(overlay)
    return below.convert("RGB")


def placed(mask: Image.Image, box: Box | None, size: tuple[int, int]) -> Image.Image:
    """A mask of the part of a picture in a box as a mask of all of it, black around; without a box it is one already."""
    if box is None:
        return mask
    whole = Image.new("L", size)
    whole.paste(resize(mask, (box[2] - box[0], box[3] - box[1]), CROP).convert("L"), box[:2])
    return whole


def flattened(image: Image.Image, background: str) -> Image.Image:
    """RGB, with a colour where the picture is transparent."""
    if image.mode != "RGBA":
        return image.convert("RGB")
    out = Image.new("RGBA", image.size, background)
    out.paste(image, mask=image)
    return out.convert("RGB")


def digest(image: Image.Image) -> str:
    """What the web UI calls the hash of a given picture: MD5 of its pixels."""
    return hashlib.md5(image.tobytes(), usedforsecurity=False).hexdigest()
