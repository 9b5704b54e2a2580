"""How alike two pictures are, byte by byte; and the picture and recipe out of whatever is given."""

from __future__ import annotations

import io
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from nbsd.errors import NbsdError, RecipeError
from nbsd.infotext import from_image
from nbsd.picture import Picture
from nbsd.recipe import Recipe

LOSSLESS = frozenset({"PNG", "BMP", "TIFF"})


@dataclass(frozen=True)
class Likeness:
    """How near a picture is to another of the same size."""

    difference: float       # root of the mean squared difference of the bytes, 0 to 255
    score: float            # correlation of the bytes, 0 to 1; 1: the same
    within_one: float       # share of the bytes that differ by 1 at most
    equal: float            # share of the bytes that are equal

    @property
    def matches(self) -> bool:
        """As near as two machines come with the same settings in float32."""
        return self.within_one >= 0.99

    @property
    def same(self) -> bool:
        """So near that no other setting can be nearer."""
        return self.equal >= 0.999 and self.within_one == 1


class Target:
    """The picture that others are compared with."""

    def __init__(self, image: Image.Image, size: tuple[int, int]) -> None:
        """`size`: width and height of the pictures to come; a picture of another size is scaled to it."""
        self._resized = image.size != size
        self._size = image.size
        fitted = image.convert("RGB")
        self._bytes = _array(fitted.resize(size, Image.Resampling.LANCZOS) if self._resized else fitted)

    def notes(self, lossless: bool) -> list[str]:
        """What makes the comparison less sharp, a sentence each."""
        found = []
        if self._resized:
            height, width = self._bytes.shape[:2]
            found.append(f"The picture is {self._size[0]}x{self._size[1]} and its recipe {width}x{height}: it is compared in that size.")
        if not lossless:
            found.append("The picture was saved with losses, so no setting gives exactly its bytes.")
        return found

    def compare(self, image: Image.Image) -> Likeness:
        """How near a picture is; of two pictures the one with the smaller difference is nearer."""
        made = _array(image.convert("RGB"))
        gap = np.abs(made - self._bytes)
        a, b = (values - values.mean() for values in (made, self._bytes))
        length = float(np.sqrt((a * a).sum() * (b * b).sum()))
        score = float((a * b).sum()) / length if length else float(not gap.any())
        return Likeness(_root_mean_square(gap), max(0.0, min(1.0, score)), float((gap <= 1).mean()), float((gap == 0).mean()))


def read_picture(source: Any, recipe: Recipe | None = None) -> tuple[Image.Image, Recipe, bool]:
    """Picture, recipe, and whether every byte is as it was made. Raises RecipeError where there is no recipe."""
    if isinstance(source, Picture):
        return source.image, recipe or Recipe.from_infotext(source.infotext), True
    image, data = _opened(source)
    if recipe is None:
        text = from_image(data if data is not None else _with_texts(image))
        if not text:
            raise RecipeError("this picture carries no recipe: give one with recipe=Recipe.from_infotext(text)")
        recipe = Recipe.from_infotext(text)
    return image, recipe, image.format is None or image.format in LOSSLESS


def _opened(source: Any) -> tuple[Image.Image, bytes | None]:
    """The picture, and the bytes of its file where there is one."""
    if isinstance(source, Image.Image):
        return source, None
    if not isinstance(source, (bytes, str, PathLike)):
        raise NbsdError(f"a picture was expected, got {type(source).__name__}: give a path, the bytes of a file, or a PIL picture")
    try:
        data = source if isinstance(source, bytes) else Path(source).expanduser().read_bytes()
        image = Image.open(io.BytesIO(data))
        image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise NbsdError(f"this cannot be read as a picture ({error}): give a PNG, JPEG or WebP file with its recipe") from error
    return image, data


def _with_texts(image: Image.Image) -> bytes:
    """A PIL picture as a file with the texts that it carries."""
    texts = PngImagePlugin.PngInfo()
    for key, value in image.info.items():
        if isinstance(key, str) and isinstance(value, str):
            texts.add_itxt(key, value)
    out = io.BytesIO()
    exif = image.getexif()
    image.save(out, "PNG", pnginfo=texts, **({"exif": exif} if len(exif) else {}))
    return out.getvalue()


def apart(one: Image.Image, other: Image.Image) -> float:
    """How far two pictures of one size are apart, as `Likeness.difference`."""
    return _root_mean_square(_array(one) - _array(other))


def _root_mean_square(gap: np.ndarray[Any, np.dtype[np.float32]]) -> float:
    return float(np.sqrt((gap * gap).mean()))


def _array(image: Image.Image) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.asarray(image, dtype=np.float32)
