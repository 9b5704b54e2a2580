"""Google Colab: one machine for one session; only a mounted Drive is kept."""

from __future__ import annotations

import sys
from pathlib import Path

CONTENT = Path("/content")
DRIVE = Path("/content/drive/MyDrive")      # there once the user has mounted it


def here() -> bool:
    """True in a Colab kernel, which has its own package loaded before the first cell."""
    return "google.colab" in sys.modules


def models() -> tuple[Path, ...]:
    """The session's own disk first: it is faster, and a model file would fill a free Drive."""
    return (CONTENT / "models", *((DRIVE / "nbsd" / "models",) if DRIVE.is_dir() else ()))


def outputs() -> Path:
    """On the Drive where one is mounted: the session's own disk is gone with the session."""
    return (DRIVE / "nbsd" if DRIVE.is_dir() else CONTENT) / "outputs"
