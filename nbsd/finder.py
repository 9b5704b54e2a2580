"""The files that a studio works with: looked for, shown in the panel, and compared with what a pasted recipe names."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from nbsd import match
from nbsd.pipeline.scripts import done_by
from nbsd.recipe import Recipe
from nbsd.ui.dispatch import Screen
from nbsd.ui.form import Form
from nbsd.ui.found import CHECKPOINT, Chooser, Entry, Found
from nbsd.ui.panel import Panel

ENDINGS = (".safetensors", ".ckpt")     # what a model file may end in, for the hint

Folders = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


class Finder:
    """Looks into folders, and into the one that was typed into the panel. `shelf()`: a stand-in for the models that has a `scan()`, or None.

    `elsewhere()`: more folders, which take seconds to find.
    """

    def __init__(
        self, folders: Sequence[Path], form: Form, panel: Panel, chooser: Chooser, screen: Screen, shelf: Callable[[], Any],
        elsewhere: Callable[[], Sequence[Path]] = tuple,
    ) -> None:
        self._folders, self._form, self._panel, self._chooser, self._screen, self._shelf = folders, form, panel, chooser, screen, shelf
        self._elsewhere = elsewhere
        self._entries: list[Entry] | None = None
        self._others: list[Path] = []           # folders that were found elsewhere
        self._typed: Path | None = None         # a folder that was typed into the panel
        self._on_first = False                  # the chosen model is the built-in one
        form.model.widget.observe(lambda _: self._fit_size(), "value")
        self._fit_size()

    @property
    def more(self) -> list[Path]:
        """Folders that were found or typed, besides those that were given."""
        return [*self._others, *([self._typed] if self._typed is not None else [])]

    def look(self) -> None:
        """Look for files and show them; takes a moment, so not in a callback."""
        self._look()
        others = [folder for folder in self._elsewhere() if folder not in self._folders]
        if others != self._others:
            self._others = others
            self._look()

    def _look(self) -> None:
        self._entries = list(self._files())
        found = [(entry, entry.title) for entry in self._entries]
        typed = self._panel.folder.value.strip()
        more = Path(typed).expanduser().absolute() if typed else None
        if more is not None:
            self._typed = more.parent if more.is_file() else more
            # The whole path: there may be another file of that name.
            found += [(entry, str(entry.path)) for entry in _found([self._typed])]
        if self._shelf() is None:
            from nbsd.models import first

            found += [(entry, first.NAME) for entry in first.listed([entry.title for entry, _ in found])]
        self._screen.post(lambda: self._show(found, more))

    def came(self, path: Path) -> None:
        """A file was fetched: show it, and choose it where it is a model. In the download's thread."""
        self.look()
        self._screen.post(lambda: self._chooser.came(path))

    def vaes(self) -> list[Path]:
        """The VAE files of the last look."""
        return [entry.path for entry in self._entries or () if entry.kind == match.VAE]

    def match(self, recipe: Recipe) -> list[str]:
        """Sentences on whether a pasted recipe will give the picture it came from; no model file is read for it."""
        from nbsd.models import hashes
        from nbsd.pipeline.check import problems

        if self._entries is None:
            self._entries = list(self._files())
        known = hashes.known_digests([entry.path for entry in self._entries])
        rows = [match.Row(entry.kind, entry.path, (digests.sha256, digests.old), digests.addnet)
                for entry in self._entries for digests in (known[entry.path],)]
        return match.report(recipe, match.Listed(rows), problems(recipe), done_by(recipe)).text.splitlines()

    def _files(self) -> Iterable[Entry]:
        scan: Callable[[], Iterable[Entry]] = getattr(self._shelf(), "scan", lambda: _found([*self._folders, *self._others]))
        return scan()

    def _show(self, found: Found, more: Path | None) -> None:
        from nbsd.models import first

        some = self._chooser.show(found)
        if more is not None and self._form.model.has(str(more)):
            self._form.model.value = str(more)
        bring = (f"put a file that ends in {' or '.join(ENDINGS)} into {more or self._folders[0].absolute()} and press Refresh, "
                 "name another folder, or get one on the page Files.")
        alone = [value for entry, value in found if entry.kind == CHECKPOINT] == [first.NAME]
        if alone and self._on_first and not self._form["prompt"].value and not self._form["negative_prompt"].value:
            self._form["prompt"].value, self._form["negative_prompt"].value = first.PROMPT, first.NEGATIVE
        self._panel.show_hint(f"{first.ABOUT} For a real model {bring}" if alone else "" if some else f"No model yet: {bring}")

    def _fit_size(self) -> None:
        """The built-in model can draw in one size only, others not in that one: where the usual size stands, make it the chosen model's."""
        chosen = self._form.model.value
        if chosen is None:
            return
        from nbsd.models import first

        if first.is_first(chosen) == self._on_first:
            return
        self._on_first = not self._on_first
        sides = [self._form[name] for name in ("width", "height")]
        usual = Recipe()
        was, now = ([first.SIDE] * 2, [usual.width, usual.height]) if not self._on_first else ([usual.width, usual.height], [first.SIDE] * 2)
        if [side.value for side in sides] == was:
            for side, value in zip(sides, now, strict=True):
                side.value = value


def paths_of(models: Folders) -> list[Path]:
    """A folder or several as paths."""
    several = [models] if isinstance(models, (str, os.PathLike)) else models
    return [Path(folder).expanduser() for folder in several]


def _found(folders: Sequence[Path]) -> Iterable[Entry]:
    from nbsd.models.store import Store

    return Store(folders).scan()
