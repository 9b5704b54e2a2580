"""A brush over a skia canvas: smooth shapes, tapered light, and lines that tremble when the drawing is to be bad."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import skia  # type: ignore[import-not-found]

Colour = tuple[int, int, int]
Point = tuple[float, float]


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """`a` moved towards `b`; share 0 is a, 1 is b."""
    return tuple(round(p + (q - p) * share) for p, q in zip(a, b, strict=True))     # type: ignore[return-value]


def shade(colour: Colour, share: float) -> Colour:
    """The colour in shadow: darker, a little towards violet, as painters do."""
    return mix((int(colour[0] * share), int(colour[1] * share), int(colour[2] * share)), (70, 40, 110), 0.18 * (1 - share))


def polygon(points: Sequence[Point]) -> skia.Path:
    """A closed path with straight sides."""
    path = skia.Path()
    path.addPoly([skia.Point(x, y) for x, y in points], True)
    return path


def curve(points: Sequence[Point], close: bool) -> skia.Path:
    """A smooth path: each point is the control of a quadratic curve between the middles of its neighbours."""
    path, n = skia.Path(), len(points)
    middles = [((points[i][0] + points[(i + 1) % n][0]) / 2, (points[i][1] + points[(i + 1) % n][1]) / 2) for i in range(n)]
    if close:
        path.moveTo(*middles[-1])
        for point, middle in zip(points, middles, strict=True):
            path.quadTo(*point, *middle)
        path.close()
        return path
    path.moveTo(*points[0])
    for point, middle in zip(points[1:-2], middles[1:-2], strict=True):
        path.quadTo(*point, *middle)
    if n > 2:
        path.quadTo(*points[-2], *points[-1])
    else:
        path.lineTo(*points[-1])
    return path


def closed(points: Sequence[Point]) -> skia.Path:
    """A smooth closed path near the points."""
    return curve(points, True)


def line(points: Sequence[Point]) -> skia.Path:
    """A smooth open path from the first point to the last."""
    return curve(points, False)


class Brush:
    """Draws on one canvas. With `wobble` every outline trembles."""

    def __init__(self, canvas: skia.Canvas, wobble: bool, seed: int) -> None:
        self.canvas = canvas
        self._tremble = skia.DiscretePathEffect.Make(2.5, 1.1, seed & 0xFFFF) if wobble else None

    def _paint(self, colour: Colour, alpha: float = 1.0) -> skia.Paint:
        return skia.Paint(AntiAlias=True, Color=skia.Color(*colour, round(255 * alpha)))

    def fill(self, path: skia.Path, colour: Colour, alpha: float = 1.0) -> None:
        self.canvas.drawPath(path, self._paint(colour, alpha))

    def stroke(self, path: skia.Path, colour: Colour, width: float, alpha: float = 1.0) -> None:
        paint = self._paint(colour, alpha)
        paint.setStyle(skia.Paint.kStroke_Style)
        paint.setStrokeWidth(width)
        paint.setStrokeCap(skia.Paint.kRound_Cap)
        paint.setStrokeJoin(skia.Paint.kRound_Join)
        if self._tremble:
            paint.setPathEffect(self._tremble)
        self.canvas.drawPath(path, paint)

    def oval(self, centre: Point, rx: float, ry: float, colour: Colour, alpha: float = 1.0) -> None:
        self.canvas.drawOval(skia.Rect(centre[0] - rx, centre[1] - ry, centre[0] + rx, centre[1] + ry), self._paint(colour, alpha))

    def gradient(self, path: skia.Path, top: Colour, bottom: Colour, y0: float, y1: float) -> None:
        paint = skia.Paint(AntiAlias=True)
        paint.setShader(skia.GradientShader.MakeLinear([skia.Point(0, y0), skia.Point(0, y1)], [skia.Color(*top), skia.Color(*bottom)]))
        self.canvas.drawPath(path, paint)

    def gradient_oval(self, centre: Point, rx: float, ry: float, top: Colour, bottom: Colour, middle: Colour) -> None:
        paint = skia.Paint(AntiAlias=True)
        ends = [skia.Point(0, centre[1] - ry), skia.Point(0, centre[1] + ry)]
        paint.setShader(skia.GradientShader.MakeLinear(ends, [skia.Color(*c) for c in (top, middle, bottom)]))
        self.canvas.drawOval(skia.Rect(centre[0] - rx, centre[1] - ry, centre[0] + rx, centre[1] + ry), paint)

    def soft(self, centre: Point, rx: float, ry: float, colour: Colour, alpha: float) -> None:
        """A patch that fades out towards its edge, such as a blush."""
        paint = skia.Paint(AntiAlias=True)
        ends = [skia.Color(*colour, round(255 * alpha)), skia.Color(*colour, 0)]
        paint.setShader(skia.GradientShader.MakeRadial(skia.Point(0, 0), 1, ends))
        self.canvas.save()
        self.canvas.translate(*centre)
        self.canvas.scale(rx, ry)
        self.canvas.drawCircle(0, 0, 1, paint)
        self.canvas.restore()

    def inside(self, path: skia.Path, paint: Callable[[], object]) -> None:
        """Runs `paint` so that it only reaches the inside of the path."""
        self.canvas.save()
        self.canvas.clipPath(path, skia.ClipOp.kIntersect, True)
        paint()
        self.canvas.restore()
