"""Widgets for one panel, sharing one Layout and one style of a kind: each is a message of its own when the panel appears."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as w


class Parts:
    """Makes the widgets of one panel."""

    def __init__(self) -> None:
        self.layout = w.Layout()
        self._styles: dict[str, Any] = {}

    def make(self, kind: Callable[..., Any], *classes: str, **traits: Any) -> Any:
        """A widget of this kind, with CSS classes."""
        name = getattr(kind, "__name__", "")
        if name in self._styles:
            traits["style"] = self._styles[name]
        made = kind(layout=self.layout, **traits)
        if made.has_trait("style"):
            self._styles.setdefault(name, made.style)
        for one in classes:
            made.add_class(one)
        return made

    def button(self, text: str, name: str, tip: str) -> w.Button:
        """A button with a text, a class and a tooltip."""
        return self.make(w.Button, name, description=text, tooltip=tip)

    def html(self, name: str, value: str = "") -> w.HTML:
        """A text of the panel's own; what comes from elsewhere is escaped before."""
        return self.make(w.HTML, name, value=value)

    def row(self, *widgets: w.Widget, name: str = "") -> w.Box:
        """Controls side by side, as many as fit; the class says how the width is shared."""
        return self.make(w.Box, "nbsd-row", *([name] if name else []), children=widgets)

    def column(self, name: str, *widgets: w.Widget) -> w.VBox:
        """Widgets one below the other."""
        return self.make(w.VBox, name, children=widgets)
