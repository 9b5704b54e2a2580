from __future__ import annotations

import errno
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_shelf import ENTRIES, FakeEntry, FakeShelf
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from nbsd import finder
from nbsd import studio as module
from nbsd.errors import ModelError, NbsdError, NoTextEncoderError, OutputError, RecipeError, Stopped
from nbsd.events import Note, Progress
from nbsd.recipe import Recipe
from nbsd.studio import Studio
from nbsd.ui import settings

SOON = 10.0     # seconds; everything here takes a fraction of one


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "DELAY", 0.01)


@pytest.fixture(params=["thread", "colab"])
def door(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    host = replace(module.this_host(), door=request.param)
    monkeypatch.setattr(module, "this_host", lambda: host)
    return request.param


def made(tmp_path: Path, shelf: FakeShelf | None = None) -> Studio:
    """A studio with a stand-in for the models, and its files found."""
    studio = Studio(models=tmp_path / "models", outputs=tmp_path / "outputs")
    studio._shelf = shelf or FakeShelf()
    studio._look_for_files()
    until(lambda: shown(studio) and studio._form.model.value is not None)
    return studio


@pytest.fixture
def studio(door: str, tmp_path: Path) -> Studio:
    return made(tmp_path)


def shown(studio: Studio) -> bool:
    studio._screen.flush()
    return True


def until(condition: Any) -> None:
    end = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def words(studio: Studio, part: str) -> str:
    studio._screen.flush()
    return re.sub("<[^>]*>", "", getattr(studio._view, part).value)


def files(studio: Studio) -> list[str]:
    return sorted(path.name for path in studio.outputs.folder.rglob("*.png"))


def click(studio: Studio, name: str) -> None:
    getattr(studio._view, name).click()


def clicked_elsewhere(studio: Studio, name: str) -> threading.Thread:
    """A click whose callback runs in another thread, as with ipykernel 7; on Colab's door Generate waits in it."""
    thread = threading.Thread(target=lambda: click(studio, name))
    thread.start()
    return thread


# --- making pictures

def test_generate_from_a_cell(studio: Studio) -> None:
    pictures = studio.generate(Recipe(prompt="a cat", seed=5, steps=3, width=64, height=64), count=3, batch_size=2)
    assert [picture.recipe.seed for picture in pictures] == [5, 6, 7]
    assert files(studio) == ["00001-5.png", "00002-6.png", "00003-7.png"]
    for picture in pictures:
        with Image.open(picture.path) as read:
            assert read.text["parameters"] == picture.infotext and read.tobytes() == picture.image.tobytes()
    assert words(studio, "status").startswith("done: 3 pictures") and len(studio._view.gallery.pictures) == 3
    assert studio._view.infotext.value == pictures[-1].infotext


def test_generate_without_a_recipe_makes_what_the_panel_says(studio: Studio) -> None:
    studio._form.write(Recipe(prompt="from the panel", steps=2, seed=77, width=64, height=64))
    [picture] = studio.generate()
    assert (picture.recipe.prompt, picture.recipe.seed) == ("from the panel", 77) and studio._shelf.asked[0].model == "dreamy-v8"


def test_the_generate_button(studio: Studio) -> None:
    studio._form.write(Recipe(steps=2, seed=-1, width=64, height=64))
    studio._form["count"].value, studio._form["batch_size"].value = 2, 3
    click(studio, "generate")
    if studio._screen.callers_wait:     # on Colab nobody else shows anything
        assert "done" in studio._view.status.value
    until(lambda: "done" in words(studio, "status"))
    assert len(files(studio)) == 6
    seeds = [picture.recipe.seed for picture in studio._view.gallery.pictures]
    assert seeds == list(range(seeds[0], seeds[0] + 6)) and studio._form["seed"].value == -1


def test_two_clicks_are_one_job(door: str, tmp_path: Path) -> None:
    studio = made(tmp_path, FakeShelf(0.02))
    studio._form.write(Recipe(steps=5, seed=1, width=64, height=64))
    first = clicked_elsewhere(studio, "generate")
    until(lambda: studio._asked is not None)
    click(studio, "generate")
    first.join(SOON)
    until(lambda: "done" in words(studio, "status"))
    assert len(files(studio)) == 1


def test_what_was_typed_just_before_the_click_counts_though_it_arrives_after_it(studio: Studio) -> None:
    studio._form.write(Recipe(prompt="a", steps=2, seed=1, width=64, height=64))
    waiting = clicked_elsewhere(studio, "generate")
    time.sleep(0.1)
    studio._form["prompt"].value = "a blue dog on a hill"
    studio._form["width"].value = 128
    waiting.join(SOON)
    until(lambda: "done" in words(studio, "status"))
    picture = studio._asked.pictures[0]
    assert picture.recipe.prompt == "a blue dog on a hill" and picture.image.width == 128


def test_interrupt_in_the_middle_and_again(door: str, tmp_path: Path) -> None:
    studio = made(tmp_path, FakeShelf(0.02))
    studio._form.write(Recipe(steps=200, seed=1, width=64, height=64))
    waiting = clicked_elsewhere(studio, "generate")
    until(lambda: shown(studio) and studio._view.phase.value == "making images" and not studio._view.interrupt.disabled)
    click(studio, "interrupt")
    waiting.join(SOON)
    until(lambda: "stopped; 0 pictures" in words(studio, "status"))
    assert files(studio) == [] and words(studio, "error") == ""
    assert not studio._view.generate.disabled and studio._view.interrupt.disabled
    click(studio, "interrupt")      # a late click must not reach the next job
    studio._form["steps"].value = 2
    click(studio, "generate")
    until(lambda: "done: 1 picture" in words(studio, "status"))


def test_skip_goes_on_with_the_next_picture(door: str, tmp_path: Path) -> None:
    studio = made(tmp_path, FakeShelf(0.01))
    job = studio.submit(Recipe(steps=50, seed=1, width=64, height=64), count=2)
    until(lambda: shown(studio) and not studio._view.skip.disabled)
    click(studio, "skip")
    studio._wait(job)
    assert [picture.recipe.seed for picture in job.pictures] == [2] and not job.stopped


def test_the_notebooks_stop_button_leaves_the_studio_usable(door: str, tmp_path: Path) -> None:
    studio = made(tmp_path, FakeShelf(0.02))
    threading.Timer(0.4, lambda: signal.raise_signal(signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt, match="finished pictures: 0") as caught:
        studio.generate(Recipe(steps=500, width=64, height=64))
    assert caught.value._render_traceback_() == [str(caught.value)]
    assert "stopped" in studio._view.status.value and not studio._view.generate.disabled
    assert len(studio.generate(Recipe(steps=1, width=64, height=64))) == 1


def test_interrupt_ends_a_generate_in_a_cell_with_what_is_finished(door: str, tmp_path: Path) -> None:
    studio = made(tmp_path, FakeShelf(0.02))
    threading.Timer(0.7, lambda: click(studio, "interrupt")).start()
    pictures = studio.generate(Recipe(steps=4, width=64, height=64, seed=3), count=100)
    assert 1 <= len(pictures) < 100 and len(files(studio)) == len(pictures)


def test_stop_while_loading(door: str, tmp_path: Path) -> None:
    studio = made(tmp_path, FakeShelf(0.2))
    job = studio.submit(Recipe(steps=1, width=64, height=64))
    until(lambda: studio._shelf.asked)
    job.stop()
    studio._wait(job)
    assert job.stopped and studio._shelf.loads == 0 and "stopped" in words(studio, "status")


@pytest.mark.parametrize("error, told", [
    (RecipeError("width is 100: use a multiple of 8, such as 96"), "width is 100: use a multiple of 8, such as 96"),
    (ZeroDivisionError("division by zero"), "a bug in nbsd: ZeroDivisionError: division by zero; please report it"),
])
def test_an_error_is_one_sentence_and_the_next_job_runs(door: str, tmp_path: Path, error: Exception, told: str) -> None:
    def fail(recipe: Recipe) -> None:
        if recipe.width == 104:
            raise error

    studio = made(tmp_path, FakeShelf(fail=fail))
    with pytest.raises(type(error)):
        studio.generate(Recipe(steps=2, width=104, height=64))
    assert words(studio, "error").startswith(told) and "Traceback" not in words(studio, "error")
    assert files(studio) == [] and not studio._view.generate.disabled
    studio.generate(Recipe(steps=2, width=64, height=64))
    assert words(studio, "error") == "" and len(files(studio)) == 1


def test_a_model_without_a_text_encoder_is_offered_one(door: str, tmp_path: Path) -> None:
    def fail(recipe: Recipe) -> None:
        if recipe.text_encoder is None:
            raise NoTextEncoderError("'dreamy-v8' holds no text encoder: take it from another model.")

    studio = made(tmp_path, FakeShelf(fail=fail))
    borrowed = studio._form.borrowed
    assert borrowed.widget.layout.display == "none"
    click(studio, "generate")
    until(lambda: "no text encoder" in words(studio, "error"))
    assert borrowed.widget.layout.display is None
    borrowed.picker.value = "old-anime"
    click(studio, "generate")
    until(lambda: len(files(studio)) == 1)
    assert words(studio, "error") == ""


def test_a_broken_model_file(studio: Studio) -> None:
    studio._form.model.value = "broken"
    click(studio, "generate")
    until(lambda: words(studio, "error"))
    assert words(studio, "error") == "broken.safetensors is cut off after 17 bytes: download it again"


def test_a_full_disk_is_told_before_the_work(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="disk is full"):
        studio.generate(Recipe(steps=2, width=64, height=64))
    assert studio._shelf.asked == [] and "disk is full" in words(studio, "error") and files(studio) == []
    monkeypatch.undo()
    assert len(studio.generate(Recipe(steps=2, width=64, height=64))) == 1


def test_jobs_wait_for_each_other(door: str, tmp_path: Path) -> None:
    studio = made(tmp_path, FakeShelf(0.01))
    jobs = [studio.submit(Recipe(steps=3, seed=seed, width=64, height=64)) for seed in (1, 2, 3)]
    jobs[1].stop()
    for job in jobs:
        studio._wait(job)
    assert files(studio) == ["00001-1.png", "00002-3.png"] and [job.stopped for job in jobs] == [False, True, False]


def test_without_a_model_the_sentence_says_where_to_put_one(door: str, tmp_path: Path) -> None:
    studio = Studio(models=tmp_path / "here", outputs=tmp_path / "outputs")
    studio._shelf = FakeShelf(entries=())
    studio._look_for_files()
    with pytest.raises(ModelError, match=str(tmp_path / "here")):
        studio.generate(Recipe(steps=1))
    until(lambda: shown(studio) and studio._panel.hint.value)
    assert str(tmp_path / "here") in studio._panel.hint.value and ".safetensors" in studio._panel.hint.value


# --- the panel

def test_what_is_in_the_lists(studio: Studio) -> None:
    assert [value for _, value in studio._form.model.widget.options] == ["dreamy-v8", "old-anime", "broken"]
    assert "not readable" in studio._form.model.widget.options[2][0] and "2.13 GB" in studio._form.model.widget.options[0][0]
    assert [value for _, value in studio._form.vae.widget.options] == ["", "soft-colours"]
    assert studio.recipe.model == "dreamy-v8" and studio.recipe.vae is None and studio._panel.hint.value == ""


def test_strangers_in_folders_of_other_kinds_are_no_models(tmp_path: Path) -> None:
    strange = [FakeEntry(name, Path(name, f"{name}.pt"), "unknown", 5, problem="no") for name in ("clip_vision", "sams", "models")]
    studio = made(tmp_path, FakeShelf(entries=(*ENTRIES, *strange)))
    assert [value for _, value in studio._form.model.widget.options] == ["dreamy-v8", "old-anime", "broken", "models"]
    assert {row.title for row in studio._catalog._rows} > {"clip_vision", "sams"}


def test_refresh_finds_new_files(studio: Studio, tmp_path: Path) -> None:
    studio._shelf.entries = (*ENTRIES, FakeEntry("new", tmp_path / "new.ckpt", "checkpoint", 5))
    studio._panel.refresh.click()
    until(lambda: shown(studio) and "new" in [value for _, value in studio._form.model.widget.options])


def test_folders_that_take_long_to_find_are_shown_after_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    near, far, looks = tmp_path / "near", tmp_path / "far", []

    def found(folders: Any) -> list[FakeEntry]:
        looks.append(list(folders))
        return [FakeEntry(folder.name, folder / "a.safetensors", "checkpoint", 5) for folder in folders]

    monkeypatch.setattr(finder, "_found", found)
    host = replace(module.this_host(), models=lambda: (near,), elsewhere=lambda: [near, far])
    monkeypatch.setattr(module, "this_host", lambda: host)
    studio = Studio(outputs=tmp_path / "outputs")
    studio._look_for_files()
    until(lambda: shown(studio) and len(studio._form.model.widget.options) == 3)      # the built-in one too
    assert looks == [[near], [near, far]] and studio._finder.more == [far]
    given = Studio(models=near, outputs=tmp_path / "outputs")
    given._finder.look()
    assert looks[2:] == [[near]]


def test_a_typed_folder_or_file_is_named_by_its_whole_path(studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.ckpt").write_bytes(b"")
    asked = []

    def found(folders: Any) -> list[FakeEntry]:
        asked.append(folders)
        return [FakeEntry("mine", other / "mine.ckpt", "checkpoint", 0)]

    monkeypatch.setattr("nbsd.finder._found", found)
    studio._panel.folder.value = str(other)
    until(lambda: shown(studio) and str(other / "mine.ckpt") in [value for _, value in studio._form.model.widget.options])
    assert asked == [[other]] and studio.recipe.model == "dreamy-v8"
    studio._panel.folder.value = str(other / "mine.ckpt")
    until(lambda: shown(studio) and studio.recipe.model == str(other / "mine.ckpt"))


def test_a_scan_that_fails_is_told(studio: Studio) -> None:
    def scan() -> None:
        raise ModelError("the folder cannot be read: choose another")

    studio._shelf.scan = scan
    studio._panel.refresh.click()
    until(lambda: "the folder cannot be read" in words(studio, "error"))


def test_reuse_brings_a_picture_back_into_the_panel(studio: Studio) -> None:
    [picture] = studio.generate(Recipe(prompt="again", seed=9, steps=2, width=64, height=64, clip_skip=2, vae="soft-colours"))
    assert picture.recipe.model == "dreamy-v8 [0123456789]"
    studio._form.write(Recipe(prompt="else"))
    studio._view.reuse.click()
    assert studio.recipe == replace(picture.recipe, model="dreamy-v8", vae="soft-colours")


def test_paste_fills_every_control_and_says_what_it_understood(studio: Studio) -> None:
    wanted = Recipe(prompt="a (cat:1.2), 猫", negative_prompt="dog", steps=28, sampler="Euler a", cfg_scale=12.0, seed=2870305590,
                    clip_skip=2, ensd=31337, eta=0.5, model="old-anime", vae="soft-colours")
    report = studio.paste(wanted.infotext())
    read = studio.recipe
    for name in ("prompt", "negative_prompt", "steps", "sampler", "cfg_scale", "seed", "clip_skip", "ensd"):
        assert getattr(read, name) == getattr(wanted, name), name
    assert read.model == "old-anime" and ("Steps", "28") in report.understood
    until(lambda: shown(studio) and "Steps" in studio._panel.understood.value)


def test_paste_of_a_finished_picture_gives_its_recipe(studio: Studio) -> None:
    [picture] = studio.generate(Recipe(prompt="there and back", seed=8, steps=3, width=64, height=64))
    studio._form.write(Recipe())
    for source in (picture.path, str(picture.path), picture.path.read_bytes()):
        studio._form["prompt"].value = ""
        studio.paste(source)
        assert (studio.recipe.prompt, studio.recipe.seed, studio.recipe.model) == ("there and back", 8, "dreamy-v8")


def test_a_pasted_model_that_is_not_here_is_kept_and_said(studio: Studio) -> None:
    report = studio.paste("a cat\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 64x64, Model hash: 925997e9, Model: other")
    assert studio.recipe.model == "other [925997e9]" and "other [925997e9]" in str(report)


def test_the_paste_box_and_an_upload(studio: Studio) -> None:
    panel = studio._panel
    panel.text.value = "a dog\nSteps: 11, Sampler: Euler, CFG scale: 7, Seed: 4, Size: 64x64"
    panel.fill.click()
    assert studio.recipe.steps == 11 and words(studio, "error") == ""
    panel.text.value = ""
    panel.fill.click()
    assert words(studio, "error").startswith("nothing was pasted")
    [picture] = studio.generate(Recipe(prompt="up", seed=3, steps=2, width=64, height=64))
    content = picture.path.read_bytes()
    if isinstance(panel.upload.value, dict):
        panel.upload.set_trait("value", {"a.png": {"metadata": {"name": "a.png"}, "content": content}})
    else:
        panel.upload.value = ({"name": "a.png", "type": "image/png", "size": len(content), "content": memoryview(content),
                               "last_modified": datetime.now()},)
    assert studio.recipe.prompt == "up" and len(panel.upload.value) == 0


CLASSIC = """best quality, masterpiece, asuka langley sitting cross legged on a chair
Negative prompt: lowres, bad anatomy, bad hands, text, error, missing fingers, extra digit, fewer digits, cropped, worst quality
Steps: 28, Sampler: Euler, CFG scale: 12, Seed: 2870305590, Size: 512x512, Model hash: 925997e9, Clip skip: 2, ENSD: 31337"""


def test_the_classic_recipe_sets_every_control_and_comes_out_as_the_same_text(studio: Studio) -> None:
    studio._form.write(Recipe(steps=9, sampler="LMS", clip_skip=5, ensd=1, eta=0.5, width=64, rules="v1.10", old_karras=True, tiling=True))
    studio._panel.text.value = CLASSIC
    studio._panel.fill.click()
    assert words(studio, "error") == ""
    wanted = {
        "prompt": CLASSIC.splitlines()[0], "negative_prompt": CLASSIC.splitlines()[1].removeprefix("Negative prompt: "), "steps": 28,
        "sampler": "Euler", "schedule": "Automatic", "cfg_scale": 12.0, "seed": 2870305590, "width": 512, "height": 512, "clip_skip": 2,
        "ensd": 31337, "rng": "GPU", "downcast_alphas": True, "rules": "2022-10", "hires": False,
    }
    usual = Recipe()
    for name, widget in studio._form.by_field.items():
        if hasattr(usual, name):        # not the job's, nor those of parts that this recipe has not
            assert widget.value == wanted.get(name, getattr(usual, name)), name
    assert studio._form.model.value == "925997e9" and studio._form.vae.value is None
    assert studio.recipe.infotext() == CLASSIC
    studio.paste(studio.recipe.infotext())
    assert studio.recipe.infotext() == CLASSIC


def test_undo_takes_a_paste_and_a_reuse_back(studio: Studio) -> None:
    mine = Recipe(prompt="mine", steps=3, seed=4, width=64, height=64, model="old-anime")
    studio._form.write(mine)
    studio.paste("yours\nSteps: 7, Sampler: Euler, CFG scale: 3, Seed: 1, Size: 64x64, Foo: bar")
    studio.generate()
    studio._form["steps"].value = 8
    click(studio, "reuse")
    assert studio._form["steps"].value == 7
    studio._panel.fills.undo.click()
    assert (studio._form["steps"].value, studio._form["prompt"].value) == (8, "yours")
    studio._form["steps"].value = 7
    studio._panel.fills.undo.click()
    assert studio._form.read() == mine


# --- reproduce

def with_search(monkeypatch: pytest.MonkeyPatch, search: Any) -> None:
    monkeypatch.setitem(sys.modules, "nbsd.pipeline.reproduce", SimpleNamespace(reproduce=search))


def carrying(recipe: Recipe) -> bytes:
    """A PNG file with the recipe's text."""
    texts, out = PngInfo(), io.BytesIO()
    texts.add_text("parameters", recipe.infotext())
    Image.new("RGB", (64, 64)).save(out, "PNG", pnginfo=texts)
    return out.getvalue()


def test_reproduce_is_a_job_with_a_sentence_at_its_end(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    truth = Recipe(prompt="a cat", seed=3, steps=4, width=64, height=64, model="elsewhere [0123456789]")

    def search(picture: bytes, model: Any, *, report: Any, control: Any, **more: Any) -> Any:
        asked.update(more, picture=picture, model=model)
        report(Progress(2, 5, 1, 4, 3))
        control.check()
        report(Note("It matches."))
        return SimpleNamespace(recipe=replace(more["recipe"], ensd=31337), text="It matches.", close=True)

    with_search(monkeypatch, search)
    assert studio._panel.again.start.disabled
    data = carrying(truth)
    studio.paste(data)
    studio._form.model.value = "dreamy-v8"      # the picture's own is not here
    studio._panel.again.start.click()
    until(lambda: "It matches." in words(studio, "notes"))
    until(lambda: studio._view.bar.value == 1.0)
    assert words(studio, "status").startswith("done in 0:0") and words(studio, "error") == ""
    assert asked["picture"] == data and asked["recipe"].prompt == "a cat" and asked["vaes"] == [Path("models/soft-colours.vae.pt")]
    assert studio._shelf.asked[-1].model == "dreamy-v8"
    until(lambda: shown(studio) and not studio._panel.again.use.disabled)
    studio._panel.again.use.click()
    assert (studio._form["ensd"].value, studio._form.model.value) == (31337, "dreamy-v8")
    studio._panel.fills.undo.click()
    assert studio._form["ensd"].value == 0


def test_interrupt_ends_a_search(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    began = threading.Event()

    def search(picture: bytes, model: Any, *, report: Any, control: Any, **more: Any) -> Any:
        while True:
            report(Progress(0, 5, 1, 4, 3))
            began.set()
            control.check()
            time.sleep(0.01)

    with_search(monkeypatch, search)
    studio.paste(carrying(Recipe(steps=4, width=64, height=64)))
    thread = threading.Thread(target=studio._panel.again.start.click)
    thread.start()
    assert began.wait(SOON)
    until(lambda: shown(studio) and not studio._view.interrupt.disabled)
    click(studio, "interrupt")
    until(lambda: "stopped" in words(studio, "status"))
    thread.join()
    assert words(studio, "error") == "" and studio._panel.again.use.disabled and not studio._panel.again.start.disabled


def test_a_search_that_fails_is_one_sentence(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    def search(*_: Any, **__: Any) -> Any:
        raise RecipeError("width is 100: use a multiple of 8")

    with_search(monkeypatch, search)
    studio.paste(carrying(Recipe(steps=4, width=64, height=64)))
    studio._panel.again.start.click()
    until(lambda: words(studio, "error") == "width is 100: use a multiple of 8")


def test_a_picture_without_a_recipe_waits_for_its_text(studio: Studio) -> None:
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "PNG")
    with pytest.raises(RecipeError, match="carries no recipe"):
        studio.paste(out.getvalue())
    assert studio._panel.again.start.disabled
    studio.paste(CLASSIC)
    assert not studio._panel.again.start.disabled and studio._panel.again.picture == out.getvalue()


def test_a_restarted_kernel_starts_with_the_last_settings(studio: Studio, tmp_path: Path) -> None:
    studio._form.write(Recipe(prompt="last time", steps=33, sampler="Euler a", seed=12))
    studio._form.model.value = "old-anime"
    until(lambda: studio._settings.read().get("model") == "old-anime")
    again = Studio(models=tmp_path / "models", outputs=tmp_path / "outputs")
    again._shelf = FakeShelf()
    again._look_for_files()
    until(lambda: shown(again) and len(again._form.model.widget.options) == 3)
    assert again.recipe == studio.recipe and again.recipe.model == "old-anime"


def test_show_may_be_called_again_and_shows_the_same(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    import IPython.display

    displayed: list[Any] = []
    monkeypatch.setattr(IPython.display, "display", displayed.append)
    assert studio.show() is None
    studio._ipython_display_()
    assert displayed == [studio._panel.widget] * 2


def test_folders_may_be_one_or_several(tmp_path: Path) -> None:
    assert Studio(models=str(tmp_path), outputs=tmp_path).folders == [tmp_path]
    assert Studio(models=[str(tmp_path), tmp_path / "b"], outputs=tmp_path).folders == [tmp_path, tmp_path / "b"]
    assert "Studio(models=" in repr(Studio(models=tmp_path, outputs=tmp_path))


# --- nothing slow

LIGHT = """
import sys, time
began = time.perf_counter()
import nbsd
light = time.perf_counter() - began
assert not {'torch', 'ipywidgets', 'PIL', 'numpy'} & set(sys.modules), sorted({'torch', 'ipywidgets', 'PIL', 'numpy'} & set(sys.modules))
import IPython.display
IPython.display.display = lambda *_: None
module = __import__('nbsd.studio').studio
module._warm_up = lambda: None
from pathlib import Path
from nbsd.models import first
first.FILE = Path(sys.argv[1], 'none')
studio = nbsd.Studio(models=sys.argv[1], outputs=sys.argv[1])
studio.show()
end = time.monotonic() + 20
while 'No model yet' not in studio._panel.hint.value and time.monotonic() < end:
    time.sleep(0.05)
    studio._screen.flush()
heavy = {'torch', 'diffusers', 'transformers', 'numpy'} & set(sys.modules)
assert not heavy, heavy
assert 'No model yet' in studio._panel.hint.value, studio._view.error.value
print(light)
"""


def test_the_panel_is_there_before_torch(tmp_path: Path) -> None:
    seconds = min(float(subprocess.check_output([sys.executable, "-c", LIGHT, str(tmp_path)], text=True)) for _ in range(2))
    assert seconds < 0.2


def test_without_a_model_the_built_in_one_is_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nbsd.models import first

    monkeypatch.setattr(first, "FILE", tmp_path / "package.safetensors")
    first.FILE.write_bytes(b"0" * 1000)
    folder = tmp_path / "models"
    folder.mkdir()
    studio = Studio(folder, tmp_path / "out")
    studio._finder.look()
    studio._screen.flush()
    recipe = studio.recipe
    assert (recipe.model, recipe.width, recipe.height, recipe.prompt) == ("first", 128, 128, first.PROMPT)
    assert "For a real model put a file that ends in .safetensors or .ckpt into" in studio._panel.hint.value
    assert any("first (small built-in model)" in title for title, _ in studio._form.model.widget.options)


def test_what_was_written_is_not_replaced_when_the_built_in_model_is_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nbsd.models import first

    monkeypatch.setattr(first, "FILE", tmp_path / "package.safetensors")
    first.FILE.write_bytes(b"0" * 1000)
    for field, value, wanted in (("prompt", "my own", ("my own", 128, 128)), ("negative_prompt", "bad", ("", 128, 128)),
                                 ("width", 256, (first.PROMPT, 256, 512))):
        studio = Studio(tmp_path, tmp_path / "out" / field)
        studio._form[field].value = value
        studio._finder.look()
        studio._screen.flush()
        assert (studio.recipe.prompt, studio.recipe.width, studio.recipe.height) == wanted


def test_the_size_follows_the_built_in_model(tmp_path: Path) -> None:
    studio = made(tmp_path)
    form = studio._form

    def size() -> tuple[int, int]:
        return studio.recipe.width, studio.recipe.height

    form.write(Recipe(model="a"))
    form.model.value = "first"
    assert size() == (128, 128)
    form.model.value = "b"
    assert size() == (512, 512)
    form["width"].value = 640
    form.model.value = "first"
    assert size() == (640, 512)
    form.write(Recipe(model="a", width=128, height=128))
    assert size() == (128, 128)
    form.write(Recipe(model="first [0123456789]"))
    assert size() == (512, 512)     # a recipe is what it says


def test_libraries_that_cannot_be_loaded_keep_their_first_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that was imported by half fails with another message the second time."""
    reasons = iter([ImportError("libcudart.so is missing"), ImportError("cannot import name 'x' from partially initialized module")])

    def warm_up() -> None:
        raise next(reasons)

    monkeypatch.setattr("nbsd.pipeline.warm_up", warm_up)
    monkeypatch.setattr(module, "_BROKEN", None)
    monkeypatch.setattr(module, "_SHELVES", {})
    studio = Studio(models=tmp_path, outputs=tmp_path)
    for _ in range(2):
        with pytest.raises(NbsdError, match="libcudart.so is missing.*restart the kernel"):
            studio.generate(Recipe(model="a"))


def test_two_studios_share_the_device(tmp_path: Path) -> None:
    """A cell that is run again must not load a second copy of the model, nor use the device at the same time."""
    one, two = made(tmp_path), made(tmp_path)
    busy: list[int] = []

    def fail(recipe: Recipe) -> None:
        busy.append(recipe.seed)
        time.sleep(0.05)
        assert busy[-1] == recipe.seed

    one._shelf.fail = two._shelf.fail = fail
    jobs = [studio.submit(Recipe(steps=2, seed=seed, width=64, height=64)) for seed, studio in enumerate((one, two, one, two))]
    for job in jobs:
        assert job.wait(SOON) and job.error is None
    assert busy == [0, 1, 2, 3]


def test_stopped_is_no_error(studio: Studio) -> None:
    def fail(recipe: Recipe) -> None:
        raise Stopped("stopped")

    studio._shelf.fail = fail
    assert studio.generate(Recipe(steps=2, width=64, height=64)) == [] and words(studio, "error") == ""


def test_the_hosts_sentences_stand_in_the_panel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = replace(module.this_host(), notes=lambda: iter(["There is no <GPU> here."]), headless=lambda: True)
    monkeypatch.setattr(module, "this_host", lambda: host)
    monkeypatch.setattr(module, "_warm_up", lambda: pytest.fail("nobody will press Generate in a saved run"))
    monkeypatch.setattr("IPython.display.display", lambda *_: None)
    studio = Studio(models=tmp_path / "models", outputs=tmp_path / "outputs")
    studio.show()
    until(lambda: shown(studio) and "There is no &lt;GPU&gt; here." in studio._view.notes.value)
    studio.show()
    assert studio._view.notes.value.count("GPU") == 1
