"""Filling the panel with a whole recipe, and taking that back: presets, what was pasted, converted prompts, reused pictures."""

from __future__ import annotations

import html
from dataclasses import fields, replace
from typing import NamedTuple

import ipywidgets as w

from nbsd import presets
from nbsd.pipeline.scripts import FOLDER, NO_SCRIPT, Script, said
from nbsd.recipe import Recipe
from nbsd.ui.controls import LABELS
from nbsd.ui.form import Form
from nbsd.ui.parts import Parts

PROMPTS = ("prompt", "negative_prompt")
DEEPEST = 50        # fills that can be taken back


class State(NamedTuple):
    """What the form says."""

    recipe: Recipe
    script: Script


class Fills:
    """The one way to fill the form with a recipe; remembers what was there. Owns the preset's row and the Undo button."""

    def __init__(self, parts: Parts, form: Form) -> None:
        self._form = form
        self._done: list[tuple[str, State, State]] = []         # (what it was, the form before, the form after), latest last
        self.choice = parts.make(
            w.Dropdown, "nbsd-control", "nbsd-preset", description="Preset", options=[(name, name) for name in presets.PRESETS],
        )
        self.apply = parts.button("Apply", "nbsd-apply-preset", "Set what the preset says; prompts, seed and files stay yours")
        self.undo = parts.button("Undo", "nbsd-undo-fill", "Take back the last filling of the panel: preset, paste, conversion, reuse")
        self.said = parts.html("nbsd-filled")
        self.widget = parts.column("nbsd-fills", parts.row(self.choice, self.apply, self.undo, name="nbsd-tails"), self.said)
        self.apply.on_click(lambda _: self._apply())
        self.undo.on_click(lambda _: self.take_back())
        self._tell("")

    def fill(self, what: str, recipe: Recipe, *, whole: bool = False) -> None:
        """Show a recipe in the form. `what` stands in sentences, such as "the pasted recipe".

        `whole`: it says all that made a picture, so a script that it does not tell of is switched off (but for a folder, of which no text tells).
        """
        before = self._state()
        self._form.write(recipe)
        if whole and not said(recipe) and before.script.kind != FOLDER:
            self._form.modes.choose(NO_SCRIPT)
        after = self._state()
        if after != before:
            self._done = [*self._done, (what, before, after)][-DEEPEST:]
        self._tell("")

    def take_back(self) -> None:
        """Undo the last `fill`; what was changed by hand since then stays."""
        if self._done:
            *self._done, (what, before, after) = self._done
            now = self._state()
            self._form.write(taken_back(before.recipe, after.recipe, now.recipe))
            if now.script == after.script:
                self._form.modes.put_script(before.script)
            self._tell(f"Taken back: {what}.")

    def _state(self) -> State:
        return State(self._form.read(), self._form.modes.chosen_script)

    def _apply(self) -> None:
        name, before = self.choice.value, self._form.read()
        self.fill(f"the preset {name}", presets.apply(name, before))
        self._tell(_summary(name, before, self._form.read()))

    def _tell(self, text: str) -> None:
        self.undo.disabled = not self._done
        self.said.value = f'<div role="status">{html.escape(text)}</div>' if text else ""


def taken_back(before: Recipe, after: Recipe, now: Recipe) -> Recipe:
    """`now` without what changed from `before` to `after`. What was changed since then stays; of a prompt only added words go."""
    changes = {}
    for field in fields(Recipe):
        old, filled, current = (getattr(one, field.name) for one in (before, after, now))
        if filled == old:
            continue
        if current == filled:
            changes[field.name] = old
        elif field.name in PROMPTS and filled.endswith(old) and current.startswith(filled[:len(filled) - len(old)]):
            changes[field.name] = current[len(filled) - len(old):].removeprefix(", ")
    return replace(now, **changes)


def _summary(name: str, before: Recipe, after: Recipe) -> str:
    """What a preset has changed, in a sentence."""
    names = [field.name for field in fields(Recipe) if getattr(before, field.name) != getattr(after, field.name)]
    said = [f"{LABELS.get(one, one)} {getattr(after, one)}" for one in names if one not in PROMPTS]
    said += [f"words in the {LABELS[one].lower()}" for one in names if one in PROMPTS]
    return f"{name}: {', '.join(said)}." if said else f"{name}: everything is so already."
