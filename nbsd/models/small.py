"""Small files (embeddings, hypernetworks and the like) read whole."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from nbsd.errors import ModelError
from nbsd.models.pictured import ENDINGS, pictured_embedding
from nbsd.models.read import Reader
from nbsd.models.weights import MOST_PACKED, Stored, open_weights


def read_small(path: Path) -> Mapping[Any, Any]:
    """What a small file holds, its tensors in memory: a pickle's dictionary as it is, a safetensors file's tensors by key, a
    picture's embedding.

    Raises ModelError as `open_weights` does.
    """
    if path.suffix.lower() in ENDINGS:
        if (found := pictured_embedding(path)) is None:
            raise ModelError(f"the picture '{path.name}' holds no embedding: choose another file.")
        return found
    weights = open_weights(path)
    tree = weights.tree if isinstance(weights.tree, Mapping) else dict(weights.tensors)
    try:
        with closing(Reader(weights)) as reader:
            return _filled(tree, reader, {}, [MOST_PACKED * path.stat().st_size])
    except RecursionError as error:
        raise ModelError(f"'{path.name}' is damaged: it holds something that holds itself. Download it again.") from error


def _filled(value: Any, reader: Reader, done: dict[int, Any], budget: list[int]) -> Any:
    """`done`: what was read already, by identity, so that what stands in the file a thousand times is read once.

    `budget`: the bytes that may still be read, one number; a file can claim the same megabyte for a million tensors.
    """
    if not isinstance(value, (Stored, dict, list, tuple)):
        return value
    if id(value) not in done:
        if isinstance(value, Stored):
            budget[0] -= value.nbytes
            if budget[0] < 0:
                raise ModelError("this file is damaged: its tensors claim more bytes than it has. Download it again.")
            read: Any = reader.read(value)
        elif isinstance(value, dict):
            read = {key: _filled(item, reader, done, budget) for key, item in value.items()}
        else:
            read = type(value)(_filled(item, reader, done, budget) for item in value)
        done[id(value)] = read
    return done[id(value)]
