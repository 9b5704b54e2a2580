"""Jobs made of several: a picture changed again and again, the pictures of a folder, a large picture in parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from nbsd.errors import NbsdError, RecipeError
from nbsd.events import Event, Note
from nbsd.images import read_picture
from nbsd.infotext import from_image
from nbsd.picture import Picture
from nbsd.pipeline.make import Control, ignore
from nbsd.pipeline.upscale import find_upscaler, ramp, starts
from nbsd.recipe import LARGEST_SEED, Img2Img, Recipe

if TYPE_CHECKING:
    from nbsd.pipeline.model import Model

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
LOOPBACK_MOST = 1000
# How the strength goes from the first to the last loop: share of the way done -> share of the change. The web UI's three curves.
CURVES: dict[str, Callable[[float], float]] = {
    "Linear": lambda share: share,
    "Aggressive": lambda share: 1 - (1 - share) ** 2,
    "Lazy": lambda share: share**2,
}


def loopback(
    model: Model,
    recipe: Recipe,
    image: Any,
    *,
    loops: int = 4,
    final_strength: float | None = None,
    curve: str = "Linear",
    mask: Any = None,
    report: Callable[[Event], None] = ignore,
    control: Control | None = None,
) -> Iterator[Picture]:
    """Change a picture, then what came of it, and so on; yields each loop's picture. The seed counts up by one a loop.

    `final_strength`: the denoising strength of the last loop; from the recipe's it goes there along `curve`: one of `CURVES`.
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
    for loop in range(loops):
        share = CURVES[curve](loop / (loops - 1)) if loops > 1 else 0.0
        strength = first + (last - first) * share
        one = replace(recipe, img2img=replace(how, denoising_strength=strength), seed=(recipe.seed + loop) % (LARGEST_SEED + 1))
        for picture in model.make(one, image=image, mask=mask, report=report, control=control):
            image = picture.image
            yield picture


def pictures_in(folder: str | Path) -> list[Path]:
    """The pictures in a folder, by name. Raises NbsdError where there is no such folder or nothing in it."""
    place = Path(folder).expanduser()
    if not place.is_dir():
        raise NbsdError(f"{place} is no folder: give one with pictures in it")
    found = sorted(path for path in place.iterdir() if path.suffix.lower() in ENDINGS and path.is_file())
    if not found:
        raise NbsdError(f"there is no picture in {place}: put PNG, JPEG or WebP files there")
    return found


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
    masks: str | Path | None = None,
    own_recipes: bool = False,
    report: Callable[[Event], None] = ignore,
    control: Control | None = None,
) -> Iterator[tuple[Path, Picture]]:
    """Change each picture of a folder (or of a list); yields the path of each with what was made of it.

    `masks`: a folder with a mask of the same name for each picture (the ending may differ), or one mask for all.
    `own_recipes`: a picture that carries a recipe is changed by its own prompts, seed, sampler, steps and scale.
    A picture that cannot be read, or has no mask, is told as a `Note` and left out. Raises NbsdError where there is none at all.
    """
    paths = pictures_in(pictures) if isinstance(pictures, (str, Path)) else [Path(path) for path in pictures]
    given = {path.stem: path for path in pictures_in(masks)} if masks is not None and Path(masks).is_dir() else None
    for path in paths:
        try:
            image = read_picture(path)
            mask = masks if given is None else given.get(path.stem)
            if masks is not None and mask is None:
                raise NbsdError(f"there is no mask called {path.stem} in {masks}")
            painted = None if mask is None else read_picture(mask)
        except NbsdError as error:
            report(Note(f"{path.name} is left out: {error}."))
            continue
        one = own_recipe(path, recipe) if own_recipes else recipe
        for picture in model.make(one, image=image, mask=painted, report=report, control=control):
            yield path, picture


def sd_upscale(
    model: Model,
    recipe: Recipe,
    image: Any,
    *,
    upscaler: str = "Lanczos",
    scale: float = 2.0,
    overlap: int = 64,
    report: Callable[[Event], None] = ignore,
    control: Control | None = None,
) -> Picture:
    """The web UI's "SD upscale": the picture made larger, and then changed in overlapping tiles of the recipe's size.

    `overlap`: pixels, 0 to 256. The picture's recipe is that of the first tile, with the keys that the web UI adds.
    """
    source = read_picture(image).convert("RGB")
    width, height = recipe.width, recipe.height
    if not 0 <= overlap <= min(256, width - 8, height - 8):
        raise RecipeError(f"overlap is {overlap}: use a value from 0 to {min(256, width - 8, height - 8)}")
    if not 1 <= scale <= 8:
        raise RecipeError(f"the scale is {scale}: use a value from 1 to 8")
    large = find_upscaler(upscaler, model.upscalers).enlarged(source, scale)
    recipe = replace(recipe, img2img=recipe.img2img or Img2Img(), unknown=(*recipe.unknown, ("SD upscale overlap", str(overlap)),
                                                                         ("SD upscale upscaler", upscaler)))
    out, done = large.copy(), None
    for y in starts(large.height, height, overlap):
        for x in starts(large.width, width, overlap):
            box = x, y, min(x + width, large.width), min(y + height, large.height)
            tile = large.crop(box)
            for picture in model.make(recipe, image=tile.resize((width, height), Image.Resampling.LANCZOS), report=report, control=control):
                done = done or picture
                out.paste(picture.image.resize(tile.size, Image.Resampling.LANCZOS), box[:2], _soft_edges(tile.size, overlap, x > 0, y > 0))
    if done is None:
        raise NbsdError("every tile was skipped: nothing was made")
    return replace(done, image=out, latent=None)


def _soft_edges(size: tuple[int, int], overlap: int, left: bool, top: bool) -> Image.Image:
    """The mask of a tile that fades in where another one lies already."""
    across, along = ramp(size[0], overlap), ramp(size[1], overlap)
    half_x, half_y = size[0] // 2, size[1] // 2
    across[half_x:], along[half_y:] = 1, 1
    across, along = (across if left else across * 0 + 1), (along if top else along * 0 + 1)
    return Image.fromarray((along[:, None] * across * 255).round().byte().numpy())
