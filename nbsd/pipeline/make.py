"""The one road from a recipe to pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from nbsd.errors import Skipped
from nbsd.events import Event, Note
from nbsd.images import read_picture, to_pil
from nbsd.picture import Picture
from nbsd.pipeline.beside import beside
from nbsd.pipeline.check import check
from nbsd.pipeline.compute import memory_errors
from nbsd.pipeline.hires import SecondPass
from nbsd.pipeline.img2img import Ground, completed, ground, prepare
from nbsd.pipeline.passes import Pass, Watched
from nbsd.pipeline.progress import Watch
from nbsd.pipeline.tiling import circular
from nbsd.recipe import Recipe
from nbsd.sampling import Step

if TYPE_CHECKING:
    from PIL.Image import Image

    from nbsd.pipeline.model import Model


class Control(Protocol):
    """How the maker of a job is asked to stop."""

    def check(self) -> None:
        """Raise Stopped or Skipped where the user asked for it."""


class Unasked:
    """The control of a job that nobody can stop."""

    def check(self) -> None: ...


def ignore(_: object) -> None: ...


def make(
    model: Model,
    recipe: Recipe,
    *,
    image: Any = None,
    mask: Any = None,
    first: Any = None,
    count: int = 1,
    batch_size: int = 1,
    report: Callable[[Event], None] = ignore,
    control: Control | None = None,
    on_step: Callable[[Step], None] = ignore,
    preview: bool = False,
    batch_seeds: bool = True,
    after: Callable[[Image, Recipe], Image] | None = None,
) -> Iterator[Picture]:
    """Yield `count` pictures, `batch_size` at a time, not saved yet; a skipped batch yields nothing.

    `image`: the picture to change, `mask`: white where it is to change; each is anything that `images.read_picture` reads. `first`: where
    `image` came of another picture, as in a loopback, that one: the mask is of its shape, and its colours are those to keep.
    Picture number n has the recipe `recipe.nth(n)` and is the picture that this recipe gives alone.
    `batch_seeds` False is the web UI's option of 2022 to draw what comes after the starting noise for the whole batch at once: by the
    rules of then a picture of a batch is another one than alone. (By those of today the option changes nothing.)
    `after`: what is done with each made picture (RGB) before the rest of a given one is laid over it.
    Raises RecipeError before any work, Stopped when the control says so, OutOfMemory.
    """
    source, painted, began = (None if one is None else read_picture(one) for one in (image, mask, first))
    recipe = completed(recipe, source, painted)
    check(recipe, count, batch_size)
    model.require(recipe)
    control = control or Unasked()
    given = prepare(recipe, source, painted, began) if source is not None else None
    if given is not None:
        recipe = given.signed(recipe)
    networks = model.networks.prepare(model.checkpoint, recipe, report)
    second = SecondPass(model, recipe, report) if recipe.hires else None
    final = second.model if second else model
    model.start_hashing()
    shown = beside(model, recipe, given)
    progress = Watch(recipe, count, batch_size, report, preview, model.checkpoint.family)

    def tile(done: int, of: int) -> None:
        control.check()
        progress.tile(done, of)

    watched = Watched(control.check, progress.called, on_step, tile)
    for first in range(0, count, batch_size):
        batch = [recipe.nth(n) for n in range(first, min(first + batch_size, count))]
        progress.start(first, batch)
        watched.used.clear()
        try:
            with model.with_networks(networks):
                start = ground(model, given, batch) if given else None
                latents = sample(model, batch, start, watched, batch_seeds, shown)
            if second is not None:
                latents = second.run(latents, batch, watched, partial(pixels, report=report, tiling=recipe.tiling, check=control.check))
            for index, (one, latent) in enumerate(zip(batch, latents, strict=True)):
                control.check()
                made = decode(final, latent, report, tiling=recipe.tiling, check=control.check)
                if after is not None:
                    made = after(made, one)
                if given is not None and start is not None:
                    made = given.finish(made, recipe, start.changed(index, latent, given.size))
                signed = model.signed(one, networks, watched.used, second.networks if second else None)
                yield Picture(made, signed, latent=latent.cpu())
        except Skipped:
            continue


def sample(
    model: Model, batch: Sequence[Recipe], start: Ground | None, watched: Watched, batch_seeds: bool = True, shown: Tensor | None = None
) -> Tensor:
    """The latents [B, 4, h, w] of a batch, float32 on the model's device. `start`: of a given picture; `shown`: what `beside` gave."""
    run, how = Pass(model, batch, watched, batch_seeds=batch_seeds, beside=shown), batch[0].img2img
    if start is None or how is None:
        return run.from_noise()
    return run.from_latent(
        start, how.denoising_strength, exact=how.exact_steps, noise_multiplier=how.noise_multiplier, extra_noise=how.extra_noise,
    )


def decode(
    model: Model, latent: Tensor, report: Callable[[Event], None], *, tiling: bool = False, check: Callable[[], None] = lambda: None
) -> Image:
    """The picture of one latent [4, h, w]."""
    return to_pil(pixels(model, latent, report=report, tiling=tiling, check=check))


@torch.inference_mode()
def pixels(
    model: Model, latent: Tensor, *, report: Callable[[Event], None], tiling: bool = False, check: Callable[[], None] = lambda: None
) -> Tensor:
    """What the VAE makes of one latent [4, h, w]: [3, 8 h, 8 w], nominally -1 to 1. A large one may be stopped by `check`."""
    with memory_errors("decoding a picture"), circular(tiling, model.checkpoint.vae):
        decoded = model.decode(latent[None], whole=tiling, check=check)
        if not decoded.isfinite().all() and model.widen_vae():
            report(Note("The VAE overflowed in half precision and now computes in float32."))
            decoded = model.decode(latent[None], whole=tiling, check=check)
    return decoded[0]
