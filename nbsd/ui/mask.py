"""What is painted over a picture: a mask, and a sketch in colours. Plain pixels; whoever shows them draws the same strokes.

A pixel belongs to a stroke when its centre is at most half the brush's size from the line that the hand went: no rounding of another
program's, so what is painted is the same on every screen.
"""

from __future__ import annotations

import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageColor

from nbsd.ui.brushes import COLOUR, ERASE, Box, Brush

LEVELS = 100            # changes that can be taken back
ON, OFF = 255, 0        # a masked pixel, and one that is not


class _Kept(NamedTuple):
    """Both layers at one time, packed: a mask is mostly one value, so a hundred of them are small."""

    mask: bytes
    sketch: bytes | None


class Drawing:
    """A mask [height, width], 0 or 255 where it was painted, and a sketch [height, width, 4], transparent where there is none.

    `begin`, `extend` and `end` paint one stroke; everything else is one change each. `undo` and `redo` go through them. Any thread may
    call; `watch`ers are told of every change that is not a part of a stroke.
    """

    def __init__(self, width: int, height: int) -> None:
        """Sizes in pixels of the picture that is painted on."""
        self._lock = threading.RLock()
        self._watchers: list[Callable[[], None]] = []
        self.strokes = 0            # that were begun and ended, in all
        self.reset(width, height)

    def reset(self, width: int, height: int) -> None:
        """Begin anew, for a picture of this size; nothing of before can be taken back."""
        with self._lock:
            self._mask = np.zeros((height, width), np.uint8)
            self._sketch: np.ndarray | None = None      # most drawings have none, and it is large
            self._before: tuple[np.ndarray, np.ndarray | None] = self._mask, None   # of a stroke
            self._back: deque[_Kept] = deque(maxlen=LEVELS)
            self._forth: list[_Kept] = []
            self._brush: Brush | None = None
            self._at = (0.0, 0.0)
        self._tell()

    # --- what is there

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self._mask.shape[1], self._mask.shape[0]

    @property
    def mask(self) -> Image.Image:
        """The mask, mode L: white is what changes."""
        with self._lock:
            return Image.fromarray(self._mask.copy())

    @property
    def sketch(self) -> Image.Image:
        """The colours, mode RGBA."""
        with self._lock:
            return Image.new("RGBA", self.size) if self._sketch is None else Image.fromarray(self._sketch.copy())

    @property
    def empty(self) -> bool:
        """True while nothing is masked."""
        return not self._mask.any()

    @property
    def has_sketch(self) -> bool:
        """True when there is any colour."""
        return self._sketch is not None and bool(self._sketch[..., 3].any())

    @property
    def can_undo(self) -> bool:
        return bool(self._back)

    @property
    def can_redo(self) -> bool:
        return bool(self._forth)

    @property
    def painting(self) -> bool:
        """True between `begin` and `end`."""
        return self._brush is not None

    def over(self, picture: Image.Image) -> Image.Image:
        """The picture with the sketch on it, as large as the drawing, mode RGB."""
        plain = picture.convert("RGB")
        if plain.size != self.size:
            plain = plain.resize(self.size, Image.Resampling.LANCZOS)
        colours = self.sketch
        plain.paste(colours, mask=colours.getchannel("A"))
        return plain

    def watch(self, changed: Callable[[], None]) -> None:
        """Call `changed` after every finished change."""
        self._watchers.append(changed)

    # --- a stroke

    def begin(self, x: float, y: float, brush: Brush) -> None:
        """Set the brush down at a point of the picture, in pixels from its upper left corner."""
        with self._lock:
            self.end()
            self._before = self._mask.copy(), None if self._sketch is None else self._sketch.copy()     # packed later: a hand waits
            self._brush, self._at = brush, (x, y)
            self._paint((x, y), (x, y))

    def extend(self, x: float, y: float) -> None:
        """Move the brush in a straight line; without one that is down, nothing happens."""
        with self._lock:
            if self._brush is not None:
                self._paint(self._at, (x, y))
                self._at = (x, y)

    def end(self) -> None:
        """Lift the brush."""
        with self._lock:
            if self._brush is None:
                return
            self._brush = None
            self.strokes += 1
            self._keep(*self._before)
        self._tell()

    # --- other changes

    def rectangle(self, box: Box, brush: Brush) -> None:
        """Paint a rectangle as this brush would."""
        left, top, right, bottom = (max(side, 0) for side in box)
        with self._change():
            rows, columns = slice(top, bottom), slice(left, right)
            self._put(brush, rows, columns, np.ones(self._mask[rows, columns].shape, bool))
        self._tell()

    def load(self, mask: Image.Image) -> None:
        """Take over a mask, white or opaque where something changes; one of another size is scaled. Its greys stay."""
        plain = mask.getchannel("A") if _is_cut_out(mask) else mask.convert("L")
        if plain.size != self.size:
            plain = plain.resize(self.size, Image.Resampling.NEAREST)
        with self._change():
            self._mask[:] = np.asarray(plain)
        self._tell()

    def clear(self) -> None:
        """Take all away, colours too."""
        with self._change():
            self._mask[:] = OFF
            self._sketch = None
        self._tell()

    def invert(self) -> None:
        """Mask what is not, and free what is; the colours stay."""
        with self._change():
            np.subtract(ON, self._mask, out=self._mask)
        self._tell()

    def undo(self) -> bool:
        """Take the last change back; False where there is none."""
        return self._step(self._back, self._forth)

    def redo(self) -> bool:
        """Make the change again that was taken back last; False where there is none."""
        return self._step(self._forth, self._back)

    # --- inside

    def _step(self, source: deque[_Kept] | list[_Kept], target: deque[_Kept] | list[_Kept]) -> bool:
        with self._lock:
            self.end()
            if not source:
                return False
            target.append(_packed(self._mask, self._sketch))
            kept = source.pop()
            self._mask = _unpacked(kept.mask, self._mask.shape)
            self._sketch = None if kept.sketch is None else _unpacked(kept.sketch, (*self._mask.shape, 4))
        self._tell()
        return True

    @contextmanager
    def _change(self) -> Iterator[None]:
        """Keep what is there for `undo`, and let nobody else in meanwhile."""
        with self._lock:
            self.end()
            self._keep(self._mask, self._sketch)
            yield

    def _keep(self, mask: np.ndarray, sketch: np.ndarray | None) -> None:
        self._back.append(_packed(mask, sketch))
        self._forth.clear()

    def _paint(self, start: tuple[float, float], stop: tuple[float, float]) -> None:
        assert self._brush is not None
        where = segment(self.size, start, stop, self._brush.size)
        if where is not None:
            self._put(self._brush, *where)

    def _put(self, brush: Brush, rows: slice, columns: slice, inside: np.ndarray) -> None:
        """Paint the pixels of a rectangle that are marked in `inside`."""
        if brush.does == COLOUR:
            if self._sketch is None:
                self._sketch = np.zeros((*self._mask.shape, 4), np.uint8)
            self._sketch[rows, columns][inside] = (*ImageColor.getrgb(brush.colour)[:3], 255)
        elif brush.does == ERASE and self._sketch is not None:
            self._sketch[rows, columns][inside] = 0
        self._mask[rows, columns][inside] = OFF if brush.does == ERASE else ON

    def _tell(self) -> None:
        for changed in self._watchers:
            changed()


def segment(
    size: tuple[int, int], start: tuple[float, float], stop: tuple[float, float], brush: float,
) -> tuple[slice, slice, np.ndarray] | None:
    """The pixels of a picture (`size`: width, height) within half of `brush` of a straight line, as rows, columns and a map of that
    rectangle; None where there are none. A brush smaller than a pixel paints the pixel that it stands in.
    """
    radius = max(brush, 1.0) / 2
    (x0, y0), (x1, y1) = start, stop
    left, right = max(int(min(x0, x1) - radius), 0), min(int(max(x0, x1) + radius) + 1, size[0])
    top, bottom = max(int(min(y0, y1) - radius), 0), min(int(max(y0, y1) + radius) + 1, size[1])
    if left >= right or top >= bottom:
        return None
    x, y = np.arange(left, right) + 0.5, np.arange(top, bottom)[:, None] + 0.5      # the pixels' centres
    dx, dy = x1 - x0, y1 - y0
    length = dx * dx + dy * dy
    along = np.clip(((x - x0) * dx + (y - y0) * dy) / length, 0, 1) if length else 0.0
    inside = (x - x0 - along * dx) ** 2 + (y - y0 - along * dy) ** 2 <= radius * radius
    if brush <= 1 and left <= x1 < right and top <= y1 < bottom:
        inside[int(y1) - top, int(x1) - left] = True
    return slice(top, bottom), slice(left, right), inside


def _packed(mask: np.ndarray, sketch: np.ndarray | None) -> _Kept:
    return _Kept(zlib.compress(mask.tobytes(), 1), None if sketch is None else zlib.compress(sketch.tobytes(), 1))


def _unpacked(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(zlib.decompress(data), np.uint8).reshape(shape).copy()


def _is_cut_out(mask: Image.Image) -> bool:
    """Whether a picture says by its transparency what is masked: it has some, and not the same everywhere."""
    if mask.mode not in ("RGBA", "LA", "PA"):
        return False
    least, most = mask.getchannel("A").getextrema()
    return least != most
