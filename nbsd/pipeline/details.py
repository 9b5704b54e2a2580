"""The face and detail pass: what a detector finds in a picture is painted anew, each at the recipe's full size, and put back.

What the extension ADetailer does; the keys in the infotext and the defaults are its.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw

from nbsd.errors import NbsdError, RecipeError
from nbsd.events import Event
from nbsd.images import read_picture
from nbsd.images.masks import Box
from nbsd.infotext.pairs import with_pairs
from nbsd.picture import Picture
from nbsd.pipeline.boxes import Detector, find_detector
from nbsd.pipeline.check import check
from nbsd.pipeline.make import Control, ignore
from nbsd.pipeline.progress import part_of
from nbsd.pipeline.scripts import CONFIDENCE, DETAIL_PROMPT, DETAIL_STRENGTH, DETECTOR
from nbsd.recipe import LARGEST_SEED, Img2Img, Inpaint, Recipe

if TYPE_CHECKING:
    from nbsd.pipeline.model import Model

WIDER = 4           # pixels around each box that are painted too; the extension's "dilate"
HOW = Inpaint(mask_blur=4, only_masked=True, padding=32)    # its defaults


def detailed(
    model: Model,
    recipe: Recipe,
    image: Any,
    *,
    detector: str | Detector,
    confidence: float = 0.3,
    strength: float = 0.4,
    prompt: str = "",
    before: int = 0,
    of: int = 1,
    report: Callable[[Event], None] = ignore,
    control: Control | None = None,
    preview: bool = False,
) -> Picture:
    """The picture with everything that is found in it painted anew, by the recipe's prompt or by `prompt`. The seed counts up by one a box.

    `detector`: as `boxes.find_detector` takes it, or a function as `boxes.Detector`. `confidence` and the denoising
    `strength`: 0 to 1. `before`, `of`: how many such pictures the job has made, and makes in all.
    The picture's recipe is that of the first box, with the extension's keys. Raises NbsdError where nothing is found.
    """
    source = read_picture(image).convert("RGB")
    for name, value in (("confidence", confidence), ("denoising strength", strength)):
        if not 0 <= value <= 1:
            raise RecipeError(f"the {name} of the detail pass is {value}: use a value from 0 to 1")
    find = find_detector(detector) if isinstance(detector, str) else detector
    said = {DETECTOR: detector if isinstance(detector, str) else getattr(detector, "__name__", "own"), DETAIL_PROMPT: prompt,
            CONFIDENCE: str(confidence), "ADetailer dilate erode": str(WIDER), "ADetailer mask blur": str(HOW.mask_blur),
            DETAIL_STRENGTH: str(strength), "ADetailer inpaint only masked": "True", "ADetailer inpaint padding": str(HOW.padding)}
    how = replace(recipe.img2img or Img2Img(), denoising_strength=strength)
    recipe = with_pairs(replace(recipe, prompt=prompt or recipe.prompt, img2img=how, inpaint=HOW), said)
    check(recipe)
    found = [one for one in find(source, confidence) if one.box[0] < one.box[2] and one.box[1] < one.box[3]]
    if not found:
        raise NbsdError(f"the detector found nothing in the picture: try a lower confidence than {confidence}, or another detector")
    out, done = source, None
    for number, one in enumerate(found):
        told = part_of(report, before * len(found) + number, of * len(found))
        turn = replace(recipe, seed=(recipe.seed + number) % (LARGEST_SEED + 1))
        for picture in model.make(turn, image=out, mask=painted(source.size, one.box), report=told, control=control, preview=preview):
            out, done = picture.image, done or picture
    if done is None:
        raise NbsdError("everything that was found was skipped: nothing was made")
    return replace(done, image=out, latent=None)


def painted(size: tuple[int, int], box: Box) -> Image.Image:
    """The mask of a box, a little wider."""
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).rectangle((box[0] - WIDER, box[1] - WIDER, box[2] - 1 + WIDER, box[3] - 1 + WIDER), fill=255)
    return mask
