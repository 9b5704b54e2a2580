"""Every problem of a recipe, found before any work."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from nbsd.errors import RecipeError
from nbsd.infotext.rules import passes
from nbsd.names import MASKED_CONTENTS, RESIZE_MODES, SAMPLER_FACTS, SCHEDULE_NAMES
from nbsd.pipeline.asked import read_tag
from nbsd.pipeline.sizes import final_size
from nbsd.prompt.networks import split_networks, strip_comments
from nbsd.prompt.weights import DIALECTS
from nbsd.recipe import LARGEST_SEED, OF_2022, TODAY, Recipe

# field: smallest and largest value. The panel's ranges are the web UI's and narrower; a typed recipe may go further.
RANGES: dict[str, tuple[float, float]] = {
    "steps": (1, 1000),
    "width": (64, 8192),
    "height": (64, 8192),
    "cfg_scale": (0, 100),
    "seed": (0, LARGEST_SEED),
    "variation_seed": (0, LARGEST_SEED),
    "variation_strength": (0, 1),
    "seed_resize_width": (0, 8192),
    "seed_resize_height": (0, 8192),
    "clip_skip": (1, 12),
    "ensd": (-LARGEST_SEED, LARGEST_SEED),
    "eta": (0, 1),
    "eta_ddim": (0, 1),
    "s_churn": (0, 100),
    "s_tmin": (0, 1000),
    "s_tmax": (0, math.inf),
    "s_noise": (0, 2),
    "sigma_min": (0, 1000),
    "sigma_max": (0, 1000),
    "rho": (0, 100),
    "beta_alpha": (0.01, 1),
    "beta_beta": (0.01, 1),
    "comma_backtrack": (0, 74),
    "ngms": (0, 1000),
    "skip_early_cfg": (0, 1),
    "mask_weight": (0, 1),
    "unipc_order": (1, 50),
    "img2img.denoising_strength": (0, 1),
    "img2img.noise_multiplier": (0, 2),
    "img2img.extra_noise": (0, 1),
    "img2img.image_cfg_scale": (0, 30),
    "inpaint.mask_blur": (0, 256),
    "inpaint.padding": (0, 8192),
    "inpaint.soft.schedule_bias": (0, 8),
    "inpaint.soft.preservation_strength": (0, 8),
    "inpaint.soft.transition_contrast_boost": (1, 32),
    "inpaint.soft.mask_influence": (0, 1),
    "inpaint.soft.difference_threshold": (0, 8),
    "inpaint.soft.difference_contrast": (0, 8),
    "hires.scale": (1, 8),
    "hires.width": (0, 8192),
    "hires.height": (0, 8192),
    "hires.steps": (0, 1000),
    "hires.denoising_strength": (0, 1),
    "hires.extra_noise": (0, 1),
}
CHOICES: dict[str, tuple[str, ...]] = {
    "sampler": tuple(SAMPLER_FACTS),
    "schedule": tuple(SCHEDULE_NAMES),
    "dialect": tuple(DIALECTS),
    "rng": ("GPU", "CPU", "NV"),
    "emphasis": ("Original", "No norm", "Ignore", "None"),
    "rules": (TODAY, OF_2022),
    "pad_conds": ("off", "on", "v0"),
    "unipc_variant": ("bh1", "bh2", "vary_coeff"),
    "unipc_skip_type": ("time_uniform", "time_quadratic", "logSNR"),
    "img2img.resize_mode": RESIZE_MODES,
    "inpaint.fill": MASKED_CONTENTS,
    "hires.sampler": ("", *SAMPLER_FACTS),      # "": the first pass's
    "hires.schedule": ("", *SCHEDULE_NAMES),
}
MOST_STEPS = 10_000     # in a schedule of which only the end is run
MOST_PIXELS = 8192      # a side of the hires fix's result


def check(recipe: Recipe, count: int = 1, batch_size: int = 1) -> None:
    """Raise one RecipeError that names every problem, not just the first."""
    found = problems(recipe)
    found += [f"{name} is {value!r}: use a whole number from 1 to {most}" for name, value, most in
              (("batch count", count, 10_000), ("batch size", batch_size, 64)) if not _whole(value) or not 1 <= value <= most]
    if len(found) == 1:
        raise RecipeError(f"this recipe cannot be made: {found[0]}")
    if found:
        raise RecipeError("this recipe cannot be made:\n" + "\n".join(f"  - {one}" for one in found))


def problems(recipe: Recipe) -> list[str]:
    """What stands in the way of this recipe, a sentence each; empty when nothing does."""
    return [*_numbers(recipe), *_names(recipe), *_strengths(recipe), *_infinite(recipe), *_background(recipe), *_tags(recipe), *_sizes(recipe)]


def _numbers(recipe: Recipe) -> Iterator[str]:
    for path, (least, most) in RANGES.items():
        part, field = _part(recipe, path)
        if part is None:
            continue
        name, value = path.replace(".", " "), getattr(part, field)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
            yield f"{name} is {value!r}: use a number"
        elif not _whole(value) and any(one.name == field and one.type == "int" for one in fields(part)):
            yield f"{name} is {value!r}: use a whole number"
        elif not least <= value <= most:
            yield f"{name} is {value}: use a value from {least} to {most}"
        elif path in ("width", "height") and value % 8:
            yield f"{name} is {value}: use a multiple of 8, such as {max(64, round(value / 8) * 8)}"


def _names(recipe: Recipe) -> Iterator[str]:
    for path, choices in CHOICES.items():
        part, field = _part(recipe, path)
        value = getattr(part, field, choices[0])
        if value not in choices:
            near = get_close_matches(str(value), choices, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; use one of {', '.join(one for one in choices if one)}"
            yield f"no {path.replace('.', ' ')} is called {value!r}{hint}"


def _part(recipe: Recipe, path: str) -> tuple[Any, str]:
    """The part of a recipe that has a field, None where the recipe has no such part; and the field's name."""
    *parts, field = path.split(".")
    found: Any = recipe
    for name in parts:
        found = getattr(found, name, None)
    return found, field


def _strengths(recipe: Recipe) -> Iterator[str]:
    """Exactly so many steps at a low strength are the end of a schedule of very many."""
    exact: list[tuple[str, Any, Any]] = []
    if recipe.img2img and recipe.img2img.exact_steps:
        exact.append(("img2img", recipe.img2img.denoising_strength, recipe.steps))
    if recipe.hires:
        exact.append(("hires", recipe.hires.denoising_strength, recipe.hires.steps or recipe.steps))
    for name, strength, steps in exact:
        numbers = isinstance(strength, (int, float)) and isinstance(steps, int)
        if numbers and 0 < strength < 1 and steps / strength > MOST_STEPS:
            yield f"{name} denoising_strength is {strength}: {steps} steps of so little are the end of too many, use a higher one, or 0"


def _infinite(recipe: Recipe) -> Iterator[str]:
    """In float16 the last noise levels of a zero terminal SNR schedule are infinite, in the web UI too. LCM's are computed in float32."""
    samplers = {one.sampler for one in passes(recipe)}
    if recipe.zero_terminal_snr and recipe.downcast_alphas and any(name in SAMPLER_FACTS and _steps_in_sigmas(name) for name in samplers):
        yield "zero_terminal_snr and downcast_alphas together begin at an infinite noise level, with this sampler: switch one of them off"


def _steps_in_sigmas(sampler: str) -> bool:
    return not SAMPLER_FACTS[sampler].timesteps and sampler != "LCM"


def _background(recipe: Recipe) -> Iterator[str]:
    from PIL import ImageColor

    if recipe.img2img:
        try:
            ImageColor.getrgb(recipe.img2img.background)
        except (ValueError, AttributeError):
            yield f"img2img background is {recipe.img2img.background!r}: use a colour such as #ffffff"


def _tags(recipe: Recipe) -> Iterator[str]:
    for network in split_networks(strip_comments(recipe.prompt))[1]:
        try:
            read_tag(network)
        except RecipeError as error:
            yield str(error)


def _sizes(recipe: Recipe) -> Iterator[str]:
    """The hires fix's result; only where its numbers are numbers."""
    if recipe.hires is None or any(True for _ in _numbers(recipe)):
        return
    width, height = final_size(recipe)
    if not 64 <= min(width, height) <= max(width, height) <= MOST_PIXELS:
        yield f"the hires fix would make {width}x{height}: choose a size from 64 to {MOST_PIXELS} pixels"


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
