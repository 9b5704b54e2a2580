from __future__ import annotations

from dataclasses import replace

import pytest

from nbsd.recipe import Recipe
from nbsd.ui.dialects import Dialects, both
from nbsd.ui.fills import Fills
from nbsd.ui.form import Form
from nbsd.ui.parts import Parts

HERE = Recipe(prompt="(masterpiece:1.05), (cat:1.3) <b>", negative_prompt="(lowres:0.952)", steps=33, model="m")
THERE = replace(HERE, dialect="novelai", prompt="{masterpiece}, 1.3::cat:: <b>", negative_prompt="[lowres]")


@pytest.fixture
def form() -> Form:
    form = Form(Parts())
    form.write(HERE)
    return form


@pytest.fixture
def row(form: Form) -> Dialects:
    return Dialects(Parts(), form, Fills(Parts(), form))


def is_open(row: Dialects) -> bool:
    return row.spellings in row.widget.children


def test_both_spellings_in_either_direction() -> None:
    assert both(HERE) == (("webui", HERE.prompt, HERE.negative_prompt), ("novelai", THERE.prompt, THERE.negative_prompt))
    assert both(THERE)[1] == ("webui", HERE.prompt, HERE.negative_prompt)


def test_convert_shows_both_and_changes_nothing(row: Dialects, form: Form) -> None:
    assert not is_open(row)
    row.convert.click()
    assert is_open(row) and form.read() == HERE
    for text in ("(masterpiece:1.05), (cat:1.3) &lt;b&gt;", "{masterpiece}, 1.3::cat:: &lt;b&gt;", "(lowres:0.952)", "[lowres]"):
        assert text in row.spellings.value
    row.close.click()
    assert not is_open(row) and form.read() == HERE


def test_use_it_and_back(row: Dialects, form: Form) -> None:
    row.convert.click()
    assert row.use.description == "Use NovelAI's spelling"
    row.use.click()
    assert form.read() == THERE and not is_open(row)
    row.convert.click()
    assert row.use.description == "Use A1111's spelling"
    row._fills.undo.click()
    assert form.read() == HERE


def test_a_changed_prompt_closes_the_table(row: Dialects, form: Form) -> None:
    row.convert.click()
    form["steps"].value = 9
    assert is_open(row)
    form["prompt"].value = "other"
    assert not is_open(row)


@pytest.mark.parametrize("prompt", ["[a:b:0.5]", "a AND b"])
def test_what_novelai_cannot_say_is_a_sentence(row: Dialects, form: Form, prompt: str) -> None:
    form["prompt"].value = prompt
    row.convert.click()
    assert "AND" in row.spellings.value and 'role="alert"' in row.spellings.value and row.use.disabled
    form["prompt"].value = "a"
    row.convert.click()
    assert not row.use.disabled and "alert" not in row.spellings.value


def test_no_prompt_at_all(row: Dialects, form: Form) -> None:
    form.write(Recipe(model="m"))
    row.convert.click()
    assert "no prompt" in row.spellings.value and row.use.disabled
