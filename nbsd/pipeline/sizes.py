"""How large the pictures of the hires fix are. Standard library only."""

from __future__ import annotations

from typing import NamedTuple

from nbsd.recipe import OF_2022, Recipe

PIXELS_PER_LATENT = 8       # side of the square of pixels that one place of the latent stands for


class HiresSize(NamedTuple):
    """What the first pass's picture is brought to, and what of it is then cut off."""

    width: int      # pixels, before anything is cut off
    height: int
    cut_x: int      # places of the latent, half of them at each side
    cut_y: int


def hires_size(recipe: Recipe) -> HiresSize:
    """The web UI's rule: the picture covers the size that was asked for, and what sticks out is cut off in the latents."""
    hires = recipe.hires
    assert hires is not None
    if not hires.width and not hires.height:
        return HiresSize(int(recipe.width * hires.scale), int(recipe.height * hires.scale), 0, 0)
    if not hires.height:
        return HiresSize(hires.width, hires.width * recipe.height // recipe.width, 0, 0)
    if not hires.width:
        return HiresSize(hires.height * recipe.width // recipe.height, hires.height, 0, 0)
    if recipe.width / recipe.height < hires.width / hires.height:
        width, height = hires.width, hires.width * recipe.height // recipe.width
    else:
        width, height = hires.height * recipe.width // recipe.height, hires.height
    return HiresSize(width, height, (width - hires.width) // PIXELS_PER_LATENT, (height - hires.height) // PIXELS_PER_LATENT)


def hires_size_2022(recipe: Recipe) -> HiresSize:
    """The rule of October 2022: the first pass's latents were cut to the new shape, and then stretched to the new size."""
    hires = recipe.hires
    assert hires is not None
    modern = hires_size(recipe)
    width, height = (hires.width or modern.width), (hires.height or modern.height)
    if width / recipe.width > height / recipe.height:
        wanted_x, wanted_y = float(recipe.width), recipe.width * height / width
    else:
        wanted_x, wanted_y = recipe.height * width / height, float(recipe.height)
    return HiresSize(
        width, height, int(recipe.width - wanted_x) // PIXELS_PER_LATENT, int(recipe.height - wanted_y) // PIXELS_PER_LATENT)


def final_size(recipe: Recipe) -> tuple[int, int]:
    """Width and height of the pictures that a recipe gives, in pixels (but for "only masked", which keeps the given picture's)."""
    if recipe.hires is None:
        return recipe.width, recipe.height
    if recipe.rules == OF_2022:
        size = hires_size_2022(recipe)
        return size.width, size.height
    size = hires_size(recipe)
    return _kept(size.width, size.cut_x), _kept(size.height, size.cut_y)


def _kept(side: int, places: int) -> int:
    return PIXELS_PER_LATENT * (side // PIXELS_PER_LATENT - places)
