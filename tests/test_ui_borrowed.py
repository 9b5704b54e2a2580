"""The picker of a second source for the text encoder: there for models that need one, with a choice for each."""

from __future__ import annotations

import pytest

from nbsd.recipe import Recipe
from nbsd.ui.form import Form
from nbsd.ui.parts import Parts
from nbsd.ui.pickers import NONE, File

MODELS = [File("whole", "whole", 1, "SD 1"), File("other", "other", 1, "SDXL"), File("bare", "bare", 1, "SD 1", lacks="text encoder"),
          File("nai", "nai", 1, "SD 1 inpainting", lacks="text encoder")]
SOURCES = [*MODELS[:2], File("clip", "clip", 1)]


@pytest.fixture
def form() -> Form:
    form = Form(Parts())
    found(form)
    return form


def found(form: Form) -> None:
    form.model.set_files(MODELS)
    form.borrowed.set_files({file.value: file.family for file in MODELS if file.lacks}, SOURCES)


def shown(form: Form) -> bool:
    return form.borrowed.widget.layout.display != "none"


def choices(form: Form) -> list[str]:
    return [value for _, value in form.borrowed.picker.widget.options if value != NONE]


def test_it_is_there_for_a_model_without_a_text_encoder_and_offers_those_of_its_family(form: Form) -> None:
    assert (form.model.value, shown(form), form.read().text_encoder) == ("whole", False, None)
    form.model.value = "bare"
    assert shown(form) and choices(form) == ["whole", "clip"]
    assert "no text encoder" in dict((value, text) for text, value in form.model.widget.options)["bare"]
    form.borrowed.picker.widget.value = "whole"
    assert form.read().text_encoder == "whole"


def test_where_there_is_no_such_model_the_picker_says_so(form: Form) -> None:
    form.borrowed.set_files({"bare": "SD 2"}, SOURCES[:2])
    form.model.value = "bare"
    assert [text for text, _ in form.borrowed.picker.widget.options] == ["no SD 2 model that has one is here yet"]


def test_each_model_keeps_its_choice_over_a_look_for_files_and_a_new_kernel(form: Form) -> None:
    form.model.value = "bare"
    form.borrowed.picker.widget.value = "clip"
    form.model.value = "nai"
    assert choices(form) == ["whole", "clip"]
    for name, wanted in (("whole", None), ("nai", None), ("other", None), ("bare", "clip")):
        form.model.value = name
        found(form)
        assert (form.read().text_encoder, shown(form)) == (wanted, name in ("bare", "nai"))
    new = Form(Parts())
    new.restore(form.values())
    found(new)
    assert (new.model.value, new.read().text_encoder, shown(new)) == ("bare", "clip", True)
    new.borrowed.picker.widget.value = NONE
    assert new.read().text_encoder is None and new.values()["text_encoders"] == {}
    new.restore({"text_encoders": {"bare": 7}})
    new.restore({"text_encoders": ["nonsense"]})
    assert new.read().text_encoder is None


@pytest.mark.parametrize(("recipe", "wanted"), [
    (Recipe(model="bare", text_encoder="clip"), "clip"),
    (Recipe(model="nai"), None),
    (Recipe(model="bare"), "whole"),                # a text of the web UI does not say: the choice that was made stays
    (Recipe(), "whole"),
    (Recipe(model="whole"), None),
    (Recipe(model="whole", text_encoder="gone [0123456789]"), "gone [0123456789]"),
])  # fmt: skip
def test_a_recipe_says_it_or_the_choice_stays(form: Form, recipe: Recipe, wanted: str | None) -> None:
    form.model.value = "bare"
    form.borrowed.picker.widget.value = "whole"
    form.write(recipe)
    assert form.read().text_encoder == wanted
    assert shown(form) == (form.model.value in ("bare", "nai") or wanted is not None)


def test_a_model_that_turned_out_to_have_none_is_asked_for(form: Form) -> None:
    form.model.value = "unseen"
    assert not shown(form)
    form.borrowed.ask()
    assert shown(form) and choices(form) == ["whole", "other", "clip"]
    form.model.value = "bare [0123456789]"          # as an infotext names it
    assert shown(form) and choices(form) == ["whole", "clip"]
    form.borrowed.picker.value = "clip"
    form.model.value = "bare"
    assert form.read().text_encoder == "clip"
