"""What paints, and where: plain values."""

from __future__ import annotations

from dataclasses import dataclass

MASK, ERASE, COLOUR = "mask", "erase", "colour"     # what a brush does; COLOUR masks what it paints as well
TINT = (240, 48, 140)   # of the mask on the screen: rare in pictures, and seen on light and dark

Box = tuple[int, int, int, int]     # left, top, right, bottom in pixels; right and bottom are outside


@dataclass(frozen=True)
class Brush:
    """What paints: `size` is its diameter in pixels of the picture."""

    does: str = MASK
    size: float = 32.0
    colour: str = "#000000"     # of COLOUR, as CSS writes it
