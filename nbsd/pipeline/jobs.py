"""Jobs made of several: a picture changed again and again, the pictures of a folder, a large picture in parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from nbsd.errors import NbsdError, OutOfMemory, RecipeError, Stopped
from nbsd.events import Event, Note
from nbsd.images import read_picture
from nbsd.images.grid import joined, places
from nbsd.images.masks import flattened
from nbsd.infotext import from_image
from nbsd.infotext.pairs import with_pairs
from nbsd.names import NO_UPSCALER, ORIGINAL
from nbsd.picture import Picture
from nbsd.pipeline.check import check
from nbsd.pipeline.details import with_details
from nbsd.pipeline.make import Control, ignore
from nbsd.pipeline.progress import part_of
from nbsd.pipeline.scripts import (
    CURVE,
    CURVES,
    DETAILS,
    FINAL_STRENGTH,
    FOLDER,
    LOOPBACK,
    OVERLAP,
    SCRIPTS,
    SD_UPSCALE,
    UPSCALER,
    Script,
    details_of,
    left_out,
    pictures_in,
    without,
)
from nbsd.pipeline.upscale import find_upscaler
from nbsd.recipe import LARGEST_SEED, Img2Img, Recipe

if TYPE_CHECKING:
    from nbsd.pipeline.model import Model

LOOPBACK_MOST = 1000


def scripted(
    model: Model, recipe: Recipe, script: Script, *, image: Any = None, mask: Any = None, count: int = 1, batch_size: int = 1,
    report: Callable[[Event], None] = ignore, control: Control | None = None, preview: bool = False,
) -> Iterator[tuple[str, Picture]]:
    """Do what a script says, `count` times; yields each picture with the name of the file that it was made from, "" where there is none.

    `batch_size`: how many pictures are made at a time, before their details are painted. Raises RecipeError before any work where something
    makes no sense.
    """
    told: dict[str, Any] = {"report": report, "control": control, "preview": preview}
    recipe = without(recipe, but=script.kind)
    if script.kind == FOLDER:
        if not script.folder.strip():
            raise RecipeError("no folder is named: write which folder's pictures are to be changed")
        masks = script.masks.strip() or mask
        made = each_in_folder(model, recipe, script.folder, masks=masks, own_recipes=script.own_recipes, count=count, **told)
        yield from ((path.stem, picture) for path, picture in made)
    elif script.kind == SD_UPSCALE:
        if recipe.inpaint:
            raise RecipeError("SD upscale changes the whole picture: choose img2img for it, or another script")
        for number in range(count):
            counted = replace(recipe, seed=(recipe.seed + number) % (LARGEST_SEED + 1))
            one = sd_upscale(model, counted, image, upscaler=script.upscaler, scale=script.scale, overlap=script.overlap,
                             before=number, of=count, **told)
            yield "", one
    elif script.kind == DETAILS:
        details = details_of(script, recipe)
        yield from (("", one) for one in with_details(model, recipe, details, image=image, mask=mask, count=count, batch_size=batch_size, **told))
    elif script.kind == LOOPBACK:
        yield from (("", one) for one in loopback(model, recipe, image, loops=script.loops, final_strength=script.final_strength,
                                                  curve=script.curve, mask=mask, rounds=count, **told))
    else:
        raise RecipeError(f"no script is called {script.kind!r}: use one of {', '.join(SCRIPTS)}")


def loopback(
    model: Model,
    recipe: Recipe,
    image: Any,
    *,
    loops: int = 4,
    final_strength: float | None = None,
    curve: str = "Linear",
    mask: Any = None,
    rounds: int = 1,
    report: Callable[[Event], None] = ignore,
    control: Control | None = None,
    preview: bool = False,
) -> Iterator[Picture]:
    """Change a picture, then what came of it, and so on; yields each loop's picture. The seed counts up by one a loop.

    `final_strength`: the denoising strength of the last loop; from the recipe's it goes there along `curve`: one of `CURVES`.
    `rounds`: how often to begin again with the given picture. Masked content other than the original is put in by the first loop only.
    With colour correction every loop keeps the colours of the given picture, as it came.
    Raises RecipeError before any work where a number makes no sense.
    """
    if isinstance(loops, bool) or not isinstance(loops, int) or not 1 <= loops <= LOOPBACK_MOST:
        raise RecipeError(f"loops is {loops!r}: use a whole number from 1 to {LOOPBACK_MOST}")
    if curve not in CURVES:
        raise RecipeError(f"no curve is called {curve!r}: use one of {', '.join(CURVES)}")
    how = recipe.img2img or Img2Img()
    first = how.denoising_strength
    last = first if final_strength is None else final_strength
    if not 0 <= last <= 1:
        raise RecipeError(f"final_strength is {last}: use a value from 0 to 1")
    recipe, given = with_pairs(recipe, {FINAL_STRENGTH: str(last), CURVE: curve}), image
    for done in range(rounds * loops):
        loop = done % loops
        given = given if loop else image
        share = CURVES[curve](loop / (loops - 1)) if loops > 1 else 0.0
        one = replace(recipe, img2img=replace(how, denoising_strength=first + (last - first) * share), seed=(recipe.seed + done) % (LARGEST_SEED + 1))
        if one.inpaint and loop:
            one = replace(one, inpaint=replace(one.inpaint, fill=ORIGINAL))
        told = part_of(report, done, rounds * loops)
        for picture in model.make(one, image=given, mask=mask, first=image, report=told, control=control, preview=preview):
            given = picture.image
            yield picture


def own_recipe(path: Path, recipe: Recipe) -> Recipe:
    """What the panel says, with the prompts, seed, sampler, steps and scale that the picture itself carries; as it is where it has none."""
    try:
        text = from_image(path)
    except NbsdError:
        return recipe
    if not text:
        return recipe
    own = Recipe.from_infotext(text)
    names = ("prompt", "negative_prompt", "dialect", "seed", "variation_seed", "variation_strength", "steps", "sampler", "schedule", "cfg_scale")
    return replace(recipe, **{name: getattr(own, name) for name in names})


def each_in_folder(
    model: Model,
    recipe: Recipe,
    pictures: str | Path | Iterable[str | Path],
    *,
    masks: Any = None,
    own_recipes: bool = False,
    count: int = 1,
    report: Callable[[Event], None] = ignore,
    control: Control | None = None,
    preview: bool = False,
) -> Iterator[tuple[Path, Picture]]:
    """Change each picture of a folder (or of a list); yields the path of each with what was made of it.

    `masks`: a folder with a mask of the same name for each picture (the ending may differ), or one mask for all (it may be alone in
    a folder, too). `count`: of each.
    `own_recipes`: a picture that carries a recipe is changed by its own prompts, seed, sampler, steps and scale.
    A picture that cannot be read or changed, or has no mask, is told as a `Note` and left out. Raises NbsdError where there is none at all.
    """
    paths = pictures_in(pictures) if isinstance(pictures, (str, Path)) else [Path(path) for path in pictures]
    folder = Path(masks).expanduser() if isinstance(masks, (str, Path)) else None
    given = {path.stem: path for path in pictures_in(folder)} if folder is not None and folder.is_dir() else None
    if given is not None and len(given) == 1:       # as in the web UI: then it is for all
        masks, given = next(iter(given.values())), None
    check(recipe)
    for number, path in enumerate(paths):
        try:
            image = read_picture(path)
            mask = masks if given is None else given.get(path.stem)
            if masks is not None and mask is None:
                raise NbsdError(f"there is no mask called {path.stem} in {masks}")
            painted = None if mask is None else read_picture(mask)
            one = own_recipe(path, recipe) if own_recipes else recipe
            for turn in range(count):
                told = part_of(report, number * count + turn, len(paths) * count)
                for picture in model.make(one.nth(turn), image=image, mask=painted, report=told, control=control, preview=preview):
                    yield path, picture
        except (Stopped, OutOfMemory):
            raise
        except NbsdError as error:
            report(Note(left_out(path, error)))


def sd_upscale(
    model: Model,
    recipe: Recipe,
    image: Any,
    *,
    upscaler: str = "Lanczos",
    scale: float = 2.0,
    overlap: int = 64,
    before: int = 0,
    of: int = 1,
    report: Callable[[Event], None] = ignore,
    control: Control | None = None,
    preview: bool = False,
) -> Picture:
    """The web UI's "SD upscale": the picture made larger (by "None" it is not), and then changed in overlapping tiles of the recipe's size.

    `overlap`: pixels, 0 to 256. The seed counts up by one a tile, a variation seed stays. The picture's recipe is that of the first tile,
    with the keys that the web UI adds. `before`, `of`: how many such pictures the job has made, and makes in all.
    """
    width, height = size = recipe.width, recipe.height
    if not 0 <= overlap <= min(256, width - 8, height - 8):
        raise RecipeError(f"overlap is {overlap}: use a value from 0 to {min(256, width - 8, height - 8)}")
    if not 1 <= scale <= 8:
        raise RecipeError(f"the scale is {scale}: use a value from 1 to 8")
    how = recipe.img2img or Img2Img()
    recipe = replace(recipe, img2img=how)
    check(recipe)
    looked = control.check if control else lambda: None
    large = flattened(read_picture(image), how.background)
    if upscaler != NO_UPSCALER:
        large = find_upscaler(upscaler, model.upscalers).enlarged(large, scale, lambda tile, tiles: looked())
    recipe = with_pairs(recipe, {OVERLAP: str(overlap), UPSCALER: upscaler})
    rows = places(large.size, size, overlap)
    total, done = sum(map(len, rows)), list[Picture]()

    def tiles() -> Iterator[Image.Image]:
        for number, (x, y) in enumerate(chain(*rows)):
            tile = large.crop((x, y, x + width, y + height))
            told = part_of(report, before * total + number, of * total)
            one = replace(recipe, seed=(recipe.seed + number) % (LARGEST_SEED + 1))
            made = list(model.make(one, image=tile, report=told, control=control, preview=preview))
            done.extend(made)
            yield made[0].image if made else tile       # one that was skipped stays as it is

    out = joined(rows, tiles(), large.size, overlap)
    if not done:
        raise NbsdError("every tile was skipped: nothing was made")
    return replace(done[0], image=out, latent=None)
