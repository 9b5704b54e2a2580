"""Masking rectangles with sliders, from core widgets: for pages where the canvas does not load."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import ipywidgets as w
from PIL import Image, ImageChops, ImageDraw

from nbsd.ui.brushes import ERASE, TINT, Box, Brush
from nbsd.ui.mask import Drawing
from nbsd.ui.parts import Parts

SIDE = 640      # pixels of the preview's longer side at most
SHADE = 0.55    # how much the mask covers in the preview


class Boxes:
    """Shows a Drawing over its picture, and a rectangle that two range sliders move."""

    def __init__(self, parts: Parts, drawing: Drawing, brush: Callable[[], Brush]) -> None:
        self._drawing, self._brush = drawing, brush
        self._small = Image.new("RGB", (8, 8))
        self._preview = parts.make(w.Image, format="jpeg")
        self.across = parts.make(w.IntRangeSlider, "nbsd-control", "nbsd-across", description="From left to right", min=0, max=8, value=(2, 6))
        self.down = parts.make(w.IntRangeSlider, "nbsd-control", "nbsd-down", description="From top to bottom", min=0, max=8, value=(2, 6))
        self.add = parts.button("Paint the rectangle", "nbsd-box-add", "As the brush would")
        self.free = parts.button("Erase it", "nbsd-box-free", "Take what was painted out of the rectangle")
        buttons = parts.row(self.add, self.free)
        sliders = parts.row(self.across, self.down, name="nbsd-sliders")
        self.widget = parts.column("nbsd-boxes", parts.make(w.Box, "nbsd-boxes-picture", children=[self._preview]), sliders, buttons)
        self.add.on_click(lambda _: self._apply(self._brush()))
        self.free.on_click(lambda _: self._apply(replace(self._brush(), does=ERASE)))
        for slider in (self.across, self.down):
            slider.observe(lambda _: self.redraw(), "value")

    @property
    def box(self) -> Box:
        """The rectangle, in pixels of the picture."""
        (left, right), (top, bottom) = self.across.value, self.down.value
        return left, top, right, bottom

    def show(self, picture: Image.Image) -> None:
        """Put a picture below; its size is the Drawing's. The rectangle is the middle of it."""
        self._small = picture.convert("RGB")
        self._small.thumbnail((SIDE, SIDE))
        for slider, most in ((self.across, self._drawing.size[0]), (self.down, self._drawing.size[1])):
            with slider.hold_trait_notifications():
                slider.max = most
                slider.value = (most // 4, most - most // 4)
        self.redraw()

    def redraw(self) -> None:
        """Draw what the Drawing has, and the rectangle."""
        size = self._small.size
        mask = self._drawing.mask.resize(size, Image.Resampling.NEAREST)
        sketch = self._drawing.sketch.resize(size, Image.Resampling.NEAREST)
        shown = self._small.copy()
        shown.paste(sketch, mask=sketch.getchannel("A"))
        shown.paste(TINT, mask=ImageChops.multiply(mask, Image.new("L", size, round(255 * SHADE))))
        scale = size[0] / self._drawing.size[0], size[1] / self._drawing.size[1]
        left, top, right, bottom = (round(value * scale[i % 2]) for i, value in enumerate(self.box))
        pen = ImageDraw.Draw(shown)
        pen.rectangle((left, top, max(right - 1, left), max(bottom - 1, top)), outline="white", width=3)
        pen.rectangle((left, top, max(right - 1, left), max(bottom - 1, top)), outline="black", width=1)
        out = io.BytesIO()
        shown.save(out, "JPEG", quality=85)
        self._preview.value = out.getvalue()

    def _apply(self, brush: Brush) -> None:
        self._drawing.rectangle(self.box, brush)
        self.redraw()
