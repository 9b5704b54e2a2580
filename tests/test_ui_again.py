from __future__ import annotations

from types import SimpleNamespace

import pytest

from nbsd.recipe import Recipe
from nbsd.ui.again import Again
from nbsd.ui.parts import Parts

A, B, BARE = b"picture a", b"picture b", b"picture without a recipe"
OF_A, OF_B, TYPED = Recipe(seed=1), Recipe(seed=2), Recipe(seed=3)


@pytest.mark.parametrize(("offers", "wanted"), [
    ([], None),
    ([(A, OF_A)], (A, OF_A)),
    ([(A, OF_A), (B, OF_B)], (B, OF_B)),
    ([(None, TYPED)], None),
    ([(BARE, None)], None),
    ([(BARE, None), (None, TYPED)], (BARE, TYPED)),
    ([(None, TYPED), (BARE, None)], (BARE, TYPED)),
    ([(A, OF_A), (None, TYPED)], None),                 # a text is not that picture's
    ([(A, OF_A), (BARE, None)], None),                  # nor is a picture's recipe another's
    ([(BARE, None), (None, TYPED), (None, OF_B)], (BARE, OF_B)),
    ([(A, OF_A), (None, None)], None),
])  # fmt: skip
def test_which_picture_and_recipe_belong_together(offers: list[tuple[bytes | None, Recipe | None]], wanted: object) -> None:
    again = Again(Parts())
    for picture, recipe in offers:
        again.offer(picture, recipe)
    assert again.ready == (wanted is not None) and again.start.disabled == (wanted is None)
    if wanted is not None:
        assert (again.picture, again.recipe) == wanted


def test_the_sentence_and_the_button_at_the_end() -> None:
    again = Again(Parts())
    again.offer(A, OF_A)
    assert again.use.disabled
    again.show(SimpleNamespace(recipe=TYPED, text="matches <with> ENSD 31337", close=True))
    assert "matches &lt;with&gt; ENSD 31337" in again.said.value and not again.use.disabled
    again.offer(B, OF_B)
    assert again.use.disabled and "ENSD 31337" not in again.said.value


def test_a_picture_without_a_recipe_asks_for_its_text() -> None:
    again = Again(Parts())
    again.offer(BARE, None)
    assert "paste its text" in again.said.value
