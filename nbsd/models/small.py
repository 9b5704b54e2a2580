"""Small files (embeddings and the like) read whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nbsd.models.read import Reader
from nbsd.models.weights import Stored, open_weights


def read_small(path: Path) -> Mapping[str, Any]:
    """What a small file holds, its tensors in memory: a pickle's dictionary as it is, a safetensors file's tensors by key.

    Raises ModelError as `open_weights` does.
    """
    weights = open_weights(path)
    tree = weights.tree if isinstance(weights.tree, Mapping) else weights.tensors
    with Reader(weights) as reader:
        return {key: _filled(value, reader) for key, value in tree.items()}


def _filled(value: Any, reader: Reader) -> Any:
    if isinstance(value, Stored):
        return reader.read(value)
    if isinstance(value, Mapping):
        return {key: _filled(one, reader) for key, one in value.items()}
    return value
