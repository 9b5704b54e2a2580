"""One run of a sampler: from noise, or from latents that are noised. The hires fix makes two, everything else one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nbsd.pipeline.compute import memory_errors
from nbsd.pipeline.img2img import Ground
from nbsd.pipeline.sizes import PIXELS_PER_LATENT
from nbsd.pipeline.texts import planned_calls
from nbsd.pipeline.tiling import circular
from nbsd.recipe import OF_2022, Recipe
from nbsd.sampling import SAMPLERS, Denoise, Noise, Sampler, Step, make_sigmas, make_timesteps
from nbsd.sampling.guidance import Guidance
from nbsd.sampling.img2img import Start, from_latent, from_noise, img2img_steps
from nbsd.sampling.noise import BrownianNoise, ImageNoise
from nbsd.sampling.parametrize import NoiseTable, parametrization
from nbsd.sampling.schedules import sampler_table
from nbsd.sampling.timesteps import clean, unchanged

if TYPE_CHECKING:
    from nbsd.pipeline.model import Model

LATENT_CHANNELS = 4


@dataclass(frozen=True)
class Watched:
    """Who looks on while a sampler runs."""

    check: Callable[[], None]                               # raises Stopped or Skipped where the user asked for it
    called: Callable[[Callable[[], Tensor]], None]          # a denoiser call was answered; gives the guess of the clean latents
    on_step: Callable[[Step], None]
    tile: Callable[[int, int], None]                        # tiles of an upscaler done, tiles in all; raises as `check` does
    used: set[str] = field(default_factory=set)             # guidance rules that had an effect, as `Guidance.used`


class Pass:
    """One run of the first recipe's sampler over a batch of recipes that differ in their seeds only."""

    def __init__(
        self, model: Model, batch: Sequence[Recipe], watched: Watched, *, first_calls: int | None = None, batch_seeds: bool = True,
        beside: Tensor | None = None, told_size: tuple[int, int] | None = None,
    ) -> None:
        """`first_calls`: in the hires fix's second pass, the calls that the timelines of the first one were laid out for; `told_size`: as
        `size` in `Texts.positive`.

        `batch_seeds`: as in `make.make`. `beside` [B or 1, k, h, w]: what the UNet reads behind the latents, see `beside.py`.
        """
        self._beside = beside
        self._batch_seeds, self._told_size = batch_seeds, told_size
        self._model, self._batch, self._watched, self._first_calls = model, batch, watched, first_calls
        self._recipe, self._device = batch[0], model.compute.device
        self.sampler = SAMPLERS[self._recipe.sampler]
        self._table = sampler_table(self.sampler, model.table(self._recipe))

    @torch.inference_mode()
    def from_noise(self) -> Tensor:
        """txt2img: the latents [B, 4, h, w], float32 on the model's device, as the sampler leaves them."""
        recipe, noise = self._recipe, self._noise()
        plan = self._plan(recipe)
        start = from_noise(self.sampler, noise.next(), plan, sgm_noise_multiplier=recipe.sgm_noise_multiplier)
        guided = self._guided(recipe.steps)
        special = {"n": recipe.steps, "sigma_min": self._table.sigma_min, "sigma_max": self._table.sigma_max}    # the model's own ends
        return self._run(start, plan, noise, guided, guided, special)

    @torch.inference_mode()
    def from_latent(
        self, ground: Ground, strength: float, *, exact: bool = False, noise_multiplier: float = 1.0, extra_noise: float = 0.0
    ) -> Tensor:
        """img2img, and the second pass of the hires fix (`exact`): the same from latents that are noised up to `strength`, 0 to 1."""
        recipe, noise = self._recipe, self._noise()
        steps, t = img2img_steps(recipe.steps, strength, exact)
        if not steps:
            return ground.latent
        plan = self._plan(replace(recipe, steps=steps))
        first = noise.next()
        if noise_multiplier != 1:
            first = first * noise_multiplier
        # The plan of 2022 has one time step more, before all others
        place = (steps, t + 1) if recipe.rules == OF_2022 and self.sampler.timesteps else (steps, t)
        start = from_latent(self.sampler, ground.latent, first, plan, place, self._table, extra_noise=extra_noise)
        guided = self._guided(t + 1)
        special: dict[str, Any] = {"img2img": True}
        if self._blends_noised(ground):
            special["before"] = lambda x, t: ground.blend_noised(x, self._table.alphas_cumprod[t], noise.next())
        latents = self._run(start, plan, noise, guided, self._kept(guided, ground), special)
        # Soft inpainting has mixed them at each call; what a timestep sampler steps on is never mixed, only what it asks
        return latents if ground.soft and not self.sampler.timesteps else ground.blend(latents)

    def _blends_noised(self, ground: Ground) -> bool:
        """In 2022 DDIM put the given picture, noised as far as the step was, into what it stepped from."""
        old = self._recipe.rules == OF_2022 and not ground.soft
        return ground.change is not None and old and "before" in self.sampler.options

    def _plan(self, recipe: Recipe) -> Tensor:
        return whole_plan(recipe, self.sampler, self._model.table(recipe), self._model.checkpoint.family.aligned)

    def _noise(self) -> ImageNoise:
        recipe = self._recipe
        own = own_draws_of_2022(recipe, self.sampler, self._batch_seeds) if recipe.rules == OF_2022 else None
        return starting_noise(self._batch, self._device, own)

    def _kept(self, guided: Guidance, ground: Ground) -> Denoise:
        """The guided model, with the given picture where the mask is black: in what it answers, or in what a timestep sampler asks."""
        if ground.change is None or self._blends_noised(ground):
            return guided
        if self.sampler.timesteps:
            return lambda x, at: guided(ground.kept(x, at), at)
        return lambda x, at: ground.kept(guided(x, at), at)

    def _run(
        self, start: Start, plan: Tensor, noise: ImageNoise, guided: Guidance, model: Denoise, special: dict[str, Any]
    ) -> Tensor:
        """`plan`: the whole schedule, of which `start` may run the end only."""
        recipe, sampler, table = self._recipe, self.sampler, self._table

        def denoise(x: Tensor, at: Tensor) -> Tensor:
            self._watched.check()
            answer = model(x, at)
            self._watched.called(lambda: answer if not sampler.timesteps else clean(x, answer, table.alphas_cumprod[int(at)]))
            return answer

        fresh: Noise = noise
        if sampler.brownian:
            seeds = [one.seed for one in self._batch]
            fresh = BrownianNoise(start.x.shape, seeds, float(plan[plan > 0].min()), float(plan.max()), recipe.rng, self._device)
        with memory_errors("making a picture"), circular(recipe.tiling, self._model.checkpoint.unet):
            x = sampler.run(denoise, start.x, start.plan, fresh, self._watched.on_step, **options(recipe, sampler, table, guided, special))
        self._watched.used.update(guided.used)
        return x

    def _guided(self, steps: int) -> Guidance:
        """The model as the batch's prompts guide it. `steps`: how many are run."""
        recipe, texts, count = self._recipe, self._model.texts, len(self._batch)
        with memory_errors("reading the prompt"):
            positive = texts.positive(recipe, self._first_calls, self._told_size)
            negative = texts.negative(recipe, self._first_calls, self._told_size)
            empty = texts.empty(recipe) if recipe.pad_conds == "on" else None
        pad_conds = "v0" if recipe.rules == OF_2022 and self.sampler.timesteps else recipe.pad_conds
        return Guidance(
            self._model.predict, parametrization(self._table, self._model.checkpoint.prediction, self.sampler.kind),
            [positive] * count, [negative] * count, cfg_scale=recipe.cfg_scale / self.sampler.cfg_divisor,
            planned_calls=planned_calls(replace(recipe, steps=steps)), pad_conds=pad_conds, empty=empty,
            skip_early_cfg=recipe.skip_early_cfg, ngms=recipe.ngms, ngms_all_steps=recipe.ngms_all_steps,
            beside=self._beside, image_scale=recipe.img2img.image_cfg_scale if recipe.img2img and self._model.edits else 1.0,
        )


def whole_plan(recipe: Recipe, sampler: Sampler, table: NoiseTable, aligned: str) -> Tensor:
    """Every noise level, or every time step, of the recipe's schedule. `aligned`: as for `make_sigmas`."""
    if recipe.rules == OF_2022:
        if sampler.timesteps:
            return make_timesteps(recipe.steps, old=True)
        sampler = replace(sampler, discard_penultimate=False)
    if sampler.timesteps:
        return make_timesteps(recipe.steps, discard_penultimate=recipe.discard_penultimate_sigma)
    return make_sigmas(
        recipe.schedule, recipe.steps, table, sampler=sampler, sigma_min=recipe.sigma_min, sigma_max=recipe.sigma_max,
        rho=recipe.rho, beta_alpha=recipe.beta_alpha, beta_beta=recipe.beta_beta,
        discard_penultimate=recipe.discard_penultimate_sigma, old_karras=recipe.old_karras, aligned=aligned,
    )


def own_draws_of_2022(recipe: Recipe, sampler: Sampler, batch_seeds: bool) -> int:
    """How many draws were prepared for each picture of a batch in October 2022: one a step, none for DDIM and PLMS. DPM adaptive may
    want more.
    """
    return recipe.steps if (batch_seeds or recipe.ensd > 0) and not sampler.timesteps else 0


def starting_noise(batch: Sequence[Recipe], device: torch.device, own_draws: int | None = None) -> ImageNoise:
    """The noise of a batch, a generator for each picture. `own_draws`: as in `ImageNoise`."""
    recipe = batch[0]
    latent = (recipe.height // PIXELS_PER_LATENT, recipe.width // PIXELS_PER_LATENT)
    resized = (recipe.seed_resize_height // PIXELS_PER_LATENT, recipe.seed_resize_width // PIXELS_PER_LATENT)
    varied = [one.variation_seed for one in batch] if recipe.variation_strength > 0 else None
    return ImageNoise(
        [one.seed for one in batch], (LATENT_CHANNELS, *latent), recipe.rng, ensd=recipe.ensd, variation_seeds=varied,
        variation_strength=recipe.variation_strength, resize_from=resized if all(resized) else None, own_draws=own_draws, device=device,
    )


def options(recipe: Recipe, sampler: Sampler, table: NoiseTable, guided: Guidance, special: dict[str, Any]) -> dict[str, Any]:
    """What this sampler takes besides the five arguments that all take. `special`: what depends on how the run begins."""
    known: dict[str, Any] = {
        "table": table, "uncond": guided.uncond, "solver_type": "midpoint", "img2img": False, "n": 0, "sigma_min": 0.0, "sigma_max": 0.0,
        "before": unchanged, **special,
    }
    if sampler.uses_eta:
        known["eta"] = getattr(recipe, sampler.uses_eta)
    return {name: known[name] if name in known else getattr(recipe, name) for name in sampler.options}
