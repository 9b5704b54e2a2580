"""Which of what was found in a picture is painted anew, and the masks for it. By the rules of the extension ADetailer (adetailer/mask.py)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from nbsd.errors import RecipeError
from nbsd.images.masks import Box
from nbsd.pipeline.adetailer import APART, AREA, INVERTED, MERGED, SUREST, Detail
from nbsd.pipeline.boxes import Found

SHARES = (("confidence", "confidence"), ("strength", "denoising strength"), ("min_ratio", "least share of the area"),
          ("max_ratio", "largest share of the area"))
WIDEST, FARTHEST = 512, 8192        # pixels by which a mask may grow or shrink, and be moved


def check_detail(detail: Detail) -> None:
    """Raise RecipeError for a setting that makes no sense; what a recipe has too is checked there."""
    for field, name in SHARES:
        if not 0 <= getattr(detail, field) <= 1:
            raise RecipeError(f"the {name} of the detail pass is {getattr(detail, field)}: use a value from 0 to 1")
    for field, name, most in (("dilate", "dilation", WIDEST), ("x_offset", "x offset", FARTHEST), ("y_offset", "y offset", FARTHEST)):
        if abs(getattr(detail, field)) > most:
            raise RecipeError(f"the {name} of the detail pass is {getattr(detail, field)}: use a value from {-most} to {most}")
    for value, choices in ((detail.merge, (APART, MERGED, INVERTED)), (detail.top_by, (AREA, SUREST))):
        if value not in choices:
            raise RecipeError(f"the detail pass knows no {value!r}: use one of {', '.join(choices)}")


def masks_of(found: Sequence[Found], detail: Detail, size: tuple[int, int], only_in: Image.Image | None = None) -> list[Image.Image]:
    """The masks ("L", of the picture's size) to paint one after the other. `only_in`: masks that touch none of its white places are left out."""
    boxes = [one for one in found if one.box[0] < one.box[2] and one.box[1] < one.box[3]]
    whole = size[0] * size[1]
    boxes = [one for one in boxes if detail.min_ratio <= area(one.box) / whole <= detail.max_ratio]
    if detail.top > 0:
        boxes = sorted(boxes, key=lambda one: -area(one.box) if detail.top_by == AREA else -one.confidence)[: detail.top]
    masks = [painted(one, detail, size) for one in boxes]
    masks = [mask for mask in masks if mask.getbbox() is not None]
    if masks and detail.merge != APART:
        merged = reduce(ImageChops.lighter, masks)
        masks = [ImageChops.invert(merged) if detail.merge == INVERTED else merged]
    if only_in is not None:
        masks = [mask for mask in masks if ImageChops.darker(mask, only_in.resize(size)).getbbox() is not None]
    return [mask for mask in masks if mask.getbbox() is not None]


def area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def painted(found: Found, detail: Detail, size: tuple[int, int]) -> Image.Image:
    """The mask of a box, or of the outline in it, moved and made wider. What is moved out on one side comes in on the other, as in the extension."""
    mask, box = found.outline, found.box
    if mask is None:
        mask = Image.new("L", size)
        ImageDraw.Draw(mask).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=255)
    if detail.x_offset or detail.y_offset:
        mask = ImageChops.offset(mask, detail.x_offset, -detail.y_offset)
    return spread(mask, detail.dilate)


def spread(mask: Image.Image, by: int) -> Image.Image:
    """The mask with its white places wider and higher by so many pixels less one, or smaller where `by` is below 0.

    OpenCV's dilation and erosion by a square with a side of `by`, as the extension calls them: of an even square, the middle is the pixel
    right of and below its centre, so 4 adds one pixel left and above, two right and below.
    """
    side = abs(by)
    if side < 2:
        return mask
    values, before = np.asarray(mask), side // 2
    pick: Any = np.maximum if by > 0 else np.minimum
    for axis in (0, 1):
        around = [(before, side - 1 - before) if axis == one else (0, 0) for one in (0, 1)]
        wide = np.pad(values, around, constant_values=0 if by > 0 else 255)
        length = values.shape[axis]
        values = reduce(pick, (np.take(wide, range(at, at + length), axis) for at in range(side)))
    return Image.fromarray(values)
