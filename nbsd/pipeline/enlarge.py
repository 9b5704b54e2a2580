"""The job of the Extras page: one given picture, made larger by an upscaler that is found by its name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from nbsd.models.upscale import UpscalerFiles
from nbsd.names import IMAGE_UPSCALERS
from nbsd.pipeline.compute import choose, memory_errors
from nbsd.pipeline.extras import Enlarged, Enlarging, made
from nbsd.pipeline.upscale import find_upscaler


def enlarge(
    image: Image.Image, said: str, how: Enlarging, folders: Sequence[Path], tell: Callable[[int, int], None] = lambda done, total: None,
) -> Enlarged:
    """The picture (RGB) made larger. `said`: the infotext that it carries; `folders`: where upscalers' files lie.

    `tell(tiles done, tiles in all)` may raise to stop. Raises RecipeError, ModelError, OutOfMemory.
    """
    files = UpscalerFiles(list(folders), choose().device) if {how.upscaler, how.second} - set(IMAGE_UPSCALERS) else None

    def by(name: str, picture: Image.Image, scale: float) -> Image.Image:
        tell(0, 1)
        return find_upscaler(name, files).enlarged(picture, scale, tell)

    with memory_errors("making a picture larger"):
        return made(image, said, how, by)
