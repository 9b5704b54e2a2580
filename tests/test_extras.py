from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from nbsd.errors import ModelError, RecipeError
from nbsd.pipeline.enlarge import enlarge
from nbsd.pipeline.extras import Enlarging, enlarged

PICTURE = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 64, 3), np.uint8))
ASKED: list[tuple[str, float]] = []


def stretched(name: str, image: Image.Image, scale: float) -> Image.Image:
    """Stands for an upscaler; some are a few pixels short."""
    ASKED.append((name, scale))
    size = int(image.width * scale) - (name == "short") * 3, int(image.height * scale)
    return Image.new("RGB", size, "white") if name == "white" else image.resize(size, Image.Resampling.NEAREST)


@pytest.mark.parametrize(("how", "size", "scale"), [
    (Enlarging(scale=2), (128, 80), 2),
    (Enlarging(scale=1), (64, 40), 1),
    (Enlarging(width=256), (256, 160), 4),
    (Enlarging(height=20, scale=99), (32, 20), 0.5),
    (Enlarging(width=128, height=128), (128, 128), 3.2),
    (Enlarging(width=128, height=128, crop=False), (204, 128), 3.2),       # as the upscaler gives it
    (Enlarging(width=128, height=128, upscaler="short"), (128, 128), 3.2),
    (Enlarging(width=64, height=40, upscaler="short", crop=False), (64, 40), 1),
])
def test_sizes(how: Enlarging, size: tuple[int, int], scale: float) -> None:
    ASKED.clear()
    assert enlarged(PICTURE, how, stretched).size == size
    assert [(how.upscaler, scale)] == ASKED


def test_what_is_cut_sticks_out_at_both_sides() -> None:
    cut = enlarged(PICTURE, Enlarging(width=40, height=40), stretched)
    assert cut.tobytes() == PICTURE.crop((12, 0, 52, 40)).tobytes()
    odd = enlarged(PICTURE, Enlarging(width=41, height=40), stretched)     # 64 // 2 - 41 // 2, the halves cut off one by one
    assert odd.tobytes() == PICTURE.crop((12, 0, 53, 40)).tobytes()


@pytest.mark.parametrize(("visibility", "value"), [(0, 0), (0.5, 127), (1, 255)])
def test_the_second_upscaler_is_laid_over_the_first(visibility: float, value: int) -> None:
    black = Image.new("RGB", (8, 8))
    assert enlarged(black, Enlarging(second="white", visibility=visibility), stretched).getpixel((3, 3)) == (value,) * 3


@pytest.mark.parametrize(("how", "words"), [
    (Enlarging(scale=0.5), "upscale by is 0.5"), (Enlarging(scale=9), "upscale by is 9"), (Enlarging(width=-8), "-8x0"),
    (Enlarging(visibility=2), "visibility is 2"), (Enlarging(width=99_999), "99999 pixels long"),
])
def test_what_cannot_be_made_is_said(how: Enlarging, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        enlarged(PICTURE, how, stretched)


SAID = "a cat\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 5, Size: 64x40, Version: v1.10.1"


@pytest.mark.parametrize(("said", "how", "text"), [
    ("", Enlarging(), "Postprocess upscale by: 2, Postprocess upscaler: Lanczos"),
    (SAID, Enlarging(upscaler="Nearest", scale=1.5), f"{SAID}, Postprocess upscale by: 1.5, Postprocess upscaler: Nearest"),
    ("", Enlarging(width=128, height=80, second="Nearest", visibility=0.3),
     "Postprocess upscale to: 128x80, Postprocess crop to: 128x80, Postprocess upscaler: Lanczos, Postprocess upscaler 2: Nearest"),
    ("", Enlarging(width=128, height=80, crop=False), "Postprocess upscale to: 128x80, Postprocess upscaler: Lanczos"),
])
def test_the_infotext_says_how_after_what_it_said(said: str, how: Enlarging, text: str) -> None:
    picture = enlarge(PICTURE, said, how, [])
    assert picture.infotext == text and picture.recipe.seed == (5 if said else 0)
    assert picture.image.size == ((96, 56) if how.scale == 1.5 else (128, 80))     # by a factor: cut down to multiples of 8


def test_an_unknown_upscaler_is_named() -> None:
    with pytest.raises(ModelError, match="no upscaler called '4x-Nothing'"):
        enlarge(PICTURE, "", Enlarging(upscaler="4x-Nothing"), [])
