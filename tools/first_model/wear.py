"""Clothes, glasses and what sits on the head."""

from __future__ import annotations

from typing import Any

from .paint import Brush, Colour, closed, line, mix, polygon, shade
from .tags import Tags

HATS: tuple[Colour, ...] = ((214, 62, 70), (60, 84, 160), (240, 200, 90), (90, 60, 120))
RIBBONS: tuple[Colour, ...] = ((226, 44, 62), (236, 84, 160), (60, 110, 220), (250, 210, 70))
HOODIES: tuple[Colour, ...] = ((240, 150, 60), (110, 190, 170), (150, 150, 170))
KIMONOS: tuple[Colour, ...] = ((220, 80, 110), (90, 100, 190), (110, 60, 130))
SWEATERS: tuple[Colour, ...] = ((240, 226, 200), (200, 90, 90), (130, 160, 110))


def draw_body(brush: Brush, tags: Tags, look: Any) -> None:
    """Neck and clothes, upright below the head; the head's tilt does not turn them."""
    canvas = brush.canvas
    canvas.save()
    canvas.translate(look.x - look.tilt * 0.25, look.y + 24 * look.scale)
    canvas.scale(look.scale, look.scale)
    neck = polygon([(-6.5, -4), (-7, 14), (-12, 17), (12, 17), (7, 14), (6.5, -4)])
    shadow = mix(look.skin, (214, 120, 110), 0.45)
    lean = look.fringe[10]
    body = closed([(-9, 10), (-22, 14 + lean), (-36, 21), (-42, 44), (-44, 90), (44, 90), (42, 44), (36, 21), (22, 14 - lean), (9, 10),
            (0, 16)])
    brush.fill(neck, look.skin)
    brush.fill(polygon([(-6.5, -4), (-7, 6), (0, 11), (7, 6), (6.5, -4)]), shadow)
    DRESS[tags.clothes](brush, body, look)
    canvas.restore()


def uniform(brush: Brush, body: Any, look: Any) -> None:
    brush.fill(body, (250, 250, 252))
    brush.stroke(body, (96, 96, 120), 1.1)
    for side in (-1, 1):
        brush.fill(polygon([(side * 8, 9), (side * 24, 12), (side * 22, 27), (0, 33), (0, 27)]), (44, 58, 120))
        brush.stroke(line([(side * 21.5, 15), (side * 19, 25), (0, 30.5)]), (255, 255, 255), 0.9)
    brush.fill(polygon([(-8, 9), (8, 9), (0, 27)]), look.skin)
    red = (216, 46, 60)
    for side in (-1, 1):
        brush.fill(closed([(0, 30), (side * 7, 26), (side * 10, 31), (side * 7, 36), (0, 33)]), red)
        brush.fill(polygon([(0, 32), (side * 5, 44), (side * 1, 43)]), shade(red, 0.85))
    brush.oval((0, 31.5), 2.2, 2.4, shade(red, 0.75))


def hoodie(brush: Brush, body: Any, look: Any) -> None:
    colour = look.rng.choice(HOODIES)
    brush.fill(body, colour)
    brush.stroke(body, shade(colour, 0.5), 1.2)
    hood = closed([(-10, 7), (-25, 10), (-22, 20), (0, 29), (22, 20), (25, 10), (10, 7), (0, 18)])
    brush.fill(hood, shade(colour, 0.82))
    brush.stroke(hood, shade(colour, 0.5), 1.1)
    for side in (-1, 1):
        brush.stroke(line([(side * 6, 23), (side * 7, 32), (side * 6, 40)]), (255, 255, 255), 1.4)


def kimono(brush: Brush, body: Any, look: Any) -> None:
    colour = look.rng.choice(KIMONOS)
    brush.fill(body, colour)
    for k in range(7):
        spot = (-33 + 11 * k + look.fringe[k], 28 + 14 * (k % 2) + look.fringe[k + 1])
        for dx, dy in ((0, -2), (1.9, -0.6), (1.2, 1.6), (-1.2, 1.6), (-1.9, -0.6)):
            brush.oval((spot[0] + dx, spot[1] + dy), 1.5, 1.5, (255, 236, 240))
    brush.stroke(body, shade(colour, 0.5), 1.1)
    brush.fill(polygon([(-8, 9), (9, 9), (-2, 30)]), look.skin)
    brush.fill(polygon([(8, 8), (14, 10), (-6, 46), (-12, 42)]), (255, 248, 240))
    brush.fill(polygon([(-8, 8), (-14, 10), (-1, 32), (2.5, 27)]), (255, 248, 240))
    brush.stroke(line([(14, 10), (-6, 46)]), shade(colour, 0.6), 0.9)
    brush.stroke(line([(-14, 10), (-1, 32)]), shade(colour, 0.6), 0.9)


def sweater(brush: Brush, body: Any, look: Any) -> None:
    colour = look.rng.choice(SWEATERS)
    brush.fill(body, colour)
    brush.stroke(body, shade(colour, 0.5), 1.2)
    for k in range(-3, 4):
        brush.stroke(line([(k * 11, 20), (k * 12, 44), (k * 12, 70)]), shade(colour, 0.8), 1.1)
    collar = closed([(-9, 6), (-11, 13), (0, 20), (11, 13), (9, 6), (0, 11)])
    brush.fill(collar, shade(colour, 0.9))
    brush.stroke(collar, shade(colour, 0.5), 1.1)


DRESS = {"school uniform": uniform, "hoodie": hoodie, "kimono": kimono, "sweater": sweater}


def draw_glasses(brush: Brush, look: Any) -> None:
    """Round frames in front of both eyes; call it in the face's turned coordinates."""
    ink = look.rng.choice(((60, 40, 60), (170, 40, 50), (40, 60, 110)))
    for side in (-1, 1):
        x = side * 13
        rim = closed([(x - 10.5, -8), (x + 10.5, -8), (x + 11, 3), (x + 9.5, 12), (x - 9.5, 12), (x - 11, 3)])
        brush.fill(rim, (235, 245, 255), 0.16)
        brush.stroke(rim, ink, 1.5)
        brush.stroke(line([(x - 5.5, 8.5), (x - 2, 9.8)]), (255, 255, 255), 1.0, 0.8)
        brush.stroke(line([(side * 23, -1), (side * 29, -3)]), ink, 1.3)
    brush.stroke(line([(-3, 1), (0, -0.2), (3, 1)]), ink, 1.4)


def draw_headgear(brush: Brush, tags: Tags, look: Any) -> None:
    """What the head wears, in the head's coordinates; twintails and ponytail get their small ties too."""
    if tags.style == "twintails":
        for side in (-1, 1):
            bow(brush, side * (30 + look.volume), -24, 3.4, shade(look.iris, 0.9))
    if tags.headgear != "none":
        WORN[tags.headgear](brush, look)


def hat(brush: Brush, look: Any) -> None:
    colour = look.rng.choice(HATS)
    crown = closed([(-30, -26), (-31, -44), (-20, -58), (0, -61), (20, -58), (31, -44), (30, -26), (0, -34)])
    brush.fill(crown, colour)
    brush.inside(crown, lambda: brush.fill(polygon([(-36, -36), (0, -44), (36, -36), (36, -28), (0, -37), (-36, -28)]), (255, 246, 226)))
    brush.stroke(crown, shade(colour, 0.45), 1.2)
    brim = closed([(-43, -23), (-30, -34), (0, -39.5), (30, -34), (43, -23), (30, -26.5), (0, -31.5), (-30, -26.5)])
    brush.fill(brim, shade(colour, 0.9))
    brush.stroke(brim, shade(colour, 0.45), 1.2)


def bow(brush: Brush, x: float, y: float, size: float, colour: Colour) -> None:
    for side in (-1, 1):
        wing = closed([(x, y), (x + side * size, y - size * 1.1), (x + side * size * 2, y - size * 0.9),
                (x + side * size * 1.9, y + size * 0.9),
                       (x + side * size, y + size * 0.8)])
        brush.fill(wing, colour)
        brush.stroke(wing, shade(colour, 0.5), 1.0)
    brush.oval((x, y), size * 0.42, size * 0.5, shade(colour, 0.8))


def ribbon(brush: Brush, look: Any) -> None:
    bow(brush, look.side * 15, -41 - look.volume * 0.6, 6.8, look.rng.choice(RIBBONS))


def cat_ears(brush: Brush, look: Any) -> None:
    ink = shade(look.hair, 0.42)
    for side in (-1, 1):
        tip = look.fringe[6 + (side > 0)]
        ear = polygon([(side * 9, -43), (side * (25 + tip), -62), (side * 31, -30)])
        brush.fill(ear, look.hair)
        brush.fill(polygon([(side * 14, -42.5), (side * (24 + tip), -56), (side * 27, -36)]), (255, 176, 186))
        brush.stroke(ear, ink, 1.3)
        brush.fill(polygon([(side * 9, -41), (side * 16, -38), (side * 20, -46), (side * 25, -36), (side * 31, -30), (side * 22, -34)]),
                look.hair)


def hairband(brush: Brush, look: Any) -> None:
    colour = look.rng.choice(RIBBONS)
    v = look.volume
    band = closed([(-33 - v, -16), (-30, -34), (-14, -44.5), (0, -46), (14, -44.5), (30, -34), (33 + v, -16), (28 + v, -17), (26, -29),
            (12, -38.5),
                   (0, -40), (-12, -38.5), (-26, -29), (-28 - v, -17)])
    brush.fill(band, colour)
    brush.stroke(band, shade(colour, 0.5), 1.0)
    brush.stroke(line([(-20, -39), (-8, -43), (2, -43.6)]), mix(colour, (255, 255, 255), 0.6), 1.0)


WORN = {"hat": hat, "hair ribbon": ribbon, "cat ears": cat_ears, "hairband": hairband}
