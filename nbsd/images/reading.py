"""Pictures from outside: whatever a user has becomes RGB or RGBA, or one sentence says why not."""

from __future__ import annotations

import io
import warnings
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from nbsd.errors import NbsdError
from nbsd.infotext.metadata import BROKEN
from nbsd.picture import Picture

MOST_PIXELS = 8192 * 8192       # in a picture that is read: the largest that can be made
SIXTEEN_BITS = 257              # 65535 / 255: a 16-bit value over this is its byte
_USE = "give a PNG, JPEG or WebP file"


def read_picture(source: str | PathLike[str] | bytes | bytearray | memoryview | Image.Image | Picture) -> Image.Image:
    """The picture as "RGB", or as "RGBA" where something in it is transparent. The source is left as it was.

    `source`: a path, the bytes of a file (a browser's upload), a PIL picture, or a `Picture`. Turned upright where its EXIF data say
    so; of an animation the first frame; CMYK, palettes and 16 bits become 8-bit colours. `info` (texts with a recipe) is kept.
    Raises NbsdError, one sentence, for what cannot be read and for more than `MOST_PIXELS`.
    """
    if isinstance(source, Picture):
        return source.image.convert("RGB")
    if isinstance(source, Image.Image):
        _check_size(source, "this picture")
        return _plain(source, "this picture")
    data, name = _data(source)
    try:
        with warnings.catch_warnings():
            # _check_size is stricter; it speaks before any pixel is read
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                _check_size(image, name)
                image.load()
                return _plain(image, name)
    except Image.DecompressionBombError as error:
        raise NbsdError(f"{name} has far too many pixels: scale it down to at most {MOST_PIXELS // 10**6} million and give it again") from error
    except UnidentifiedImageError as error:
        raise NbsdError(f"{name} is no picture that can be read: {_USE}") from error
    except BROKEN as error:
        raise NbsdError(f"{name} is damaged or was cut short while it was copied: give it again ({_words(error)})") from error


def _data(source: Any) -> tuple[bytes, str]:
    """The bytes of a file, and what to call it in a message."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        if not len(source):
            raise NbsdError(f"this picture is empty (0 bytes): the upload did not come through; {_USE}")
        return bytes(source), "this file"
    if not isinstance(source, (str, PathLike)):
        raise NbsdError(f"a picture was expected, got {type(source).__name__}: give a path, the bytes of a file, or a PIL picture")
    path = Path(source).expanduser()
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        why = "is not there" if isinstance(error, FileNotFoundError) else f"cannot be read ({_words(error)})"
        raise NbsdError(f"{path} {why}: give the path of a picture") from error
    if not data:
        raise NbsdError(f"{path.name} is empty (0 bytes): {_USE}")
    return data, path.name


def _check_size(image: Image.Image, name: str) -> None:
    if image.width * image.height > MOST_PIXELS:
        raise NbsdError(
            f"{name} is {image.width}x{image.height}, more than the {MOST_PIXELS // 10**6} million pixels that can be read: "
            "scale it down and give it again")
    if not image.width or not image.height:
        raise NbsdError(f"{name} is {image.width}x{image.height}, without a pixel: {_USE}")


def _plain(image: Image.Image, name: str) -> Image.Image:
    """8 bits a channel, upright, RGB or RGBA."""
    info = dict(image.info)
    try:
        upright = ImageOps.exif_transpose(image)
    except BROKEN:      # broken EXIF data: the pixels are still good
        upright = image
    plain = _opaque_or_not(_eight_bits(upright, name))
    plain.info = {key: value for key, value in info.items() if key not in ("exif", "transparency")}
    return plain


def _eight_bits(image: Image.Image, name: str) -> Image.Image:
    """Grey of 16 or 32 bits scaled to bytes; Pillow's own conversion would cut it at 255."""
    if image.mode not in ("I", "F") and not image.mode.startswith("I;"):
        return image
    values = np.asarray(image, dtype=np.float64)
    if image.mode == "F":
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 255):
            raise NbsdError(f"{name} has floating-point pixels outside 0 to 255: save it with 8 bits a channel")
        values = values * 255 if values.max() <= 1 else values
    else:
        values = values / SIXTEEN_BITS
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def _opaque_or_not(image: Image.Image) -> Image.Image:
    """RGB, or RGBA where a pixel is not opaque."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.copy()
    if not image.has_transparency_data:
        return image.convert("RGB")
    full = image.convert("RGBA")
    return full.convert("RGB") if full.getchannel("A").getextrema() == (255, 255) else full


def _words(error: BaseException) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:120] or type(error).__name__
