"""From a recorded case (the web UI's names of parameters and options) to a recipe, and to the infotext of its pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from nbsd.infotext import write
from nbsd.infotext.rules import sampler_and_schedule
from nbsd.infotext.text import first_pass_size, hypernetwork_tag
from nbsd.names import SAMPLER_FACTS
from nbsd.prompt.networks import split_networks
from nbsd.recipe import LATEST, Hires, Img2Img, Inpaint, Recipe, join_title

RESIZE_MODES = ("Just resize", "Crop and resize", "Resize and fill", "Just resize (latent upscale)")
FILLS = ("fill", "original", "latent noise", "latent nothing")
CREATED_VARIATION_SEED = 5      # the recorded `create_infotext` cases were given it, whatever `subseed` says

# The web UI's name: the path of a field. What the job says (batches, pictures, masks) is no field.
PARAMS = {
    "prompt": "prompt", "negative_prompt": "negative_prompt", "seed": "seed", "subseed": "variation_seed",
    "subseed_strength": "variation_strength", "seed_resize_from_w": "seed_resize_width", "seed_resize_from_h": "seed_resize_height",
    "steps": "steps", "sampler_name": "sampler", "scheduler": "schedule", "cfg_scale": "cfg_scale", "width": "width", "height": "height",
    "tiling": "tiling", "s_churn": "s_churn", "s_tmin": "s_tmin", "s_tmax": "s_tmax", "s_noise": "s_noise",
    "hr_scale": "hires.scale", "hr_upscaler": "hires.upscaler", "hr_second_pass_steps": "hires.steps", "hr_resize_x": "hires.width",
    "hr_resize_y": "hires.height", "hr_sampler_name": "hires.sampler", "hr_scheduler": "hires.schedule", "hr_prompt": "hires.prompt",
    "hr_negative_prompt": "hires.negative_prompt", "hr_checkpoint_name": "hires.model",
    "mask_blur": "inpaint.mask_blur", "inpaint_full_res_padding": "inpaint.padding", "mask_round": "inpaint.round_mask",
}
CONVERTED: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "resize_mode": ("img2img.resize_mode", RESIZE_MODES.__getitem__),
    "inpainting_fill": ("inpaint.fill", FILLS.__getitem__),
    "inpaint_full_res": ("inpaint.only_masked", bool),
    "inpainting_mask_invert": ("inpaint.invert", bool),
}
JOB = frozenset({"batch_size", "n_iter", "init_images", "mask", "enable_hr", "eta", "denoising_strength", "sampler"})
OPTIONS = {
    "CLIP_stop_at_last_layers": "clip_skip", "eta_noise_seed_delta": "ensd", "randn_source": "rng", "eta_ancestral": "eta",
    "eta_ddim": "eta_ddim", "s_churn": "s_churn", "s_tmin": "s_tmin", "s_tmax": "s_tmax", "s_noise": "s_noise",
    "sigma_min": "sigma_min", "sigma_max": "sigma_max", "rho": "rho", "beta_dist_alpha": "beta_alpha", "beta_dist_beta": "beta_beta",
    "always_discard_next_to_last_sigma": "discard_penultimate_sigma", "sgm_noise_multiplier": "sgm_noise_multiplier",
    "use_downcasted_alpha_bar": "downcast_alphas", "enable_quantization": "quantize_timesteps",
    "use_old_karras_scheduler_sigmas": "old_karras", "emphasis": "emphasis", "use_old_emphasis_implementation": "old_emphasis",
    "comma_padding_backtrack": "comma_backtrack", "use_old_scheduling": "old_prompt_timelines", "s_min_uncond": "ngms",
    "s_min_uncond_all": "ngms_all_steps", "skip_early_cond": "skip_early_cfg", "uni_pc_variant": "unipc_variant",
    "uni_pc_skip_type": "unipc_skip_type", "uni_pc_order": "unipc_order", "uni_pc_lower_order_final": "unipc_lower_order_final",
    "tiling": "tiling", "initial_noise_multiplier": "img2img.noise_multiplier", "img2img_extra_noise": "img2img.extra_noise",
    "img2img_color_correction": "img2img.color_correction", "img2img_fix_steps": "img2img.exact_steps",
    "img2img_background_color": "img2img.background",
    "overlay_inpaint": "inpaint.overlay",
}
CONVERTED_OPTIONS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "sd_noise_schedule": ("zero_terminal_snr", "Zero Terminal SNR".__eq__),
    "enable_emphasis": ("emphasis", lambda on: "Original" if on else "None"),       # of 2022
}
PAD = {"pad_cond_uncond_v0": "v0", "pad_cond_uncond": "on"}         # the last one that is on wins
BATCH_SEEDS = "enable_batch_seeds"       # belongs to the job
OLD_HIRES_SIZE = "use_old_hires_fix_width_height"       # the size is that of the second pass; the web UI finds one for the first
SAID_ONLY = {"token_merging_ratio": "Token merging ratio", "token_merging_ratio_hr": "Token merging ratio hr"}
SET_FIELDS = {"user": "User", "init_img_hash": "Init image hash"}
# On the processing object these are fill 0 and no padding; in nbsd, as on the web UI's page, they are not.
INPAINT = {"inpaint.fill": FILLS[0], "inpaint.only_masked": True, "inpaint.padding": 0}


class Unmapped(KeyError):
    """A parameter or option that no field of a recipe stands for yet."""

    def __str__(self) -> str:
        return f"{self.args[0]} {self.args[1]!r} = {self.args[2]!r}"


def recipe_of(case: Mapping[str, Any], defaults: Mapping[str, Any]) -> Recipe:
    """The recipe of a case's first picture. `defaults` is the family's file, for what its cases leave out.

    Raises Unmapped, a KeyError, for what cannot be said in a recipe.
    """
    params = {**defaults.get("defaults_of_params", {}), **case["params"]}
    options = case.get("options", {})
    if case.get("kind") == "create":
        return _created(case, params, options)
    fields: dict[str, Any] = dict(INPAINT) if "mask" in params else {}
    for name, value in params.items():
        value = value[0] if isinstance(value, list) and name != "init_images" else value
        if name in CONVERTED:
            path, convert = CONVERTED[name]
            fields[path] = convert(value)
        elif name in PARAMS:
            fields[PARAMS[name]] = value
        elif name not in JOB and not (name.startswith("firstphase_") and params.get("enable_hr")):
            raise Unmapped("parameter", name, value)
    if fields.get("variation_seed") == -1:      # drawn, but of no consequence
        del fields["variation_seed"]
    fields.update(_options(options))
    _derived(fields, params, case)
    return _recipe(fields, params)


def infotext_of(case: Mapping[str, Any], recipe: Recipe, index: int = 0) -> str:
    """The infotext of picture `index` as the recorded run wrote it.

    It wrote prompts without network tags (no scripts ran that put them back), and not what stood on the processing object instead
    of in the settings. In 2022 it wrote fewer settings, but some that had no effect.
    """
    params, options = case["params"], case.get("options", {})
    bare, tags = split_networks(recipe.prompt)
    if recipe.hires and not recipe.hires.prompt and tags and isinstance(params.get("prompt"), str) and split_networks(params["prompt"])[1]:
        recipe = replace(recipe, hires=replace(recipe.hires, prompt=params["prompt"]))     # the second pass' prompt kept them
    recipe = replace(recipe, prompt=bare)
    silent = {name for name in ("s_churn", "s_tmin", "s_tmax", "s_noise") if name in params and name not in options}
    if "sampler" in params:
        recipe = _as_in_2022(case, recipe, index)
        silent |= {"s_churn", "s_tmin", "s_tmax", "s_noise", "tiling", "emphasis", "inpaint"}
    usual = Recipe()
    return write(replace(recipe, **{name: getattr(usual, name) for name in silent}))


def _options(options: Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in options.items():
        if name in CONVERTED_OPTIONS:
            path, convert = CONVERTED_OPTIONS[name]
            fields[path] = convert(value)
        elif name in OPTIONS:
            fields[OPTIONS[name]] = value
        elif name not in (*PAD, "sd_hypernetwork", "use_scale_latent_for_hires_fix", OLD_HIRES_SIZE, BATCH_SEEDS):
            raise Unmapped("option", name, value)
    for name, mode in PAD.items():
        if options.get(name):
            fields["pad_conds"] = mode
    return fields


def _derived(fields: dict[str, Any], params: Mapping[str, Any], case: Mapping[str, Any]) -> None:
    """What depends on more than one name."""
    options = case.get("options", {})
    if "sampler" in params:
        fields["version"] = ""
        fields["sampler"], fields["schedule"] = sampler_and_schedule(params["sampler"], None, "")
        fields["old_karras"] = fields["schedule"] == "Karras"
    if params.get("eta") is not None and (params["eta"] or "sampler" not in params):    # in 2022, 0 was taken as not given
        fields["eta_ddim" if SAMPLER_FACTS[fields["sampler"]].timesteps else "eta"] = params["eta"]
    if "denoising_strength" in params:
        if params.get("enable_hr"):
            fields["hires.denoising_strength"] = params["denoising_strength"]
        elif "init_images" in params:
            fields["img2img.denoising_strength"] = params["denoising_strength"]
    if params.get("firstphase_width"):      # in 2022 the size was that of the second pass
        fields["hires.width"], fields["hires.height"] = fields["width"], fields["height"]
        fields["width"], fields["height"] = params["firstphase_width"], params["firstphase_height"]
        fields["hires.upscaler"] = "Latent" if options.get("use_scale_latent_for_hires_fix") else "Lanczos"
    if params.get("enable_hr") and options.get(OLD_HIRES_SIZE):
        fields["hires.width"], fields["hires.height"] = fields["width"], fields["height"]
        fields["width"], fields["height"] = first_pass_size(fields["width"], fields["height"])
    name = options.get("sd_hypernetwork", case.get("hypernetwork", "None"))
    if name != "None":
        fields["prompt"] += f"<hypernet:{name}:{case.get('hypernetwork_strength', 1.0)}>"


def _recipe(fields: Mapping[str, Any], params: Mapping[str, Any]) -> Recipe:
    def part(prefix: str) -> dict[str, Any]:
        return {path.removeprefix(prefix): value for path, value in fields.items() if path.startswith(prefix)}
    plain = {path: value for path, value in fields.items() if "." not in path}
    return Recipe(
        **plain,
        hires=Hires(**{name: value for name, value in part("hires.").items() if value is not None}) if params.get("enable_hr") else None,
        img2img=Img2Img(**part("img2img.")) if "init_images" in params else None,
        inpaint=Inpaint(**part("inpaint.")) if "mask" in params else None,
    )


def _created(case: Mapping[str, Any], params: Mapping[str, Any], options: Mapping[str, Any]) -> Recipe:
    """For `create_infotext` alone: no picture was made, so nothing is said that is found out while one is."""
    fields: dict[str, Any] = {}
    said: dict[str, Any] = {}
    for name, value in params.items():
        if name in PARAMS and "." not in PARAMS[name]:
            fields[PARAMS[name]] = value
        elif name == "restore_faces":
            said["Face restoration"] = options.get("face_restoration_model", "CodeFormer") if value else None
        elif name not in JOB:
            raise Unmapped("parameter", name, value)
    for name, value in options.items():
        if name in SAID_ONLY:
            said[SAID_ONLY[name]] = value
        elif name in ("CLIP_stop_at_last_layers", "eta_noise_seed_delta", "randn_source"):
            fields[OPTIONS[name]] = value
        elif name != "face_restoration_model":
            raise Unmapped("option", name, value)
    if params.get("eta") == 0:
        fields["ensd"] = 0      # not said where eta is 0; eta itself is said by the sampler, which did not run
    given = dict(case.get("set_fields", {}))
    vae = join_title(given.pop("sd_vae_name", ""), given.pop("sd_vae_hash", ""))
    for name, value in given.items():
        if name not in SET_FIELDS:
            raise Unmapped("field", name, value)
        said[SET_FIELDS[name]] = value
    said.update({"Schedule type": params["scheduler"], **case.get("extra_generation_params", {})})
    if "variation_seed" in fields:
        fields["variation_seed"] = CREATED_VARIATION_SEED
    return Recipe(
        **fields, version=case.get("version", LATEST), model=join_title(case["sd_model_name"], case["sd_model_hash"]), vae=vae,
        unknown=tuple((key, str(value)) for key, value in said.items() if value is not None),
    )


def _as_in_2022(case: Mapping[str, Any], recipe: Recipe, index: int) -> Recipe:
    """With what was written then without effect, and in the terms of then: the size is the final one, a hypernetwork is a key."""
    params = case["params"]
    said = [("Seed resize from", "-1x-1")] if "seed_resize_from_w" not in params else []
    if params.get("batch_size", 1) > 1:
        said += [("Batch size", str(params["batch_size"])), ("Batch pos", str(index % params["batch_size"]))]
    if not recipe.img2img:
        said.append(("Denoising strength", str(params.get("denoising_strength", 0.75))))
    if "hypernetwork" in case:
        said.append(("Hypernet", case["hypernetwork"]))
        recipe = replace(recipe, prompt=recipe.prompt + hypernetwork_tag(dict(said)))
    if recipe.hires:
        said.append(("First pass size", f"{recipe.width}x{recipe.height}"))
        recipe = replace(recipe, width=recipe.hires.width, height=recipe.hires.height, hires=None)
    return replace(recipe, unknown=(*recipe.unknown, *said))
