"""The panel's jobs that make several pictures of given ones: the scripts of img2img, and extras. They run in the worker's thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nbsd.errors import NbsdError, OutOfMemory, RecipeError, Skipped, Stopped
from nbsd.events import Event, Made, Note, Progress
from nbsd.outputs import Outputs, save_as
from nbsd.picture import Picture
from nbsd.pipeline.scripts import DETAILS, Script, left_out, pictures_in
from nbsd.recipe import Recipe
from nbsd.ui.given import ToEnlarge
from nbsd.worker import Control

Report = Callable[[Event], None]


def script(
    model: Any, recipe: Recipe, what: Script, count: int, size: int, given: dict[str, Any], outputs: Outputs, report: Report,
    control: Control, learn: Callable[[Recipe], None],
) -> None:
    """Do what a script of the panel says, and save each picture. `size`: of a batch. `learn` gets each picture's recipe."""
    from nbsd.pipeline.jobs import scripted

    for name, picture in scripted(model, recipe, what, count=count, batch_size=size, report=report, control=control, preview=True, **given):
        saved = _saved(picture, name, what.output, outputs)
        learn(saved.recipe)
        report(Made(saved))


def batch(what: Script | None, size: int) -> int:
    """How many pictures are made at a time."""
    return size if what is None or what.kind == DETAILS else 1


def extras(given: ToEnlarge, folders: Sequence[Path], outputs: Outputs, report: Report, control: Control) -> None:
    """Make a picture larger, or every picture of a folder. `folders`: where upscalers' files lie.

    A picture of a folder that cannot be read or made larger is told as a Note and left out.
    """
    from nbsd.pipeline.enlarge import enlarge

    made = 0
    paths = _paths(given)
    for number, path in enumerate(paths):
        def tell(done: int, total: int, number: int = number, seed: int = given.seed) -> None:
            control.check()
            report(Progress(number, len(paths), done, max(total, 1), seed))

        try:
            image, said = (given.image, given.said) if path is None else _read(path)
            if image is None:
                raise RecipeError("there is no picture to make larger: open one, or name a folder")
            picture = enlarge(image, said, given.how, folders, tell)
        except Skipped:
            continue
        except (Stopped, OutOfMemory):
            raise
        except NbsdError as error:
            if path is None:
                raise
            report(Note(left_out(path, error)))
            continue
        made += 1
        report(Made(_saved(picture, path.stem if path else "", given.several.output, outputs)))
    if given.several.folder and not made:
        raise NbsdError(f"none of the {len(paths)} pictures in {given.several.folder} could be made larger")


def _paths(given: ToEnlarge) -> list[Path | None]:
    """The pictures of the folder that is named; None stands for the one that is given."""
    return [*pictures_in(given.several.folder)] if given.several.folder else [None]


def _read(path: Path) -> tuple[Any, str]:
    """A picture on white, and the infotext that it carries."""
    from nbsd.images import read_picture
    from nbsd.ui.source import on_white, said_by

    return on_white(read_picture(path)), said_by(str(path))


def _saved(picture: Picture, name: str, output: str, outputs: Outputs) -> Picture:
    """The picture on disk: where all go, or in the folder that is named, called as what it was made from."""
    if not output.strip():
        return outputs.save(picture)
    path = save_as(picture.image, Path(output.strip()), name or f"{picture.recipe.seed}", picture.infotext)
    return replace(picture, path=path)
