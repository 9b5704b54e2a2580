"""The editable part of the panel, written and read as a recipe. Its only state is the widgets' values."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import fields, replace
from typing import Any

import ipywidgets as w

from nbsd.pipeline import adetailer
from nbsd.pipeline.scripts import NO_SCRIPT, SCRIPTS, is_of_script, said, without
from nbsd.recipe import DRAWN_BELOW, LATEST, Recipe
from nbsd.ui.borrowed import Borrowed
from nbsd.ui.controls import CONTROLS, JOB, make, put
from nbsd.ui.modes import Modes
from nbsd.ui.parts import Parts
from nbsd.ui.pickers import Picker

RANDOM = -1                     # in a seed box
SETTLE = 0.3                    # seconds without a change after which the page has sent what it held back; a round trip to Colab fits in


class Form:
    """Controls for every field of a recipe, and for the size of the job."""

    def __init__(self, parts: Parts) -> None:
        self.modes = Modes(parts)
        self.by_field: dict[str, w.Widget] = {row.field: make(row, parts) for row in (*CONTROLS, *JOB)} | self.modes.by_field
        self.model = Picker(parts, "Model", "none found yet", ("nbsd-model", "nbsd-field-model"), must=True)
        self.vae = Picker(parts, "VAE", "the model's own", ("nbsd-vae", "nbsd-field-vae"))
        self.borrowed = Borrowed(parts, self.model)
        self._kept = Recipe()
        self._watchers: list[Callable[[], None]] = []
        self.changes = 0        # how often a value has changed
        self.write(Recipe(seed=RANDOM, variation_seed=RANDOM))
        self.by_field["count"].value = self.by_field["batch_size"].value = 1
        self.watch(self._count)

    def __getitem__(self, field: str) -> w.Widget:
        return self.by_field[field]

    def read(self) -> Recipe:
        """What the controls say; a seed may be -1 here (see `drawn`)."""
        values = {row.field: self.by_field[row.field].value for row in CONTROLS}
        kept = without(self._kept) if self.by_field["script.kind"].value == NO_SCRIPT else self._kept
        return self.modes.read(replace(kept, model=self.model.value, vae=self.vae.value, text_encoder=self.borrowed.value, **values))

    def write(self, recipe: Recipe) -> None:
        """Show a recipe. Without a model in it, the chosen one stays."""
        # The parts have controls; only a hires fix beside a given picture has none: the web UI knows no such thing.
        if said(recipe) != said(self._kept):
            self.modes.show_script(said(recipe))
        self._kept = replace(recipe, img2img=None, inpaint=None, hires=recipe.hires if recipe.img2img else None)
        if recipe.model is not None:
            self.model.value = recipe.model     # before the size, which follows a model that is chosen
        for row in CONTROLS:
            put(self.by_field[row.field], getattr(recipe, row.field))
        self.modes.write(recipe)
        self.vae.value = recipe.vae
        self.borrowed.value = recipe.text_encoder
        self._tell()

    def job(self) -> tuple[int, int]:
        """How many pictures in all, and how many at a time."""
        count, size = self.by_field["count"].value, self.by_field["batch_size"].value
        return count * size, size

    def kept(self) -> list[str]:
        """The parts of a pasted recipe that have no control yet, in words."""
        words = ["hires"] if self._kept.hires is not None else []
        if self._kept.version != LATEST:
            words.append(f"the rules of version {self._kept.version}" if self._kept.version else "the rules of a text without a version")
        words += [key for key, _ in self._kept.unknown if not is_of_script(key)]
        return words + (adetailer.unseen(said(self._kept)) if self.modes.script is not None else [])

    def drop_kept(self) -> None:
        """Forget those parts."""
        self._kept = Recipe()
        self._tell()

    def values(self) -> dict[str, Any]:
        """All values as plain data, for the settings file."""
        # Not the mode: the picture that it changes is gone with the kernel.
        plain = {name: widget.value for name, widget in self.by_field.items() if name != "mode"}
        return {**plain, "model": self.model.value, "vae": self.vae.value, "text_encoders": self.borrowed.choices}

    def restore(self, values: dict[str, Any]) -> None:
        """Take over what fits of a settings file; what does not is left as it is."""
        for name, widget in self.by_field.items():
            value = values.get(name) if name not in ("mode", "script.kind") else None
            if type(value) is type(widget.value) or (isinstance(widget, w.FloatText) and type(value) is int):
                put(widget, value)
        if (kind := values.get("script.kind")) in SCRIPTS:
            self.modes.choose(kind)
        for name, picker in (("model", self.model), ("vae", self.vae)):
            if isinstance(values.get(name), str):
                picker.value = values[name]
        if isinstance(choices := values.get("text_encoders"), dict):
            self.borrowed.choices = choices
        self._tell()

    def watch(self, changed: Callable[[], None]) -> None:
        """Call `changed` after any change, in whatever thread it comes."""
        self._watchers.append(changed)
        for widget in (*self.by_field.values(), self.model.widget, self.vae.widget, self.borrowed.picker.widget):
            widget.observe(lambda _: changed(), "value")

    def _count(self) -> None:
        self.changes += 1

    def _tell(self) -> None:
        for changed in self._watchers:
            changed()


class Settled:
    """What the form says at a click, with what was entered before the click and arrives after it.

    A page holds a widget's next value back until the kernel has answered the last one, but not a click: while the kernel is busy, a
    click overtakes what was typed just before it. So the form is read once it has been still for SETTLE.
    """

    def __init__(self, form: Form, given: Callable[[Recipe], Any] = lambda recipe: None) -> None:
        """`given`: what else a recipe needs, taken at the same time (the picture and the mask that it changes)."""
        self._form, self._given = form, given
        self._read: Future[tuple[Recipe, int, int, Any]] = Future()
        threading.Thread(target=self._wait, name="nbsd-settled", daemon=True).start()

    def get(self) -> tuple[Recipe, int, int, Any]:
        """The recipe (a seed may be -1), how many pictures, how many at a time, and what `given` says; waits until the form is still."""
        return self._read.result()

    def _wait(self) -> None:
        seen = None
        while seen != self._form.changes:
            seen = self._form.changes
            time.sleep(SETTLE)
        try:
            recipe = self._form.read()
            self._read.set_result((recipe, *self._form.job(), self._given(recipe)))
        except Exception as error:  # whoever asked is told, in the job's thread
            self._read.set_exception(error)


def drawn(recipe: Recipe) -> Recipe:
    """The recipe with random seeds (any below 0) drawn: from here on it is fully determined."""
    if recipe.seed < 0:
        recipe = replace(recipe, seed=_draw())
    if recipe.variation_seed < 0:
        recipe = replace(recipe, variation_seed=_draw() if recipe.variation_strength > 0 else 0)
    return recipe


def _draw() -> int:
    return random.SystemRandom().randrange(DRAWN_BELOW)


def changed_fields(recipe: Recipe) -> list[str]:
    """Names of the fields that differ from a new recipe."""
    new = Recipe()
    return [field.name for field in fields(Recipe) if getattr(recipe, field.name) != getattr(new, field.name)]
