"""The header of a safetensors file, read and checked before anything is allocated.

The format (huggingface.co/docs/safetensors): eight bytes with the header's length, little-endian; the header, JSON; the tensors,
packed without holes. Everything that the reference implementation refuses is refused here, with a sentence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from nbsd.errors import ModelError
from nbsd.models.weights import (
    ITEM_SIZES,
    LONGEST_HEADER,
    Stored,
    Weights,
    check_file,
    counted,
)

AGAIN = "Download it again."


def open_safetensors(path: Path) -> Weights:
    """Open a safetensors file; raises ModelError with the reason where the header does not fit the file."""
    size = check_file(path)
    header, data = _header(path, size)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise _lie(path, "its __metadata__ is no table of texts")
    tensors = {key: _stored(path, key, entry, data) for key, entry in header.items()}
    _check_layout(path, tensors, data, size)
    return Weights(path, tensors, {str(key): str(value) for key, value in metadata.items()})


def _header(path: Path, size: int) -> tuple[dict[str, Any], int]:
    """The header as JSON says it, and the byte at which the tensors start."""
    with path.open("rb") as file:
        first = file.read(9)
        length = int.from_bytes(first[:8], "little")
        if len(first) < 9 or (first[8:] != b"{" and length > size):
            raise ModelError(
                f"'{path.name}' is no model file that nbsd knows: it starts with {first[:8]!r} and is neither safetensors nor a torch "
                "checkpoint. Download it again, or choose another file."
            )
        if length > LONGEST_HEADER:
            raise _lie(path, f"it claims a header of {counted(length)} bytes")
        if 8 + length > size:
            raise ModelError(
                f"'{path.name}' is cut off: its header alone is {counted(length)} bytes, and the file has {counted(size)}. {AGAIN}"
            )
        file.seek(8)
        raw = file.read(length)
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise _lie(path, f"its header is no JSON ({str(error)[:80]})") from error
    if not isinstance(header, dict):
        raise _lie(path, "its header is no table of tensors")
    return header, 8 + length


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name stands there twice")
    return table


def _stored(path: Path, key: str, entry: Any, data: int) -> Stored:
    try:
        dtype, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        numbers = (*shape, start, end)
    except (TypeError, KeyError, ValueError) as error:
        raise _lie(path, f"the entry of {_short(key)} is incomplete") from error
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise _lie(path, f"the entry of {_short(key)} holds something else than whole numbers from 0 on")
    if not isinstance(dtype, str) or dtype not in ITEM_SIZES:
        raise ModelError(
            f"'{path.name}' holds numbers of type {str(dtype)[:20]!r} ({_short(key)}), which nbsd does not read: "
            "choose a float16 or float32 version of the model."
        )
    if end - start != prod(shape) * ITEM_SIZES[dtype]:
        raise _lie(path, f"{_short(key)} has {counted(end - start)} bytes, its shape {list(shape)[:8]} of {dtype} needs another number")
    return Stored(dtype, shape, data + start)


def _check_layout(path: Path, tensors: Mapping[str, Stored], data: int, size: int) -> None:
    """The tensors follow each other without overlap or hole and end where the file ends."""
    at, before = data, "the header"
    for key, stored in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].nbytes)):
        if stored.start != at:
            how = "overlaps" if stored.start < at else "leaves a hole after"
            raise _lie(path, f"{_short(key)} {how} {before}")
        at, before = at + stored.nbytes, _short(key)
    if at > size:
        raise ModelError(f"'{path.name}' is cut off: its header promises {counted(at)} bytes, and the file has {counted(size)}. {AGAIN}")
    if at < size:
        raise _lie(path, f"it has {counted(size - at)} bytes more than its header says")


def _short(key: str) -> str:
    return key if len(key) <= 100 else key[:97] + "..."


def _lie(path: Path, what: str) -> ModelError:
    return ModelError(f"'{path.name}' is damaged: {what}. {AGAIN}")
