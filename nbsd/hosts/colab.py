"""Google Colab: one machine for one session; only a mounted Drive is kept."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from nbsd.hosts import machine
from nbsd.hosts.local import hub_cache

ROOT = "NBSD_COLAB_ROOT"        # a variable that names another folder than /content, for tests
MOUNT = "from google.colab import drive; drive.mount('/content/drive')"

_managed = False


def content() -> Path:
    """The session's own folder, gone with the session."""
    return Path(os.environ.get(ROOT) or "/content")


def drive() -> Path:
    """The user's Drive; there once it is mounted."""
    return content() / "drive" / "MyDrive"


def here() -> bool:
    """True in a Colab kernel, which has its own package loaded before the first cell."""
    return "google.colab" in sys.modules


def models() -> tuple[Path, ...]:
    """The session's own disk first: it is faster, and a model file would fill a free Drive."""
    kept = (drive() / "nbsd" / "models",) if drive().is_dir() else ()
    return (content() / "models", *kept, hub_cache())


def outputs() -> Path:
    """On the Drive where one is mounted: the session's own disk is gone with the session."""
    return (drive() / "nbsd" if drive().is_dir() else content()) / "outputs"


def notes() -> Iterator[str]:
    """What Colab's page does not say, or says elsewhere."""
    if not machine.gpus():
        yield "This runtime has no GPU, so a picture takes minutes: choose Runtime, Change runtime type, T4 GPU, and run the cells again."
    if not drive().is_dir():
        yield (f"Pictures go to {outputs()} and are gone when the runtime ends. To keep them, run in a cell, before Studio(): {MOUNT}")


def third_party() -> None:
    """Switch on Colab's manager of widgets that are not ipywidgets' own. It is for the whole session and draws all widgets by other code, so it
    stays off until such a widget is shown."""
    global _managed
    if _managed:
        return
    with suppress(ImportError, AttributeError):
        from google.colab import output

        output.enable_custom_widget_manager()
        _managed = True
