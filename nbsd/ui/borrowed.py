"""Where the text encoder comes from, for models whose file has none: a picker that is there only for these, with a choice for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import ipywidgets as w

from nbsd.recipe import split_title
from nbsd.ui.parts import Parts
from nbsd.ui.pickers import File, Picker

PURPOSES = ("inpainting", "editing")        # as the list of files names them behind the family
CHOOSE = "choose a model that has one"
ABOUT = "This model's file has no text encoder: take that of a model of the same family, such as the one it was trained from."


class Borrowed:
    """The picker and the choices that were made with it, by model."""

    def __init__(self, parts: Parts, model: Picker) -> None:
        self._model = model
        self._bare: dict[str, str] = {}         # what a recipe calls a model without a text encoder -> its family
        self._sources: tuple[File, ...] = ()
        self._choices: dict[str, str] = {}      # model -> where its text encoder comes from
        self._following = False                 # whether what changes in the picker is no choice of the user's
        self.picker = Picker(parts, "Text encoder from", CHOOSE, ("nbsd-text-encoder", "nbsd-field-text_encoder"))
        self.picker.widget.tooltip = ABOUT
        self.widget = parts.row(self.picker.widget)
        self.widget.layout = w.Layout(display="none")       # its own: it comes and goes
        model.widget.observe(lambda _: self._follow(), "value")
        self.picker.widget.observe(lambda _: self._chosen(), "value")

    @property
    def value(self) -> str | None:
        """What a recipe says of it; None: the model's own."""
        return self.picker.value

    @value.setter
    def value(self, value: str | None) -> None:
        """What a recipe says; a model without its own keeps the choice that was made for it."""
        if value or self.family is None:
            self.picker.value = value
        self._follow()

    @property
    def choices(self) -> dict[str, str]:
        """The choices, for the settings file."""
        return dict(self._choices)

    @choices.setter
    def choices(self, choices: Mapping[object, object]) -> None:
        self._choices = {one: other for one, other in choices.items() if isinstance(one, str) and isinstance(other, str)}
        self._follow()

    @property
    def family(self) -> str | None:
        """The family of the chosen model where its file has no text encoder; None where it has one, or is not known."""
        return self._bare.get(self._model.value or "", self._bare.get(self._key))

    def set_files(self, bare: Mapping[str, str], sources: Sequence[File]) -> None:
        """`bare`: models without a text encoder, with their families; `sources`: files that hold one ("" as family: not known)."""
        self._bare, self._sources = dict(bare), tuple(sources)
        self._follow()

    def ask(self) -> None:
        """Show the picker: the model turned out to have no text encoder."""
        if self._key:
            self._bare.setdefault(self._key, "")
        self._follow()

    @property
    def _key(self) -> str:
        """The chosen model's name, with or without a hash behind it."""
        value = self._model.value or ""
        return split_title(value)[0] or value

    def _follow(self) -> None:
        """Show what goes with the model that is chosen now."""
        family, wanted = self.family, self._choices.get(self._key)
        self._following = True
        try:
            files = [file for file in self._sources if not family or _plain(file.family) in (_plain(family), "")]
            self.picker.none = CHOOSE if files else f"no {_plain(family or '')} model that has one is here yet".replace("  ", " ")
            self.picker.set_files(files)
            self.picker.value = wanted
        finally:
            self._following = False
        self.widget.layout.display = "none" if family is None and not wanted else None

    def _chosen(self) -> None:
        if self._following:
            return
        if self.picker.value:
            self._choices[self._key] = self.picker.value
        else:
            self._choices.pop(self._key, None)
        self._follow()


def _plain(family: str) -> str:
    """The family without what a model of it is made for: "SD 1 inpainting" reads the texts of SD 1."""
    return next((family.removesuffix(f" {purpose}") for purpose in PURPOSES if family.endswith(f" {purpose}")), family)
