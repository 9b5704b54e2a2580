"""How the prompts are spelled: the switch, and both spellings side by side."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from nbsd.errors import RecipeError
from nbsd.prompt.weights import from_novelai, to_novelai
from nbsd.recipe import Recipe
from nbsd.ui.fills import Fills
from nbsd.ui.form import Form
from nbsd.ui.parts import Parts

WEBUI, NOVELAI = "webui", "novelai"
CALLED = {WEBUI: "A1111", NOVELAI: "NovelAI"}
CONVERT: dict[str, Callable[[str], str]] = {WEBUI: to_novelai, NOVELAI: from_novelai}      # by the dialect that a text is in
NOTE = "Weights are written with the digits people use; as long as you do not convert, the pictures use the exact ones."


class Spelled(NamedTuple):
    """Both prompts in one dialect."""

    dialect: str
    prompt: str
    negative: str


def both(recipe: Recipe) -> tuple[Spelled, Spelled]:
    """The prompts as they are, and in the other dialect. Raises RecipeError for what the other cannot say."""
    other = NOVELAI if recipe.dialect == WEBUI else WEBUI
    convert = CONVERT[WEBUI if recipe.dialect == WEBUI else NOVELAI]
    here = Spelled(recipe.dialect, recipe.prompt, recipe.negative_prompt)
    return here, Spelled(other, convert(recipe.prompt), convert(recipe.negative_prompt))


class Dialects:
    """The row below the prompts: which dialect they are in, and Convert, which shows both spellings and writes the other on demand."""

    def __init__(self, parts: Parts, form: Form, fills: Fills) -> None:
        self._form, self._fills = form, fills
        self._shown: Recipe | None = None       # what the table was made from
        self.convert = parts.button("Convert", "nbsd-convert", "Show the prompts in both spellings")
        self.spellings = parts.html("nbsd-spellings")
        self.use = parts.button("Use it", "nbsd-use-spelling", "Write the prompts in the other spelling and switch the dialect")
        self.close = parts.button("Close", "nbsd-close-spelling", "Leave the prompts as they are")
        self._row = parts.row(form["dialect"], self.convert, name="nbsd-tail")
        self._below = (self.spellings, parts.row(self.use, self.close))     # there while the table is open
        self.widget = parts.column("nbsd-dialects", self._row)
        self.convert.on_click(lambda _: self._show())
        self.use.on_click(lambda _: self._use())
        self.close.on_click(lambda _: self._hide())
        form.watch(self._follow)

    def _show(self) -> None:
        recipe = self._form.read()
        try:
            here, there = both(recipe)
        except RecipeError as error:
            self.spellings.value = f'<div role="alert">{html.escape(str(error))}</div>'
            self.use.disabled = True
        else:
            self.spellings.value = _table(here, there)
            self.use.description = f"Use {CALLED[there.dialect]}'s spelling"
            self.use.disabled = not any(here[1:])
        self._shown = recipe
        self.widget.children = (self._row, *self._below)

    def _use(self) -> None:
        recipe = self._form.read()
        _, there = both(recipe)
        self._hide()
        changed = replace(recipe, dialect=there.dialect, prompt=there.prompt, negative_prompt=there.negative)
        self._fills.fill("the conversion of the prompts", changed)

    def _hide(self) -> None:
        self._shown = None
        self.widget.children = (self._row,)

    def _follow(self) -> None:
        """A table of other prompts than those above it would mislead."""
        if self._shown is not None and _spelled(self._shown) != _spelled(self._form.read()):
            self._hide()


def _spelled(recipe: Recipe) -> Spelled:
    return Spelled(recipe.dialect, recipe.prompt, recipe.negative_prompt)


def _table(here: Spelled, there: Spelled) -> str:
    first, second = (here, there) if here.dialect != NOVELAI else (there, here)
    head = f"<tr><td></td><th>{CALLED.get(first.dialect, first.dialect)}</th><th>{CALLED[NOVELAI]}</th></tr>"
    rows = (("Prompt", first.prompt, second.prompt), ("Negative", first.negative, second.negative))
    body = "".join(f"<tr><td>{name}</td>{''.join(f'<td><code>{html.escape(one)}</code></td>' for one in texts)}</tr>"
                   for name, *texts in rows if any(texts))
    return f"<table>{head}{body}</table><p>{NOTE}</p>" if body else "<p>There is no prompt to convert.</p>"
