"""What was pasted (an infotext, a picture that carries one, a path to either) becomes a recipe and a report."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nbsd import infotext
from nbsd.errors import RecipeError
from nbsd.pipeline import adetailer
from nbsd.pipeline.scripts import DETAILS, NO_SCRIPT, Script, from_pairs, is_of_script, said
from nbsd.recipe import Recipe
from nbsd.ui.controls import LABELS
from nbsd.ui.form import changed_fields

LONGEST_PATH = 1024             # characters; anything longer is a text
PICTURES = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"GIF8")     # how PNG, JPEG, WebP and GIF files begin
SETTINGS = "Steps"              # every text with settings has this key
PROMPTS = ("prompt", "negative_prompt")


@dataclass(frozen=True)
class Report:
    """What was understood of something pasted."""

    recipe: Recipe
    understood: tuple[tuple[str, str], ...]     # (name, value) of all that differs from a new recipe
    unknown: tuple[str, ...]                    # keys that are kept but have no effect
    notes: tuple[str, ...] = ()                 # sentences the user should read
    complete: bool = True                       # False: there were only prompts in it

    def __str__(self) -> str:
        lines = [", ".join(f"{name}: {value}" for name, value in self.understood) or "nothing but defaults"]
        if self.unknown:
            lines.append(f"kept without effect: {', '.join(self.unknown)}")
        return "\n".join([*lines, *self.notes])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return "<br>".join(html.escape(line) for line in str(self).splitlines())


def read(source: str | bytes | os.PathLike[str], before: Recipe) -> Report:
    """Understand what was pasted. A text without settings changes only the prompts of `before`.

    Raises RecipeError where there is nothing to read.
    """
    text = _text(source)
    if not text.strip():
        raise RecipeError("nothing was pasted: copy the text below a picture (prompt, negative prompt, Steps: ...), or give a PNG file")
    recipe = infotext.read(text)
    notes: tuple[str, ...] = ()
    if SETTINGS not in infotext.parse(text):
        recipe = replace(before, prompt=recipe.prompt, negative_prompt=recipe.negative_prompt)
        notes = ("there are no settings in this text, so only the prompts were filled in",)
        return Report(recipe, tuple((LABELS[name], getattr(recipe, name)) for name in PROMPTS if getattr(recipe, name)), (), notes, complete=False)
    strange = adetailer.strange(said(recipe))
    notes = (adetailer.NOT_DONE.format(", ".join(strange)),) if strange else ()
    unknown = tuple(key for key, _ in recipe.unknown if not is_of_script(key))
    return Report(recipe, (*_understood(recipe), *_script(recipe)), unknown, notes)


def picture(source: str | bytes | os.PathLike[str]) -> bytes | None:
    """The file of the picture that was pasted, whether or not it carries a recipe; None for a text."""
    path = _path(source) if isinstance(source, str) else source
    if path is None:
        return None
    try:
        data = bytes(path) if isinstance(path, (bytes, bytearray, memoryview)) else Path(path).read_bytes()
    except OSError:
        return None     # `read` says why
    return data if data.startswith(PICTURES) else None


def uploaded(value: Any) -> list[tuple[str, bytes]]:
    """Name and content of the files in a FileUpload: a dict in ipywidgets 7, a tuple of dicts in 8."""
    if isinstance(value, dict):
        return [(name, bytes(file["content"])) for name, file in value.items()]
    return [(file["name"], bytes(file["content"])) for file in value]


def empty(upload: Any) -> None:
    """Forget the uploaded files, so that the same one can be given again."""
    if isinstance(upload.value, dict):      # ipywidgets 7: the value is read-only, but the dict is not
        upload.value.clear()
        upload._counter = 0
    else:
        upload.value = ()


def _understood(recipe: Recipe) -> Sequence[tuple[str, str]]:
    """Never without the fields that every picture has, whether they differ from a new recipe's or not."""
    always = ("steps", "sampler", "cfg_scale", "seed", "width", "height")
    names = [name for name in changed_fields(recipe) if name not in ("unknown", "version", *PROMPTS)]
    named = [*dict.fromkeys((*always, *names))]
    return [(LABELS.get(name, name), str(getattr(recipe, name))) for name in named]


def _script(recipe: Recipe) -> Sequence[tuple[str, str]]:
    """The script that the text tells of, if any."""
    script = from_pairs(said(recipe), Script())
    return [] if script.kind == NO_SCRIPT else [("Script", f"{script.kind}: {script.detector}" if script.kind == DETAILS else script.kind)]


def _text(source: str | bytes | os.PathLike[str]) -> str:
    if isinstance(source, str):
        path = _path(source)
        if path is None:
            return source
    elif isinstance(source, (bytes, bytearray, memoryview)):
        return _of_bytes(bytes(source), "this file")
    else:
        path = Path(source)
    try:
        return _of_bytes(path.read_bytes(), path.name)
    except OSError as error:
        raise RecipeError(f"{path} cannot be read ({error.strerror}): give the path of a picture or of a text file") from error


def _path(source: str) -> Path | None:
    """The file that a text names, if it names one."""
    line = source.strip().strip("\"'")
    if not line or "\n" in line or len(line) > LONGEST_PATH or "\0" in line:
        return None
    path = Path(line).expanduser()
    try:
        return path if path.is_file() else None
    except OSError:
        return None


def _of_bytes(data: bytes, name: str) -> str:
    if data.startswith(PICTURES):
        text = infotext.from_image(data)
        if not text:
            raise RecipeError(f"{name} carries no recipe: it was saved without one, or a web page has removed it; paste the text instead")
        return text
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{name} is neither a picture (PNG, JPEG, WebP) nor a text: give a file that carries a recipe") from error
