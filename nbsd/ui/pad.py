"""Painting over a picture with the mouse, a pen or a finger, on ipycanvas.

What ipycanvas cannot do is done beside it. It forgets what was drawn when the page is loaded anew: the pixels live in the Drawing and are
sent again when a page says that it is ready. Translucent strokes add up where they overlap: the layer is opaque, and the style sheet
makes it translucent as a whole. It tells every movement, also of a lifted brush: those are dropped. Its `hold_canvas` blocks every
canvas of the kernel after an exception: it is not used; a movement is one message.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ipywidgets as w
import numpy as np
from PIL import Image

from nbsd.ui.brushes import COLOUR, ERASE, TINT, Brush
from nbsd.ui.mask import Drawing
from nbsd.ui.parts import Parts

if TYPE_CHECKING:
    from ipycanvas import Canvas

SIDE = 1024             # pixels of the canvas' longer side at most; a larger picture is painted on at a smaller scale
WHEEL = 150.0           # of the wheel's units, for one step of the zoom
INK = "#{:02x}{:02x}{:02x}".format(*TINT)
WHEEL_PAUSE = 0.12      # seconds between two of those: a touch pad sends dozens


class Pad:
    """Shows a Drawing over its picture and paints on it. `ready` is True once a page has drawn it."""

    def __init__(
        self, parts: Parts, drawing: Drawing, brush: Callable[[], Brush], on_ready: Callable[[], None], on_key: Callable[[str], None],
    ) -> None:
        """`on_key` is told "undo", "redo", "smaller", "larger", "in" or "out". Raises ImportError where ipycanvas is missing."""
        from ipycanvas import Canvas

        self.ready = False
        self._drawing, self._brush, self._on_ready, self._on_key = drawing, brush, on_ready, on_key
        self._scale = 1.0           # pixels of the canvas for one of the picture
        self._used = Brush()
        self._turned, self._turned_at = 0.0, 0.0
        self._picture = parts.make(w.Image, "nbsd-pad-picture", format="jpeg")
        self._sketch: Canvas = parts.make(Canvas, "nbsd-pad-sketch")
        self._mask: Canvas = parts.make(Canvas, "nbsd-pad-mask")
        self.widget = parts.make(w.Box, "nbsd-pad", children=[self._picture, self._sketch, self._mask])
        self._connect()

    def show(self, picture: Image.Image) -> None:
        """Put a picture below; its size is the Drawing's."""
        width, height = self._drawing.size
        self._scale = min(1.0, SIDE / max(width, height))
        size = max(round(width * self._scale), 1), max(round(height * self._scale), 1)
        out = io.BytesIO()
        picture.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(out, "JPEG", quality=90)
        for canvas in (self._sketch, self._mask):
            canvas.width, canvas.height = size
        self._picture.value = out.getvalue()
        self.redraw()

    @property
    def hand(self) -> str:
        """What the page has to know to draw the hand's ink before the kernel does (ui/page.py): what the brush does, its width in pixels of
        the canvas, the mask's colour, how many strokes are ended, and the colour on the sketch.
        """
        brush = self._brush()
        return f"{brush.does} {brush.size * self._scale:.2f} {INK} {self._drawing.strokes} {brush.colour}"

    def redraw(self) -> None:
        """Draw what the Drawing has, whatever is on the screen."""
        if self._drawing.painting:
            return      # the stroke that is being painted goes on
        # ipycanvas names the canvas only when it is another one than that of the last command, and a page loaded anew has not heard that.
        self._mask._canvas_manager._current_canvas = None
        mask = np.asarray(self._drawing.mask.resize((self._mask.width, self._mask.height), Image.Resampling.NEAREST))
        tint = np.empty((*mask.shape, 4), np.uint8)
        tint[..., :3], tint[..., 3] = TINT, mask
        sketch = self._drawing.sketch.resize((self._sketch.width, self._sketch.height), Image.Resampling.NEAREST)
        for canvas, layer in ((self._mask, tint), (self._sketch, np.asarray(sketch))):
            canvas.global_composite_operation = "source-over"
            canvas.clear()
            if layer[..., 3].any():
                canvas.put_image_data(layer, 0, 0)

    # --- what the hand does

    def _connect(self) -> None:
        top = self._mask        # the one that lies on top hears everything
        top.on_mouse_down(self._down)
        top.on_mouse_move(self._move)
        top.on_mouse_up(self._up)
        top.on_mouse_out(self._up)
        top.on_touch_start(lambda fingers: self._down(*fingers[0]) if len(fingers) == 1 else self._drawing.end())
        top.on_touch_move(lambda fingers: self._move(*fingers[0]) if len(fingers) == 1 else None)
        top.on_touch_end(lambda fingers: self._drawing.end())
        top.on_touch_cancel(lambda fingers: self._drawing.end())
        top.on_mouse_wheel(lambda across, down: self._wheel(down))
        top.on_key_down(self._key)
        top.on_client_ready(self._loaded)
        self._sketch.on_client_ready(self._loaded)

    def _loaded(self) -> None:
        self._drawing.end()
        self.redraw()
        if not self.ready:
            self.ready = True
            self._on_ready()

    def _down(self, x: float, y: float) -> None:
        self._used = brush = self._brush()
        at = (x / self._scale, y / self._scale)
        for canvas, colour in self._layers(brush):
            canvas.global_composite_operation = "destination-out" if brush.does == ERASE else "source-over"
            canvas.fill_style = canvas.stroke_style = colour
            canvas.line_width = brush.size * self._scale
            canvas.line_cap = "round"
            canvas.fill_circle(x, y, brush.size * self._scale / 2)
        self._drawing.begin(*at, brush)
        self._at = (x, y)

    def _move(self, x: float, y: float) -> None:
        if not self._drawing.painting or (x, y) == self._at:
            return
        for canvas, _ in self._layers(self._used):
            canvas.stroke_line(*self._at, x, y)
        self._at = (x, y)
        self._drawing.extend(x / self._scale, y / self._scale)

    def _up(self, x: float, y: float) -> None:
        self._move(x, y)
        self._drawing.end()

    def _layers(self, brush: Brush) -> list[tuple[Any, str]]:
        """The canvases that a brush paints, and the colour on each."""
        mask = (self._mask, INK)
        return [mask] if brush.does not in (COLOUR, ERASE) else [mask, (self._sketch, brush.colour)]

    def _wheel(self, down: float) -> None:
        """The wheel over the canvas does not scroll the page (ipycanvas takes it), so it enlarges."""
        self._turned += down
        now = time.monotonic()
        if abs(self._turned) >= WHEEL and now - self._turned_at >= WHEEL_PAUSE:
            self._on_key("out" if self._turned > 0 else "in")
            self._turned, self._turned_at = 0.0, now

    def _key(self, key: str, shift: bool, control: bool, meta: bool) -> None:
        if control or meta:
            asked = {"z": "redo" if shift else "undo", "y": "redo"}.get(key.lower())
        else:
            asked = {"[": "smaller", "]": "larger", "+": "in", "=": "in", "-": "out"}.get(key)
        if asked:
            self._on_key(asked)
