"""Embeddings inside pictures: the web UI saves them as cards that are shown and shared like any picture.

Two kinds are about. Newer PNGs carry the embedding as a text, base64 of JSON. Every card carries it in its pixels too: in the lower
four bits of the columns left of the card's picture stand the lower halves of the bytes, right of it the upper halves, each
mixed with a fixed row of numbers; together they are JSON, packed with zlib. A column of black parts each from the picture.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from nbsd.errors import ModelError

if TYPE_CHECKING:
    from PIL.Image import Image

ENDINGS = (".png", ".webp")
FOLDER, PREVIEW = "embeddings", ".preview"
TEXT = "sd-ti-embedding"        # the PNG's key
TENSOR = "TORCHTENSOR"          # the JSON's key of what is a tensor: nested lists of numbers
# The numbers that the pixels are mixed with: seed = (seed * 1664525 + 1013904223) mod 2^32 from 0 on (the generator of Numerical
# Recipes), each modulo 255.
FACTOR, SUMMAND, MODULUS, REST = 1664525, 1013904223, 2**32, 255
NIBBLE = 0x0F
MOST_PIXELS = 64 * 1024 * 1024  # of a picture that is looked at; cards have less than one million
MOST_BYTES = 64 * 1024 * 1024   # unpacked


def pictured_embedding(path: Path) -> Mapping[str, Any] | None:
    """What the embedding in a picture says, its tensors as tensors; None where there is none. Raises ModelError for a broken one."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                return None
            said = getattr(picture, "text", {}).get(TEXT)
            raw = base64.b64decode(said) if said else in_pixels(picture)
        return None if raw is None else _read(raw)
    except Image.DecompressionBombError:
        return None
    except (OSError, SyntaxError) as error:
        raise ModelError(f"'{path.name}' is a broken picture ({str(error)[:80]}): download it again.") from error
    except (ValueError, TypeError, RecursionError, binascii.Error) as error:
        raise ModelError(f"the embedding in the picture '{path.name}' is damaged ({str(error)[:80]}): download it again.") from error


def pictured_name(path: Path) -> str | None:
    """The name by which the embedding in a picture stands in prompts: its own, or else the file's; None where there is none."""
    try:
        found = pictured_embedding(path)
    except ModelError:
        return None
    return str(found.get("name") or path.stem) if found else None


def pictured_in(folders: Iterable[Path]) -> dict[str, Path]:
    """The embeddings in the pictures of folders called "embeddings", by their names in prompts; `folders`: these, or the ones above.

    Only there pictures are looked at: everywhere else they are what was made with a model, and there may be thousands.
    """
    places = {place for folder in folders for place in (folder, folder / FOLDER) if place.name.lower() == FOLDER and place.is_dir()}
    found: dict[str, Path] = {}
    for path in sorted(path for place in places for path in place.rglob("*")):
        if path.suffix.lower() in ENDINGS and not path.stem.lower().endswith(PREVIEW) and path.is_file():
            stat = path.stat()
            if name := _name_then(path, stat.st_size, stat.st_mtime_ns):
                found.setdefault(name, path)
    return found


@lru_cache(maxsize=1000)
def _name_then(path: Path, _size: int, _time: int) -> str | None:
    """The name in a picture as it was then."""
    return pictured_name(path)


def in_pixels(picture: Image) -> bytes | None:
    """The bytes in a card's pixels; None where the picture is no card."""
    pixels = np.asarray(picture.convert("RGB"))     # [height, width, 3]
    rows, columns = np.flatnonzero(pixels.any(axis=(1, 2))), np.flatnonzero(pixels.any(axis=(0, 2)))
    if not len(rows):
        return None
    low_bits = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] & NIBBLE
    black = np.flatnonzero(~low_bits.any(axis=(0, 2)))
    if len(black) < 2:
        return None
    lower, upper = _unmixed(low_bits[:, : black[0]]), _unmixed(low_bits[:, black[-1] + 1 :])
    if lower.shape != upper.shape or not lower.size:
        return None
    unpack = zlib.decompressobj()
    try:
        return unpack.decompress(((upper << 4) | lower).tobytes(), MOST_BYTES)
    except zlib.error:      # some other picture with black columns
        return None


def _unmixed(block: np.ndarray) -> np.ndarray:
    numbers = np.empty(block.size, dtype=np.uint8)
    seed = 0
    for place in range(block.size):
        seed = (seed * FACTOR + SUMMAND) % MODULUS
        numbers[place] = seed % REST
    return block ^ (numbers.reshape(block.shape) & NIBBLE)


def _read(raw: bytes) -> Mapping[str, Any]:
    table = json.loads(raw, object_hook=_tensor)
    if not isinstance(table, dict):
        raise ValueError("it is no table")
    return table


def _tensor(table: dict[str, Any]) -> dict[str, Any] | Tensor:
    return torch.tensor(table[TENSOR], dtype=torch.float32) if TENSOR in table else table
