"""Google Colab: one machine for one session; only a mounted Drive is kept."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from nbsd.hosts import machine
from nbsd.hosts.local import hub_cache

ROOT = "NBSD_COLAB_ROOT"        # a variable that names another folder than /content, for tests
# Names of folders that hold models, whatever notebook made them, and of such as never do.
MODELS = frozenset({"models", "model", "checkpoints", "ckpt", "ckpts", "stable-diffusion", "lora", "loras", "lycoris", "embeddings",
                    "hypernetworks", "vae", "esrgan", "upscalers"})
PROGRAMS = frozenset({"venv", "site-packages", "node_modules", "__pycache__", "outputs", "output"})
DEPTH, PATIENCE = 4, 5.0    # levels below the Drive's top, as in sd/webui/models; seconds
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


def elsewhere() -> list[Path]:
    """Folders of a mounted Drive in which other notebooks keep models, by their names. Every look into a folder is a question to the Drive, so
    it goes a few levels deep, the upper ones first, and ends after a few seconds."""
    kept, found = drive() / "nbsd" / "models", []
    if not drive().is_dir():
        return []
    level, end = [drive()], time.monotonic() + PATIENCE
    for _ in range(DEPTH):
        inner = [folder for place in level if time.monotonic() < end for folder in _inside(place)]
        found += [folder for folder in inner if folder.name.lower() in MODELS]
        level = [folder for folder in inner if folder.name.lower() not in MODELS]
    return [*([kept] if kept.is_dir() else []), *(folder for folder in found if folder != kept)]


def _inside(place: Path) -> list[Path]:
    """The folders in a folder; not those that other systems hide, nor what programs are made of."""
    with suppress(OSError), os.scandir(place) as entries:
        return sorted(Path(entry.path) for entry in entries if not entry.name.startswith(".") and entry.name not in PROGRAMS and entry.is_dir())
    return []


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
