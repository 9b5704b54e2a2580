"""The table of controls: a field of the recipe and the widget that shows it.

Number boxes, not sliders: they have a name for screen readers, and they never bend a pasted value into a range. What a recipe may
hold is checked once, in `pipeline.check`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ipywidgets as w

from nbsd.names import SAMPLER_FACTS, SCHEDULE_NAMES
from nbsd.ui.parts import Parts

Choices = tuple[tuple[str, Any], ...]       # (what is shown, the value)


@dataclass(frozen=True)
class Control:
    """One row: which field, what it is called, how it is entered."""

    field: str                  # of Recipe, of a part of it ("hires.steps"), or of JOB
    label: str                  # as the web UI calls it
    kind: str                   # a key of KINDS
    group: str = "main"         # "main" is laid out by hand in panel.py; every other group is a section of the Advanced tab
    choices: Choices = ()
    step: float = 1
    tip: str = ""
    rows: int = 3               # of a text area
    more_classes: tuple[str, ...] = ()


def _same(*values: str) -> Choices:
    return tuple((value, value) for value in values)


CONTROLS: tuple[Control, ...] = (
    Control("prompt", "Prompt", "lines", more_classes=("nbsd-prompt",)),
    Control("negative_prompt", "Negative prompt", "lines", rows=2, more_classes=("nbsd-negative",)),
    Control("dialect", "Prompt dialect", "choice", choices=(("A1111: (more) [less]", "webui"), ("NovelAI: {more} [less]", "novelai"))),
    Control("sampler", "Sampler", "choice", choices=_same(*SAMPLER_FACTS)),
    Control("schedule", "Schedule", "choice", choices=_same(*SCHEDULE_NAMES), tip="How the noise level falls from step to step"),
    Control("steps", "Steps", "whole"),
    Control("cfg_scale", "CFG scale", "number", step=0.5, tip="How closely the prompt is followed; 1 switches the negative prompt off"),
    Control("clip_skip", "Clip skip", "whole", tip="1 = the text encoder's last layer; many anime models want 2"),
    Control("width", "Width", "whole", step=8, tip="Pixels, a multiple of 8"),
    Control("height", "Height", "whole", step=8, tip="Pixels, a multiple of 8"),
    Control("seed", "Seed (-1 = random)", "whole", more_classes=("nbsd-seed",)),
    Control("variation_seed", "Variation seed", "whole", tip="-1 = random; used when the strength is above 0"),
    Control("variation_strength", "Variation strength", "number", step=0.05, tip="0 to 1: how far the noise is moved to that of the variation seed"),
    Control("ensd", "ENSD", "whole", tip="Eta noise seed delta; 31337 in many shared recipes"),
    Control("rng", "RNG source", "choice", choices=(("GPU", "GPU"), ("CPU", "CPU"), ("NV (as a GPU, on any machine)", "NV")),
            tip="Where the noise is drawn; the same seed gives other pictures"),

    Control("eta", "Eta", "number", "Noise added while sampling", step=0.05, tip="Of the ancestral and SDE samplers, 0 to 1"),
    Control("eta_ddim", "Eta DDIM", "number", "Noise added while sampling", step=0.05),
    Control("s_churn", "Sigma churn", "number", "Noise added while sampling", step=0.5),
    Control("s_tmin", "Sigma tmin", "number", "Noise added while sampling", step=0.1),
    Control("s_tmax", "Sigma tmax", "number", "Noise added while sampling", tip="0 = no limit"),
    Control("s_noise", "Sigma noise", "number", "Noise added while sampling", step=0.005),
    Control("seed_resize_width", "Seed resize width", "whole", "Noise added while sampling", step=8, tip="0 = off"),
    Control("seed_resize_height", "Seed resize height", "whole", "Noise added while sampling", step=8, tip="0 = off"),

    Control("sigma_min", "Sigma min", "number", "Noise schedule", step=0.01, tip="0 = the schedule's own"),
    Control("sigma_max", "Sigma max", "number", "Noise schedule", step=0.1, tip="0 = the schedule's own"),
    Control("rho", "Rho", "number", "Noise schedule", step=0.5, tip="0 = the schedule's own"),
    Control("beta_alpha", "Beta alpha", "number", "Noise schedule", step=0.05),
    Control("beta_beta", "Beta beta", "number", "Noise schedule", step=0.05),
    Control("discard_penultimate_sigma", "Discard next-to-last sigma", "yes", "Noise schedule"),
    Control("sgm_noise_multiplier", "SGM noise multiplier", "yes", "Noise schedule"),
    Control("zero_terminal_snr", "Zero terminal SNR", "yes", "Noise schedule"),

    Control("emphasis", "Emphasis", "choice", "Reading the prompt", choices=_same("Original", "No norm", "Ignore", "None")),
    Control("pad_conds", "Pad conds", "choice", "Reading the prompt", choices=_same("off", "on", "v0"),
            tip="Prompt and negative prompt of different length in one call"),
    Control("comma_backtrack", "Comma backtrack (tokens)", "whole", "Reading the prompt"),
    Control("old_emphasis", "Old emphasis", "yes", "Reading the prompt"),
    Control("old_prompt_timelines", "Old prompt editing timelines", "yes", "Reading the prompt"),

    Control("ngms", "NGMS", "number", "Guidance", step=0.1, tip="Negative guidance minimum sigma"),
    Control("skip_early_cfg", "Skip early CFG", "number", "Guidance", step=0.05, tip="Share of the steps, 0 to 1"),
    Control("mask_weight", "Inpainting conditioning mask strength", "number", "Guidance", step=0.05,
            tip="0 to 1, of models made for inpainting: how well what is to change is hidden from them"),
    Control("ngms_all_steps", "NGMS on all steps", "yes", "Guidance"),

    Control("unipc_variant", "UniPC variant", "choice", "UniPC", choices=_same("bh1", "bh2", "vary_coeff")),
    Control("unipc_skip_type", "UniPC skip type", "choice", "UniPC", choices=_same("time_uniform", "time_quadratic", "logSNR")),
    Control("unipc_order", "UniPC order", "whole", "UniPC"),
    Control("unipc_lower_order_final", "Lower order at the end", "yes", "UniPC"),

    Control("downcast_alphas", "Half-precision alphas (before 1.7)", "yes", "As older versions did"),
    Control("rules", "Sampling rules", "choice", "As older versions did", choices=(("A1111 1.10", "v1.10"), ("October 2022", "2022-10"))),
    Control("quantize_timesteps", "Whole time steps", "yes", "As older versions did"),
    Control("old_karras", "Karras from 0.1 to 10 (2022)", "yes", "As older versions did"),
    Control("tiling", "Tiling", "yes", "As older versions did"),
)

# Fields as sentences name them.
LABELS = {"model": "Model", "vae": "VAE", "text_encoder": "Text encoder", **{row.field: row.label.split(" (")[0] for row in CONTROLS}}

# What belongs to the job, not to the recipe.
JOB: tuple[Control, ...] = (
    Control("count", "Batch count", "whole", tip="How many times a batch is made; the seed counts up"),
    Control("batch_size", "Batch size", "whole", tip="Pictures made at the same time"),
)

# Fields that have no single control, and who takes care of them.
ELSEWHERE: dict[str, str] = {
    "model": "pickers.py",
    "vae": "pickers.py",
    "text_encoder": "borrowed.py",
    "img2img": "modes.py",
    "inpaint": "modes.py",
    "hires": "modes.py",
    "version": "form.py keeps what was pasted",
    "unknown": "form.py keeps what was pasted",
}

# How a value is entered: the widget, and what of the row it is made with.
KINDS: dict[str, tuple[type[w.Widget], Callable[[Control], dict[str, Any]]]] = {
    "lines": (w.Textarea, lambda row: {"rows": row.rows}),
    "text": (w.Text, lambda row: {}),
    "whole": (w.IntText, lambda row: {"step": int(row.step)}),
    "number": (w.FloatText, lambda row: {"step": row.step}),
    "choice": (w.Dropdown, lambda row: {"options": row.choices}),
    "yes": (w.Checkbox, lambda row: {"indent": False}),
}


def make(row: Control, parts: Parts) -> w.Widget:
    """The widget of a row, with its label as description: that is what screen readers read."""
    kind, traits = KINDS[row.kind]
    classes = ("nbsd-control", f"nbsd-field-{row.field.replace('.', '-')}", *row.more_classes, *(["nbsd-yes"] if row.kind == "yes" else []))
    made = parts.make(kind, *classes, description=row.label, **traits(row))
    if row.tip:
        set_tip(made, row.tip)
    return made


def set_tip(widget: w.Widget, text: str) -> None:
    """The text that shows when the mouse rests on a control; ipywidgets 7 and 8 name it differently."""
    widget.set_trait("tooltip" if widget.has_trait("tooltip") else "description_tooltip", text)


def put(widget: w.Widget, value: Any) -> None:
    """Show a value. A choice that the list does not have is added to it: what was pasted is never bent."""
    if isinstance(widget, w.Dropdown) and value not in [known for _, known in widget.options]:
        widget.options = (*widget.options, (f"{value} (unknown)", value))
    widget.value = value
