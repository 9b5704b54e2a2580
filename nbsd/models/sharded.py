"""Weights that lie in several files beside an index, which says what tensor lies in which: how diffusers and transformers keep large parts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from nbsd.errors import ModelError
from nbsd.models.weights import Stored, Weights, is_index, open_weights

LONGEST_CONFIG = 1_000_000      # bytes; real ones have a few thousand, an index of SDXL's UNet 200,000
MOST = 1000     # files of one part; real ones have 2 to 10


def open_sharded(index: Path) -> Weights:
    """Open the files that an index names, each checked like any other. Raises ModelError where one lacks, lies elsewhere, or lies."""
    table, shards = _table(index), shards_of(index)
    tensors: dict[str, Stored] = {}
    for path in shards:
        if not path.is_file():
            raise ModelError(f"'{path.name}' is missing, one of {len(shards)} files that '{_where(index)}' lists: download the model whole.")
        for key, stored in open_weights(path).tensors.items():
            if key in tensors:
                raise ModelError(f"'{_where(index)}' is damaged: {key[:80]} stands in two of its files. Download the model again.")
            tensors[key] = replace(stored, file=path)
    if lost := sorted(set(table) - set(tensors)):
        raise ModelError(f"'{_where(index)}' lists {len(lost)} tensors that its files do not hold, e.g. {lost[0][:80]}: download the model again.")
    return Weights(index, tensors)


def shards_of(index: Path) -> list[Path]:
    """The files that an index names, in their order; they need not be there. A name that leads out of its folder is a ModelError."""
    names = sorted(set(_table(index).values()))
    if odd := [name for name in names if not _is_beside(name)]:
        raise ModelError(f"'{_where(index)}' names the file {odd[0][:60]!r}, which is not beside it: download the model again.")
    return [index.parent / name for name in names]


def _is_beside(name: str) -> bool:
    return name not in ("", ".", "..") and not set(name) & {"/", "\\", "\0"} and not is_index(Path(name))


def _table(index: Path) -> dict[str, str]:
    """Tensor -> name of the file that holds it."""
    table = read_json(index).get("weight_map")
    if not isinstance(table, dict) or not table or not all(isinstance(name, str) for name in table.values()) or len(set(table.values())) > MOST:
        raise ModelError(f"'{_where(index)}' does not say which files hold the weights: download the model again.")
    return table


def _where(index: Path) -> str:
    return f"{index.parent.name}/{index.name}"


def read_json(path: Path) -> dict[str, Any]:
    """A table from a small JSON file; empty where there is no such file. Raises ModelError for a broken one."""
    try:
        if path.stat().st_size > LONGEST_CONFIG:
            raise ModelError(f"'{path.parent.name}/{path.name}' is too big to be a config: download it again.")
        table = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"'{path.parent.name}/{path.name}' cannot be read ({str(error)[:80]}): download it again.") from error
    if not isinstance(table, dict):
        raise ModelError(f"'{path.parent.name}/{path.name}' is no table of settings: download it again.")
    return table
