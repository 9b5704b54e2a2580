"""The face and detail pass: what a detector finds in a picture is painted anew, each at the recipe's full size, and put back.

What the extension ADetailer does, by its rules: `adetailer.py` has the settings, `regions.py` what of a picture they mean.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import count as count_up
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from nbsd.errors import NbsdError, RecipeError
from nbsd.events import Event, Note
from nbsd.images import masks, read_picture
from nbsd.images.resize import resize
from nbsd.infotext.pairs import with_pairs
from nbsd.infotext.rules import sampler_and_schedule, schedule_is_apart
from nbsd.picture import Picture
from nbsd.pipeline.adetailer import Detail, written
from nbsd.pipeline.boxes import Detector, find_detector
from nbsd.pipeline.check import check
from nbsd.pipeline.make import Control, ignore
from nbsd.pipeline.progress import Tally, calls_of
from nbsd.pipeline.regions import check_detail, masks_of
from nbsd.pipeline.scripts import said
from nbsd.recipe import LARGEST_SEED, Img2Img, Inpaint, Recipe

if TYPE_CHECKING:
    from nbsd.pipeline.model import Model

NO_DETECTOR = "no detector is named: write mediapipe, or the name or path of a detector's file"
FROM_THE_RECIPE = ("", "None", "Use same sampler", "Use same scheduler", "Use same checkpoint")
_SEPARATOR = re.compile(r"\s*\[SEP\]\s*")
SKIP = "[SKIP]"


def with_details(
    model: Model,
    recipe: Recipe,
    details: Sequence[Detail],
    *,
    image: Any = None,
    mask: Any = None,
    count: int = 1,
    batch_size: int = 1,
    report: Callable[[Event], None] = ignore,
    control: Control | None = None,
    preview: bool = False,
    find: Callable[[str], Detector] | None = None,
) -> Iterator[Picture]:
    """Make pictures as `model.make` does, and paint their details anew before each is yielded. The seed counts up by one a box, from the
    picture's own. Each picture's recipe says the details too.

    A picture to change at a denoising strength of 0 (and without a mask) stays as it is but for its details; then NbsdError is raised where
    nothing is found. A picture that was just made is yielded without, with a `Note`; also where the job is stopped or fails on the way.
    `find`: the detector of a name. Raises RecipeError or NbsdError before any work where a setting or a detector is wrong.
    """
    if not details:
        raise RecipeError(NO_DETECTOR)
    for detail in details:
        check_detail(detail)
        check(turned(recipe, detail, 0, ("", "")))
    recipe = with_pairs(recipe, written(tuple(details), said(recipe)))
    source = None if image is None else read_picture(image)
    alone = mask is None and recipe.inpaint is None and recipe.img2img is not None and not recipe.img2img.denoising_strength
    tally = Tally(report, [calls_of(turned(recipe, one, 0, ("", ""))) for one in details], count, 1 if alone else batch_size)
    find = find or partial(find_detector, folders=model.folders)
    passes = [Pass(detail, find(detail.detector), model if detail.checkpoint in FROM_THE_RECIPE else model.other(detail.checkpoint))
              for detail in details]
    painter = Painter(passes, tally, control, preview, region(recipe, source, mask))
    if alone and source is not None and recipe.img2img is not None:
        for number in range(count):
            yield painter.alone(model, masks.flattened(source, recipe.img2img.background), recipe.nth(number), number)
        return
    for picture in model.make(recipe, image=source, mask=mask, count=count, batch_size=batch_size, report=tally.told, control=control,
                              preview=preview, after=painter):
        yield replace(picture, latent=None)
        if painter.failure is not None:
            raise painter.failure


def detailed(
    model: Model,
    recipe: Recipe,
    image: Any,
    *,
    detector: str | Detector,
    confidence: float = 0.3,
    strength: float = 0.4,
    prompt: str = "",
    report: Callable[[Event], None] = ignore,
    control: Control | None = None,
    preview: bool = False,
) -> Picture:
    """A given picture with everything that is found in it painted anew, by the recipe's prompt or by `prompt`. The seed counts up by one a box.

    `detector`: as `boxes.find_detector` takes it, or a function as `boxes.Detector`. `confidence` and the denoising
    `strength`: 0 to 1. For several detectors and other settings see `with_details`. Raises NbsdError where nothing is found.
    """
    name = detector if isinstance(detector, str) else getattr(detector, "__name__", "own")
    detail = Detail(detector=name, confidence=confidence, strength=strength, prompt=prompt)
    recipe = replace(recipe, hires=None, inpaint=None, img2img=replace(recipe.img2img or Img2Img(), denoising_strength=0.0))
    [picture] = with_details(model, recipe, [detail], image=image, report=report, control=control, preview=preview,
                             find=None if isinstance(detector, str) else lambda _: detector)
    return picture


def region(recipe: Recipe, source: Image.Image | None, mask: Any) -> Image.Image | None:
    """Where in an inpainted picture details are looked for: what is to change, of the recipe's size; None: everywhere.

    The extension does so too where the whole picture is inpainted; else it sees the changed part alone.
    """
    how = recipe.inpaint or Inpaint()
    if source is None or mask is None or how.only_masked:
        return None
    painted = masks.read_mask(read_picture(mask))
    painted = painted.point([255 - value for value in range(256)]) if how.invert else painted
    mode = (recipe.img2img or Img2Img()).resize_mode
    return resize(masks.matched(painted, source.size), (recipe.width, recipe.height), mode).convert("L")


class Pass(NamedTuple):
    """What is looked for, by what, and the model that paints it."""

    detail: Detail
    find: Detector
    model: Model


class Painter:
    """Paints the details of one picture after the other. Called with a made picture and its recipe, it returns the picture to go on with."""

    def __init__(
        self, passes: Sequence[Pass], tally: Tally, control: Control | None, preview: bool,
        only_in: Image.Image | None = None,
    ) -> None:
        """`only_in`: "L"; boxes that do not touch its white places are left as they are."""
        self._passes, self._tally, self._control, self._preview = passes, tally, control, preview
        self._only_in = only_in
        self._boxes: list[tuple[Model, Picture]] = []       # each box that was painted, the picture with it
        self.failure: NbsdError | None = None       # what ended the painting; the pictures made so far are to be kept

    def __call__(self, image: Image.Image, recipe: Recipe) -> Image.Image:
        """The picture with its details painted, as far as they are where that ends early: see `failure`."""
        if self.failure is not None:
            return image
        if not self._paint(image, recipe) and self.failure is None:
            self._tally.told(Note(f"Nothing was found in the picture of seed {recipe.seed}: it is as it was made."))
        return self._boxes[-1][1].image if self._boxes else image

    def alone(self, model: Model, image: Image.Image, recipe: Recipe, number: int) -> Picture:
        """A given picture with its details painted, the one of this number in the job; the recipe's model is to be named.

        Raises what goes wrong, and where nothing is found.
        """
        self._tally.start(number)
        found = self._paint(image, recipe)
        if self.failure is not None:
            raise self.failure
        if not found:
            least = min(one.detail.confidence for one in self._passes)
            raise NbsdError(f"the detector found nothing in the picture: try a lower confidence than {least}, or another detector")
        if not self._boxes:
            raise NbsdError("everything that was found was skipped: nothing was made")
        named = next((picture.recipe for by, picture in self._boxes if by is model), recipe)
        made = replace(recipe, model=named.model, vae=named.vae, text_encoder=named.text_encoder, unknown=named.unknown)
        return replace(self._boxes[-1][1], latent=None, recipe=made)

    def _paint(self, image: Image.Image, recipe: Recipe) -> int:
        """Paint what is found; returns how many boxes that were."""
        self._boxes, found = [], 0
        self._tally.next_picture()
        try:
            for number, (detail, find, model) in enumerate(self._passes):
                places = masks_of(find(image.convert("RGB"), detail.confidence), detail, image.size, self._only_in)
                turns = [(mask, turn) for mask, turn in zip(places, turns_of(recipe, detail), strict=False) if turn is not None]
                self._tally.looked(number, len(turns))
                found += len(places)
                for mask, turn in turns:
                    image = self._painted(model, image, mask, turn, recipe.seed)
        except NbsdError as failure:
            self.failure = failure
        return found

    def _painted(self, model: Model, image: Image.Image, mask: Image.Image, turn: Recipe, seed: int) -> Image.Image:
        for picture in model.make(turn, image=image, mask=mask, report=self._tally.within(seed), control=self._control, preview=self._preview):
            self._boxes.append((model, picture))
            image = picture.image
        self._tally.box_done()
        return image


def turns_of(recipe: Recipe, detail: Detail) -> Iterator[Recipe | None]:
    """The recipes by which the boxes of a picture are painted, without end; None for a box that is to stay as it is."""
    texts = _prompts(detail.prompt, recipe.prompt), _prompts(detail.negative_prompt, recipe.negative_prompt)
    for number in count_up():
        prompt, negative = (parts[min(number, len(parts) - 1)] for parts in texts)
        yield None if prompt.strip() == SKIP else turned(recipe, detail, number, (prompt, negative))


def turned(recipe: Recipe, detail: Detail, number: int, prompts: tuple[str, str]) -> Recipe:
    """The recipe by which box `number` of a picture is painted. `prompts`: the prompt and the negative prompt."""
    usual = Img2Img(extra_noise=recipe.hires.extra_noise if recipe.hires else 0.0)
    how = replace(recipe.img2img or usual, denoising_strength=detail.strength, resize_mode=usual.resize_mode, image_hash="")
    if detail.noise_multiplier is not None:
        how = replace(how, noise_multiplier=detail.noise_multiplier)
    changes: dict[str, Any] = {name: value for name, value in (
        ("steps", detail.steps), ("clip_skip", detail.clip_skip), ("width", detail.width), ("height", detail.height)) if value}
    if detail.cfg_scale is not None:
        changes["cfg_scale"] = detail.cfg_scale
    if detail.sampler not in FROM_THE_RECIPE:
        schedule = None if detail.schedule in FROM_THE_RECIPE else detail.schedule
        if schedule is None and schedule_is_apart(recipe):
            schedule = recipe.schedule
        changes["sampler"], changes["schedule"] = sampler_and_schedule(detail.sampler, schedule, recipe.version)
    soft = recipe.inpaint.soft if recipe.inpaint else None
    inpaint = Inpaint(mask_blur=detail.mask_blur, only_masked=detail.only_masked, padding=detail.padding, soft=soft)
    seeds = {name: (getattr(recipe, name) + number) % (LARGEST_SEED + 1) for name in ("seed", "variation_seed")}
    return replace(recipe, prompt=prompts[0], negative_prompt=prompts[1], hires=None, img2img=how, inpaint=inpaint, **seeds, **changes)


def _prompts(text: str, otherwise: str) -> list[str]:
    """The prompts of a picture's boxes; the last one is that of all that follow. [PROMPT] stands for the recipe's, and so does an empty one."""
    return [part.replace("[PROMPT]", otherwise) or otherwise for part in _SEPARATOR.split(text)]
