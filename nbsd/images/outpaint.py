"""Outpainting: a picture made larger at its sides, with the mask of what is new."""

from __future__ import annotations

from PIL import Image

from nbsd.errors import RecipeError
from nbsd.images.reading import MOST_PIXELS

MOST = 8192         # pixels, of a side


def extended(
    image: Image.Image, *, left: int = 0, right: int = 0, up: int = 0, down: int = 0, overlap: int = 8
) -> tuple[Image.Image, Image.Image]:
    """The RGB picture with so many pixels more at each side, and the mask "L", white where a model is to paint.

    What is new is filled with the outermost pixels, drawn out. The mask reaches `overlap` pixels into the old picture, so that the seam is
    painted anew; there the mask's blur has room too. Give both to `Model.generate(recipe, image=..., mask=...)`.
    Raises RecipeError where nothing is added or the result is too large.
    """
    sides = {"left": left, "right": right, "up": up, "down": down}
    for name, more in sides.items():
        if isinstance(more, bool) or not isinstance(more, int) or not 0 <= more <= MOST:
            raise RecipeError(f"{name} is {more!r}: use a whole number of pixels from 0 to {MOST}")
    if not any(sides.values()):
        raise RecipeError("no side of the picture is to grow: give left, right, up or down in pixels")
    width, height = image.width + left + right, image.height + up + down
    if max(width, height) > MOST or width * height > MOST_PIXELS:
        raise RecipeError(f"the picture would be {width}x{height}: add less, {MOST} pixels a side are the most")
    source = image.convert("RGB")
    out = Image.new("RGB", (width, height))
    out.paste(source, (left, up))
    _draw_out(out, (left, up, left + source.width, up + source.height))
    reach = max(0, min(overlap, source.width // 2 - 1, source.height // 2 - 1))
    mask = Image.new("L", (width, height), 255)
    kept = (left + reach * bool(left), up + reach * bool(up), left + source.width - reach * bool(right), up + source.height - reach * bool(down))
    mask.paste(0, kept)
    return out, mask


def _draw_out(out: Image.Image, box: tuple[int, int, int, int]) -> None:
    """Fill what lies around the box with its outermost rows and columns."""
    left, top, right, bottom = box
    if left:
        out.paste(out.crop((left, top, left + 1, bottom)).resize((left, bottom - top)), (0, top))
    if right < out.width:
        out.paste(out.crop((right - 1, top, right, bottom)).resize((out.width - right, bottom - top)), (right, top))
    if top:
        out.paste(out.crop((0, top, out.width, top + 1)).resize((out.width, top)), (0, 0))
    if bottom < out.height:
        out.paste(out.crop((0, bottom - 1, out.width, bottom)).resize((out.width, out.height - bottom)), (0, bottom))


def rounded_up(length: int, multiple: int = 8) -> int:
    """The next multiple: what a recipe's width or height must be."""
    return -(-length // multiple) * multiple
