"""The editor's tools, the canvas (with events as a page sends them) and the rectangles. In a real page: test_browser_change.py."""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nbsd.ui import editor as module
from nbsd.ui.brushes import COLOUR, ERASE, MASK, TINT
from nbsd.ui.editor import ZOOMS, Editor
from nbsd.ui.parts import Parts

PICTURE = Image.new("RGB", (100, 80), "blue")


@pytest.fixture
def editor(monkeypatch: pytest.MonkeyPatch) -> Editor:
    pytest.importorskip("ipycanvas")
    monkeypatch.setattr(module, "PATIENCE", 3600.0)
    editor = Editor(Parts(), lambda call: call())
    editor.show(PICTURE)
    editor.open(sketching=False)
    assert not editor.on_canvas and not editor.on_boxes
    editor._pad._mask._handle_frontend_event(None, {"event": "client_ready"}, [])
    assert editor.on_canvas
    return editor


class Canvases:
    """Both canvases of an editor: hears what is sent to them, and does what a page's user does."""

    def __init__(self, editor: Editor, monkeypatch: pytest.MonkeyPatch) -> None:
        from ipycanvas import canvas

        self.pad = editor._pad
        self.names = {number: name for name, number in canvas.COMMANDS.items()}
        self.sent: list[tuple[str, Any]] = []
        monkeypatch.setattr(canvas._CANVAS_MANAGER, "send_command", self._hear)

    def _hear(self, canvas: Any, command: list[Any], buffers: Any = ()) -> None:
        name = self.names[command[0]]
        layer = "mask" if canvas is self.pad._mask else "sketch"
        self.sent.append((f"{layer} {name}", command[1]))

    def tell(self, event: str, **content: Any) -> None:
        self.pad._mask._handle_frontend_event(None, {"event": event, **content}, [])

    def stroke(self, *points: tuple[float, float]) -> None:
        self.tell("mouse_down", x=points[0][0], y=points[0][1])
        for x, y in points[1:]:
            self.tell("mouse_move", x=x, y=y)
        self.tell("mouse_up", x=points[-1][0], y=points[-1][1])

    def drawn(self) -> list[str]:
        return [name for name, _ in self.sent if name.split()[1] not in ("set", "clear")]


@pytest.fixture
def canvases(editor: Editor, monkeypatch: pytest.MonkeyPatch) -> Canvases:
    return Canvases(editor, monkeypatch)


def mask(editor: Editor) -> np.ndarray:
    return np.asarray(editor.drawing.mask)


# --- the canvas

def test_the_mouse_paints_the_same_line_on_the_screen_and_in_the_mask(editor: Editor, canvases: Canvases) -> None:
    editor.brush_size.value = 10
    canvases.stroke((20, 30), (60, 30), (60, 60))
    assert canvases.drawn() == ["mask fillCircle", "mask strokeLine", "mask strokeLine"]
    assert [values for name, values in canvases.sent if name.endswith("strokeLine")] == [[20, 30, 60, 30], [60, 30, 60, 60]]
    assert (mask(editor)[25:35, 20:60] == 255).all() and mask(editor)[24, 40] == 0 and mask(editor)[50, 60] == 255
    assert not editor.undo.disabled and editor.redo.disabled


def test_the_page_is_told_how_the_brush_paints_and_which_strokes_the_kernel_knows(editor: Editor, canvases: Canvases) -> None:
    def told() -> str:
        return editor._style.value.partition("--nbsd-hand: ")[2].partition(" }")[0]

    editor.brush_size.value = 10
    assert told() == "mask 10.00 #f0308c 0 #2a66d9"
    canvases.stroke((20, 30), (60, 30))
    editor.tool.value, editor.colour.value = COLOUR, "#ff8000"
    assert told() == "colour 10.00 #f0308c 1 #ff8000"
    canvases.tell("touch_start", touches=[{"x": 10, "y": 10}])
    editor.undo.click()
    canvases.tell("touch_end", touches=[])
    editor.show(Image.new("RGB", (4096, 2048)))
    assert told() == "colour 42.75 #f0308c 2 #ff8000"


def test_movements_without_a_button_are_dropped(editor: Editor, canvases: Canvases) -> None:
    for x in range(50):
        canvases.tell("mouse_move", x=x, y=20)
    assert canvases.sent == [] and editor.drawing.empty


def test_a_stroke_ends_at_the_edge(editor: Editor, canvases: Canvases) -> None:
    canvases.tell("mouse_down", x=50, y=40)
    canvases.tell("mouse_out", x=101, y=40)
    canvases.tell("mouse_move", x=50, y=70)
    assert mask(editor)[40, 99] == 255 and mask(editor)[70, 50] == 0
    canvases.tell("mouse_up", x=50, y=70)
    editor.undo.click()
    assert editor.drawing.empty


def test_a_finger_paints_and_a_second_one_ends_it(editor: Editor, canvases: Canvases) -> None:
    editor.brush_size.value = 6
    canvases.tell("touch_start", touches=[{"x": 10, "y": 10}])
    canvases.tell("touch_move", touches=[{"x": 40, "y": 10}])
    canvases.tell("touch_start", touches=[{"x": 40, "y": 10}, {"x": 80, "y": 70}])
    canvases.tell("touch_move", touches=[{"x": 40, "y": 60}, {"x": 80, "y": 20}])
    canvases.tell("touch_end", touches=[])
    assert mask(editor)[10, 10:40].all() and not mask(editor)[14:].any()


def test_large_pictures_are_painted_at_a_smaller_scale_and_masked_at_their_own(editor: Editor, canvases: Canvases) -> None:
    editor.show(Image.new("RGB", (4096, 2048)))
    assert (canvases.pad._mask.width, canvases.pad._mask.height) == (1024, 512)
    editor.brush_size.value = 80
    canvases.stroke((100, 100), (200, 100))
    assert editor.drawing.mask.getbbox() == (360, 360, 840, 440)
    assert [values for name, values in canvases.sent if name == "mask fillCircle"] == [[100, 100, 10.0]]


def test_the_eraser_and_colours(editor: Editor, canvases: Canvases) -> None:
    editor.tool.value, editor.colour.value = COLOUR, "#ff8000"
    canvases.stroke((50, 40))
    assert canvases.drawn() == ["mask fillCircle", "sketch fillCircle"]
    assert editor.drawing.sketch.getpixel((50, 40)) == (255, 128, 0, 255)
    canvases.sent.clear()
    editor.tool.value = ERASE
    canvases.stroke((50, 40))
    assert canvases.drawn() == ["mask fillCircle", "sketch fillCircle"]
    assert editor.drawing.empty and not editor.drawing.has_sketch


def test_after_a_reload_everything_is_drawn_again(editor: Editor, canvases: Canvases) -> None:
    canvases.stroke((20, 30), (60, 30))
    canvases.sent.clear()
    editor._pad._mask._canvas_manager._current_canvas = editor._pad._mask
    canvases.tell("client_ready")
    assert editor._pad._mask._canvas_manager._current_canvas is None        # so that the new page is told which canvas is meant
    assert canvases.drawn() == ["mask putImageData"] and editor._pad.ready
    canvases.sent.clear()
    editor.undo.click()
    assert [name for name, _ in canvases.sent if name.endswith("clear")] == ["mask clear", "sketch clear"] and canvases.drawn() == []


@pytest.mark.parametrize(("key", "shift", "control", "left"), [
    ("z", False, True, 1), ("Z", True, True, 2), ("y", False, True, 2), ("z", False, False, 2), ("q", False, True, 2),
])
def test_keys(editor: Editor, canvases: Canvases, key: str, shift: bool, control: bool, left: int) -> None:
    for x in (10, 40):
        canvases.stroke((x, 10))
    canvases.tell("key_down", key=key, shift_key=shift, ctrl_key=control, meta_key=False)
    assert len(editor.drawing._back) == left


def test_keys_and_the_wheel_for_size_and_zoom(editor: Editor, canvases: Canvases) -> None:
    size = editor.brush_size.value
    canvases.tell("key_down", key="]", shift_key=False, ctrl_key=False, meta_key=False)
    assert editor.brush_size.value > size
    for _ in range(30):
        canvases.tell("mouse_wheel", x=0, y=-100)       # a burst of a touch pad is one step
    assert f"width: {ZOOMS[1]:.0%}" in editor._style.value


# --- the tools

def test_zoom_and_opacity(editor: Editor) -> None:
    assert editor.smaller.disabled and not editor.larger.disabled
    for _ in range(9):
        editor.larger.click()
    editor.opacity.value = 0.8
    assert "width: 400%" in editor._style.value and "opacity: 0.80" in editor._style.value and editor.larger.disabled


def test_a_sketch_shows_no_mask_and_has_its_own_tools(editor: Editor) -> None:
    editor.open(sketching=True)
    assert [value for _, value in editor.tool.options] == [COLOUR, ERASE] and editor.brush.does == COLOUR
    assert "opacity: 0.00" in editor._style.value
    editor.open(sketching=False)
    assert editor.brush.does == MASK and "opacity: 0.00" not in editor._style.value


def test_buttons_undo_redo_clear_invert(editor: Editor, canvases: Canvases) -> None:
    canvases.stroke((20, 30), (60, 30))
    painted = mask(editor)
    editor.invert.click()
    assert (mask(editor) == 255 - painted).all()
    editor.clear.click()
    assert editor.drawing.empty and editor.clear.disabled
    editor.undo.click()
    editor.undo.click()
    assert (mask(editor) == painted).all()
    editor.redo.click()
    assert (mask(editor) == 255 - painted).all()


# --- rectangles

def preview(editor: Editor) -> Image.Image:
    return Image.open(io.BytesIO(editor._boxes._preview.value))


def test_rectangles_with_sliders(editor: Editor) -> None:
    editor.other.click()
    assert not editor.on_canvas and editor.other.description == "Brush instead"
    editor._boxes.across.value, editor._boxes.down.value = (10, 90), (5, 75)
    editor._boxes.add.click()
    assert editor.drawing.mask.getbbox() == (10, 5, 90, 75)
    shade = np.asarray(preview(editor))[40, 50].astype(int)
    assert abs(shade - np.round(np.array(TINT) * 0.55 + np.array([0, 0, 255]) * 0.45)).max() <= 6
    editor._boxes.across.value = (20, 80)
    editor._boxes.free.click()
    assert mask(editor)[40, 50] == 0 and mask(editor)[40, 15] == 255
    editor.undo.click()
    assert mask(editor)[40, 50] == 255
    editor.other.click()
    assert editor.on_canvas


def test_another_picture_moves_the_rectangle(editor: Editor) -> None:
    editor.other.click()
    for size in ((4000, 30), (8, 3000), (1, 1)):
        editor.show(Image.new("RGB", size))
        left, top, right, bottom = editor._boxes.box
        assert 0 <= left <= right <= size[0] and 0 <= top <= bottom <= size[1]


# --- which of them

def test_where_no_page_answers_rectangles_come_by_themselves_and_go_when_one_does() -> None:
    editor = Editor(Parts(), lambda call: call())
    editor.show(PICTURE)
    editor.open(sketching=False)
    editor._give_up()
    assert editor.on_boxes and "does not load" in editor._why.value
    assert editor._pad_place.children == ()     # a page that cannot show the canvas would show nothing else in its box, ever
    editor._pad._mask._handle_frontend_event(None, {"event": "client_ready"}, [])
    assert editor.on_canvas and editor._why.value == "" and editor._pad_place.children == (editor._pad.widget,)
    editor._give_up()
    assert editor.on_canvas


def test_who_has_chosen_rectangles_keeps_them(editor: Editor, canvases: Canvases) -> None:
    editor.other.click()
    canvases.tell("client_ready")
    assert not editor.on_canvas


def test_without_ipycanvas_there_are_rectangles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipycanvas", None)
    editor = Editor(Parts(), lambda call: call())
    editor.show(PICTURE)
    editor.open(sketching=False)
    assert editor.on_boxes and "does not load" in editor._why.value
    editor.other.click()
    assert editor.on_boxes


def test_on_colab_rectangles_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    editor = Editor(Parts(), lambda call: call(), cautious=True)
    editor.show(PICTURE)
    editor.open(sketching=False)
    assert editor._pad is None and not editor.on_canvas and "enable_custom_widget_manager" in editor._why.value
