from __future__ import annotations

from dataclasses import fields, replace

import ipywidgets as w
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbsd.recipe import DRAWN_BELOW, Hires, Img2Img, Recipe
from nbsd.ui.controls import CONTROLS, ELSEWHERE, JOB, KINDS
from nbsd.ui.form import RANDOM, Form, changed_fields, drawn
from nbsd.ui.parts import Parts
from nbsd.ui.pickers import File, Picker

ROWS = (*CONTROLS, *JOB)
BY_FIELD = {row.field: row for row in CONTROLS}
VALUES = {
    "lines": st.text(max_size=40),
    "whole": st.integers(-1, 2**32 - 1),
    "number": st.floats(0, 1000, allow_nan=False),
    "yes": st.booleans(),
}


def anything(field: str) -> st.SearchStrategy:
    row = BY_FIELD[field]
    if row.kind == "choice":
        return st.sampled_from([value for _, value in row.choices])
    return VALUES[row.kind]


RECIPES = st.builds(Recipe, **{field: anything(field) for field in BY_FIELD})


@pytest.fixture(scope="module")
def form() -> Form:
    return Form(Parts())


def test_every_field_of_a_recipe_has_a_control_or_somebody_who_takes_care_of_it() -> None:
    assert {row.field for row in CONTROLS} | set(ELSEWHERE) == {field.name for field in fields(Recipe)}
    assert not {row.field for row in CONTROLS} & set(ELSEWHERE)
    assert len({row.field for row in ROWS}) == len(ROWS) and len({row.label for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.field)
def test_every_control_has_a_label_a_class_and_a_default_it_can_show(form: Form, row) -> None:
    widget = form[row.field]
    assert widget.description == row.label and f"nbsd-field-{row.field}" in widget._dom_classes
    assert row.kind in KINDS and isinstance(widget, KINDS[row.kind][0])
    if row.kind == "choice":
        assert getattr(Recipe(), row.field) in [value for _, value in row.choices]


def test_choices_are_those_that_the_pipeline_knows() -> None:
    check = pytest.importorskip("nbsd.pipeline.check")
    for row in CONTROLS:
        if row.kind == "choice":
            assert tuple(value for _, value in row.choices) == tuple(check.CHOICES[row.field]), row.field


@given(RECIPES)
def test_what_is_written_is_read_back(form: Form, recipe: Recipe) -> None:
    form.write(recipe)
    assert form.read() == recipe


def test_nothing_pasted_is_bent(form: Form) -> None:
    """No range and no list of choices may change a value; the check before the work names what cannot be made."""
    odd = Recipe(sampler="DPM++ 9Z", schedule="Sideways", rng="TPU", steps=0, width=100, cfg_scale=-3.5, clip_skip=99, seed=2**40)
    form.write(odd)
    assert form.read() == odd
    assert ("DPM++ 9Z (unknown)", "DPM++ 9Z") in form["sampler"].options
    form.write(Recipe())
    assert form.read() == Recipe()


def test_parts_without_a_control_are_kept_shown_and_dropped() -> None:
    form = Form(Parts())
    pasted = Recipe(prompt="a", img2img=Img2Img(), hires=Hires(), version="v1.4.1", unknown=(("Lora hashes", "x: 1"), ("Foo", "bar")))
    form.write(pasted)
    assert form.read() == pasted and form.kept() == ["hires", "the rules of version v1.4.1", "Lora hashes", "Foo"]
    form.drop_kept()
    assert form.read() == Recipe(prompt="a", img2img=Img2Img()) and form.kept() == []


def test_a_new_panel_draws_a_seed_for_every_job() -> None:
    recipe = Form(Parts()).read()
    assert recipe == Recipe(seed=RANDOM, variation_seed=RANDOM)
    seeds = {drawn(recipe).seed for _ in range(20)}
    assert len(seeds) == 20 and all(0 <= seed < DRAWN_BELOW for seed in seeds)


def test_drawn_leaves_given_seeds_and_draws_a_variation_only_where_there_is_one() -> None:
    assert drawn(Recipe(seed=5, variation_seed=6)) == Recipe(seed=5, variation_seed=6)
    assert drawn(Recipe(seed=5, variation_seed=-1)) == Recipe(seed=5, variation_seed=0)
    assert len({drawn(Recipe(variation_seed=-1, variation_strength=0.5)).variation_seed for _ in range(20)}) > 1


def test_size_of_the_job() -> None:
    form = Form(Parts())
    assert form.job() == (1, 1)
    form["count"].value, form["batch_size"].value = 3, 4
    assert form.job() == (12, 4)


def test_settings_come_back_and_nonsense_in_them_is_left_out() -> None:
    form, again = Form(Parts()), Form(Parts())
    form.write(Recipe(prompt="猫", steps=33, sampler="Euler a", cfg_scale=8, model="m", vae="v", tiling=True))
    form["count"].value = 5
    again.restore(form.values())
    assert again.values() == form.values()
    before = again.values()
    again.restore({"steps": "many", "prompt": None, "cfg_scale": True, "tiling": 1, "model": 3, "sampler": ["x"], "no such": 1})
    assert again.values() == before
    again.restore({"cfg_scale": 9})
    assert again.read().cfg_scale == 9.0


def test_a_change_of_any_control_is_heard() -> None:
    form, heard = Form(Parts()), []
    form.watch(lambda: heard.append(1))
    for row in ROWS:
        heard.clear()
        widget = form[row.field]
        if isinstance(widget, w.Dropdown):
            widget.value = next(value for _, value in widget.options if value != widget.value)
        elif isinstance(widget, w.Checkbox):
            widget.value = not widget.value
        else:
            widget.value = "x" if isinstance(widget, w.Textarea) else widget.value + 1
        assert heard, row.field


def test_changed_fields() -> None:
    assert changed_fields(replace(Recipe(), steps=5, prompt="x")) == ["prompt", "steps"]


# --- pickers

FILES = [File("a", "a", 2_132_625_894), File("b", "/else/where/b.ckpt", 5)]


def picker(must: bool = True) -> Picker:
    return Picker(Parts(), "Model", "none found yet", (), must=must)


def test_a_picker_without_files_says_so() -> None:
    empty = picker()
    assert empty.value is None and empty.widget.options == (("none found yet", ""),) and empty.widget.label == "none found yet"


def test_where_a_file_must_be_chosen_the_first_one_is() -> None:
    must, may = picker(), picker(must=False)
    must.set_files(FILES)
    may.set_files(FILES)
    assert must.value == "a" and [value for _, value in must.widget.options] == ["a", "/else/where/b.ckpt"]
    assert may.value is None and may.widget.label == "none found yet"


def test_the_choice_stays_when_the_files_are_looked_for_again() -> None:
    chosen = picker()
    chosen.set_files(FILES)
    chosen.value = "/else/where/b.ckpt"
    chosen.set_files([File("0", "0", 1), *FILES])
    assert chosen.value == "/else/where/b.ckpt"
    chosen.set_files(FILES[:1])
    assert chosen.value == "/else/where/b.ckpt" and chosen.widget.label.endswith("not in the list")
    chosen.value = "a"
    assert chosen.value == "a" and len(chosen.widget.options) == 1


def test_a_name_that_is_not_here_is_kept_until_its_file_is() -> None:
    waiting = picker()
    waiting.value = "a"
    assert waiting.value == "a" and waiting.widget.label == "a  ·  not in the list" and not waiting.has("a")
    waiting.set_files(FILES)
    assert waiting.value == "a" and waiting.widget.label == "a  ·  2.13 GB" and waiting.has("a")


def test_a_finished_pictures_name_and_hash_finds_its_row_again() -> None:
    known = picker()
    known.set_files(FILES)
    known.learn("b [0123456789]", "/else/where/b.ckpt")
    known.value = "b [0123456789]"
    assert known.value == "/else/where/b.ckpt"
    known.value = "c [0123456789]"
    assert known.value == "c [0123456789]"


@pytest.mark.parametrize(("said", "row"), [
    ("ink [0123456789]", "ink"), ("Ink [0123456789]", "ink"), ("0123456789", "ink"), ("ink [01234567]", "ink"), ("oil [0123456789]", "oil"),
    ("ink [9999999999]", None), ("9999999999", None), ("gone", None), ("gone [0123456789]", None),
])  # fmt: skip
def test_a_file_that_a_recipe_names_in_other_words_is_shown_as_that_file(said: str, row: str | None) -> None:
    picker = Picker(Parts(), "Model", "none", ())
    picker.set_files([File("ink", "ink", 5, "SD 1", "0123456789"), File("oil", "oil", 5)])
    picker.value = said
    assert picker.value == said
    (shown,) = (text for text, value in picker.widget.options if value == said)
    assert shown.startswith(f"{row}  ·  ") if row else shown.endswith("not in the list")
    assert len(picker.widget.options) == (3 if row else 4)
    picker.value = "ink"
    assert [value for _, value in picker.widget.options] == ["", "ink", "oil"]
