"""Choosing a file: a drop-down that can also hold a name for which there is no file here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import ipywidgets as w

from nbsd.recipe import split_title
from nbsd.ui.parts import Parts
from nbsd.words import size_words

NONE = ""       # the value of the first row; with None a Dropdown shows nothing at all


class File(NamedTuple):
    """A row of a picker."""

    title: str      # what is shown, and what the recipe says
    value: str      # what the recipe says: the title, or the path where the title is not enough
    size: int       # bytes
    family: str = ""
    digest: str = ""
    lacks: str = ""     # what it has to take from another file


def row_words(title: str, family: str, size: int, digest: str, lacks: str = "") -> str:
    """A file in one line: name, family, what it lacks, size, hash."""
    return "  ·  ".join(part for part in (title, family, f"no {lacks}" if lacks else "", size_words(size), digest) if part)


class Picker:
    """A labelled drop-down of files. Its value is what the recipe says, or None for the first row."""

    def __init__(self, parts: Parts, label: str, none: str, classes: tuple[str, ...], must: bool = False) -> None:
        self.none, self._must = none, must      # what the first row says
        self._files: tuple[File, ...] = ()
        self._learned: dict[str, str] = {}      # other names of files in the list
        self.widget = parts.make(w.Dropdown, "nbsd-control", *classes, options=[(none, NONE)], description=label)

    @property
    def value(self) -> str | None:
        """A title, path, hash or "name [hash]"."""
        return self.widget.value or None

    @value.setter
    def value(self, value: str | None) -> None:
        self._show(self._learned.get(value, value) if value else NONE)

    @property
    def family(self) -> str:
        """Of the chosen file, and what it is made for: "SD 1 inpainting"; empty where that is not known."""
        return next((file.family for file in self._files if self.widget.value in (file.value, file.title)), "")

    def learn(self, name: str, value: str) -> None:
        """`name` (as a finished picture has it: name and hash) is the file that this picker calls `value`."""
        self._learned[name] = value

    def set_files(self, files: Sequence[File]) -> None:
        """Show these files. The choice stays; where one must be made and none is, it is the first file."""
        self._files = tuple(files)
        self._show(self.widget.value)

    def has(self, value: str) -> bool:
        """Whether there is such a file here."""
        return value in self._learned or any(value in (file.value, file.title) for file in self._files)

    def _show(self, value: str) -> None:
        rows = [] if self._must and self._files else [(self.none, NONE)]
        rows += [(row_words(file.title, file.family, file.size, file.digest, file.lacks), file.value) for file in self._files]
        values = [known for _, known in rows]
        if value and value not in values:
            meant = next((file.value for file in self._files if _is_meant(file, value)), None)
            if meant is None:
                rows.append((f"{value}  ·  not in the list", value))
            else:       # the row of that file, which says what the recipe does
                rows = [(text, value if known == meant else known) for text, known in rows]
            values = [known for _, known in rows]
        if tuple(rows) != self.widget.options:
            self.widget.options = tuple(rows)
        self.widget.value = value if value or NONE in values else values[0]


def _is_meant(file: File, value: str) -> bool:
    """Whether a recipe's words, such as "name [hash]" or a hash alone, mean this file, as far as the list knows. Hashes of different lengths
    are of different ages and say nothing; whoever loads the file compares them."""
    name, digest = split_title(value)
    if not name:
        return bool(digest) and digest == file.digest
    same = name.casefold() in (file.title.casefold(), file.value.casefold())
    return same and (digest == file.digest or not digest or len(digest) != len(file.digest))
