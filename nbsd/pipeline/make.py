"""The one road from a recipe to pictures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from nbsd.errors import Skipped
from nbsd.events import Event, Note, Progress
from nbsd.images import to_pil
from nbsd.picture import Picture
from nbsd.pipeline.check import check
from nbsd.pipeline.compute import memory_errors
from nbsd.pipeline.preview import PreviewThrottle, cheap_preview
from nbsd.pipeline.texts import planned_calls
from nbsd.pipeline.tiling import circular
from nbsd.recipe import OF_2022, Recipe
from nbsd.sampling import SAMPLERS, Noise, Sampler, Step, make_sigmas, make_timesteps
from nbsd.sampling.guidance import Guidance
from nbsd.sampling.img2img import from_noise
from nbsd.sampling.noise import BrownianNoise, ImageNoise
from nbsd.sampling.parametrize import NoiseTable, parametrization
from nbsd.sampling.schedules import sampler_table
from nbsd.sampling.timesteps import clean

if TYPE_CHECKING:
    from PIL.Image import Image

    from nbsd.pipeline.model import Model

LATENT_CHANNELS = 4
PIXELS_PER_LATENT = 8       # side of the square of pixels that one place of the latent stands for


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
    count: int = 1,
    batch_size: int = 1,
    report: Callable[[Event], None] = ignore,
    control: Control | None = None,
    on_step: Callable[[Step], None] = ignore,
    preview: bool = False,
) -> Iterator[Picture]:
    """Yield `count` pictures, `batch_size` at a time, not saved yet; a skipped batch yields nothing.

    Picture number n has the recipe `recipe.nth(n)` and is the picture that this recipe gives alone.
    Raises RecipeError before any work, Stopped when the control says so, OutOfMemory.
    """
    check(recipe, count, batch_size)
    model.require(recipe)
    control = control or Unasked()
    networks = model.networks.prepare(model.checkpoint, recipe, report)
    model.start_hashing()
    progress = Watch(recipe, count, batch_size, report, preview)
    for first in range(0, count, batch_size):
        batch = [recipe.nth(n) for n in range(first, min(first + batch_size, count))]
        progress.start(first, batch)
        try:
            with model.with_networks(networks):
                latents = sample(model, batch, control, progress, on_step)
            for one, latent in zip(batch, latents, strict=True):
                control.check()
                image = decode(model, latent, report, tiling=recipe.tiling)
                yield Picture(image, model.signed(one, networks), latent=latent.cpu())
        except Skipped:
            continue


class Watch:
    """Counts denoiser calls and tells how far the job is."""

    def __init__(self, recipe: Recipe, count: int, batch_size: int, report: Callable[[Event], None], preview: bool) -> None:
        self._report, self._count = report, count
        self._batches = -(-count // batch_size)
        self._steps = max(1, recipe.steps * SAMPLERS[recipe.sampler].model_calls)
        self._throttle = PreviewThrottle() if preview else None
        self._done = 0              # denoiser calls of this job
        self._began: float | None = None    # when the first call was answered: before it the model may still be warming up
        self._batch = -1

    def start(self, first: int, batch: Sequence[Recipe]) -> None:
        self._first, self._seed, self._call, self._batch = first, batch[0].seed, 0, self._batch + 1
        self._tell(None)

    def called(self, x0: Callable[[], Tensor]) -> None:
        """A denoiser call was answered; `x0` gives the guess of the clean latents [B, 4, h, w], where a preview is due."""
        now = time.monotonic()
        self._call += 1
        self._done += 1
        if self._began is None:
            self._began, self._done = now, 0
        due = self._throttle is not None and self._throttle.due()
        self._tell(cheap_preview(x0()[0]) if due else None, now - self._began)

    def _tell(self, preview: bytes | None, seconds: float = 0.0) -> None:
        rate = self._done / seconds if self._done and seconds > 0 else None
        steps = max(self._steps, self._call)
        left = (self._batches - self._batch) * steps - self._call
        self._report(Progress(
            picture=self._first, pictures=self._count, step=self._call, steps=steps, seed=self._seed,
            rate=rate, seconds_left=left / rate if rate else None, preview=preview,
        ))


@torch.inference_mode()
def sample(model: Model, batch: Sequence[Recipe], control: Control, progress: Watch, on_step: Callable[[Step], None]) -> Tensor:
    """The latents [B, 4, h, w] of a batch, float32 on the model's device, as the sampler leaves them."""
    recipe, device = batch[0], model.compute.device
    sampler = SAMPLERS[recipe.sampler]
    plan = whole_plan(recipe, sampler, model.table(recipe))
    table = sampler_table(sampler, model.table(recipe))
    noise = starting_noise(batch, device)
    x, levels = from_noise(sampler, noise.next(), plan, sgm_noise_multiplier=recipe.sgm_noise_multiplier)
    guided = guidance(model, batch, sampler, table)

    def denoise(x: Tensor, at: Tensor) -> Tensor:
        control.check()
        answer = guided(x, at)
        progress.called(lambda: answer if not sampler.timesteps else clean(x, answer, table.alphas_cumprod[int(at)]))
        return answer

    fresh: Noise = noise
    if sampler.brownian:
        fresh = BrownianNoise(x.shape, [one.seed for one in batch], float(plan[plan > 0].min()), float(plan.max()), recipe.rng, device)
    with memory_errors("making a picture"), circular(recipe.tiling, model.checkpoint.unet):
        return sampler.run(denoise, x, levels, fresh, on_step, **options(recipe, sampler, table, guided))


def whole_plan(recipe: Recipe, sampler: Sampler, table: NoiseTable) -> Tensor:
    """Every noise level, or every time step, of the recipe's schedule."""
    if recipe.rules == OF_2022:
        if sampler.timesteps:
            return make_timesteps(recipe.steps, old=True)
        sampler = replace(sampler, discard_penultimate=False)
    if sampler.timesteps:
        return make_timesteps(recipe.steps, discard_penultimate=recipe.discard_penultimate_sigma)
    return make_sigmas(
        recipe.schedule, recipe.steps, table, sampler=sampler, sigma_min=recipe.sigma_min, sigma_max=recipe.sigma_max,
        rho=recipe.rho, beta_alpha=recipe.beta_alpha, beta_beta=recipe.beta_beta,
        discard_penultimate=recipe.discard_penultimate_sigma, old_karras=recipe.old_karras,
    )


def starting_noise(batch: Sequence[Recipe], device: torch.device) -> ImageNoise:
    """The noise of a batch, a generator for each picture."""
    recipe = batch[0]
    latent = (recipe.height // PIXELS_PER_LATENT, recipe.width // PIXELS_PER_LATENT)
    resized = (recipe.seed_resize_height // PIXELS_PER_LATENT, recipe.seed_resize_width // PIXELS_PER_LATENT)
    varied = [one.variation_seed for one in batch] if recipe.variation_strength > 0 else None
    return ImageNoise(
        [one.seed for one in batch], (LATENT_CHANNELS, *latent), recipe.rng, ensd=recipe.ensd, variation_seeds=varied,
        variation_strength=recipe.variation_strength, resize_from=resized if all(resized) else None, device=device,
    )


def guidance(model: Model, batch: Sequence[Recipe], sampler: Sampler, table: NoiseTable) -> Guidance:
    """The model as the batch's prompts guide it."""
    recipe = batch[0]
    texts = model.texts
    with memory_errors("reading the prompt"):
        positive, negative = texts.positive(recipe), texts.negative(recipe)
        empty = texts.empty(recipe) if recipe.pad_conds == "on" else None
    pad_conds = "v0" if recipe.rules == OF_2022 and sampler.timesteps else recipe.pad_conds
    return Guidance(
        model.predict, parametrization(table, model.checkpoint.prediction, sampler.kind),
        [positive] * len(batch), [negative] * len(batch), cfg_scale=recipe.cfg_scale / sampler.cfg_divisor,
        planned_calls=planned_calls(recipe), pad_conds=pad_conds, empty=empty,
        skip_early_cfg=recipe.skip_early_cfg, ngms=recipe.ngms, ngms_all_steps=recipe.ngms_all_steps,
    )


def options(recipe: Recipe, sampler: Sampler, table: NoiseTable, guided: Guidance) -> dict[str, Any]:
    """What this sampler takes besides the five arguments that all take."""
    special: dict[str, Any] = {
        "table": table, "uncond": guided.uncond, "solver_type": "midpoint", "img2img": False,
        "n": recipe.steps, "sigma_min": table.sigma_min, "sigma_max": table.sigma_max,      # of the DPM solver: the model's own ends
    }
    if sampler.uses_eta:
        special["eta"] = getattr(recipe, sampler.uses_eta)
    return {name: special[name] if name in special else getattr(recipe, name) for name in sampler.options}


@torch.inference_mode()
def decode(model: Model, latent: Tensor, report: Callable[[Event], None], *, tiling: bool = False) -> Image:
    """The picture of one latent [4, h, w]."""
    with memory_errors("decoding a picture"), circular(tiling, model.checkpoint.vae):
        decoded = model.decode(latent[None])
        if not decoded.isfinite().all() and model.widen_vae():
            report(Note("The VAE overflowed in half precision and now computes in float32."))
            decoded = model.decode(latent[None])
    return to_pil(decoded[0])
