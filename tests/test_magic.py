"""`%%sd` cells, in a real IPython, with a studio that paints grey."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import pytest
from download_server import Site, model_bytes, serve
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from PIL import Image

from nbsd import magic
from nbsd.errors import ModelError
from nbsd.picture import Picture
from nbsd.recipe import Recipe

CELL = "a cat,\nsleeping\nNegative prompt: blurry,\nbad\n"


class GreyStudio:
    def __init__(self) -> None:
        self.asked: list[tuple[Recipe, int, int]] = []
        self.recipe = Recipe(model="of-the-panel")

    def generate(self, recipe, count=1, batch_size=1):
        self.asked.append((recipe, count, batch_size))
        if recipe.model is None:
            raise ModelError("no model is chosen")
        return [Picture(Image.new("RGB", (8, 8)), recipe.nth(n)) for n in range(count)]


@pytest.fixture
def grey(monkeypatch):
    studio, shown = GreyStudio(), []
    monkeypatch.setattr(magic, "studio", lambda: studio)
    monkeypatch.setattr(magic, "display", shown.append)
    monkeypatch.setattr(magic, "_last_model", None)
    studio.shown = shown
    return studio


def test_load_ext_gives_the_magic(grey):
    shell = InteractiveShell.instance()
    try:
        shell.run_line_magic("load_ext", "nbsd")
        shell.run_cell_magic("sd", "--model m --seed 3 --count 2", CELL)
    finally:
        InteractiveShell.clear_instance()
    assert [picture.recipe.seed for picture in grey.shown] == [3, 4]


@pytest.mark.parametrize(("cell", "expected"), [
    (CELL, ("a cat,\nsleeping", "blurry,\nbad")),
    ("a cat", ("a cat", "")),
    ("Negative prompt: blurry", ("", "blurry")),
    ("not a Negative prompt: cat", ("not a Negative prompt: cat", "")),
    ("", ("", "")),
])
def test_prompts(cell, expected):
    assert magic.prompts(cell) == expected


def test_options_become_the_recipe(grey):
    magic.sd("--model 'my model' --vae v --steps 28 --seed 3 --batch-size 2", CELL)
    recipe, count, batch_size = grey.asked[0]
    assert recipe == Recipe(prompt="a cat,\nsleeping", negative_prompt="blurry,\nbad", model="my model", vae="v", steps=28, seed=3)
    assert (count, batch_size) == (1, 2)


def test_the_model_of_the_last_cell_stays(grey):
    magic.sd("--model m --seed 1", "a")
    magic.sd("--seed 1", "b")
    assert grey.asked[1][0] == replace(grey.asked[0][0], prompt="b")


def test_a_link_is_fetched_and_a_file_here_is_not(grey, tmp_path, monkeypatch):
    studio = grey
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("nbsd.pipeline.fetched.this_host", lambda: SimpleNamespace(models=lambda: (tmp_path / "models",)))
    studio.folders = [tmp_path / "models"]
    with serve(Site(model_bytes())) as site:
        magic.sd(f"--model {site.url}/anime.safetensors", "a cat")
        assert studio.asked[-1][0].model == str(tmp_path / "models" / "anime.safetensors") and len(site.seen) == 1
        (tmp_path / "models" / "sub").mkdir()
        (tmp_path / "models" / "anime.safetensors").rename(tmp_path / "models" / "sub" / "anime.safetensors")
        magic.sd("--model sub/anime", "a cat")      # looks like owner/repo, and is a file
        assert studio.asked[-1][0].model == "sub/anime" and len(site.seen) == 1
        with pytest.raises(UsageError, match="only https:// addresses are"):
            magic.sd("--model http://example.com/a.ckpt", "a cat")


def test_a_seed_is_drawn(grey):
    for _ in range(3):
        magic.sd("--model m", "a")
    assert len({recipe.seed for recipe, _, _ in grey.asked}) > 1


@pytest.mark.parametrize(("line", "words"), [
    ("--steps many", "--steps"), ("--bogus", "--bogus"), ("--model 'open", "No closing quotation"), ("", "no model is chosen"),
])
def test_what_is_wrong_is_one_sentence(grey, line, words):
    with pytest.raises(UsageError, match=words):
        magic.sd(line, "a")
    assert grey.shown == []


def test_help(grey, capsys):
    magic.sd("--help", "a")
    assert "--cfg-scale" in capsys.readouterr().out
    assert grey.asked == []


@pytest.mark.parametrize(("line", "of_the_panel", "size"), [
    ("--model first", "m", (128, 128)), ("--model first --height 64", "m", (512, 64)), ("--model m", "first", (512, 512)), ("", "first", (128, 128)),
    ("", "m", (512, 512)),
])
def test_the_built_in_model_gets_its_own_size(grey, line, of_the_panel, size):
    grey.recipe = Recipe(model=of_the_panel)
    with suppress(UsageError):      # without a model, the grey studio refuses
        magic.sd(line, "a cat")
    assert (grey.asked[-1][0].width, grey.asked[-1][0].height) == size
