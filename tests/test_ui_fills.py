from __future__ import annotations

from dataclasses import replace

import pytest

from nbsd import presets
from nbsd.recipe import Recipe
from nbsd.ui.fills import Fills, taken_back
from nbsd.ui.form import Form
from nbsd.ui.parts import Parts

MINE = Recipe(prompt="a cat", negative_prompt="blurry", steps=33, seed=5, sampler="LMS", model="m", ensd=7)


@pytest.fixture
def form() -> Form:
    form = Form(Parts())
    form.write(MINE)
    return form


@pytest.fixture
def fills(form: Form) -> Fills:
    return Fills(Parts(), form)


def applied(fills: Fills, name: str) -> None:
    fills.choice.value = name
    fills.apply.click()


def test_a_preset_of_the_panel_is_the_presets_own(fills: Fills, form: Form) -> None:
    assert [value for _, value in fills.choice.options] == list(presets.PRESETS)
    for name in presets.PRESETS:
        form.write(MINE)
        applied(fills, name)
        assert form.read() == presets.apply(name, MINE)
        assert form.read() != MINE


def test_novelai_says_what_it_has_changed(fills: Fills, form: Form) -> None:
    applied(fills, "NovelAI")
    assert (form["ensd"].value, form["clip_skip"].value, form["steps"].value, form["sampler"].value) == (31337, 2, 28, "Euler a")
    for words in ("Clip skip 2", "ENSD 31337", "Sampler Euler a", "words in the prompt", "words in the negative prompt"):
        assert words in fills.said.value
    applied(fills, "NovelAI")
    assert "everything is so already" in fills.said.value


def test_undo_brings_everything_back_step_by_step(fills: Fills, form: Form) -> None:
    assert fills.undo.disabled
    applied(fills, "NovelAI")
    between = form.read()
    fills.fill("something", replace(MINE, steps=9, unknown=(("Foo", "bar"),), version="v1.5.0"))
    fills.undo.click()
    assert form.read() == between and "something" in fills.said.value and not fills.undo.disabled
    fills.undo.click()
    assert form.read() == MINE and fills.undo.disabled
    fills.undo.click()
    assert form.read() == MINE


def test_what_was_changed_by_hand_stays(fills: Fills, form: Form) -> None:
    applied(fills, "NovelAI")
    form["steps"].value, form["seed"].value, form["prompt"].value = 44, 99, form["prompt"].value + ", a hat"
    fills.undo.click()
    assert form.read() == replace(MINE, steps=44, seed=99, prompt="a cat, a hat")


def test_a_fill_that_changes_nothing_is_none_to_undo(fills: Fills, form: Form) -> None:
    fills.fill("nothing", MINE)
    assert fills.undo.disabled


@pytest.mark.parametrize(("before", "after", "now", "wanted"), [
    ("cat", "best, cat", "best, cat", "cat"),
    ("cat", "best, cat", "best, cat, dog", "cat, dog"),
    ("", "best", "best", ""),
    ("", "best", "best, dog", "dog"),
    ("cat", "best, cat", "dog", "dog"),
    ("cat", "dog", "a dog", "a dog"),
    ("cat", "cat", "dog", "dog"),
])  # fmt: skip
def test_words_of_prompts(before: str, after: str, now: str, wanted: str) -> None:
    for name in ("prompt", "negative_prompt"):
        got = taken_back(Recipe(**{name: before}), Recipe(**{name: after}), Recipe(**{name: now}))
        assert got == Recipe(**{name: wanted})
