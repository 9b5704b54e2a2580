"""The studio with a given picture: what reaches the model, and what is sent from result to source."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from test_studio import click, door, made, quick, studio, until, words  # noqa: F401

import nbsd.pipeline.details
import nbsd.pipeline.enlarge
import nbsd.pipeline.jobs  # slow to import; not while a job is waited for
from nbsd import studio as module
from nbsd.errors import RecipeError
from nbsd.pipeline.boxes import Found
from nbsd.pipeline.scripts import SCRIPTS
from nbsd.recipe import Img2Img, Inpaint, Recipe
from nbsd.studio import Studio
from nbsd.ui.brushes import Brush
from nbsd.ui.form import Form
from nbsd.ui.parts import Parts

RECIPE = Recipe(prompt="a cat", steps=2, seed=3, width=64, height=64)
CHANGE = Recipe(prompt="a cat", steps=2, seed=3, width=64, height=64, img2img=Img2Img())


def test_words_alone_are_made_without_a_picture(studio: Studio) -> None:  # noqa: F811
    studio._panel.given.source.take(Image.new("RGB", (32, 32)), "old")
    studio.generate(RECIPE)
    assert studio._shelf.given == [(None, None)]


def test_a_picture_and_a_mask_from_a_cell(studio: Studio) -> None:  # noqa: F811
    picture, mask = Image.new("RGB", (32, 32)), Image.new("L", (32, 32), 255)
    studio.generate(CHANGE, image=picture)
    studio.generate(Recipe(steps=2, width=64, height=64, img2img=Img2Img(), inpaint=Inpaint()), image="cat.png", mask=mask)
    assert studio._shelf.given == [(picture, None), ("cat.png", mask)]


def test_without_one_from_a_cell_it_is_the_panels(studio: Studio) -> None:  # noqa: F811
    with pytest.raises(RecipeError, match="no picture to change"):
        studio.generate(CHANGE)
    picture = Image.new("RGB", (32, 32))
    studio._panel.given.source.take(picture, "of the panel")
    studio.generate(CHANGE)
    assert studio._shelf.given == [(picture, None)]


def test_generate_with_a_mask_and_interrupt_as_ever(studio: Studio) -> None:  # noqa: F811
    studio.generate(RECIPE)
    studio._panel.send["inpaint"].click()
    click(studio, "generate")
    until(lambda: studio._asked.done)
    assert "nothing is masked" in words(studio, "error") and words(studio, "status") == "failed"
    studio._panel.given.editor.drawing.rectangle((8, 8, 24, 24), Brush())
    studio._form["steps"].value = 2
    click(studio, "generate")
    until(lambda: studio._asked.done)
    until(lambda: words(studio, "status").startswith("done: 1 picture"))
    picture, mask = studio._shelf.given[-1]
    assert picture.size == mask.size == (64, 64) and mask.getbbox() == (8, 8, 24, 24)
    assert studio._shelf.asked[-1].inpaint == Inpaint() and words(studio, "error") == ""


def test_the_mask_is_that_of_the_click(door: str, tmp_path: Path) -> None:  # noqa: F811
    """What is painted while the job waits in the queue belongs to the next one."""
    studio = made(tmp_path)     # noqa: F811
    studio._form.write(Recipe(steps=2, width=64, height=64, img2img=Img2Img(), inpaint=Inpaint()))
    given = studio._panel.given
    given.source.take(Image.new("RGB", (64, 64)), "a")
    given.follow()
    given.editor.drawing.rectangle((0, 0, 8, 8), Brush())
    from nbsd.ui.form import Settled

    asked = Settled(studio._form, studio._given)
    _, _, _, taken = asked.get()
    given.editor.drawing.clear()
    assert taken["mask"].getbbox() == (0, 0, 8, 8)


def test_a_result_is_sent_with_its_size(studio: Studio) -> None:  # noqa: F811
    studio.generate(Recipe(steps=2, width=96, height=64))
    for mode, button in studio._panel.send.items():
        studio._form["width"].value = 512
        button.click()
        assert studio._form.modes.mode.value == mode
        assert studio._panel.given.source.picture.size == (96, 64)
        assert studio._form["width"].value == (512 if mode == "extras" else 96)
    assert f"nbsd-in-{mode}" in studio._panel.widget._dom_classes
    assert studio._panel.given.source.name.endswith(".png")


def test_nothing_is_sent_before_there_is_a_result(studio: Studio) -> None:  # noqa: F811
    buttons = (*studio._panel.send.values(), studio._panel.given.source.use)
    assert all(button.disabled for button in buttons)
    studio.generate(RECIPE)
    assert not any(button.disabled for button in buttons)


def test_a_blank_picture_to_sketch_on(studio: Studio) -> None:  # noqa: F811
    studio._form.modes.mode.value = "img2img"
    studio._form["width"].value = 256
    studio._panel.given.source.blank.click()
    assert studio._panel.given.source.picture.size == (256, 512) and studio._panel.given.painting


def test_a_pasted_img2img_recipe_waits_for_its_picture(studio: Studio) -> None:  # noqa: F811
    studio.paste("a cat\nSteps: 2, Sampler: Euler, Seed: 1, Size: 64x64, Denoising strength: 0.4")
    assert studio.recipe.img2img == Img2Img(denoising_strength=0.4)
    click(studio, "generate")
    until(lambda: studio._asked.done)
    assert "no picture to change" in words(studio, "error")


def test_extras_make_a_result_larger(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(module, "_load_libraries", lambda: None)
    [small] = studio.generate(RECIPE)
    studio._panel.send["extras"].click()
    click(studio, "generate")
    until(lambda: studio._asked.done)
    until(lambda: words(studio, "status").startswith("done: 1 picture"))
    [large] = studio._asked.pictures
    assert large.image.size == (128, 128) and len(studio._shelf.given) == 1        # no model was asked
    assert large.infotext == f"{small.infotext}, Postprocess upscale by: 2, Postprocess upscaler: Lanczos"
    with Image.open(large.path) as read:
        assert read.text["parameters"] == large.infotext and read.size == (128, 128)
    studio._form["extras.scale"].value = 99
    click(studio, "generate")
    until(lambda: studio._asked.done)
    assert "use a value from 1 to 8" in words(studio, "error")


def test_extras_without_a_picture(studio: Studio) -> None:  # noqa: F811
    studio._form.modes.mode.value = "extras"
    click(studio, "generate")
    until(lambda: studio._asked.done)
    assert "open one" in words(studio, "error")


def test_outpainting_makes_the_result_larger_too(studio: Studio) -> None:  # noqa: F811
    studio.generate(RECIPE)
    studio._panel.send["inpaint"].click()
    given = studio._panel.given
    given.sides[1].value, given.by.value = True, 64
    given.extend.click()
    assert (studio._form["width"].value, studio._form["height"].value) == (128, 64)


# --- scripts and folders


def run(studio: Studio) -> list:  # noqa: F811
    click(studio, "generate")
    until(lambda: studio._asked.done)
    until(lambda: words(studio, "status").startswith(("done", "failed", "stopped")))
    return studio._asked.pictures


def test_scripts_are_done_and_saved(studio: Studio, tmp_path: Path) -> None:  # noqa: F811
    form = studio._form
    form.write(CHANGE)
    studio._panel.given.source.take(Image.new("RGB", (64, 64)), "a")
    form["script.kind"].value, form["script.loops"].value, form["count"].value = "Loopback", 2, 2
    assert "nbsd-with-loopback" in studio._panel.widget._dom_classes
    assert [picture.recipe.seed for picture in run(studio)] == [3, 4, 5, 6]
    assert "Final denoising strength: 0.5, Denoising curve: Linear" in studio._asked.pictures[0].infotext
    # Reusing its recipe shows the script; without the script, the next picture does not say it
    studio._panel.view.reuse.click()
    assert studio._form.modes.script.kind == "Loopback" and "Denoising" not in studio._panel.kept.value
    form["script.kind"].value, form["count"].value = "None", 1
    [plain] = run(studio)
    assert "Denoising curve" not in plain.infotext and "Denoising strength" in plain.infotext
    studio.paste("a cat\nSteps: 2, Sampler: Euler, Seed: 1, Size: 64x64, Denoising strength: 0.4, SD upscale overlap: 16, SD upscale upscaler: Nearest")
    assert (form["script.kind"].value, form["script.overlap"].value, form["script.upscaler"].value) == ("SD upscale", 16, "Nearest")
    studio._panel.fills.take_back()
    assert form["script.kind"].value == "None"


def test_new_pictures_get_their_details(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    found = [Found((8, 8, 24, 24), 0.9)]
    monkeypatch.setattr(nbsd.pipeline.details, "find_detector", lambda name, folders: lambda image, least: found if name == "face" else [])
    form = studio._form
    form.write(RECIPE)
    form["script.kind"].value, form["script.detector"].value = "Faces and details", "face"
    form["count"].value, form["batch_size"].value = 2, 2
    assert "nbsd-with-details" in studio._panel.widget._dom_classes and form.modes.script.detector == "face"
    made = run(studio)
    assert [picture.recipe.seed for picture in made] == [3, 4, 5, 6] and studio._asked.batch_size == 2
    assert [mask and mask.getbbox() for _, mask in studio._shelf.given] == [None, *[(7, 7, 26, 26)] * 4]
    assert made[0].infotext.count("ADetailer model: face") == 1 and "Denoising strength" not in made[0].infotext
    assert words(studio, "notes") == ""
    form["script.detector"].value, form["count"].value, form["batch_size"].value = "hand", 1, 1
    [plain] = run(studio)
    assert "Nothing was found in the picture of seed 3" in words(studio, "notes") and plain.path.is_file()
    # What a text says of details is shown, also what has no control; Undo takes it back
    report = studio.paste("a cat\nSteps: 2, Sampler: Euler, Seed: 1, Size: 64x64, ADetailer model: face, ADetailer confidence: 0.5, ADetailer steps: 9, "
                          "ADetailer model 2nd: hand.pt, ADetailer prompt 2nd: a hand, ADetailer ControlNet model: x [0]")
    assert ("Script", "Faces and details: face, hand.pt") in report.understood and not report.unknown
    assert "knows no ControlNet" in str(report) and "ADetailer ControlNet model has no effect" in str(report)
    assert (form["script.detector"].value, form["script.confidence"].value, form["script.detail_prompt"].value) == ("face, hand.pt", 0.5, "[2nd] a hand")
    assert form.kept()[-2:] == ["ADetailer steps", "ADetailer ControlNet model"]
    run(studio)
    inner = studio._shelf.given[-1]
    assert inner[1] is not None and "ADetailer steps: 9, ADetailer model 2nd: hand.pt" in studio._asked.pictures[0].infotext
    # From a cell, too: what the panel says, or what a recipe tells of
    [again] = studio.generate()
    [more] = studio.generate(again.recipe)
    assert "ADetailer steps: 9" in again.infotext and "ADetailer steps: 9" in more.infotext and studio._shelf.given[-1][1] is not None
    # A whole recipe that tells of none is made without; Undo brings the script back, what was set by hand too
    studio.paste("a dog\nSteps: 2, Sampler: Euler, Seed: 1, Size: 64x64")
    assert form.modes.script is None and "ADetailer" not in form.read().infotext()
    studio._panel.fills.take_back()
    assert form.modes.script.detector == "face, hand.pt" and "ADetailer steps" in form.kept()
    studio._panel.fills.take_back()
    assert (form.modes.script.detector, form.modes.script.confidence, form.kept()) == ("hand", 0.3, [])
    studio._panel.view.pick(replace(plain, recipe=RECIPE))
    studio._panel.view.reuse.click()
    assert form["script.kind"].value == "None"
    studio.paste("only words")
    studio._panel.fills.take_back()
    studio._panel.fills.take_back()
    assert form["script.kind"].value == "Faces and details"


def test_the_scripts_follow_the_mode(studio: Studio) -> None:  # noqa: F811
    form = studio._form
    kind, mode = form["script.kind"], form.modes.mode
    assert [value for _, value in kind.options] == ["None", "Faces and details"]
    mode.value = "img2img"
    assert [value for _, value in kind.options] == list(SCRIPTS)
    for chosen, there in (("Loopback", "None"), ("Faces and details", "Faces and details"), ("None", "None")):
        kind.value = chosen
        mode.value = "txt2img"
        assert kind.value == there and (form.modes.script.kind if form.modes.script else "None") == there
        mode.value = "inpaint"
        assert kind.value == chosen
        mode.value = "extras"
        assert form.modes.script is None
        mode.value = "img2img"
    for chosen, there in (("Folder", "Folder"), ("SD upscale", "None")):        # no text tells of a folder
        kind.value = chosen
        studio.paste("a\nSteps: 2, Sampler: Euler, Seed: 1, Size: 64x64, Denoising strength: 0.4")
        assert kind.value == there
    again = Form(Parts())
    again.restore({"script.kind": "Nonsense"})
    assert again["script.kind"].value == "None"
    again.restore({"script.kind": "Loopback"})
    assert again["script.kind"].value == "None" and len(again["script.kind"].options) == 2
    again.modes.mode.value = "img2img"
    assert again["script.kind"].value == "Loopback"


def test_a_folder_is_changed_and_made_larger(studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(module, "_load_libraries", lambda: None)
    source, out = tmp_path / "given", tmp_path / "made"
    source.mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (64, 64), "red").save(source / f"{name}.png")
    (source / "c.png").write_bytes(b"broken")
    form = studio._form
    form.write(CHANGE)
    form["script.kind"].value = "Folder"
    assert run(studio) == [] and "no folder is named" in words(studio, "error")
    form["script.folder"].value, form["script.output"].value = str(source), str(out)
    assert [picture.path for picture in run(studio)] == [out / "a.png", out / "b.png"]
    assert "c.png is left out" in words(studio, "notes")
    form.modes.mode.value, form["several.folder"].value = "extras", str(source)
    assert [picture.image.size for picture in run(studio)] == [(128, 128)] * 2
    assert "c.png is left out" in words(studio, "notes")
    form["several.folder"].value = str(tmp_path / "nowhere")
    assert run(studio) == [] and "is no folder" in words(studio, "error")
