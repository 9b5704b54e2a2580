"""Every key of the web UI's text, in the order in which it is written, with the field of a recipe that it stands for.

Order and conditions: A1111 v1.10.1, modules/processing.py `create_infotext` and the places that add to it. A row without a field is
a key that a recipe has no field for: only its place is known, its text is kept in `Recipe.unknown`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from nbsd.infotext import rules
from nbsd.recipe import LARGEST_SEED, OF_2022, TODAY, Img2Img, Recipe, join_title, split_title

Draft = dict[str, Any]      # what was read so far: path of a field -> value

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,18}\.?[0-9]{0,30}|\.[0-9]{1,30})(?:[eE][+-]?[0-9]{1,2})?")
_SIZE = re.compile(r"([0-9]{1,9})x([0-9]{1,9})")


@dataclass(frozen=True)
class Key:
    """A row of the table."""

    key: str
    paths: tuple[str, ...] = ()                                     # of the fields it stands for, e.g. "hires.steps"
    get: Callable[[Recipe], str | None] = lambda _: None            # its text for a recipe; None: it makes no sense there
    put: Callable[[Draft, str], None] = lambda _, __: None          # takes a text in; raises ValueError for one that means nothing
    said: Callable[[Recipe], bool] = lambda _: False                # whether the web UI writes it for such a recipe
    late: Callable[[Recipe], bool] = lambda _: False                # whether only the hires fix's second pass adds it, after the first's


def whole(text: str) -> int:
    if not _WHOLE.fullmatch(text):
        raise ValueError(text)
    return int(text)


def number(text: str) -> float:
    """Whole numbers stay whole: they are written back as they came."""
    if _WHOLE.fullmatch(text):
        return int(text)
    if not _NUMBER.fullmatch(text):
        raise ValueError(text)
    return float(text)


def seed(text: str) -> int:
    """A seed that was drawn; -1 is none, and so is one that no generator takes."""
    if not text.isascii() or not text.isdigit() or len(text) > 20 or int(text) > LARGEST_SEED:
        raise ValueError(text)
    return int(text)


def words(text: str) -> str:
    return text


def one_of(*names: str) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if text not in names:
            raise ValueError(text)
        return text
    return convert


def always(_: Recipe) -> bool:
    return True


def never(_: Recipe) -> bool:
    return False


def value(key: str, path: str, convert: Callable[[str], Any], said: Callable[[Recipe], bool] = never) -> Key:
    """A key that is one field."""
    def put(draft: Draft, text: str) -> None:
        draft[path] = convert(text)
    return Key(key, (path,), lambda recipe: _text(_at(recipe, path)), put, said)


def switch(key: str, path: str, said: Callable[[Recipe], bool] | None = None, off: str = "False", on: str = "True") -> Key:
    """A key that is a field with two values. Unless told otherwise it is written where it is on."""
    def put(draft: Draft, text: str) -> None:
        draft[path] = one_of(off, on)(text) == on

    def get(recipe: Recipe) -> str | None:
        state = _at(recipe, path)
        return None if state is None else on if state else off
    return Key(key, (path,), get, put, said or (lambda recipe: bool(_at(recipe, path))))


def size(key: str, width: str, height: str, said: Callable[[Recipe], bool] = always) -> Key:
    """A key of the form 512x768."""
    def put(draft: Draft, text: str) -> None:
        found = _SIZE.fullmatch(text)
        if not found:
            raise ValueError(text)
        draft[width], draft[height] = int(found[1]), int(found[2])

    def get(recipe: Recipe) -> str | None:
        return None if _at(recipe, width) is None else f"{_at(recipe, width)}x{_at(recipe, height)}"
    return Key(key, (width, height), get, put, said)


def title(hash_key: str, name_key: str, path: str) -> tuple[Key, Key]:
    """Hash and name of a model: two keys, one field."""
    def part(index: int, key: str) -> Key:
        def put(draft: Draft, text: str) -> None:
            draft[f"{path}.{index}"] = text

        def get(recipe: Recipe) -> str | None:
            return split_title(_at(recipe, path))[1 - index] or None
        return Key(key, (path,), get, put, lambda recipe: get(recipe) is not None)
    return part(0, hash_key), part(1, name_key)


def each_pass(row: Key) -> Key:
    """A key that each run of a sampler may add: the hires fix makes two."""
    return replace(row, said=lambda recipe: any(map(row.said, rules.passes(recipe))), late=lambda recipe: not row.said(rules.passes(recipe)[0]))


def joined_title(draft: Draft, path: str) -> None:
    """Make one field of what `title` has read. A hash that is none stays where it can be seen: in the name."""
    digest, name = draft.pop(f"{path}.0", ""), draft.pop(f"{path}.1", "")
    if digest or name:
        draft[path] = join_title(name, digest)


def _strength() -> Key:
    def put(draft: Draft, text: str) -> None:
        draft["denoising_strength"] = number(text)

    def get(recipe: Recipe) -> str | None:
        return _text(_at(recipe, "hires.denoising_strength" if recipe.hires else "img2img.denoising_strength"))
    return Key("Denoising strength", ("hires.denoising_strength", "img2img.denoising_strength"), get, put, always)


def _extra_noise() -> Key:
    def put(draft: Draft, text: str) -> None:
        draft["extra_noise"] = number(text)

    def get(recipe: Recipe) -> str | None:
        return _text(_at(recipe, "hires.extra_noise" if recipe.hires else "img2img.extra_noise"))
    return Key("Extra noise", ("hires.extra_noise", "img2img.extra_noise"), get, put, lambda recipe: float(get(recipe) or 0) > 0,
               lambda recipe: recipe.hires is not None)


def _pad(key: str, mode: str) -> Key:
    def put(draft: Draft, text: str) -> None:
        draft[f"pad_conds.{mode}"] = one_of("False", "True")(text) == "True"
    return Key(key, ("pad_conds",), lambda recipe: str(recipe.pad_conds == mode), put,
               lambda recipe: recipe.pad_conds == mode != rules.implied(recipe).get("pad_conds"))


def _soft(key: str, path: str) -> Key:
    def get(recipe: Recipe) -> str | None:
        found = _at(recipe, f"inpaint.soft.{path}")
        return _text(int(found) if found is not None and found == int(found) else found)      # the web UI's sliders give 1, not 1.0
    row = value(f"Soft inpainting {key}", f"inpaint.soft.{path}", number, lambda recipe: bool(recipe.inpaint and recipe.inpaint.soft))
    return replace(row, get=get)


DETAILS = "ADetailer "      # how that extension's keys begin; where this row stands, they all do


def _place(*keys: str) -> tuple[Key, ...]:
    return tuple(Key(key) for key in keys)


def _at(recipe: Recipe, path: str) -> Any:
    found: Any = recipe
    for name in path.split("."):
        found = getattr(found, name, None)
    return found


def _text(found: Any) -> str | None:
    return None if found is None else str(found)


def _changed(path: str, default: Any) -> Callable[[Recipe], bool]:
    return lambda recipe: _at(recipe, path) not in (None, default)


def _sigma(path: str, default: float) -> Callable[[Recipe], bool]:
    return lambda recipe: path in rules.facts(recipe).sigma_options and getattr(recipe, path) != default


def _eta(path: str, default: float) -> Callable[[Recipe], bool]:
    return lambda recipe: rules.facts(recipe).uses_eta == path and getattr(recipe, path) != default


KEYS: tuple[Key, ...] = (
    value("Steps", "steps", whole, always),
    Key("Sampler", ("sampler", "schedule"), rules.sampler_text, lambda draft, text: draft.update(sampler=text), always),
    Key("Schedule type", ("schedule",), rules.schedule_text, lambda draft, text: draft.update(schedule=text), always),
    value("CFG scale", "cfg_scale", number, always),
    value("Image CFG scale", "img2img.image_cfg_scale", number, _changed("img2img.image_cfg_scale", Img2Img.image_cfg_scale)),
    value("Seed", "seed", seed, always),
    *_place("Face restoration"),
    size("Size", "width", "height"),
    *title("Model hash", "Model", "model"),
    *_place("FP8 weight", "Cache FP16 weight for LoRA"),
    *title("VAE hash", "VAE", "vae"),
    *_place("Hypernet", "Hypernet strength", "Batch size", "Batch pos"),      # of 2022
    value("Variation seed", "variation_seed", seed, lambda recipe: recipe.variation_strength != 0),
    value("Variation seed strength", "variation_strength", number, lambda recipe: recipe.variation_strength != 0),
    size("Seed resize from", "seed_resize_width", "seed_resize_height", lambda r: r.seed_resize_width > 0 and r.seed_resize_height > 0),
    _strength(),
    value("Conditional mask weight", "mask_weight", number, _changed("mask_weight", Recipe.mask_weight)),
    value("Clip skip", "clip_skip", whole, lambda recipe: recipe.clip_skip > 1),
    value("ENSD", "ensd", whole, rules.says_ensd),
    *_place("Token merging ratio", "Token merging ratio hr"),
    value("Init image hash", "img2img.image_hash", words),      # the web UI writes it where it keeps the given picture too
    value("RNG", "rng", one_of("GPU", "CPU", "NV"), _changed("rng", "GPU")),
    switch("Tiling", "tiling"),
    # what the web UI adds while it works, in the order of its work
    *_place("Final denoising strength", "Denoising curve", "SD upscale overlap", "SD upscale upscaler"),
    switch("Soft inpainting enabled", "inpaint.soft"),
    _soft("schedule bias", "schedule_bias"),
    _soft("preservation strength", "preservation_strength"),
    _soft("transition contrast boost", "transition_contrast_boost"),
    _soft("mask influence", "mask_influence"),
    _soft("difference threshold", "difference_threshold"),
    _soft("difference contrast", "difference_contrast"),
    *_place(DETAILS),
    switch("Mask mode", "inpaint.invert", off="Inpaint masked", on="Inpaint not masked"),
    value("Mask blur", "inpaint.mask_blur", whole, _changed("inpaint.mask_blur", 0)),
    switch("Inpaint area", "inpaint.only_masked", off="Whole picture", on="Only masked"),
    value("Masked area padding", "inpaint.padding", whole, lambda recipe: bool(recipe.inpaint and recipe.inpaint.only_masked)),
    value("Masked content", "inpaint.fill", one_of("fill", "original", "latent noise", "latent nothing"),
          _changed("inpaint.fill", "original")),
    *_place("VAE Encoder"),
    value("Hires checkpoint", "hires.model", words, _changed("hires.model", "")),
    replace(value("Hires sampler", "hires.sampler", words, lambda recipe: rules.hires_sampler_text(recipe) not in (None, "", recipe.sampler)),
            get=rules.hires_sampler_text),
    value("Hires prompt", "hires.prompt", words, lambda recipe: bool(recipe.hires and recipe.hires.prompt not in ("", recipe.prompt))),
    value("Hires negative prompt", "hires.negative_prompt", words,
          lambda recipe: bool(recipe.hires and recipe.hires.negative_prompt not in ("", recipe.negative_prompt))),
    Key("Hires schedule type", ("hires.schedule",), rules.hires_schedule_text,
        lambda draft, text: draft.update({"hires.schedule": text}), rules.says_hires_schedule),
    value("Hires upscale", "hires.scale", number, lambda recipe: bool(recipe.hires and not recipe.hires.width and not recipe.hires.height)),
    size("Hires resize", "hires.width", "hires.height", lambda recipe: bool(recipe.hires and (recipe.hires.width or recipe.hires.height))),
    value("Hires steps", "hires.steps", whole, _changed("hires.steps", 0)),
    value("Hires upscaler", "hires.upscaler", words, _changed("hires.upscaler", "")),
    *_place("First pass size", "Lora hashes"),
    replace(switch("Old prompt editing timelines", "old_prompt_timelines", rules.says_old_timelines),
            late=lambda recipe: not rules.says_old_timelines(rules.passes(recipe)[0])),
    *_place("TI hashes"),
    value("Emphasis", "emphasis", one_of("Original", "No norm", "Ignore", "None"), rules.says_emphasis),
    switch("Downcast alphas_cumprod", "downcast_alphas",
           lambda recipe: recipe.downcast_alphas and not rules.implied(recipe).get("downcast_alphas")),
    switch("Noise Schedule", "zero_terminal_snr", off="Default", on="Zero Terminal SNR"),
    value("Noise multiplier", "img2img.noise_multiplier", number, _changed("img2img.noise_multiplier", 1.0)),
    each_pass(switch("Discard penultimate sigma", "discard_penultimate_sigma",
                     lambda recipe: recipe.discard_penultimate_sigma and not rules.facts(recipe).discard_penultimate)),
    each_pass(value("Schedule min sigma", "sigma_min", number, lambda recipe: recipe.sigma_min != 0 and rules.has_schedule(recipe))),
    each_pass(value("Schedule max sigma", "sigma_max", number, lambda recipe: recipe.sigma_max != 0 and rules.has_schedule(recipe))),
    each_pass(value("Schedule rho", "rho", number, rules.says_rho)),
    each_pass(value("Beta schedule alpha", "beta_alpha", number, rules.runs_beta)),
    each_pass(value("Beta schedule beta", "beta_beta", number, rules.runs_beta)),
    _extra_noise(),
    switch("SGM noise multiplier", "sgm_noise_multiplier",
           lambda recipe: recipe.sgm_noise_multiplier and not recipe.img2img and not rules.facts(recipe).timesteps),
    each_pass(value("Eta", "eta", number, _eta("eta", 1.0))),
    each_pass(value("Eta DDIM", "eta_ddim", number, _eta("eta_ddim", 0.0))),
    each_pass(value("Sigma churn", "s_churn", number, _sigma("s_churn", 0.0))),
    each_pass(value("Sigma tmin", "s_tmin", number, _sigma("s_tmin", 0.0))),
    each_pass(value("Sigma tmax", "s_tmax", number, _sigma("s_tmax", 0.0))),
    each_pass(value("Sigma noise", "s_noise", number, _sigma("s_noise", 1.0))),
    # read by the web UI, but never written
    value("UniPC variant", "unipc_variant", one_of("bh1", "bh2", "vary_coeff")),
    value("UniPC skip type", "unipc_skip_type", one_of("time_uniform", "time_quadratic", "logSNR")),
    value("UniPC order", "unipc_order", whole),
    switch("UniPC lower order final", "unipc_lower_order_final", never),
    *_place("Hires refiner", "Refiner switch by sampling steps", "Refiner", "Refiner switch at"),
    value("Skip Early CFG", "skip_early_cfg", number, _changed("skip_early_cfg", 0.0)),
    each_pass(value("NGMS", "ngms", number, rules.says_ngms)),
    each_pass(switch("NGMS all steps", "ngms_all_steps", lambda recipe: recipe.ngms_all_steps and rules.says_ngms(recipe))),
    _pad("Pad conds", "on"),
    _pad("Pad conds v0", "v0"),
    *_place("VAE Decoder"),
    # nbsd's own: the web UI has no text encoders of other models
    value("Text encoder", "text_encoder", words, _changed("text_encoder", None)),
    # the same: the web UI knows these settings but has no key for them
    value("Dialect", "dialect", one_of("webui", "novelai"), _changed("dialect", "webui")),
    value("Rules", "rules", one_of(TODAY, OF_2022)),
    switch("Quantize timesteps", "quantize_timesteps", never),
    switch("Old Karras sigmas", "old_karras", never),
    switch("Old emphasis", "old_emphasis", never),
    value("Prompt wrap limit", "comma_backtrack", whole),
    value("Resize mode", "img2img.resize_mode", words),
    value("Background color", "img2img.background", words),
    switch("Color correction", "img2img.color_correction", never),
    switch("Exact steps", "img2img.exact_steps", never),
    switch("Overlay original", "inpaint.overlay", never),
    switch("Round mask", "inpaint.round_mask", never),
    *_place(""),        # every key that is not in this table
    value("Version", "version", words, _changed("version", "")),
    *_place("User"),
)
ELSEWHERE = frozenset({"prompt", "negative_prompt", "unknown"})     # fields of a recipe that need no key

# The last of the keys that a run of a sampler adds: those of a second run follow.
LAST_OF_A_PASS = "Pad conds v0"

# Up to here keys have fixed places; what follows is added while a picture is made, so its order may be another.
LAST_FIXED = "Tiling"

# Other spellings: written by nobody but read by the web UI, whose two names for these settings differ.
ALIASES = {"Beta scheduler alpha": "Beta schedule alpha", "Beta scheduler beta": "Beta schedule beta"}
