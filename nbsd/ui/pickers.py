"""Choosing a file: a drop-down that can also hold a name for which there is no file here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import ipywidgets as w


class File(NamedTuple):
    """A row of a picker."""

    title: str      # what is shown, and what the recipe says
    value: str      # what the recipe says: the title, or the path where the title is not enough
    size: int       # bytes


class Picker:
    """A labelled drop-down of files. Its value is what the recipe says, or None for the first row."""

    def __init__(self, label: str, none: str, classes: tuple[str, ...], layout: w.Layout, must: bool = False) -> None:
        self._none, self._must = none, must
        self._files: tuple[File, ...] = ()
        self._learned: dict[str, str] = {}      # other names of files in the list
        self.widget = w.Dropdown(options=[(none, None)], description=label, layout=layout)
        for name in ("nbsd-control", *classes):
            self.widget.add_class(name)

    @property
    def value(self) -> str | None:
        """A title, path, hash or "name [hash]"."""
        return self.widget.value

    @value.setter
    def value(self, value: str | None) -> None:
        self._show(self._learned.get(value, value) if value is not None else None)

    def learn(self, name: str, value: str) -> None:
        """`name` (as a finished picture has it: name and hash) is the file that this picker calls `value`."""
        self._learned[name] = value

    def set_files(self, files: Sequence[File]) -> None:
        """Show these files. The choice stays; where one must be made and none is, it is the first file."""
        self._files = tuple(files)
        value = self.value
        if value is None and self._must and self._files:
            value = self._files[0].value
        self._show(value)

    def has(self, value: str) -> bool:
        """Whether there is such a file here."""
        return value in self._learned or any(value in (file.value, file.title) for file in self._files)

    def _show(self, value: str | None) -> None:
        rows: list[tuple[str, str | None]] = [] if self._must and self._files else [(self._none, None)]
        rows += [(f"{file.title}  ·  {size_words(file.size)}", file.value) for file in self._files]
        if value is not None and value not in [known for _, known in rows]:
            rows.append((f"{value}  ·  not in the list", value))
        if tuple(rows) != self.widget.options:
            self.widget.options = tuple(rows)
        values = [known for _, known in rows]
        self.widget.value = value if value in values else values[0]


def size_words(size: int) -> str:
    """Bytes as people say them.

    >>> size_words(4_265_380_512)
    '4.27 GB'
    """
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size} bytes"
