"""The job of the Extras page: one given picture, made larger by an upscaler that is found by its name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from nbsd.events import Event
from nbsd.models.upscale import UpscalerFiles
from nbsd.names import IMAGE_UPSCALERS
from nbsd.pipeline.compute import choose, memory_errors
from nbsd.pipeline.extras import Enlarged, Enlarging, made
from nbsd.pipeline.upscale import find_upscaler


def enlarge(
    image: Image.Image, said: str, how: Enlarging, folders: Sequence[Path], check: Callable[[], None], report: Callable[[Event], None],
) -> Enlarged:
    """The picture (RGB) made larger. `said`: the infotext that it carries; `folders`: where upscalers' files lie; `check` may raise to stop.

    Raises RecipeError, ModelError, OutOfMemory.
    """
    files = UpscalerFiles(list(folders), choose().device) if {how.upscaler, how.second} - set(IMAGE_UPSCALERS) else None

    def by(name: str, picture: Image.Image, scale: float) -> Image.Image:
        check()
        return find_upscaler(name, files).enlarged(picture, scale, check, report)

    with memory_errors("making a picture larger"):
        return made(image, said, how, by)
