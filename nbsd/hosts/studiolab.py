"""SageMaker Studio Lab: 15 GB of home are kept, with the environment in them; /tmp is larger and gone with the session."""

from __future__ import annotations

from pathlib import Path

from nbsd.hosts.local import hub_cache

HOME, TEMP = Path("/home/studio-lab-user"), Path("/tmp/nbsd/models")


def here() -> bool:
    """True in a session of Studio Lab: its user's home is the same everywhere."""
    return Path.home() == HOME


def models() -> tuple[Path, ...]:
    """New files go to the temporary disk: two checkpoints would fill the home."""
    return (TEMP, HOME / "models", Path.cwd() / "models", hub_cache())


def outputs() -> Path:
    """Beside the notebook, which is in the home."""
    return Path.cwd() / "outputs"
