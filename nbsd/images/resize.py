"""A picture brought to another size: the web UI's resize modes."""

from __future__ import annotations

from PIL import Image

from nbsd.names import CROP, STRETCH

LANCZOS = Image.Resampling.LANCZOS
Size = tuple[int, int]      # width, height


def resize(image: Image.Image, size: Size, mode: str = STRETCH) -> Image.Image:
    """The picture in another size, by Lanczos: stretched, cut to the new shape, or with its edges drawn out to it.

    Stretched it keeps its mode; otherwise it comes back as RGB. The mode that resizes latents does what "Resize and fill" does here,
    as in the web UI.
    """
    if mode == STRETCH:
        return image.resize(size, LANCZOS)
    fitted = image.resize(_fitted(image.size, size, covers=mode == CROP), LANCZOS)
    left, top = size[0] // 2 - fitted.width // 2, size[1] // 2 - fitted.height // 2
    out = Image.new("RGB", size)
    out.paste(fitted, (left, top))
    if mode != CROP:
        _draw_out(out, fitted, left, top)
    return out


def _fitted(old: Size, new: Size, covers: bool) -> Size:
    """The size in which a picture keeps its shape and covers the new one, or lies in it."""
    shape, new_shape = old[0] / old[1], new[0] / new[1]
    if new_shape > shape if covers else new_shape < shape:
        return new[0], max(1, old[1] * new[0] // old[0])
    return max(1, old[0] * new[1] // old[1]), new[1]


def _draw_out(out: Image.Image, fitted: Image.Image, left: int, top: int) -> None:
    """Draw the outermost rows or columns of `fitted`, which lies in the middle, out to the edges of `out`.

    As the web UI does it, by resizing a box without height or width: which weighs in the row behind the outermost one too.
    """
    width, height = fitted.size
    if top > 0:
        for row, at in ((0, 0), (height, top + height)):
            out.paste(fitted.resize((width, top), box=(0, row, width, row)), (0, at))
    elif left > 0:
        for column, at in ((0, 0), (width, left + width)):
            out.paste(fitted.resize((left, height), box=(column, 0, column, height)), (at, 0))
