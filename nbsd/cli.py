"""nbsd without a notebook: `nbsd generate`, `nbsd get`, `nbsd unpack`, `nbsd info`, `nbsd reproduce`, `nbsd convert`, `nbsd lab`."""

from __future__ import annotations

import argparse
import importlib.util
import json
import secrets
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, Field, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbsd
from nbsd.errors import NbsdError
from nbsd.events import Downloading, Event, Loading, Note, Progress
from nbsd.recipe import DRAWN_BELOW, Hires, Img2Img, Inpaint, Recipe, Soft
from nbsd.words import download_words, duration

if TYPE_CHECKING:
    from nbsd.picture import Picture

PARTS: dict[str, type[Any]] = {"img2img": Img2Img, "inpaint": Inpaint, "soft": Soft, "hires": Hires}
NO_PART_OPTION = frozenset({"image_hash"})      # found out, not asked for
# Fields that are no single value on the command line, or that are given in another way.
NO_OPTION = frozenset({"model", "vae", "text_encoder", "img2img", "inpaint", "hires", "version", "unknown"})
SEEDS = ("seed", "variation_seed")      # -1 draws one
QUICKSTART = ("from nbsd import Studio", "Studio().show()")     # the code cells of examples/quickstart.ipynb

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130       # exit statuses; 130 is the shell's for Ctrl-C


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit status."""
    reader = parser()
    given, others = reader.parse_known_args(arguments)
    if others and given.run is not lab:
        reader.error(f"unrecognized arguments: {' '.join(others)}")
    given.others = others
    try:
        return int(given.run(given))
    except NbsdError as error:
        print(f"nbsd: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("\nnbsd: stopped; the pictures that were finished are kept", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:     # `nbsd info x.png | head -1`
        sys.stderr.close()      # or Python complains about the pipe once more when it ends
        return FAILED


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="nbsd", description="Stable Diffusion in a notebook, and on the command line.")
    top.add_argument("--version", action="version", version=f"nbsd {nbsd.__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("generate", help="make pictures", description="Make pictures; prints the path of each.")
    command.set_defaults(run=generate)
    command.add_argument("--model", required=True, metavar="FILE|LINK",
                         help="a checkpoint in the web UI's format, owner/repo, a link, or first: the small built-in model")
    command.add_argument("--vae", metavar="FILE|LINK", help="use this VAE, not the one in the model's file")
    command.add_argument("--text-encoder", metavar="FILE|LINK", help="take the text encoder from this model, where the model's file has none")
    command.add_argument("--networks", metavar="DIR", help="where LoRAs, hypernetworks and embeddings lie (the model's folder)")
    command.add_argument("--image", metavar="FILE", help="change this picture")
    command.add_argument("--mask", metavar="FILE", help="change it only where this one is white")
    command.add_argument("--infotext", metavar="FILE|TEXT", help="start from this recipe: a text, or a file (text, picture) that holds one")
    command.add_argument("--out", default="outputs", metavar="DIR", help="where the pictures go (%(default)s)")
    command.add_argument("--device", help="cpu, cuda, cuda:1 (the best one there is)")
    command.add_argument("--dtype", help="float32, float16 or bfloat16 (float16 on CUDA, float32 on a CPU)")
    add_recipe_options(command)

    command = commands.add_parser("get", help="fetch a model, a VAE, a LoRA, ...; prints its path", description=(
        "Fetch a file of the Hugging Face hub (owner/repo, owner/repo/file), of Civitai (a link) or of any https address. A second call goes "
        "on where the first was cut. Tokens: HF_TOKEN, CIVITAI_TOKEN."))
    command.set_defaults(run=get)
    command.add_argument("link")
    command.add_argument("--to", metavar="DIR", help="the folder that it goes to (the first of the host's folders for models)")

    command = commands.add_parser("unpack", help="unpack an archive of model files safely; prints their paths", description=(
        "Unpack the model files of a tar or zip archive. One that would write elsewhere, make links, or grow beyond all measure is refused."))
    command.set_defaults(run=unpack)
    command.add_argument("archive", type=Path)
    command.add_argument("--to", type=Path, metavar="DIR", help="the folder that they go to (one beside the archive, called like it)")

    command = commands.add_parser("upscale", help="make pictures larger", description="Make pictures larger; prints the path of each.")
    command.set_defaults(run=enlarge)
    command.add_argument("pictures", nargs="+", metavar="FILE")
    command.add_argument("--upscaler", default="Lanczos", metavar="NAME|FILE", help="Lanczos, Nearest, or an upscaler's file (%(default)s)")
    command.add_argument("--scale", type=float, default=2.0, metavar="N", help="how many times as large, 1 to 8 (%(default)s)")
    command.add_argument("--out", default="outputs", metavar="DIR", help="where the pictures go (%(default)s)")
    command.add_argument("--device", help="cpu, cuda, cuda:1 (the best one there is)")

    command = commands.add_parser("info", help="print the recipe that a picture carries")
    command.set_defaults(run=info)
    command.add_argument("picture", type=Path)

    command = commands.add_parser("reproduce", help="find the settings that a picture's recipe leaves open", description=(
        "Make a picture again with each of the settings that its recipe does not say (RNG, ENSD, clip skip, ...), and tell which match."))
    command.set_defaults(run=reproduce)
    command.add_argument("picture", help="a picture that carries its recipe")
    command.add_argument("--model", required=True, metavar="FILE", help="the checkpoint it was made with; first is the small built-in one")
    command.add_argument("--vae", action="append", default=[], metavar="FILE", help="a VAE to try too; may be given again")
    command.add_argument("--infotext", metavar="FILE|TEXT", help="use this recipe, not the picture's")
    command.add_argument("--steps", type=int, metavar="N", help="search with fewer steps; only for samplers that add no noise")
    command.add_argument("--device", help="cpu, cuda, cuda:1 (the best one there is)")
    command.add_argument("--dtype", help="float32, float16 or bfloat16 (float16 on CUDA, float32 on a CPU)")

    command = commands.add_parser("convert", help="a prompt in the other dialect's spelling")
    command.set_defaults(run=convert)
    command.add_argument("text")
    command.add_argument("--to", required=True, choices=("novelai", "webui"), help="the dialect to write; the text is in the other one")

    command = commands.add_parser("lab", help="open JupyterLab on the quick start", description=(
        "Open JupyterLab on quickstart.ipynb, which is written into this folder where it is missing. Other options go to JupyterLab."))
    command.set_defaults(run=lab)
    return top


# --- options of a recipe ----------------------------------------------------------------------------------------------------------

def add_recipe_options(to: argparse.ArgumentParser) -> None:
    """--count, --batch-size, and one option for each field of a recipe that is a single value. What is not given is not in the result."""
    to.add_argument("--count", type=int, default=1, metavar="N", help="how many pictures (%(default)s)")
    to.add_argument("--batch-size", type=int, default=1, metavar="N", help="how many at a time (%(default)s)")
    group = to.add_argument_group("the recipe", "Names are the web UI's; the defaults too. --seed -1 draws a seed.")
    for field in recipe_fields():
        _add_option(group, field, field.name)
    parts = to.add_argument_group("changing a picture, and the hires fix", (
        "One --hires-... option is enough to switch the hires fix on, and one --soft-... for soft inpainting."))
    for part, field in part_fields():
        _add_option(parts, field, f"{part}_{field.name}")


def _add_option(group: Any, field: Field[Any], name: str) -> None:
    option = "--" + name.replace("_", "-")
    default = "-1" if name == "seed" else field.default
    if isinstance(field.default, bool):
        about = "(on)" if field.default else "(off)"
        group.add_argument(option, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=about)
    else:
        kind: Any = type(field.default)
        about = "(empty)" if default == "" else f"({default})"
        group.add_argument(option, type=kind, default=argparse.SUPPRESS, metavar=kind.__name__.upper(), help=about)


def part_fields() -> list[tuple[str, Field[Any]]]:
    """The parts of a recipe that change a picture, each with its fields that are one value."""
    return [(part, field) for part, kind in PARTS.items() for field in fields(kind)
            if field.default is not MISSING and field.default is not None and field.name not in NO_PART_OPTION]


def recipe_fields() -> list[Field[Any]]:
    """The fields of a recipe that are one value."""
    return [field for field in fields(Recipe) if field.name not in NO_OPTION and field.default is not MISSING]


def recipe_from(given: argparse.Namespace, base: Recipe | None = None) -> Recipe:
    """The recipe that the options describe, on top of `base`. Seeds of -1 are drawn here; without a base the seed is drawn too, and the
    built-in model gets the size that it can draw.
    """
    from nbsd.models import first

    values = {field.name: getattr(given, field.name) for field in recipe_fields() if hasattr(given, field.name)}
    if base is None:
        values.setdefault("seed", -1)
        if first.is_first(given.model) and not {"width", "height"} & set(values):
            values |= {"width": first.SIDE, "height": first.SIDE}
    for name in SEEDS:
        if values.get(name) == -1:
            values[name] = secrets.randbelow(DRAWN_BELOW)
    recipe = replace(base or Recipe(), **values)
    for part, kind in PARTS.items():
        options = {field.name: getattr(given, f"{part}_{field.name}") for name, field in part_fields()
                   if name == part and hasattr(given, f"{part}_{field.name}")}
        if options and part == "soft":      # a part of a part
            inpaint = recipe.inpaint or Inpaint()
            recipe = replace(recipe, inpaint=replace(inpaint, soft=replace(inpaint.soft or Soft(), **options)))
        elif options:
            recipe = replace(recipe, **{part: replace(getattr(recipe, part) or kind(), **options)})
    return recipe


def read_infotext(given: str) -> str:
    """The text itself, or what stands in the file of that name."""
    from nbsd.infotext import from_image

    try:
        file = Path(given)
        if not file.is_file():
            return given
    except (OSError, ValueError):       # a text too long for a file's name, or with a null character
        return given
    try:
        text = from_image(file)
    except NbsdError:       # no picture
        text = None
    return text or _plain(file)


def _plain(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise NbsdError(f"{file} holds no recipe: give a text file, or a picture that was saved with its recipe.") from None


# --- the commands -----------------------------------------------------------------------------------------------------------------

def generate(given: argparse.Namespace) -> int:
    """Make the pictures, save each as soon as it is made, and print where it is."""
    recipe = recipe_from(given, Recipe.from_infotext(read_infotext(given.infotext)) if given.infotext else None)
    from nbsd.images import read_picture
    from nbsd.outputs import Outputs
    from nbsd.pipeline.check import check
    from nbsd.pipeline.scripts import NO_SCRIPT, Script, details_in, from_pairs, said, without

    check(recipe, given.count, given.batch_size)        # before the slow part
    image, mask = (read_picture(one) if one else None for one in (given.image, given.mask))
    outputs = Outputs(given.out)
    outputs.check()
    line = ProgressLine()
    file, vae = _here(given.model, line), _here(given.vae, line) if given.vae else None
    name = Path(file).name
    line.tell(Loading(name))
    networks = given.networks or folder_of(file)
    model = nbsd.load(file, vae=vae, text_encoder=given.text_encoder, device=given.device, dtype=given.dtype, networks=networks, embeddings=networks,
                      on_progress=lambda done, total: line.tell(Loading(name, done, total)))
    making = {"image": image, "mask": mask, "count": given.count, "batch_size": given.batch_size, "report": line.tell}
    if script := details_in(recipe):
        from nbsd.pipeline.jobs import scripted

        made: Iterable[Picture] = (picture for _, picture in scripted(model, recipe, script, **making))
    else:
        if (other := from_pairs(said(recipe), Script()).kind) != NO_SCRIPT:
            print(f"nbsd: this recipe tells of {other}, which is not done here: one picture comes of each seed", file=sys.stderr)
        made = model.make(without(recipe), **making)
    for picture in made:
        saved: Picture = outputs.save(picture)
        line.clear()
        print(saved.path, flush=True)
    line.clear()
    return OK


def get(given: argparse.Namespace) -> int:
    """Fetch a file and print where it is."""
    from nbsd.pipeline.fetched import link_of

    if link_of(given.link) is None:
        raise NbsdError(f"'{given.link}' is no link: give owner/repo, owner/repo/file.safetensors, or an address that starts with https://")
    line = ProgressLine()
    path = _here(given.link, line, given.to)
    line.clear()
    print(path)
    return OK


def _here(source: str, line: ProgressLine, folder: str | None = None) -> str | Path:
    """A file that is given by its path or by a link."""
    from nbsd.pipeline.fetched import fetched

    return fetched(source, folder, line.tell)


def unpack(given: argparse.Namespace) -> int:
    """`nbsd unpack`"""
    from nbsd.models.archives import unpack as unpacked

    for path in unpacked(given.archive, given.to or given.archive.with_name(given.archive.name.split(".")[0])):
        print(path)
    return OK


def enlarge(given: argparse.Namespace) -> int:
    """Make each picture larger and save it as PNG; a recipe that it carries stays with it."""
    from nbsd.infotext import from_image
    from nbsd.outputs import save_as
    from nbsd.pipeline.upscale import upscale

    line = ProgressLine()
    for picture in map(Path, given.pictures):
        made = upscale(picture, given.upscaler, scale=given.scale, device=given.device, on_progress=partial(line.step, picture.name))
        path = save_as(made, Path(given.out), f"{picture.stem}-x{given.scale:g}", from_image(picture) or "")
        line.clear()
        print(path, flush=True)
    return OK


def folder_of(model: str | Path) -> Path | None:
    """Where a model's networks lie: beside its file. The built-in one has none beside it."""
    from nbsd.models import first

    return None if first.resolved(model) is not model else Path(model).parent


def info(given: argparse.Namespace) -> int:
    """Print the infotext of a picture."""
    from nbsd.infotext import from_image

    try:
        text = from_image(given.picture)
    except OSError as error:
        raise NbsdError(f"{given.picture} cannot be read as a picture: {error.strerror or error}.") from None
    if not text:
        raise NbsdError(f"{given.picture} carries no recipe: it was saved without one, or a program has removed it.")
    print(text)
    return OK


def reproduce(given: argparse.Namespace) -> int:
    """Print the recipe that gives the picture; the sentence about it goes to stderr. Fails where no combination comes close."""
    recipe = Recipe.from_infotext(read_infotext(given.infotext)) if given.infotext else None
    line = ProgressLine()
    name = Path(given.model).name
    line.tell(Loading(name))
    folder = folder_of(given.model)
    model = nbsd.load(given.model, device=given.device, dtype=given.dtype, networks=folder, embeddings=folder,
                      on_progress=lambda done, total: line.tell(Loading(name, done, total)))
    result = nbsd.reproduce(given.picture, model, recipe=recipe, steps=given.steps, vaes=given.vae, report=line.tell)
    line.clear()
    print(result.recipe.infotext())
    return OK if result.close else FAILED


def convert(given: argparse.Namespace) -> int:
    """Print a prompt in the other spelling."""
    from nbsd.prompt.weights import from_novelai, to_novelai

    print(to_novelai(given.text) if given.to == "novelai" else from_novelai(given.text))
    return OK


def lab(given: argparse.Namespace) -> int:
    """Open JupyterLab on the quick start in this folder."""
    if importlib.util.find_spec("jupyterlab") is None:
        raise NbsdError("JupyterLab is not installed here: install it with pip install 'nbsd[lab]'.")
    place = Path("quickstart.ipynb")
    if not place.exists():
        place.write_text(quickstart(), encoding="utf-8")
    return subprocess.run([sys.executable, "-m", "jupyterlab", str(place), *given.others]).returncode


def quickstart() -> str:
    """The quick start as the text of a notebook file."""
    cells: list[dict[str, object]] = [
        {"cell_type": "code", "execution_count": None, "id": f"cell-{n}", "metadata": {}, "outputs": [], "source": source}
        for n, source in enumerate(QUICKSTART, 1)]
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    return json.dumps({"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}, indent=1) + "\n"


class ProgressLine:
    """One line on stderr: rewritten in place on a terminal, a new line every tenth of the way elsewhere."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._tenth: tuple[str, int] | None = None
        self._width = 0

    def tell(self, event: Event) -> None:
        """Show what a job tells."""
        if isinstance(event, Progress):
            self._progress(event)
        elif isinstance(event, Loading):
            self.step(f"loading {event.what}", event.done, event.total)
        elif isinstance(event, Downloading):
            self.step(f"fetching {event.what}", event.done, event.total, f" ({download_words(event)})")
        elif isinstance(event, Note):
            self.clear()
            print(f"nbsd: {event.text}", file=sys.stderr)

    def _progress(self, at: Progress) -> None:
        left = f", {duration(at.seconds_left)} left" if at.seconds_left is not None else ""
        self.step(f"picture {at.picture + 1} of {at.pictures}", at.step, at.steps, left)

    def step(self, what: str, done: int, of: int, more: str = "") -> None:
        """`done` of `of` parts of something; shown where it is news."""
        tenth = (what, done * 10 // max(of, 1))
        if self._live or tenth != self._tenth:
            self._tenth = tenth
            self.show(f"{what}: {done / of:.0%}{more}" if of else what)

    def show(self, text: str) -> None:
        if self._live:
            print(f"\r{text:<{self._width}}", end="", file=sys.stderr, flush=True)
            self._width = len(text)
        else:
            print(text, file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Leave an empty line on a terminal."""
        if self._live and self._width:
            print(f"\r{'':<{self._width}}\r", end="", file=sys.stderr, flush=True)
            self._width = 0
