"""Paperspace Gradient: /storage is the team's and kept, /notebooks is the notebook's and kept, /datasets is attached and read-only."""

from __future__ import annotations

import os
from pathlib import Path

from nbsd.hosts.local import hub_cache

NOTEBOOKS, STORAGE, DATASETS = Path("/notebooks"), Path("/storage"), Path("/datasets")


def here() -> bool:
    """True in a Gradient notebook."""
    return any(name.startswith("PAPERSPACE_") for name in os.environ)


def models() -> tuple[Path, ...]:
    """What all notebooks of the team share first: a model file is large."""
    return (STORAGE / "models", NOTEBOOKS / "models", DATASETS, hub_cache())


def outputs() -> Path:
    """Beside the notebook."""
    return NOTEBOOKS / "outputs"
