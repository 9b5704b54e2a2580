"""The small model that comes with the package, by the name "first" wherever a model is named. Made by `tools/first_model`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from nbsd.models.detect import CHECKPOINT
from nbsd.models.families import SD1
from nbsd.models.scan import Entry

NAME = "first"
TITLE = "first (small built-in model)"
SIDE = 128      # pixels; what it was trained at
PROMPT = "masterpiece, best quality, 1girl, blue hair, twintails, green eyes, smile, school uniform, blue sky"
NEGATIVE = "worst quality, low quality"
ABOUT = "The small built-in model draws portraits of 128 x 128 pixels from tags."
FILE = Path(__file__).parent / "data" / "first.safetensors"


def file() -> Path | None:
    """The model's file; None in an install that left it out."""
    return FILE if FILE.is_file() else None


def resolved(source: str | Path) -> str | Path:
    """`source`, or the built-in model's file where it is that model's name and no file is called so."""
    found = file()
    return found if found is not None and str(source).lower() == NAME and not Path(source).is_file() else source


def is_first(title: str | None) -> bool:
    """Whether a recipe's model, "first" or "first [hash]", means the built-in one by its name."""
    return title is not None and title.partition(" [")[0].lower() == NAME


def listed(taken: Iterable[str]) -> list[Entry]:
    """The model as a found file, to be listed after the user's; nothing where one of their titles has its name already."""
    found = file()
    return [Entry(found, TITLE, CHECKPOINT, SD1.name, found.stat().st_size)] if found and NAME not in map(str.lower, taken) else []
