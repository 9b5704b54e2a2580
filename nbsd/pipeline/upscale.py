"""Pictures made larger: by Lanczos, by repeating pixels, or by a model file, tile by tile."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nbsd.errors import RecipeError
from nbsd.images import MOST_PIXELS, read_picture
from nbsd.images.grid import joined, places
from nbsd.models.upscale import COLORS, UpscalerFiles, UpscalerModel
from nbsd.names import IMAGE_UPSCALERS, LANCZOS, NEAREST, NO_UPSCALER
from nbsd.pipeline.compute import choose, memory_errors

Size = tuple[int, int]          # width, height in pixels
Tell = Callable[[int, int], None]       # tiles done, tiles in all; may raise to stop
ROUNDS = 3                      # a model that doubles is asked so often for four times and more
MULTIPLE = 8                    # pixels; what an upscaler gives is brought to a multiple first, as the web UI does
TILE, OVERLAP = 192, 8          # pixels of the given picture; the web UI's defaults
AVERAGED = {"SwinIR": TILE, "Swin2SR": TILE, "SCUNet": 256}     # architectures whose tiles it averages where they overlap, and their size


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
    """Enlarges by a model, a tile at a time, so that a network never gets a whole large picture."""

    def __init__(self, model: UpscalerModel, tile: int | None = None, overlap: int = OVERLAP) -> None:
        """`tile`: side in pixels of the given picture, 0 is the whole picture at once; `overlap`: how far tiles reach into each other."""
        self._model, self._overlap = model, overlap
        self._tile = AVERAGED.get(model.architecture, TILE) if tile is None else tile

    def __call__(self, image: Image.Image, scale: float, tell: Tell) -> Image.Image:
        times = self._model.scale
        if image.width * image.height * times * times > MOST_PIXELS:
            raise RecipeError(
                f"{image.width}x{image.height} made {times} times as large has more than {MOST_PIXELS // 10**6} million pixels: "
                "give a smaller picture or a smaller factor")
        image = image.convert("RGB")
        with memory_errors("making a picture larger"):
            if not self._tile:
                return picture_of(next(self._answers(image, [(0, 0)], image.size, tell)))
            if self._model.architecture in AVERAGED:
                return self._averaged(image, tell)
            rows = places(image.size, (self._tile, self._tile), self._overlap)
            answers = self._answers(image, list(chain(*rows)), (self._tile, self._tile), tell)
            large = [[(x * times, y * times) for x, y in row] for row in rows]
            return joined(large, map(picture_of, answers), (image.width * times, image.height * times), self._overlap * times)

    def _averaged(self, image: Image.Image, tell: Tell) -> Image.Image:
        """The tiles evenly from the first corner on, and the mean where they overlap."""
        times, tile = self._model.scale, min(self._tile, *image.size)
        across, along = ([*range(0, length - tile, tile - self._overlap), length - tile] for length in image.size)
        total = torch.zeros(COLORS, image.height * times, image.width * times)
        there = torch.zeros(1, *total.shape[1:])
        corners = [(x, y) for y in along for x in across]
        for (x, y), answer in zip(corners, self._answers(image, corners, (tile, tile), tell), strict=True):
            place = slice(y * times, (y + tile) * times), slice(x * times, (x + tile) * times)
            total[:, place[0], place[1]] += answer
            there[:, place[0], place[1]] += 1
        return picture_of(total / there)

    def _answers(self, image: Image.Image, corners: Sequence[Size], tile: Size, tell: Tell) -> Iterator[Tensor]:
        """What the model makes of each tile, [3, H, W]. Colours go in and come out as blue, green, red, as the web UI's models see them."""
        for done, (x, y) in enumerate(corners):
            tell(done, len(corners))
            part = torch.from_numpy(np.array(image.crop((x, y, x + tile[0], y + tile[1])))).permute(2, 0, 1).flip(0)
            answer = self._model(part[None].float() / 255)[0]
            if done + 1 == len(corners):
                tell(len(corners), len(corners))
            yield answer


def picture_of(answer: Tensor) -> Image.Image:
    """A model's answer [3, H, W], blue first, 0 to 1, as a picture."""
    return Image.fromarray((answer.flip(0) * 255).round().byte().permute(1, 2, 0).contiguous().numpy())


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
