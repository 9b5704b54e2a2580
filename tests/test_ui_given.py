from __future__ import annotations

import io
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nbsd.errors import NbsdError, RecipeError
from nbsd.recipe import Img2Img, Inpaint, Recipe
from nbsd.ui.brushes import COLOUR, Brush
from nbsd.ui.given import Given
from nbsd.ui.modes import IMG2IMG, INPAINT, TXT2IMG, Modes
from nbsd.ui.parts import Parts
from nbsd.ui.source import on_white

CHANGE = Recipe(img2img=Img2Img())
MASKED = Recipe(img2img=Img2Img(), inpaint=Inpaint())


ERRORS: list[str] = []      # what clicks and uploads were answered with


def tried(act: Callable[[], Any]) -> None:
    try:
        act()
    except NbsdError as error:
        ERRORS.append(str(error))


@pytest.fixture
def given() -> Given:
    ERRORS.clear()
    parts = Parts()
    return Given(parts, Modes(parts), lambda call: call(), tried)


def png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def upload(widget: Any, name: str, data: bytes) -> None:
    """What a page sends, in ipywidgets 7 and 8."""
    if isinstance(widget.value, dict):
        widget.set_trait("value", {name: {"metadata": {}, "content": data}})
    else:
        widget.value = ({"name": name, "type": "image/png", "size": len(data), "content": memoryview(data), "last_modified": datetime.now()},)


def to_mode(given: Given, mode: str) -> None:
    given.modes.mode.value = mode
    given.follow()


# --- which picture

def test_a_picture_by_upload_and_by_path(given: Given, tmp_path: Path) -> None:
    upload(given.source.upload, "cat.png", png(Image.new("RGB", (20, 10), "red")))
    assert given.source.picture.size == (20, 10) and "<b>cat.png</b> · 20×10" in given.source.about.value
    assert not given.source.upload.value        # the same file can be given again
    Image.new("L", (6, 8)).save(tmp_path / "<b>.png")
    given.source.path.value = f' "{tmp_path / "<b>.png"}" '
    assert given.source.picture.size == (6, 8) and "&lt;b&gt;.png" in given.source.about.value
    assert given.pictures(CHANGE) == (given.source.picture, None)


def test_what_is_no_picture_is_refused_and_the_old_one_stays(given: Given, tmp_path: Path) -> None:
    given.source.take(Image.new("RGB", (8, 8)), "old")
    for source in (tmp_path, tmp_path / "none.png"):
        given.source.path.value = str(source)
    upload(given.source.upload, "cut.png", png(Image.effect_noise((64, 64), 50))[:900])
    assert len(ERRORS) == 3 and "cut short" in ERRORS[2]
    assert given.source.name == "old" and given.source.picture.size == (8, 8)


def test_large_files_are_told_how_to_come(given: Given) -> None:
    assert "10 MB" in given.source.about.value and "path" in given.source.about.value


# --- what a recipe gets

def test_words_alone_need_no_picture(given: Given) -> None:
    assert given.pictures(Recipe()) == (None, None)


def test_without_a_picture_or_a_mask_there_is_a_sentence(given: Given) -> None:
    with pytest.raises(RecipeError, match="no picture to change"):
        given.pictures(CHANGE)
    given.source.take(Image.new("RGB", (8, 8)), "a")
    with pytest.raises(RecipeError, match="nothing is masked"):
        given.pictures(MASKED)
    assert given.pictures(Recipe(img2img=Img2Img(), inpaint=Inpaint(invert=True)))[1].getextrema() == (0, 0)


def test_the_mask_is_as_large_as_the_picture_and_exact(given: Given) -> None:
    given.source.take(Image.new("RGB", (50, 40), "blue"), "a")
    to_mode(given, INPAINT)
    given.editor.drawing.rectangle((10, 5, 20, 15), Brush())
    picture, mask = given.pictures(MASKED)
    assert picture.size == mask.size == (50, 40) and mask.mode == "L"
    assert mask.getbbox() == (10, 5, 20, 15) and np.asarray(mask).sum() == 100 * 255


def test_colours_reach_the_picture_only_where_they_are_shown(given: Given) -> None:
    given.source.take(Image.new("RGB", (50, 40), "blue"), "a")
    to_mode(given, INPAINT)
    given.editor.drawing.rectangle((0, 0, 10, 10), Brush(COLOUR, colour="#ff0000"))
    assert given.pictures(MASKED)[0].getpixel((5, 5)) == (255, 0, 0) and given.pictures(MASKED)[1].getbbox() == (0, 0, 10, 10)
    to_mode(given, IMG2IMG)
    assert given.pictures(CHANGE)[0].getpixel((5, 5)) == (0, 0, 255)
    given.sketching.value = True
    assert given.pictures(CHANGE)[0].getpixel((5, 5)) == (255, 0, 0)
    assert given.source.picture.getpixel((5, 5)) == (0, 0, 255)


def test_another_picture_begins_with_an_empty_mask(given: Given) -> None:
    given.source.take(Image.new("RGB", (50, 40)), "a")
    given.editor.drawing.invert()
    given.source.take(Image.new("RGB", (30, 20)), "b")
    assert given.editor.drawing.empty and given.editor.drawing.size == (30, 20) and not given.editor.drawing.can_undo


def test_what_is_transparent_is_masked_from_the_start(given: Given) -> None:
    picture = Image.new("RGBA", (20, 10), (255, 0, 0, 255))
    picture.paste((0, 0, 0, 0), (0, 0, 5, 10))
    given.send(picture, "cut out", INPAINT)
    given.follow()
    assert given.editor.drawing.mask.getbbox() == (0, 0, 5, 10)
    assert on_white(picture).getpixel((2, 2)) == (255, 255, 255) and on_white(picture).getpixel((9, 2)) == (255, 0, 0)


# --- masks from files

def test_a_mask_by_upload_and_by_path(given: Given, tmp_path: Path) -> None:
    mask = Image.new("L", (10, 10))
    mask.paste(255, (5, 0, 10, 10))
    upload(given.mask_upload, "mask.png", png(mask))
    assert "no picture to change" in ERRORS.pop()
    given.source.take(Image.new("RGB", (40, 20)), "a")
    upload(given.mask_upload, "mask.png", png(mask))
    assert given.editor.drawing.mask.getbbox() == (20, 0, 40, 20)
    given.editor.drawing.clear()
    mask.save(tmp_path / "mask.png")
    given.mask_path.value = str(tmp_path / "mask.png")
    assert given.editor.drawing.mask.getbbox() == (20, 0, 40, 20)


# --- outpainting

def test_extend(given: Given) -> None:
    given.extend.click()
    assert "no picture" in ERRORS.pop()
    given.send(Image.new("RGB", (64, 64), "red"), "a", INPAINT)
    given.extend.click()
    assert "at least one side" in ERRORS.pop()
    given.by.value = 32
    given.sides[1].value = True
    given.extend.click()
    assert given.source.picture.size == (96, 64) and "extended" in given.source.name
    assert given.editor.drawing.mask.getbbox() == (56, 0, 96, 64) and ERRORS == []


# --- what is shown

def test_the_editor_is_shown_where_something_can_be_painted(given: Given) -> None:
    def shown() -> tuple[bool, bool]:
        return given.editor.widget.layout.display is None, given.source.preview.layout.display is None

    to_mode(given, INPAINT)
    assert shown() == (False, False)
    given.source.take(Image.new("RGB", (8, 8)), "a")
    assert shown() == (True, False)
    to_mode(given, IMG2IMG)
    assert shown() == (False, True)
    given.sketching.value = True
    assert shown() == (True, False)
    to_mode(given, TXT2IMG)
    assert shown() == (False, True)
