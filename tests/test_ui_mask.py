from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nbsd.ui.brushes import COLOUR, ERASE, MASK, Brush
from nbsd.ui.mask import LEVELS, Drawing, segment

WIDTH, HEIGHT = 40, 30


def drawn(*strokes: tuple[Brush, list[tuple[float, float]]], size: tuple[int, int] = (WIDTH, HEIGHT)) -> Drawing:
    drawing = Drawing(*size)
    for brush, points in strokes:
        paint(drawing, brush, points)
    return drawing


def paint(drawing: Drawing, brush: Brush, points: list[tuple[float, float]]) -> None:
    drawing.begin(*points[0], brush)
    for point in points[1:]:
        drawing.extend(*point)
    drawing.end()


def pixels(drawing: Drawing) -> np.ndarray:
    return np.asarray(drawing.mask)


def distance(x: float, y: float, a: tuple[float, float], b: tuple[float, float]) -> float:
    """From a point to a line from a to b, the slow way."""
    length = math.dist(a, b)
    if length == 0:
        return math.dist((x, y), a)
    along = min(max(((x - a[0]) * (b[0] - a[0]) + (y - a[1]) * (b[1] - a[1])) / length**2, 0), 1)
    return math.dist((x, y), (a[0] + along * (b[0] - a[0]), a[1] + along * (b[1] - a[1])))


# --- exact pixels

@pytest.mark.parametrize(("size", "at", "rows"), [
    (1, (1.5, 1.5), ["....", ".#..", "....", "...."]),
    (0.1, (2.9, 0.2), ["..#.", "....", "....", "...."]),
    (2, (2, 2), ["....", ".##.", ".##.", "...."]),
    (3, (1.5, 1.5), ["###.", "###.", "###.", "...."]),
    (4, (2, 2), [".##.", "####", "####", ".##."]),
    (2, (0, 0), ["#...", "....", "....", "...."]),
    (2, (4, 4), ["....", "....", "....", "...#"]),
    (2, (-9, 2), ["....", "....", "....", "...."]),
    (900, (2, 2), ["####", "####", "####", "####"]),
])
def test_a_dab(size: float, at: tuple[float, float], rows: list[str]) -> None:
    drawing = drawn((Brush(MASK, size), [at]), size=(4, 4))
    assert ["".join("#" if pixel == 255 else "." if pixel == 0 else "?" for pixel in row) for row in pixels(drawing)] == rows


def test_a_straight_stroke() -> None:
    drawing = drawn((Brush(MASK, 2), [(2, 3), (8, 3)]), size=(10, 6))
    assert pixels(drawing).tolist() == [
        [0] * 10, [0] * 10, [0, *[255] * 8, 0], [0, *[255] * 8, 0], [0] * 10, [0] * 10]


COORDINATES = st.floats(-10, 50).map(lambda value: round(value, 2))
POINTS = st.lists(st.tuples(COORDINATES, COORDINATES), min_size=1, max_size=4)
BRUSHES = st.builds(Brush, st.sampled_from([MASK, ERASE, COLOUR]), st.floats(1.01, 30), st.sampled_from(["#ff0000", "#00ff80"]))
STROKES = st.tuples(BRUSHES, POINTS)


@given(STROKES)
def test_a_stroke_is_every_pixel_near_the_line_and_no_other(stroke: tuple[Brush, list[tuple[float, float]]]) -> None:
    brush, points = stroke
    drawing = drawn((Brush(MASK, brush.size), points))
    lines = list(pairwise(points)) or [(points[0], points[0])]
    painted = pixels(drawing)
    for y in range(0, HEIGHT, 2):
        for x in range(y // 2 % 2, WIDTH, 2):
            near = min(distance(x + 0.5, y + 0.5, a, b) for a, b in lines)
            if abs(near - brush.size / 2) > 1e-9:
                assert (painted[y, x] == 255) == (near < brush.size / 2), (x, y)


def test_outside_the_picture_there_is_nothing() -> None:
    assert segment((40, 30), (-50, -50), (-20, 90), 10) is None
    assert segment((40, 30), (60, 5), (70, 5), 4) is None


# --- sequences

ACTIONS = st.one_of(
    STROKES.map(lambda stroke: ("stroke", stroke)),
    st.sampled_from([("clear", None), ("invert", None)]),
    st.tuples(st.integers(-5, 45), st.integers(-5, 35), st.integers(-5, 45), st.integers(-5, 35), BRUSHES).map(lambda box: ("rectangle", box)),
)


def act(drawing: Drawing, action: tuple) -> None:
    match action:
        case "stroke", (brush, points):
            paint(drawing, brush, points)
        case "rectangle", (*box, brush):
            drawing.rectangle(tuple(box), brush)
        case name, _:
            getattr(drawing, name)()


def state(drawing: Drawing) -> tuple[bytes, bytes]:
    return drawing.mask.tobytes(), drawing.sketch.tobytes()


@given(st.lists(ACTIONS, max_size=8), st.data())
def test_undo_and_redo_go_through_every_state(actions: list[tuple], data: st.DataObject) -> None:
    drawing = Drawing(WIDTH, HEIGHT)
    states = [state(drawing)]
    for action in actions:
        act(drawing, action)
        states.append(state(drawing))
    at = len(actions)
    for _ in range(data.draw(st.integers(0, 20))):
        if data.draw(st.booleans()):
            assert drawing.undo() == (at > 0)
            at = max(at - 1, 0)
        else:
            assert drawing.redo() == (at < len(actions))
            at = min(at + 1, len(actions))
        assert state(drawing) == states[at]
        assert drawing.can_undo == (at > 0) and drawing.can_redo == (at < len(actions))
    assert set(np.unique(pixels(drawing))) <= {0, 255}


def test_a_new_change_ends_the_way_forward() -> None:
    drawing = drawn((Brush(size=4), [(5, 5)]), (Brush(size=4), [(20, 20)]))
    drawing.undo()
    paint(drawing, Brush(size=4), [(30, 10)])
    assert not drawing.can_redo and not drawing.redo()
    assert pixels(drawing)[5, 5] == 255 and pixels(drawing)[20, 20] == 0 and pixels(drawing)[10, 30] == 255


def test_as_many_changes_as_promised_can_be_taken_back() -> None:
    drawing = Drawing(WIDTH, HEIGHT)
    for _ in range(LEVELS + 5):
        drawing.invert()
    assert sum(drawing.undo() for _ in range(LEVELS + 5)) == LEVELS


def test_inverting_is_exact() -> None:
    drawing = drawn((Brush(size=9), [(10, 10), (30, 20)]))
    before = pixels(drawing)
    drawing.invert()
    assert (pixels(drawing) == 255 - before).all()
    drawing.invert()
    assert (pixels(drawing) == before).all()


# --- colours, erasing

def test_colour_is_masked_and_erased_with_the_mask() -> None:
    drawing = drawn((Brush(COLOUR, 8, "#ff0000"), [(5, 5), (30, 5)]), (Brush(MASK, 8), [(20, 20)]))
    assert drawing.has_sketch and drawing.sketch.getpixel((20, 5)) == (255, 0, 0, 255) and pixels(drawing)[5, 20] == 255
    assert drawing.sketch.getpixel((20, 20))[3] == 0
    paint(drawing, Brush(ERASE, 100), [(20, 15)])
    assert drawing.empty and not drawing.has_sketch
    drawing.undo()
    assert drawing.has_sketch and not drawing.empty
    drawing.clear()
    assert drawing.empty and not drawing.has_sketch


def test_the_sketch_lies_over_the_picture() -> None:
    drawing = drawn((Brush(COLOUR, 6, "#00ff00"), [(10, 10)]))
    over = drawing.over(Image.new("RGB", (WIDTH, HEIGHT), "blue"))
    assert over.mode == "RGB" and over.size == (WIDTH, HEIGHT)
    assert over.getpixel((10, 10)) == (0, 255, 0) and over.getpixel((30, 20)) == (0, 0, 255)
    assert drawing.over(Image.new("RGB", (8, 8), "blue")).size == (WIDTH, HEIGHT)


def test_the_picture_that_was_given_out_stays_as_it_was() -> None:
    drawing = drawn((Brush(size=6), [(10, 10)]))
    mask = drawing.mask
    drawing.clear()
    assert mask.getpixel((10, 10)) == 255


# --- masks from files

def test_a_mask_is_loaded_whatever_it_looks_like() -> None:
    drawing = Drawing(4, 2)
    grey = Image.fromarray(np.array([[0, 100, 200, 255], [255, 0, 0, 0]], np.uint8))
    drawing.load(grey)
    assert pixels(drawing).tolist() == np.asarray(grey).tolist()        # greys stay: the recipe says whether they are rounded
    drawing.load(Image.merge("RGB", [grey] * 3))
    assert pixels(drawing).tolist() == np.asarray(grey).tolist()
    cut_out = Image.new("RGBA", (4, 2), (0, 0, 0, 255))
    cut_out.putpixel((1, 1), (255, 255, 255, 0))
    drawing.load(cut_out)
    assert pixels(drawing)[1, 1] == 0 and pixels(drawing).sum() == 7 * 255
    drawing.load(Image.new("RGBA", (4, 2), "white"))
    assert (pixels(drawing) == 255).all()
    assert drawing.undo() and drawing.undo() and drawing.undo() and drawing.undo() and drawing.empty


def test_a_mask_of_another_size_is_scaled() -> None:
    drawing = Drawing(40, 20)
    half = Image.new("L", (8, 8))
    half.paste(255, (4, 0, 8, 8))
    drawing.load(half)
    assert (pixels(drawing)[:, :20] == 0).all() and (pixels(drawing)[:, 20:] == 255).all()


# --- telling, and odd orders

def test_changes_are_told_once_each_and_a_stroke_when_it_ends() -> None:
    drawing, told = Drawing(WIDTH, HEIGHT), []
    drawing.watch(lambda: told.append(drawing.can_undo))
    drawing.begin(5, 5, Brush())
    drawing.extend(9, 9)
    assert told == [] and drawing.painting
    drawing.end()
    drawing.invert()
    drawing.undo()
    drawing.reset(10, 10)
    assert told == [True, True, True, False] and drawing.size == (10, 10)


def test_a_brush_that_is_not_down_paints_nothing() -> None:
    drawing = Drawing(WIDTH, HEIGHT)
    drawing.extend(5, 5)
    drawing.end()
    assert drawing.empty and not drawing.can_undo


def test_whatever_comes_in_the_middle_of_a_stroke_ends_it() -> None:
    drawing = Drawing(WIDTH, HEIGHT)
    drawing.begin(5, 5, Brush(size=4))
    drawing.begin(20, 20, Brush(size=4))        # its end was lost on the way
    drawing.undo()
    assert pixels(drawing)[5, 5] == 255 and pixels(drawing)[20, 20] == 0 and not drawing.painting
    drawing.begin(20, 20, Brush(size=4))
    drawing.clear()
    drawing.extend(30, 20)
    assert drawing.empty
