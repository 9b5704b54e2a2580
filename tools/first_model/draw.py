"""Draws a portrait from tags, in flat colours with clean lines. Everything is in units of 1/128 of the picture's side.

The head is drawn in its own coordinates: origin between the eyes, x to the right, y down, the skull about 31 units in radius.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import skia  # type: ignore[import-not-found]

from . import scenery
from .paint import Brush, Colour, closed, line, mix, polygon, shade
from .tags import EYE_COLOURS, HAIR_COLOURS, Tags
from .wear import draw_body, draw_glasses, draw_headgear

SKINS = ((255, 226, 205), (253, 216, 192), (255, 232, 216), (244, 205, 176))
SIZE = 128      # side of a picture, pixels
DRAWN = 256     # side it is drawn at before it is halved: finer lines than drawing at SIZE


class Look:
    """What varies from picture to picture and no tag says: pose, proportions, light."""

    def __init__(self, tags: Tags, rng: random.Random) -> None:
        u = rng.uniform
        self.rng = rng
        close = tags.view == "portrait"
        self.scale = u(1.1, 1.19) if close else u(0.94, 1.0)
        self.x, self.y = 64 + u(-3, 3), (70 if close else 60) + u(-1.5, 1.5)
        self.tilt = u(-6, 6)                # degrees
        self.yaw = u(-1, 1)                 # -1 looks to the left, 1 to the right
        self.gaze = u(-1.2, 1.2), u(-0.5, 0.8)
        self.cheek = u(-1.2, 1.2)
        self.chin = u(-1, 2)
        self.eye_w, self.eye_h = u(8.6, 9.6), u(9.6, 11.2)     # big: the iris must show in latents of 8 x 8 pixels
        self.volume = u(-1, 2.5)            # of the hair
        self.skin: Colour = mix(rng.choice(SKINS), rng.choice(SKINS), u(0, 1))
        self.hair = jitter(HAIR_COLOURS[tags.hair], rng, 9)
        self.iris = jitter(EYE_COLOURS[tags.eye_colour], rng, 9)
        self.side = rng.choice((-1, 1))     # where the ponytail hangs, which eye winks, where the hair parts
        self.fringe = [u(-2, 2) for _ in range(12)]
        self.locks = rng.randint(4, 6)
        self.sweep = u(-5, 5)
        self.lock_end = u(16, 27)
        self.best, self.worst = tags.quality == "best", tags.quality == "worst"


def jitter(colour: Colour, rng: random.Random, amount: float) -> Colour:
    """The colour with a little of it changed, so that no two heads are the same."""
    bright = rng.uniform(-amount, amount)
    return tuple(int(min(255, max(0, c + bright + rng.uniform(-amount, amount) / 2))) for c in colour)     # type: ignore[return-value]


def draw(tags: Tags, seed: int) -> np.ndarray:
    """The picture as uint8 [128, 128, 3]; the same tags and seed always give the same picture."""
    rng = random.Random(seed)
    look = Look(tags, rng)
    pixels = np.zeros((DRAWN, DRAWN, 4), np.uint8)
    surface = skia.Surface(pixels)
    canvas = surface.getCanvas()
    canvas.scale(DRAWN / 128, DRAWN / 128)
    brush = Brush(canvas, wobble=tags.flaw == "sketch" and look.worst, seed=rng.randrange(1 << 30))
    scenery.draw(brush, tags.background, rng, look.best)
    on_head(canvas, look, lambda: back_hair(brush, tags, look))
    draw_body(brush, tags, look)
    on_head(canvas, look, lambda: head(brush, tags, look))
    surface.flushAndSubmit()
    return scenery.finish(pixels[..., :3], tags, rng, SIZE)


def on_head(canvas: skia.Canvas, look: Look, paint: Callable[[], None]) -> None:
    """Runs `paint` in the head's coordinates."""
    canvas.save()
    canvas.translate(look.x, look.y)
    canvas.scale(look.scale, look.scale)
    canvas.rotate(look.tilt)
    paint()
    canvas.restore()


def head(brush: Brush, tags: Tags, look: Look) -> None:
    """Everything in front of the body: neck shadow, face, features, fringe, what is worn on the head."""
    face(brush, look)
    turn = look.yaw * 4.5
    brush.canvas.save()
    brush.canvas.translate(turn, 0)
    cheeks(brush, tags, look)
    mouth(brush, tags, look)
    for side in (-1, 1):
        shut = tags.eyes == "closed eyes" or (tags.eyes == "one eye closed" and side == look.side)
        eye(brush, look, side, shut)
    if tags.glasses:
        draw_glasses(brush, look)
    brush.canvas.restore()
    fringe(brush, tags, look)
    draw_headgear(brush, tags, look)


def face(brush: Brush, look: Look) -> None:
    t, c, chin = look.yaw * 2.5, look.cheek, 29 + look.chin
    outline = closed([(-27, -22), (-27 - c / 2, 2), (-22 - c, 15), (-9 + t, chin - 3), (t, chin), (9 + t, chin - 3), (22 + c, 15),
                      (27 + c / 2, 2), (27, -22), (0, -40)])
    dark = mix(look.skin, (214, 120, 110), 0.45)
    brush.fill(outline, look.skin)
    brush.inside(outline, lambda: brush.fill(closed([(-30, -42), (-30, 2), (-22, -5), (0, -9 + look.volume), (22, -5), (30, 2),
                                                      (30, -42)]), mix(look.skin, dark, 0.55)))
    brush.stroke(outline, mix(dark, (110, 50, 60), 0.55), 0.9)
    brush.stroke(line([(t * 2.2, 12), (t * 2.2 + 0.8 * (1 if look.yaw >= 0 else -1), 12.8)]), dark, 1.2)


def cheeks(brush: Brush, tags: Tags, look: Look) -> None:
    for side in (-1, 1):
        if tags.blush:
            brush.soft((side * 17.5, 13.5), 7, 4.4, (250, 86, 104), 0.95)
            for k in range(3):
                x = side * 17 - 2.6 + 2.4 * k
                brush.stroke(line([(x + 0.9, 11.6), (x - 0.9, 15)]), (226, 64, 84), 0.9)
        elif look.best:
            brush.soft((side * 17, 13), 4.5, 2.6, (255, 150, 140), 0.3)


def mouth(brush: Brush, tags: Tags, look: Look) -> None:
    x, y, w = look.yaw, 20 + look.chin * 0.3, 7 + look.cheek * 0.5
    ink = (150, 52, 58)
    if tags.mouth == "open mouth":
        shape = closed([(x - w, y - 1.8), (x, y - 1), (x + w, y - 1.8), (x + w * 0.62, y + 4.6), (x, y + 7), (x - w * 0.62, y + 4.6)])
        brush.fill(shape, (166, 48, 58))

        def inside() -> None:
            brush.oval((x, y + 6), 4, 3, (242, 122, 122))
            brush.fill(polygon([(x - 6, y - 3), (x + 6, y - 3), (x + 5, y + 0.4), (x - 5, y + 0.4)]), (255, 250, 246))

        brush.inside(shape, inside)
        brush.stroke(shape, ink, 0.9)
    elif tags.mouth == "smile":
        brush.stroke(line([(x - w - 1.2, y - 3), (x - w / 2, y + 1.6), (x, y + 2.4), (x + w / 2, y + 1.6), (x + w + 1.2, y - 3)]),
                ink, 1.7)
        brush.stroke(line([(x - 1.2, y + 5), (x + 1.2, y + 5)]), mix(look.skin, (214, 120, 110), 0.6), 0.8)
    elif tags.mouth == "frown":
        brush.stroke(line([(x - w, y + 4), (x - w * 0.4, y - 0.6), (x + w * 0.4, y - 0.6), (x + w, y + 4)]), ink, 1.7)
    else:
        brush.stroke(line([(x - 2.2, y + 0.4), (x + 2.2, y + 0.4)]), ink, 1.7)


def eye(brush: Brush, look: Look, side: int, shut: bool) -> None:
    """One eye and its brow; `side` is -1 for the picture's left."""
    narrow = 1 - 0.13 * max(0.0, side * look.yaw)
    x, w, h = side * 13.2 * (1 - 0.04 * side * look.yaw), look.eye_w * narrow, look.eye_h
    ink = mix(shade(look.hair, 0.3), (42, 24, 34), 0.7)
    brow_in, brow_out = (-13.4, -14.4) if look.fringe[11] < 0.8 else (-12, -14.8)
    brush.stroke(line([(x - side * w * 0.7, brow_in), (x, -15.4), (x + side * w * 0.9, brow_out + 1)]), shade(look.hair, 0.55), 1.3)
    if shut:
        brush.stroke(line([(x - w, 3.2), (x - w / 2, 6.6), (x, 7.6), (x + w / 2, 6.6), (x + w, 3.2)]), ink, 2.0)
        brush.stroke(line([(x + side * w * 0.9, 3.8), (x + side * (w + 2.6), 4.8)]), ink, 1.4)
        brush.stroke(line([(x + side * w * 0.5, 6.4), (x + side * (w + 0.8), 8.4)]), ink, 1.1)
        return
    top = -h + 1.2
    shape = closed([(x - w, 0), (x - w * 0.62, top + 1.2), (x + 0.5 * side, top), (x + w * 0.7, top + 1.4), (x + w, 0),
                    (x + w * 0.66, h - 1.5), (x, h), (x - w * 0.66, h - 1.5)])
    brush.fill(shape, (255, 255, 255))
    brush.inside(shape, lambda: iris(brush, look, x, w, h))
    brush.stroke(line([(x - w * 0.6, h - 1), (x, h + 0.2), (x + w * 0.6, h - 1)]), mix(ink, look.skin, 0.35), 0.8)
    lash = closed([(x - side * (w + 0.4), -0.5), (x - side * w * 0.55, top + 0.4), (x + side * 0.5, top - 1.5),
            (x + side * w * 0.75, top + 0.2),
                   (x + side * (w + 2.7), -1.2), (x + side * (w + 0.6), 1.8), (x + side * w * 0.62, top + 2.8), (x, top + 1.2),
                   (x - side * w * 0.6, top + 2.4)])
    brush.fill(lash, ink)
    brush.stroke(line([(x - side * w * 0.6, top - 2), (x + side * w * 0.2, top - 3.4), (x + side * w, top - 1.6)]),
            mix(look.skin, ink, 0.5), 0.7)


def iris(brush: Brush, look: Look, x: float, w: float, h: float) -> None:
    gx, gy = x + look.gaze[0], 0.6 + look.gaze[1]
    colour = look.iris
    brush.oval((gx, gy), w * 0.74, h * 0.95, shade(colour, 0.42))
    brush.gradient_oval((gx, gy), w * 0.64, h * 0.87, shade(colour, 0.5), mix(colour, (255, 255, 255), 0.32), colour)
    brush.oval((gx, gy - 0.2), w * 0.26, h * 0.38, shade(colour, 0.26))
    brush.oval((gx, gy + h * 0.58), w * 0.36, h * 0.2, mix(colour, (255, 255, 255), 0.62))
    brush.oval((gx - w * 0.3, gy - h * 0.42), w * 0.27, h * 0.25, (255, 255, 255))
    brush.oval((gx + w * 0.32, gy + h * 0.34), w * 0.14, h * 0.13, (255, 255, 255))
    if look.best:
        brush.oval((gx + w * 0.3, gy - h * 0.3), w * 0.11, h * 0.1, (255, 255, 255))


def back_hair(brush: Brush, tags: Tags, look: Look) -> None:
    """The hair behind the head and body."""
    v, t, colour = look.volume, -look.yaw * 2, shade(look.hair, 0.8)
    ink = shade(look.hair, 0.42)
    ends = {"short hair": 12, "bob cut": 27, "long hair": 95, "twintails": 6, "ponytail": 8}[tags.style]
    wide = {"short hair": 31, "bob cut": 38, "long hair": 40}.get(tags.style, 29) + v
    if tags.style in ("twintails", "ponytail"):
        for side in (-1, 1) if tags.style == "twintails" else (look.side,):
            tail(brush, look, side, high=tags.style == "ponytail")
    wave = look.fringe
    if tags.style == "long hair":
        points = [(-30 - v, -30), (-wide + wave[0], 15), (-wide - 2 + wave[1], 60), (-wide + 4, ends), (wide - 4, ends),
                  (wide + 2 + wave[2], 60), (wide + wave[3], 15), (30 + v, -30), (0, -44 - v)]
    elif tags.style == "bob cut":
        points = [(-31 - v, -28), (-wide, 4), (-wide + 1, 22), (-28, ends + wave[0]), (0, ends + 2), (28, ends + wave[1]),
                (wide - 1, 22), (wide, 4),
                  (31 + v, -28), (0, -44 - v)]
    else:
        points = [(-31 - v, -28), (-wide - 2, -4), (-wide + 2, ends), (-18, ends + 7 + wave[0]), (0, ends + 5), (18, ends + 7 + wave[1]),
                (wide - 2, ends),
                  (wide + 2, -4), (31 + v, -28), (0, -44 - v)]
    shape = closed([(x + t, y) for x, y in points])
    brush.fill(shape, colour)
    brush.inside(shape, lambda: strands(brush, look, wide))
    brush.stroke(shape, ink, 1.2)


def strands(brush: Brush, look: Look, wide: float) -> None:
    """Darker lines that run down the back hair."""
    for k in range(6):
        x = (-1) ** k * (wide - 2 - 4 * (k // 2))
        brush.stroke(line([(x * 0.85, -10), (x + look.fringe[k], 25), (x * 0.97, 60), (x * 0.9 + look.fringe[k], 95)]),
                shade(look.hair, 0.6), 1.0)


def tail(brush: Brush, look: Look, side: int, high: bool) -> None:
    """A bunch of hair: one of the twintails, or the ponytail when `high`."""
    w = [f * 1.4 for f in look.fringe]
    if high:
        points = [(12, -44), (30, -56 + w[0]), (47, -40), (54 + w[1], -8), (46 + w[2], 24), (52 + w[3], 44), (38, 30), (34, 4),
                (34, -18), (24, -32)]
    else:
        points = [(27, -26), (40, -34 + w[0]), (52, -14), (57 + w[1], 18), (50 + w[2], 48), (55 + w[3], 66), (42, 56), (37, 26), (33, -4)]
    shape = closed([(side * x, y) for x, y in points])
    brush.fill(shape, shade(look.hair, 0.9))
    mid = [(side * (x - 7), y + 2) for x, y in points[2:5]]

    def inside() -> None:
        brush.stroke(line(mid), shade(look.hair, 0.66), 1.4)
        brush.stroke(line([(x + side * 3.5, y - 8) for x, y in mid[:2]]), mix(look.hair, (255, 255, 255), 0.4), 2.2)

    brush.inside(shape, inside)
    brush.stroke(shape, shade(look.hair, 0.42), 1.2)


def fringe(brush: Brush, tags: Tags, look: Look) -> None:
    """The cap of hair with the fringe, the locks beside the face, the shine."""
    ink, t, v = shade(look.hair, 0.42), look.yaw * 2, look.volume
    end = {"short hair": 12.0, "bob cut": 22.0}.get(tags.style, look.lock_end)
    for side in (-1, 1):
        f = look.fringe[8 + (side > 0)]
        lock = closed([(side * (31 + v), -22), (side * (31.5 + v), 0), (side * (28.5 + f), end), (side * (24.5 + f), end * 0.45),
                (side * 22, -8), (side * 21, -26)])
        brush.fill(lock, shade(look.hair, 0.93))
        brush.stroke(lock, ink, 1.1)
    tips = []
    for k in range(look.locks + 1):
        x = -27.5 + 55 * k / look.locks
        if k:
            tips.append((x - 27.5 / look.locks + look.sweep + t, -6.5 + look.fringe[k] + 0.004 * x * x))
    points: list[tuple[float, float]] = []
    for k, (x, y) in enumerate(tips):
        points.append((x, y))
        if k + 1 < len(tips):
            points.append(((x + tips[k + 1][0]) / 2 + look.side * 0.8, -14 + look.fringe[k] * 0.7))
    cap = skia.Path()
    cap.moveTo(-31.5 - v, -8)
    cap.cubicTo(-36 - v, -38, -20, -46.5 - v, 0, -46.5 - v)
    cap.cubicTo(20, -46.5 - v, 36 + v, -38, 31.5 + v, -8)
    cap.lineTo(27, -14)
    for x, y in reversed(points):
        cap.lineTo(x, y)
    cap.lineTo(-27, -14)
    cap.close()
    brush.gradient(cap, look.hair, shade(look.hair, 0.9), -46, -4)
    brush.inside(cap, lambda: shine(brush, look, points))
    brush.stroke(cap, ink, 1.2)


def shine(brush: Brush, look: Look, points: list[tuple[float, float]]) -> None:
    """Strands from the parting to the gaps of the fringe, and the ring of light around the head."""
    part = look.side * 5 + look.yaw * 3
    for x, y in points[1::2]:
        brush.stroke(line([(x, y), (x * 0.85 + part * 0.2, -26), (part + x * 0.25, -42)]), shade(look.hair, 0.68), 1.0)
    if look.worst:
        return
    light = mix(look.hair, (255, 255, 255), 0.62 if look.best else 0.4)
    upper = [(-24 + 6 * k, -29 - 0.011 * (24**2 - (-24 + 6 * k) ** 2)) for k in range(9)]
    lower = [(x, y + (4.6 if k % 2 else 2.2) + look.fringe[k] * 0.5) for k, (x, y) in enumerate(upper)]
    shift = -look.yaw * 3
    brush.fill(polygon([(x + shift, y) for x, y in upper + lower[::-1]]), light)
