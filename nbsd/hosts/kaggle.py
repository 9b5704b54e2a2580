"""Kaggle: attached models and data sets are read-only under /kaggle/input, what lies in /kaggle/working is kept."""

from __future__ import annotations

import os
from pathlib import Path

INPUT = Path("/kaggle/input")
TEMP = Path("/kaggle/temp")         # gone with the session, but not counted into the 20 GB of outputs
WORKING = Path("/kaggle/working")


def here() -> bool:
    """True in a Kaggle notebook, interactive or saved."""
    return "KAGGLE_KERNEL_RUN_TYPE" in os.environ


def models() -> tuple[Path, ...]:
    """New files go to the temporary disk; attached ones are found too."""
    return (TEMP / "models", INPUT)


def outputs() -> Path:
    """The folder that Kaggle keeps with the notebook."""
    return WORKING / "outputs"
