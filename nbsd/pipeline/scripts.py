"""What can be done with a given picture besides changing it once, as the panel says it. Plain values; `jobs.py` does it.

The web UI calls these scripts (scripts/loopback.py, scripts/sd_upscale.py) and has a page for folders; names and defaults are its.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from nbsd.errors import NbsdError
from nbsd.infotext.pairs import with_pairs
from nbsd.infotext.text import unquote
from nbsd.names import LANCZOS
from nbsd.pipeline import adetailer
from nbsd.recipe import Recipe

NO_SCRIPT, LOOPBACK, SD_UPSCALE, FOLDER, DETAILS = "None", "Loopback", "SD upscale", "Folder", "Faces and details"
SCRIPTS = (NO_SCRIPT, LOOPBACK, SD_UPSCALE, DETAILS, FOLDER)
OF_WORDS = (NO_SCRIPT, DETAILS)     # those that need no given picture
FINAL_STRENGTH, CURVE = "Final denoising strength", "Denoising curve"       # keys of an infotext
OVERLAP, UPSCALER = "SD upscale overlap", "SD upscale upscaler"
KEYS = (FINAL_STRENGTH, CURVE, OVERLAP, UPSCALER)       # and all that begin with adetailer.PREFIX
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
# How the strength goes from the first to the last loop: share of the way done -> share of the change. The web UI's three curves.
CURVES: dict[str, Callable[[float], float]] = {
    "Linear": lambda share: share,
    "Aggressive": lambda share: math.sin(share * math.pi / 2),
    "Lazy": lambda share: 1 - math.cos(share * math.pi / 2),
}


@dataclass(frozen=True, kw_only=True)
class Script:
    """One of `SCRIPTS`, and the settings of each."""

    kind: str = NO_SCRIPT
    loops: int = 4                  # of loopback
    final_strength: float = 0.5     # of its last loop, 0 to 1
    curve: str = "Linear"           # one of CURVES
    upscaler: str = LANCZOS         # of SD upscale
    scale: float = 2.0
    overlap: int = 64               # pixels, 0 to 256
    detector: str = "mediapipe"     # of the face and detail pass: names or paths (boxes.py), separated by commas
    confidence: float = 0.3         # the least that counts, 0 to 1
    detail_strength: float = 0.4    # its denoising strength, 0 to 1
    detail_prompt: str = ""         # "": the recipe's; see adetailer.chosen
    folder: str = ""                # whose pictures are changed
    masks: str = ""                 # a folder with a mask of the same name for each, or one mask; "": the painted one
    output: str = ""                # the folder that they go to, under their own names; "": where all pictures go
    own_recipes: bool = False       # a picture that carries a recipe is changed by its own


@dataclass(frozen=True, kw_only=True)
class Several:
    """A folder of pictures for extras."""

    folder: str = ""                # "": the one picture that is given
    output: str = ""                # as in Script


def is_of_script(key: str) -> bool:
    """Whether a key of an infotext tells of a script."""
    return key in KEYS or key.startswith(adetailer.PREFIX)


def said(recipe: Recipe) -> dict[str, str]:
    """What an infotext said of a script."""
    return {key: unquote(raw) for key, raw in recipe.unknown if is_of_script(key)}


def from_pairs(pairs: dict[str, str], before: Script) -> Script:
    """The script that an infotext's pairs tell of; settings that it does not say, or that make no sense, are those of `before`."""
    details = adetailer.shown(pairs)
    kind = SD_UPSCALE if OVERLAP in pairs else LOOPBACK if CURVE in pairs else DETAILS if details else NO_SCRIPT
    overlap, curve, last = pairs.get(OVERLAP, ""), pairs.get(CURVE), pairs.get(FINAL_STRENGTH, "")
    if details:
        paths = {adetailer.bare(path): path for path in adetailer.names_in(before.detector)}
        detectors = ", ".join(paths.get(name, name) for name in adetailer.names_in(details["detectors"]))
        before = replace(before, detector=detectors, confidence=details["confidence"], detail_strength=details["strength"],
                         detail_prompt=details["prompt"])
    return replace(
        before, kind=kind, curve=curve if curve in CURVES else before.curve, upscaler=pairs.get(UPSCALER, before.upscaler),
        final_strength=float(last) if last.replace(".", "", 1).isdecimal() else before.final_strength,
        overlap=int(overlap) if overlap.isdecimal() else before.overlap,
    )


def details_in(recipe: Recipe) -> Script | None:
    """The script of details that a recipe tells of, if any."""
    script = from_pairs(said(recipe), Script())
    return script if script.kind == DETAILS else None


def done_by(recipe: Recipe) -> set[str]:
    """The keys of an infotext that a script has an effect for."""
    pairs = said(recipe)
    return {*pairs} - {*adetailer.strange(pairs)}


def details_of(script: Script, recipe: Recipe) -> tuple[adetailer.Detail, ...]:
    """The detail passes that a script says, with what the recipe says of them besides."""
    return adetailer.chosen(script.detector, script.detail_prompt, script.confidence, script.detail_strength, said(recipe))


def left_out(path: Path, error: NbsdError) -> str:
    """A sentence on a picture of a folder that could not be used."""
    return f"{path.name} is left out: {str(error).removeprefix(f'{path.name} is ').rstrip('.')}."


def without(recipe: Recipe, but: str = NO_SCRIPT) -> Recipe:
    """The recipe without what an infotext said of a script. `but`: DETAILS keeps what it said of details."""
    gone = [key for key in said(recipe) if but != DETAILS or key in KEYS]
    return with_pairs(recipe, dict.fromkeys(gone, "")) if gone else recipe


def pictures_in(folder: str | Path) -> list[Path]:
    """The pictures in a folder, by name. Raises NbsdError where there is no such folder or nothing in it."""
    place = Path(folder).expanduser()
    if not place.is_dir():
        raise NbsdError(f"{place} is no folder: give one with pictures in it")
    found = sorted(path for path in place.iterdir() if path.suffix.lower() in ENDINGS and path.is_file())
    if not found:
        raise NbsdError(f"there is no picture in {place}: put PNG, JPEG or WebP files there")
    return found
