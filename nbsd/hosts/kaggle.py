"""Kaggle: attached models and data sets are read-only under /kaggle/input, what lies in /kaggle/working is kept."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from nbsd.hosts import machine
from nbsd.hosts.local import hub_cache
from nbsd.words import duration

ROOT = "NBSD_KAGGLE_ROOT"       # a variable that names another folder than /kaggle, for tests
SESSION = 12 * 60               # minutes that a session with a GPU lasts at most


def root() -> Path:
    """The folder with `input`, `working` and `temp`."""
    return Path(os.environ.get(ROOT) or "/kaggle")


def here() -> bool:
    """True in a Kaggle notebook, interactive or saved."""
    return "KAGGLE_KERNEL_RUN_TYPE" in os.environ


def headless() -> bool:
    """True in a run of "Save Version": nobody looks at it, and it ends when its cells have run."""
    return os.environ.get("KAGGLE_KERNEL_RUN_TYPE") == "Batch"


def models() -> tuple[Path, ...]:
    """New files go to the temporary disk, which is gone with the session but not counted into the 20 GB of outputs; attached ones are found."""
    return (root() / "temp" / "models", root() / "input", hub_cache())


def outputs() -> Path:
    """The folder that Kaggle keeps with the notebook."""
    return root() / "working" / "outputs"


def notes() -> Iterator[str]:
    """What Kaggle's page does not say, or says elsewhere."""
    names = machine.gpus()
    if any("P100" in name for name in names):
        yield "This session has a P100, which today's PyTorch does not support: choose the accelerator GPU T4 x2 (Settings, Accelerator)."
    elif not names:
        yield "This session has no GPU, so a picture takes minutes: choose the accelerator GPU T4 x2 (Settings, Accelerator)."
    if not machine.online():
        yield ("The internet is off: models come from Add Input (attached under /kaggle/input), or switch Settings, Turn on internet; "
               "that needs a verified phone number.")
    left = SESSION - machine.minutes_up()
    if names and left < SESSION:
        yield (f"{duration(max(left, 0) * 60)} of this 12-hour session are left. Pictures in {outputs()} are kept once you press Save Version.")
    if headless():
        yield "This is a saved run: nobody can press Generate. Pictures come from cells with studio.generate(...)."
