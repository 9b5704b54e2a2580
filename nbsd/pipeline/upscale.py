"""Pictures made larger: by Lanczos, by repeating pixels, or by a model file, tile by tile."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from nbsd.errors import RecipeError
from nbsd.images import MOST_PIXELS, read_picture
from nbsd.images.grid import joined, places
from nbsd.models.upscale import UpscalerFiles, UpscalerModel
from nbsd.names import IMAGE_UPSCALERS, LANCZOS, NEAREST, NO_UPSCALER
from nbsd.pipeline.compute import choose, memory_errors

Size = tuple[int, int]          # width, height in pixels
Tell = Callable[[int, int], None]       # tiles done, tiles in all; may raise to stop
ROUNDS = 3                      # a model that doubles is asked so often for four times and more
MULTIPLE = 8                    # pixels; what an upscaler gives is brought to a multiple first, as the web UI does
TILE, OVERLAP = 192, 8          # pixels of the given picture; the web UI's defaults for ESRGAN


def _nothing(*_: object) -> None: ...


class Enlarge(Protocol):
    """A picture made larger, by about the factor asked for or by the one that a model knows."""

    def __call__(self, image: Image.Image, scale: float, tell: Tell) -> Image.Image: ...


class Upscaler:
    """A way to make pictures larger, by the web UI's rules."""

    def __init__(self, name: str, enlarge: Enlarge | None) -> None:
        """`enlarge`: None resizes by Lanczos at once."""
        self.name, self._enlarge = name, enlarge

    def fitted(self, image: Image.Image, size: Size, tell: Tell = _nothing) -> Image.Image:
        """The RGB picture in exactly this size; made smaller it is by Lanczos."""
        scale = max(size[0] / image.width, size[1] / image.height)
        if self._enlarge is not None and scale > 1:
            image = self.enlarged(image, scale, tell)
        return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)

    def enlarged(self, image: Image.Image, scale: float, tell: Tell = _nothing) -> Image.Image:
        """The RGB picture `scale` times as large, each side cut down to a multiple of 8."""
        size = int(image.width * scale // MULTIPLE * MULTIPLE), int(image.height * scale // MULTIPLE * MULTIPLE)
        if self._enlarge is not None:
            for turn in range(ROUNDS):
                if image.width >= size[0] and image.height >= size[1] and (turn or scale != 1):
                    break
                before = image.size
                image = self._enlarge(image, scale, tell)
                if image.size == before:
                    break
        return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def _resized(how: Image.Resampling) -> Enlarge:
    def enlarge(image: Image.Image, scale: float, tell: Tell) -> Image.Image:
        return image.resize((int(image.width * scale), int(image.height * scale)), how)
    return enlarge


PLAIN = {
    NO_UPSCALER: Upscaler(NO_UPSCALER, None),
    LANCZOS: Upscaler(LANCZOS, _resized(Image.Resampling.LANCZOS)),
    NEAREST: Upscaler(NEAREST, _resized(Image.Resampling.NEAREST)),
}


def find_upscaler(name: str, files: UpscalerFiles | None = None) -> Upscaler:
    """The upscaler of a name: "None", "Lanczos", "Nearest", or a model file by its name or path.

    Raises RecipeError or ModelError where there is none of that name, ModelError for a file that is no upscaler, NbsdError where
    spandrel is missing.
    """
    if name in PLAIN:
        return PLAIN[name]
    if not name or files is None:
        raise RecipeError(f"no upscaler is called {name!r}: use {', '.join(IMAGE_UPSCALERS)} or a model file")
    return Upscaler(name, ByModel(files.find(name)))


# --- by a model


class ByModel:
    """Enlarges by a model, a tile at a time, so that memory does not grow with the picture."""

    def __init__(self, model: UpscalerModel, tile: int = TILE, overlap: int = OVERLAP) -> None:
        """`tile`: side in pixels of the given picture, 0 is the whole picture at once; `overlap`: how far tiles reach into each other."""
        self._model, self._tile, self._overlap = model, tile, overlap

    def __call__(self, image: Image.Image, scale: float, tell: Tell) -> Image.Image:
        times = self._model.scale
        if image.width * image.height * times * times > MOST_PIXELS:
            raise RecipeError(
                f"{image.width}x{image.height} made {times} times as large has more than {MOST_PIXELS // 10**6} million pixels: "
                "give a smaller picture or a smaller factor")
        rows = places(image.size, (self._tile, self._tile), self._overlap) if self._tile else [[(0, 0)]]
        large, total = [[(x * times, y * times) for x, y in row] for row in rows], sum(map(len, rows))

        def tiles() -> Iterator[Image.Image]:
            for done, (x, y) in enumerate(chain(*rows)):
                tell(done, total)
                yield self._asked(image.crop((x, y, x + self._tile, y + self._tile)) if self._tile else image)

        with memory_errors("making a picture larger"):
            made = joined(large, tiles(), (image.width * times, image.height * times), self._overlap * times)
        tell(total, total)
        return made

    def _asked(self, image: Image.Image) -> Image.Image:
        """What the model makes of a picture. Colours go in and come out as blue, green, red, as the web UI's models see them."""
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).flip(0)
        made = self._model(pixels[None].float() / 255)[0].flip(0)
        return Image.fromarray((made * 255).round().byte().permute(1, 2, 0).contiguous().numpy())


# --- pictures that exist already


def upscale(
    image: Any,
    upscaler: str | PathLike[str] = LANCZOS,
    *,
    scale: float = 2.0,
    size: Size | None = None,
    folders: Iterable[str | Path] = (),
    device: str | None = None,
    on_progress: Tell = _nothing,
) -> Image.Image:
    """A picture made larger: RGB, or RGBA where something in it is transparent.

    `image`: anything that `images.read_picture` reads. `upscaler`: "Lanczos", "Nearest", "None", or a model file, by its path or by its
    name in `folders`. `scale`: 1 to 8, each side cut down to a multiple of 8; `size`, where it is given, counts instead.
    `on_progress(tiles done, tiles in all)` may raise to stop. Raises NbsdError.
    """
    source = read_picture(image)
    if size is None and not 1 <= scale <= 8:
        raise RecipeError(f"the scale is {scale}: use a value from 1 to 8")
    if size is not None and not all(1 <= side <= 8192 for side in size):
        raise RecipeError(f"the size is {size[0]}x{size[1]}: use sides from 1 to 8192 pixels")
    if size is None and source.width * source.height * scale * scale > MOST_PIXELS:
        raise RecipeError(f"{source.width}x{source.height} times {scale} has more than {MOST_PIXELS // 10**6} million pixels: use a lower scale")
    with memory_errors("making a picture larger"):
        way = find_upscaler(str(upscaler), UpscalerFiles(list(folders), choose(device).device))
        opaque = source.convert("RGB")
        made = way.fitted(opaque, size, on_progress) if size else way.enlarged(opaque, scale, on_progress)
        if source.mode == "RGBA":
            made.putalpha(source.getchannel("A").resize(made.size, Image.Resampling.LANCZOS))
    return made
