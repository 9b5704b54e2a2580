"""Every problem of a recipe, found before any work."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields
from difflib import get_close_matches

from nbsd.errors import RecipeError
from nbsd.names import SAMPLER_FACTS, SCHEDULE_NAMES
from nbsd.pipeline.asked import read_tag
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
    "unipc_order": (1, 50),
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
}
LATER = {"img2img": "changing a given picture", "inpaint": "inpainting", "hires": "hires fix"}


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
    return [*_numbers(recipe), *_names(recipe), *_tags(recipe), *_not_yet(recipe)]


def _numbers(recipe: Recipe) -> Iterator[str]:
    whole = {field.name for field in fields(Recipe) if field.type == "int"}
    for name, (least, most) in RANGES.items():
        value = getattr(recipe, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
            yield f"{name} is {value!r}: use a number"
        elif name in whole and not _whole(value):
            yield f"{name} is {value!r}: use a whole number"
        elif not least <= value <= most:
            yield f"{name} is {value}: use a value from {least} to {most}"
        elif name in ("width", "height") and value % 8:
            yield f"{name} is {value}: use a multiple of 8, such as {max(64, round(value / 8) * 8)}"


def _names(recipe: Recipe) -> Iterator[str]:
    for name, choices in CHOICES.items():
        value = getattr(recipe, name)
        if value not in choices:
            near = get_close_matches(str(value), choices, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; use one of {', '.join(choices)}"
            yield f"no {name} is called {value!r}{hint}"


def _tags(recipe: Recipe) -> Iterator[str]:
    for network in split_networks(strip_comments(recipe.prompt))[1]:
        try:
            read_tag(network)
        except RecipeError as error:
            yield str(error)


def _not_yet(recipe: Recipe) -> Iterator[str]:
    for name, words in LATER.items():
        if getattr(recipe, name):
            yield f"{words} is not supported yet"


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
