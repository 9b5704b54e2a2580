"""Settings that belong together, by name. Standard library only.

The numbers of "A1111 defaults" are a new `Recipe`'s. NovelAI's are those of its first image model (October 2022): clip skip 2, 28
steps, scale 11, Euler a; ENSD 31337 is what gives its pictures in A1111. The words are its V1 quality tags, which stand in front of
the prompt, and its undesired content "low quality + bad anatomy".
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from nbsd.errors import RecipeError
from nbsd.prompt.schedule import is_edited
from nbsd.prompt.weights import Span, parse_weights
from nbsd.recipe import Recipe

NOVELAI_QUALITY = "masterpiece, best quality, "
NOVELAI_UNDESIRED = (
    "nsfw, lowres, bad anatomy, bad hands, text, error, missing fingers, extra digit, fewer digits, cropped, worst quality, "
    "low quality, normal quality, jpeg artifacts, signature, watermark, username, blurry"
)
# What a preset never touches: the picture's words and numbers of its own, its files, what is done to a given picture.
KEPT = frozenset({
    "prompt", "negative_prompt", "dialect", "seed", "variation_seed", "model", "vae", "text_encoder", "img2img", "inpaint", "unknown",
})  # fmt: skip
DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(Recipe) if field.name not in KEPT}


@dataclass(frozen=True)
class Preset:
    """A row of `PRESETS`."""

    name: str
    settings: dict[str, Any]                # field -> value
    prefix: str = ""                        # stands in front of the prompt
    undesired: str = ""                     # stands in front of the negative prompt
    dialect: str = ""                       # how prompts are spelled; "" leaves that alone
    fits: tuple[str, ...] = ()              # samplers that belong to it besides the one in `settings`; they stay


_ALL = (
    Preset("A1111 defaults", DEFAULTS),
    Preset(
        "NovelAI", {"clip_skip": 2, "ensd": 31337, "sampler": "Euler a", "schedule": "Automatic", "steps": 28, "cfg_scale": 11.0},
        prefix=NOVELAI_QUALITY, undesired=NOVELAI_UNDESIRED, dialect="novelai", fits=("Euler",),
    ),
)  # fmt: skip
PRESETS: dict[str, Preset] = {row.name: row for row in _ALL}


def apply(preset: str, recipe: Recipe) -> Recipe:
    """The recipe with the preset's settings and words; the same where they are there already.

    Prompts that use the web UI's own language (weights, escapes, edits) keep it: the preset's language is set only where both mean
    the same. Raises RecipeError for a name that no preset has.
    """
    row = _find(preset)
    settings = dict(row.settings)
    if recipe.sampler in row.fits:
        del settings["sampler"]
    prompt = recipe.prompt if recipe.prompt.startswith(row.prefix) else row.prefix + recipe.prompt
    negative = recipe.negative_prompt
    if row.undesired and not _begins(negative, row.undesired):
        negative = ", ".join(text for text in (row.undesired, negative) if text)
    if row.dialect and _is_plain(recipe.prompt) and _is_plain(recipe.negative_prompt):
        settings["dialect"] = row.dialect
    return replace(recipe, prompt=prompt, negative_prompt=negative, **settings)


def remove(preset: str, recipe: Recipe) -> Recipe:
    """Undo `apply`: the preset's words go, and settings that still have its values get the web UI's defaults.

    Where settings had other values before `apply`, keep that recipe: it is the way back to them. Raises RecipeError as `apply`.
    """
    row = _find(preset)
    usual = Recipe()
    settings = {name: getattr(usual, name) for name, value in row.settings.items() if getattr(recipe, name) == value}
    if recipe.sampler in row.fits:
        settings["sampler"] = usual.sampler
    if row.dialect and recipe.dialect == row.dialect and _is_plain(recipe.prompt) and _is_plain(recipe.negative_prompt):
        settings["dialect"] = usual.dialect
    negative = recipe.negative_prompt
    if row.undesired and _begins(negative, row.undesired):
        negative = negative[len(row.undesired):].removeprefix(", ")
    return replace(recipe, prompt=recipe.prompt.removeprefix(row.prefix), negative_prompt=negative, **settings)


def _find(name: str) -> Preset:
    if name not in PRESETS:
        raise RecipeError(f"no preset is called {name!r}: use one of {', '.join(map(repr, PRESETS))}")
    return PRESETS[name]


def _begins(negative: str, undesired: str) -> bool:
    """Whether a negative prompt is these words, or goes on after them with a comma."""
    return negative == undesired or negative.startswith(undesired + ", ")


def _is_plain(text: str) -> bool:
    """Whether nothing in a prompt is the web UI's language. Braces are NovelAI's."""
    return not is_edited(text) and "<" not in text and parse_weights(text) == [Span(text, 1.0)]
