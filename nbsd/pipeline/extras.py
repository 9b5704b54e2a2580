"""What the web UI's Extras page does: a finished picture made larger."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from nbsd.errors import RecipeError
from nbsd.infotext.text import quote
from nbsd.names import LANCZOS, NO_UPSCALER
from nbsd.picture import Picture
from nbsd.recipe import Recipe

Enlarge = Callable[[str, Image.Image, float], Image.Image]      # (upscaler's name, picture, scale) -> about so many times as large
LARGEST_SCALE = 8.0             # modules/ui_postprocessing.py: the slider's end
LARGEST_SIDE = 16384            # pixels; more than PNG readers and memories like


@dataclass(frozen=True, kw_only=True)
class Enlarging:
    """How a picture is made larger."""

    upscaler: str = LANCZOS
    scale: float = 2.0          # 1 to 8; not used when a width or a height is given
    width: int = 0              # pixels; 0: as the height says
    height: int = 0
    crop: bool = True           # where both are given: cut what sticks out, so that the size is exact
    second: str = NO_UPSCALER   # another upscaler, laid over the first
    visibility: float = 0.0     # 0 to 1: how much is seen of the second

    @property
    def cuts(self) -> bool:
        """Whether what sticks out is cut off."""
        return bool(self.width and self.height and self.crop)

    def infotext(self) -> str:
        """What the web UI writes of it (scripts/postprocessing_upscale.py)."""
        pairs = {"Postprocess upscale by": f"{self.scale:g}"} if not self.width and not self.height else {
            "Postprocess upscale to": f"{self.width}x{self.height}"}
        if self.cuts:
            pairs["Postprocess crop to"] = f"{self.width}x{self.height}"
        pairs["Postprocess upscaler"] = self.upscaler
        if self.second != NO_UPSCALER and self.visibility > 0:
            pairs["Postprocess upscaler 2"] = self.second
        return ", ".join(f"{key}: {quote(value)}" for key, value in pairs.items())


@dataclass(frozen=True, eq=False, repr=False)
class Enlarged(Picture):
    """A picture that was made larger: its text says how, after what it said before."""

    said: str = ""

    @property
    def infotext(self) -> str:
        return self.said


def made(image: Image.Image, said: str, how: Enlarging, enlarge: Enlarge) -> Enlarged:
    """The picture made larger, with its infotext; `said`: what it said before."""
    text = f"{said.strip()}, {how.infotext()}" if said.strip() else how.infotext()
    return Enlarged(enlarged(image, how, enlarge), Recipe.from_infotext(said), said=text)


def enlarged(image: Image.Image, how: Enlarging, enlarge: Enlarge) -> Image.Image:
    """The picture made larger. Raises RecipeError for what cannot be made."""
    scale = _scale(image, how)
    large = _large(how.upscaler, image, how, scale, enlarge)
    if how.second != NO_UPSCALER and how.visibility > 0:
        large = Image.blend(large, _fitted(_large(how.second, image, how, scale, enlarge), large.size), how.visibility)
    return large


def _large(name: str, image: Image.Image, how: Enlarging, scale: float, enlarge: Enlarge) -> Image.Image:
    """By one upscaler. What it gives, sides that are multiples of 8, stays as it is but where less comes out than was asked for."""
    large = enlarge(name, image, scale)
    if how.width and how.height:
        large = _fitted(large, (max(large.width, how.width), max(large.height, how.height)))
    elif how.width or how.height:       # the web UI takes both only
        large = _fitted(large, (round(image.width * scale), round(image.height * scale)))
    if how.cuts:
        left, top = large.width // 2 - how.width // 2, large.height // 2 - how.height // 2      # the web UI halves each by itself
        large = large.crop((left, top, left + how.width, top + how.height))
    return large


def _fitted(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def _scale(image: Image.Image, how: Enlarging) -> float:
    """How many times as large; checked."""
    if how.width < 0 or how.height < 0:
        raise RecipeError(f"the picture cannot become {how.width}x{how.height}: use 0 or a number of pixels")
    if not 0 <= how.visibility <= 1:
        raise RecipeError(f"the second upscaler's visibility is {how.visibility:g}: use a value from 0 to 1")
    exact = max(how.width / image.width, how.height / image.height)
    if not exact and not 1 <= how.scale <= LARGEST_SCALE:
        raise RecipeError(f"upscale by is {how.scale:g}: use a value from 1 to {LARGEST_SCALE:g}")
    scale = exact or how.scale
    if max(image.size) * scale > LARGEST_SIDE:
        raise RecipeError(f"the picture would be {max(image.size) * scale:.0f} pixels long: {LARGEST_SIDE} at most")
    return scale
