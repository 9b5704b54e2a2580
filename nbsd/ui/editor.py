"""The mask editor: tools, the canvas, and, where the canvas does not load, rectangles from core widgets.

A page that cannot load other people's widgets leaves a box that holds one empty for ever, whatever it holds later. So the canvas has a
box of its own, and gets into it only when a page has said that it is there, or when the user asks for it.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

import ipywidgets as w
from PIL import Image

from nbsd.hosts import this_host
from nbsd.ui.brushes import COLOUR, ERASE, MASK, Brush
from nbsd.ui.controls import set_tip
from nbsd.ui.parts import Parts

if TYPE_CHECKING:
    from nbsd.ui.boxes import Boxes
    from nbsd.ui.mask import Drawing
    from nbsd.ui.pad import Pad

PATIENCE = 5.0          # seconds from the first look at the canvas until rectangles take its place
LARGEST = 400           # pixels: the brush's size
ZOOMS = (1.0, 1.5, 2.0, 3.0, 4.0)
NO_CANVAS = "The canvas does not load on this page (it needs the widgets of ipycanvas), so here are rectangles; a mask file works, too."
ON_COLAB = ("With a brush: run <code>from google.colab import output; output.enable_custom_widget_manager()</code> in a cell, show the panel "
            "again and press Brush instead.")
TOOLS = (("Brush", MASK), ("Eraser", ERASE), ("Colour", COLOUR))
SKETCH_TOOLS = (("Brush", COLOUR), ("Eraser", ERASE))

_NUMBERS = itertools.count(1)       # of editors in this kernel: each has its own style rule


class Editor:
    """What is painted over a picture, and the tools for it. `drawing` holds the pixels."""

    def __init__(self, parts: Parts, post: Callable[[Callable[[], None]], None], cautious: bool = False) -> None:
        """`post` runs something that writes to the screen, from any thread. `cautious`: other people's widgets seldom load here (Colab),
        and no thread can write to the screen after a while, so begin with the rectangles."""
        self._parts, self._post, self._cautious = parts, post, cautious
        self._name = f"nbsd-editor-{next(_NUMBERS)}"
        self._picture: Image.Image | None = None
        self._pad: Pad | None = None
        self._boxes: Boxes | None = None
        self._opened = self._chosen = False     # was it ever on the screen; did the user choose between canvas and rectangles?
        self.on_canvas = self.on_boxes = False  # what is shown; neither while a page is asked for the canvas
        self._sketching = False
        self._zoom = 0
        self._make_widgets()
        self._connect()

    @cached_property
    def drawing(self) -> Drawing:
        """The pixels. numpy is imported here, long after the panel is on the screen."""
        from nbsd.ui.mask import Drawing

        drawing = Drawing(8, 8)
        drawing.watch(self._follow)
        return drawing

    @property
    def brush(self) -> Brush:
        """What paints now."""
        return Brush(self.tool.value, self.brush_size.value, self.colour.value)

    def show(self, picture: Image.Image) -> None:
        """Begin anew on a picture. What is transparent in it is masked from the start, as in the web UI."""
        self._picture = picture
        self.drawing.reset(*picture.size)
        self.brush_size.value = min(max(round(min(picture.size) / 12), 8), LARGEST)
        if picture.mode in ("RGBA", "LA", "PA") and picture.getchannel("A").getextrema()[0] == 0:
            self.drawing.load(picture.getchannel("A").point([255] + [0] * 255))
        self._draw_anew()

    def open(self, sketching: bool) -> None:
        """The editor is on the screen now: for a sketch in colours, or for a mask."""
        if sketching != self._sketching:
            self._sketching = sketching
            self.tool.options = SKETCH_TOOLS if sketching else TOOLS
            self.tool.index = 0
        self._dress()
        if not self._opened:
            self._opened = True
            if self._cautious:
                self._use_boxes(ON_COLAB)
            elif self._make_pad():
                timer = threading.Timer(PATIENCE, lambda: self._post(self._give_up))
                timer.daemon = True
                timer.start()
            else:
                self._use_boxes(NO_CANVAS)

    def load_mask(self, mask: Image.Image) -> None:
        """Take over a mask from a file."""
        self.drawing.load(mask)
        self.redraw()

    def redraw(self) -> None:
        """Draw what the drawing has."""
        if self._pad is not None:
            self._pad.redraw()
        if self._boxes is not None:
            self._boxes.redraw()

    # --- canvas or rectangles

    def _make_pad(self) -> bool:
        """Offer the canvas to the page, which answers when it has loaded it; False where ipycanvas is not installed."""
        if self._pad is None:
            this_host().third_party()
            try:
                from nbsd.ui.pad import Pad

                self._pad = Pad(self._parts, self.drawing, lambda: self.brush, self._pad_is_ready, self._asked)
            except ImportError:
                return False
        return True

    def _use_canvas(self) -> None:
        if not self._make_pad():
            self._use_boxes(NO_CANVAS)
            return
        assert self._pad is not None
        self._pad_place.children = (self._pad.widget,)
        self._choose(canvas=True)

    def _use_boxes(self, why: str = "") -> None:
        if self._boxes is None:
            from nbsd.ui.boxes import Boxes

            self._boxes = Boxes(self._parts, self.drawing, lambda: self.brush)
            self._draw_anew()       # before it is shown, so that no page shows an empty picture
            self._boxes_place.children = (self._boxes.widget,)
        self._choose(canvas=False, why=why)

    def _choose(self, canvas: bool, why: str = "") -> None:
        self.on_canvas, self.on_boxes = canvas, not canvas
        self._why.value = f"<div>{why}</div>" if why else ""
        self.other.description = "Rectangles instead" if canvas else "Brush instead"
        self._draw_anew()
        self._dress()

    def _pad_is_ready(self) -> None:
        """A page has loaded the canvas. It takes the rectangles' place, unless the user has chosen them."""
        if not self.on_canvas and not self._chosen:
            self._use_canvas()

    def _give_up(self) -> None:
        if not self.on_canvas and not self.on_boxes:
            self._use_boxes(NO_CANVAS)

    def _switch(self) -> None:
        self._chosen = True
        if self.on_canvas:
            self._use_boxes()
        else:
            self._use_canvas()

    def _draw_anew(self) -> None:
        if self._picture is None:
            return
        if self._pad is not None:
            self._pad.show(self._picture)
            self._dress()       # the brush's width on the canvas has changed
        if self._boxes is not None:
            self._boxes.show(self._picture)

    # --- the tools

    def _make_widgets(self) -> None:
        parts = self._parts
        self.tool = parts.make(w.ToggleButtons, "nbsd-tool", options=TOOLS, value=MASK)
        self.brush_size = parts.make(
            w.IntSlider, "nbsd-control", "nbsd-brush-size", description="Brush size", min=1, max=LARGEST, value=40)
        self.colour = parts.make(w.ColorPicker, "nbsd-control", "nbsd-colour", description="Colour", value="#2a66d9", concise=True)
        self.opacity = parts.make(
            w.FloatSlider, "nbsd-control", "nbsd-opacity", description="Opacity of the mask", min=0.1, max=1.0, step=0.05, value=0.55,
            readout_format=".0%")
        self.undo = parts.button("Undo", "nbsd-undo", "Take the last change back (Ctrl+Z on the picture)")
        self.redo = parts.button("Redo", "nbsd-redo", "Make it again (Ctrl+Y)")
        self.clear = parts.button("Clear", "nbsd-clear", "Take everything away")
        self.invert = parts.button("Invert", "nbsd-invert", "Mask what is not masked, and free what is")
        self.smaller = parts.button("−", "nbsd-zoom-out", "Smaller (- on the picture)")
        self.larger = parts.button("+", "nbsd-zoom-in", "Larger (+ on the picture, or the wheel)")
        self._zoomed = parts.html("nbsd-zoomed", "100%")
        self.other = parts.button("Rectangles instead", "nbsd-other-way", "Mask with the brush, or with rectangles")
        self._style, self._why = parts.html("nbsd-sheet"), parts.html("nbsd-hint")
        self._pad_place, self._boxes_place = parts.make(w.Box, "nbsd-place"), parts.make(w.Box, "nbsd-boxes-place")
        hand = parts.row(self.tool, self.colour, name="nbsd-hand")
        sizes = parts.row(self.brush_size, self.opacity, name="nbsd-sliders")
        steps = parts.row(self.undo, self.redo, self.clear, self.invert, name="nbsd-steps")
        below = parts.row(parts.row(self.smaller, self._zoomed, self.larger, name="nbsd-zooming"), self.other, name="nbsd-below")
        self.widget = parts.column("nbsd-editor", self._style, hand, sizes, steps, self._pad_place, self._boxes_place, below, self._why)
        self.widget.layout = w.Layout()     # its own: it comes and goes
        self.widget.add_class(self._name)

    def _connect(self) -> None:
        self.undo.on_click(lambda _: self._asked("undo"))
        self.redo.on_click(lambda _: self._asked("redo"))
        self.clear.on_click(lambda _: self._asked("clear"))
        self.invert.on_click(lambda _: self._asked("invert"))
        self.smaller.on_click(lambda _: self._asked("out"))
        self.larger.on_click(lambda _: self._asked("in"))
        self.other.on_click(lambda _: self._switch())
        for control in (self.tool, self.brush_size, self.colour, self.opacity):
            control.observe(lambda _: self._dress(), "value")
        set_tip(self.brush_size, "Pixels of the picture; [ and ] on the picture change it")

    def _asked(self, what: str) -> None:
        """What a key, the wheel or a button asks for."""
        match what:
            case "undo" | "redo" | "clear" | "invert":
                getattr(self.drawing, what)()
                self.redraw()
            case "smaller" | "larger":
                step = max(self.brush_size.value // 6, 1)
                self.brush_size.value += step if what == "larger" else -step
            case "in" | "out":
                self._zoom = min(max(self._zoom + (1 if what == "in" else -1), 0), len(ZOOMS) - 1)
                self._dress()

    def _follow(self) -> None:
        """The buttons can do what there is to do."""
        drawing = self.drawing
        self.undo.disabled, self.redo.disabled = not drawing.can_undo, not drawing.can_redo
        self.clear.disabled = drawing.empty and not drawing.has_sketch
        self._dress()

    def _dress(self) -> None:
        """Zoom, opacity and what belongs to the tool."""
        zoom = ZOOMS[self._zoom]
        shade = 0.0 if self._sketching else self.opacity.value
        hand = f"--nbsd-hand: {self._pad.hand}" if self._pad is not None else ""
        self._style.value = (f"<style>.{self._name} .nbsd-pad {{ width: {zoom:.0%} }} "
                             f".{self._name} .nbsd-pad-mask {{ opacity: {shade:.2f}; {hand} }}</style>")
        self._zoomed.value = f"{zoom:.0%}"
        self.smaller.disabled, self.larger.disabled = self._zoom == 0, self._zoom == len(ZOOMS) - 1
        set_class(self.widget, "nbsd-on-canvas", self.on_canvas)
        set_class(self.widget, "nbsd-on-boxes", self.on_boxes)
        set_class(self.widget, "nbsd-sketching", self._sketching)
        set_class(self.widget, "nbsd-colouring", self.tool.value == COLOUR)


def set_class(widget: w.DOMWidget, name: str, on: bool) -> None:
    """Give a widget a CSS class, or take it away."""
    if on:
        widget.add_class(name)
    else:
        widget.remove_class(name)
