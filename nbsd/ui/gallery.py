"""Thumbnails of what was made, newest first, from core widgets: it works wherever the panel does.

A core Image cannot be clicked, so a button lies over each; its text names the picture for keyboards and screen readers.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import ipywidgets as w

from nbsd.picture import Picture
from nbsd.ui.parts import Parts

PAGE = 48           # thumbnails at a time; thousands of widgets make a page slow, tens do not
SIDE = 160          # pixels of a thumbnail's longer side
QUALITY = 80        # of its JPEG; about 8 kB


class Gallery:
    """`add` a picture; `on_pick(picture)` is called when one is clicked, in whatever thread the click comes."""

    def __init__(self, parts: Parts, on_pick: Callable[[Picture], None]) -> None:
        self._parts, self._on_pick = parts, on_pick
        self._pictures: list[tuple[Picture, bytes]] = []        # oldest first
        self._page = 0                                          # 0 is the newest
        self._tiles: dict[int, w.Widget] = {}                   # of the page: number of the picture -> thumbnail
        self.box = parts.make(w.Box, "nbsd-gallery")
        self._newer = parts.button("Newer", "nbsd-newer", "Show newer pictures")
        self._older = parts.button("Older", "nbsd-older", "Show older pictures")
        self._where = parts.html("nbsd-where")
        self._newer.on_click(lambda _: self._turn(-1))
        self._older.on_click(lambda _: self._turn(+1))
        self._pager = parts.make(w.Box, "nbsd-pager", children=[self._newer, self._where, self._older])
        self.widget = parts.column("nbsd-pages", self.box)

    @property
    def pictures(self) -> list[Picture]:
        """All pictures, oldest first."""
        return [picture for picture, _ in self._pictures]

    def add(self, picture: Picture) -> None:
        """Put a picture in front."""
        self._pictures.append((picture, thumbnail(picture)))
        if self._page == 0:
            self._show()
        self._tell()

    def _turn(self, by: int) -> None:
        last = (len(self._pictures) - 1) // PAGE
        self._page = min(max(self._page + by, 0), max(last, 0))
        self._show()
        self._tell()

    def _show(self) -> None:
        end = len(self._pictures) - self._page * PAGE
        numbers = range(end - 1, max(end - PAGE, 0) - 1, -1)
        gone = [self._tiles.pop(number) for number in set(self._tiles) - set(numbers)]
        for number in numbers:
            if number not in self._tiles:
                self._tiles[number] = self._tile(number)
        self.box.children = tuple(self._tiles[number] for number in numbers)
        for tile in gone:
            for part in (*tile.children, tile):
                part.close()

    def _tile(self, number: int) -> w.Widget:
        picture, small = self._pictures[number]
        seed, image = picture.recipe.seed, picture.image
        small_image = self._parts.make(w.Image, value=small, format="jpeg")
        button = self._parts.button(f"Show picture {number + 1}, seed {seed}", "nbsd-pick", f"seed {seed}, {image.width}×{image.height}")
        button.on_click(lambda _: self._on_pick(picture))
        return self._parts.make(w.Box, "nbsd-thumb", children=[small_image, button])

    def _tell(self) -> None:
        pages = -(-len(self._pictures) // PAGE)
        self._newer.disabled, self._older.disabled = self._page == 0, self._page >= pages - 1
        self._where.value = f"page {self._page + 1} of {pages}"
        wanted = (self.box, self._pager) if pages > 1 else (self.box,)
        if self.widget.children != wanted:
            self.widget.children = wanted


def thumbnail(picture: Picture) -> bytes:
    """A small JPEG of the picture."""
    small = picture.image.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()
