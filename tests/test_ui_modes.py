from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbsd.pipeline.extras import Enlarging
from nbsd.pipeline.scripts import Script, Several
from nbsd.recipe import Hires, Img2Img, Inpaint, Recipe, Soft
from nbsd.ui.controls import KINDS
from nbsd.ui.form import Form
from nbsd.ui.modes import EXTRAS, IMG2IMG, INPAINT, MODES, ROWS, TXT2IMG
from nbsd.ui.parts import Parts

PARTS = {"img2img": Img2Img, "inpaint": Inpaint, "soft": Soft, "hires": Hires, "extras": Enlarging, "script": Script, "several": Several}
# Fields without a control: what a pasted recipe says of them is kept.
UNSEEN = {"inpaint.soft", "img2img.image_hash"}
VALUES = {
    "lines": st.text(max_size=20), "text": st.text(max_size=20), "whole": st.integers(0, 4096), "number": st.floats(0, 100, allow_nan=False), "yes": st.booleans(),
}


def anything(part: str) -> st.SearchStrategy:
    rows = [row for row in ROWS if row.field.startswith(f"{part}.")]
    values = {row.field.split(".")[1]: st.sampled_from([value for _, value in row.choices]) if row.kind == "choice" else VALUES[row.kind]
              for row in rows}
    if part == "inpaint":
        values["soft"] = st.none() | anything("soft")
    return st.builds(PARTS[part], **values)


@pytest.fixture(scope="module")
def form() -> Form:
    return Form(Parts())


def test_every_field_of_a_part_has_a_control() -> None:
    named = {f"{name}.{field.name}" for name, part in PARTS.items() for field in fields(part)}
    assert named - {row.field for row in ROWS} <= UNSEEN
    assert {row.field for row in ROWS} <= named


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.field)
def test_every_control_shows_the_default_and_has_a_name(form: Form, row) -> None:
    widget = form.modes.by_field[row.field]
    part, field = row.field.split(".")
    form.write(Recipe())
    assert widget.description == row.label and isinstance(widget, KINDS[row.kind][0])
    assert widget.value == getattr(PARTS[part](), field) and (row.kind != "choice" or "unknown" not in widget.label)
    assert f"nbsd-field-{part}-{field}" in widget._dom_classes


@given(st.one_of(
    st.builds(Recipe, hires=anything("hires")),
    st.builds(Recipe, img2img=anything("img2img")),
    st.builds(Recipe, img2img=anything("img2img"), inpaint=anything("inpaint")),
    st.builds(Recipe, img2img=anything("img2img"), inpaint=anything("inpaint"), hires=anything("hires")),
))
def test_what_is_written_is_read_back(form: Form, recipe: Recipe) -> None:
    form.write(recipe)
    assert form.read() == recipe


@pytest.mark.parametrize(("recipe", "mode"), [
    (Recipe(), TXT2IMG), (Recipe(hires=Hires()), TXT2IMG), (Recipe(img2img=Img2Img()), IMG2IMG),
    (Recipe(img2img=Img2Img(), inpaint=Inpaint()), INPAINT),
])
def test_a_recipe_shows_its_mode(form: Form, recipe: Recipe, mode: str) -> None:
    form.modes.mode.value = EXTRAS
    form.write(recipe)
    assert form.modes.mode.value == mode


def test_an_infotext_sets_the_controls(form: Form) -> None:
    text = ("a cat\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 512x512, Denoising strength: 0.4, Mask blur: 8, Inpaint area: "
            "Only masked, Masked area padding: 48, Masked content: latent noise, Mask mode: Inpaint not masked, Version: v1.10.1")
    form.write(Recipe.from_infotext(text))
    modes = form.modes.by_field
    assert form.modes.mode.value == INPAINT
    assert [modes[f"inpaint.{name}"].value for name in ("mask_blur", "only_masked", "padding", "fill", "invert")] == [
        8, True, 48, "latent noise", True]
    assert modes["img2img.denoising_strength"].value == 0.4
    form.write(Recipe.from_infotext("a cat\nSteps: 20, Sampler: Euler, Seed: 1, Size: 512x512, Denoising strength: 0.3, Hires upscale: 1.5, "
                                    "Hires steps: 7, Hires upscaler: 4x-Fancy, Hires prompt: a dog, Version: v1.10.1"))
    assert form.modes.mode.value == TXT2IMG and form.modes.hires.value
    assert [modes[f"hires.{name}"].value for name in ("denoising_strength", "scale", "steps", "upscaler", "prompt")] == [
        0.3, 1.5, 7, "4x-Fancy", "a dog"]


def test_the_mode_decides_which_parts_a_recipe_has(form: Form) -> None:
    form.write(Recipe(img2img=Img2Img(denoising_strength=0.3), inpaint=Inpaint(mask_blur=9)))
    form.modes.hires.value = True
    seen = {}
    for mode in MODES:
        form.modes.mode.value = mode
        recipe = form.read()
        seen[mode] = [name for name in ("img2img", "inpaint", "hires") if getattr(recipe, name) is not None]
    assert seen == {TXT2IMG: ["hires"], IMG2IMG: ["img2img"], INPAINT: ["img2img", "inpaint"], EXTRAS: ["hires"]}
    form.modes.mode.value = INPAINT
    assert form.read().img2img.denoising_strength == 0.3 and form.read().inpaint.mask_blur == 9


def test_soft_inpainting_is_a_switch(form: Form) -> None:
    form.write(Recipe(img2img=Img2Img(), inpaint=Inpaint(soft=Soft(mask_influence=0.5))))
    assert form.modes.soft.value
    form.modes.soft.value = False
    assert form.read().inpaint.soft is None
    form.modes.soft.value = True
    assert form.read().inpaint.soft == Soft(mask_influence=0.5)


def test_files_are_offered_and_a_name_without_a_file_stays(form: Form) -> None:
    form.write(Recipe(hires=Hires(upscaler="4x-Fancy", model="other [0123456789]")))
    form.modes.set_files(["dreamy"], ["4x-Plain"])
    assert form.read().hires == Hires(upscaler="4x-Fancy", model="other [0123456789]")
    assert "4x-Plain" in [value for _, value in form["hires.upscaler"].options]
    assert [value for _, value in form["hires.model"].options][:2] == ["", "dreamy"]
    form.modes.set_files([], [])


def test_settings_are_taken_over_but_not_the_mode(form: Form) -> None:
    form.write(Recipe(img2img=Img2Img(denoising_strength=0.2), inpaint=Inpaint(padding=12)))
    values = form.values()
    other = Form(Parts())
    other.restore({**values, "mode": "nonsense"})
    assert other.modes.mode.value == TXT2IMG
    other.modes.mode.value = INPAINT
    assert replace(other.read(), seed=0) == replace(form.read(), seed=0)
