"""Reproduce: the last picture that was opened is made again, until the settings that its recipe leaves open are found."""

from __future__ import annotations

import html
from typing import Protocol

from nbsd.recipe import Recipe
from nbsd.ui.parts import Parts

IDLE = "Open a picture, and Reproduce finds the settings that its recipe does not say."
READY = "Reproduce makes this picture again with each setting that its recipe does not say (RNG, ENSD, clip skip, ...)."
NO_RECIPE = "This picture carries no recipe: paste its text, too."


class Found(Protocol):
    """What a search has found, as `pipeline.reproduce` tells it."""

    @property
    def recipe(self) -> Recipe: ...

    @property
    def text(self) -> str: ...

    @property
    def close(self) -> bool:
        """Whether it is the same picture."""


class Again:
    """The row for it. Knows which picture and which recipe belong together; the search itself is the studio's."""

    def __init__(self, parts: Parts) -> None:
        self.picture: bytes | None = None       # the file
        self.recipe: Recipe | None = None       # as it was read, without what the panel has changed since
        self.found: Found | None = None
        self._own = False                       # the picture carried the recipe
        self.start = parts.button("Reproduce", "nbsd-reproduce", "Find the settings with which this picture was made")
        self.use = parts.button("Use these settings", "nbsd-use-found", "Set every control to what was found")
        self.said = parts.html("nbsd-found")
        self.widget = parts.column("nbsd-again", parts.row(self.start, self.use), self.said)
        self._show()

    @property
    def ready(self) -> bool:
        return self.picture is not None and self.recipe is not None

    def offer(self, picture: bytes | None, recipe: Recipe | None) -> None:
        """Something was pasted: a picture with or without a recipe, or a recipe for the picture without one."""
        if picture is not None:
            if recipe is None and self._own:
                self.recipe = None      # another picture's
            self.picture, self._own = picture, recipe is not None
        elif self._own:
            self.picture, self._own = None, False
        if recipe is not None:
            self.recipe = recipe
        self.found = None
        self._show()

    def show(self, found: Found) -> None:
        """The end of a search."""
        self.found = found
        self._show()

    def _show(self) -> None:
        self.start.disabled = not self.ready
        self.use.disabled = self.found is None
        text = NO_RECIPE if self.picture else IDLE
        if self.found is not None:
            text = self.found.text
        elif self.ready:
            text = READY
        self.said.value = f'<div role="status">{html.escape(text)}</div>'
