from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import ipywidgets as w
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from nbsd.errors import NbsdError, RecipeError
from nbsd.recipe import Recipe
from nbsd.ui import paste

TEXT = """masterpiece, 1girl
Negative prompt: lowres
Steps: 28, Sampler: Euler, CFG scale: 12, Seed: 2870305590, Size: 512x768, Model hash: 925997e9, Clip skip: 2, ENSD: 31337, Foo: bar"""
WANTED = {"prompt": "masterpiece, 1girl", "negative_prompt": "lowres", "steps": 28, "sampler": "Euler", "cfg_scale": 12.0,
          "seed": 2870305590, "width": 512, "height": 768, "model": "925997e9", "clip_skip": 2, "ensd": 31337,
          "unknown": (("Foo", "bar"),)}
BEFORE = Recipe(steps=99, prompt="before", sampler="LMS")


def png(text: str | None = TEXT) -> bytes:
    info, out = PngInfo(), io.BytesIO()
    if text is not None:
        info.add_text("parameters", text)
    Image.new("RGB", (8, 8)).save(out, "PNG", pnginfo=info)
    return out.getvalue()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "a picture.png").write_bytes(png())
    (tmp_path / "bare.png").write_bytes(png(None))
    (tmp_path / "recipe.txt").write_text("\ufeff" + TEXT, "utf-8")
    (tmp_path / "model.ckpt").write_bytes(b"\x80\x02\xff\xfe not a text")
    return tmp_path


def same(report: paste.Report) -> bool:
    return {name: getattr(report.recipe, name) for name in WANTED} == WANTED


def test_a_text() -> None:
    report = paste.read(TEXT, BEFORE)
    assert same(report) and report.unknown == ("Foo",) and report.notes == ()
    assert {("Steps", "28"), ("ENSD", "31337"), ("Clip skip", "2"), ("Model", "925997e9")} <= set(report.understood)
    assert "Steps: 28" in str(report) and "Foo" in str(report) and "Steps: 28" in report._repr_html_()


@pytest.mark.parametrize("name", ["a picture.png", "recipe.txt"])
def test_a_file_by_its_path_its_text_or_its_bytes(files: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = files / name
    monkeypatch.chdir(files)
    monkeypatch.setenv("HOME", str(files))
    for source in (path, str(path), f'  "{path}"\n', name, f"~/{name}", path.read_bytes(), memoryview(path.read_bytes())):
        assert same(paste.read(source, BEFORE)), source


def test_a_text_without_settings_changes_only_the_prompts() -> None:
    report = paste.read("a cat\nNegative prompt: a dog", BEFORE)
    assert report.recipe == replace(BEFORE, prompt="a cat", negative_prompt="a dog")
    assert report.understood == (("Prompt", "a cat"), ("Negative prompt", "a dog")) and "only the prompts" in report.notes[0]


@pytest.mark.parametrize("name, words", [
    ("bare.png", "carries no recipe"), ("model.ckpt", "neither a picture"), ("missing.png", "cannot be read"), (".", "cannot be read"),
])
def test_files_that_hold_no_recipe(files: Path, name: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words) as caught:
        paste.read(files / name, BEFORE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["", "  \n", b""])
def test_nothing(source: str | bytes) -> None:
    with pytest.raises(RecipeError, match="nothing was pasted"):
        paste.read(source, BEFORE)


@pytest.mark.parametrize("text", ["a\0b", "x" * 5000, "猫 " * 2000, "/no/such/file.png", "((((", "😀"])
def test_odd_texts_are_prompts(text: str) -> None:
    assert paste.read(text, BEFORE).recipe.prompt.strip() == text.strip()


def test_a_cut_off_picture_is_one_sentence() -> None:
    with pytest.raises(NbsdError) as caught:
        paste.read(png()[:60], BEFORE)
    assert "\n" not in str(caught.value)


# --- uploads: the same code for both versions of ipywidgets

def test_uploads_of_ipywidgets_7() -> None:
    value = {"a.png": {"metadata": {"name": "a.png"}, "content": b"123"}}
    upload = SimpleNamespace(value=value, _counter=1)
    assert paste.uploaded(value) == [("a.png", b"123")]
    paste.empty(upload)
    assert upload.value == {} and upload._counter == 0 and paste.uploaded(upload.value) == []


def test_uploads_of_ipywidgets_8() -> None:
    value = ({"name": "a.png", "type": "image/png", "size": 3, "content": memoryview(b"123")},)
    upload = SimpleNamespace(value=value)
    assert paste.uploaded(value) == [("a.png", b"123")]
    paste.empty(upload)
    assert upload.value == () and paste.uploaded(upload.value) == []


def test_the_upload_of_the_installed_version_can_be_emptied() -> None:
    upload = w.FileUpload()
    paste.empty(upload)
    assert paste.uploaded(upload.value) == []
