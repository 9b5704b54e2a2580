"""A recipe: one picture, fully determined. Standard library only.

Names, defaults and ranges are the web UI's (A1111 v1.10.1); the infotext key of every field stands in `infotext.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

LATEST = "v1.10.1"      # the version of the web UI whose rules a new recipe follows
TODAY, OF_2022 = "v1.10", "2022-10"     # whose way of sampling: that of 1.10, or that of October 2022
LARGEST_SEED = 2**64 - 1       # torch's generators take no larger one
DRAWN_BELOW = 4294967294        # a random seed is smaller, modules/processing.py get_fixed_seed

_TITLE = re.compile(r"^(?P<name>.*?)\s*\[(?P<hash>[0-9a-f]{6,64})\]$", re.DOTALL)
_HASH = re.compile(r"^(?:[0-9a-f]{8}|[0-9a-f]{10}|[0-9a-f]{12}|[0-9a-f]{64})$")


@dataclass(frozen=True, kw_only=True)
class Img2Img:
    """How a given picture is changed."""

    denoising_strength: float = 0.75        # 0 to 1
    resize_mode: str = "Just resize"
    noise_multiplier: float = 1.0           # 0 to 1.5
    extra_noise: float = 0.0                # 0 to 1
    color_correction: bool = False
    exact_steps: bool = False
    image_cfg_scale: float = 1.5            # of InstructPix2Pix models, 0 to 3: how closely the given picture is followed
    background: str = "#ffffff"             # the colour behind what is transparent in the given picture
    image_hash: str = ""                    # of the given picture (MD5 of its pixels); a made picture's recipe has it


@dataclass(frozen=True, kw_only=True)
class Soft:
    """Soft inpainting."""

    schedule_bias: float = 1.0
    preservation_strength: float = 0.5
    transition_contrast_boost: float = 4.0
    mask_influence: float = 0.0
    difference_threshold: float = 0.5
    difference_contrast: float = 2.0


@dataclass(frozen=True, kw_only=True)
class Inpaint:
    """Which part of a given picture is changed."""

    mask_blur: int = 4                      # pixels, 0 to 64
    fill: str = "original"                  # "fill", "original", "latent noise", "latent nothing"
    only_masked: bool = False
    padding: int = 32                       # pixels around the mask when only_masked
    invert: bool = False
    overlay: bool = True
    round_mask: bool = True
    soft: Soft | None = None

    @property
    def rounds(self) -> bool:
        """Whether each place is changed all or not at all."""
        return self.round_mask and self.soft is None


@dataclass(frozen=True, kw_only=True)
class Hires:
    """The second, larger pass. Zero or empty means "as in the first pass"."""

    upscaler: str = "Latent"
    scale: float = 2.0                      # 1 to 4; ignored when width and height are given
    width: int = 0                          # pixels
    height: int = 0                         # pixels
    steps: int = 0
    denoising_strength: float = 0.7         # 0 to 1
    sampler: str = ""
    schedule: str = ""
    model: str = ""
    prompt: str = ""
    negative_prompt: str = ""
    extra_noise: float = 0.0                # 0 to 1


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One picture, fully determined. Equal recipes on equal files make equal pictures.

    `seed` and `variation_seed` are drawn already: -1 is resolved before it gets here.
    How many pictures are made belongs to the job, not to the recipe.
    """

    prompt: str = ""
    negative_prompt: str = ""
    dialect: str = "webui"                  # how the prompts are spelled: "webui" or "novelai"
    steps: int = 20                         # 1 to 150
    sampler: str = "DPM++ 2M"               # a name in sampling.SAMPLERS
    schedule: str = "Automatic"             # a name in sampling.SCHEDULES
    cfg_scale: float = 7.0                  # 1 to 30
    seed: int = 0                           # 0 to 2**64 - 1
    width: int = 512                        # pixels, a multiple of 8
    height: int = 512                       # pixels, a multiple of 8
    model: str | None = None                # name, hash, path or "name [hash]"; None: the model at hand
    vae: str | None = None                  # the same; None: the one in the model's file
    text_encoder: str | None = None         # a model that it comes from, named so too; None: the model's own
    clip_skip: int = 1                      # 1 to 12; 1 = last layer
    ensd: int = 0                           # eta noise seed delta
    rng: str = "GPU"                        # "GPU", "CPU" or "NV"
    variation_seed: int = 0
    variation_strength: float = 0.0         # 0 to 1
    seed_resize_width: int = 0              # pixels; 0: off
    seed_resize_height: int = 0
    eta: float = 1.0                        # of the ancestral and SDE samplers, 0 to 1
    eta_ddim: float = 0.0                   # of DDIM, 0 to 1
    s_churn: float = 0.0                    # 0 to 100
    s_tmin: float = 0.0
    s_tmax: float = 0.0                     # 0: no limit
    s_noise: float = 1.0
    sigma_min: float = 0.0                  # 0: the schedule's own; so for the next two
    sigma_max: float = 0.0
    rho: float = 0.0
    beta_alpha: float = 0.6
    beta_beta: float = 0.6
    discard_penultimate_sigma: bool = False
    sgm_noise_multiplier: bool = False
    zero_terminal_snr: bool = False
    downcast_alphas: bool = False           # alphas_cumprod rounded to float16, as before 1.7
    quantize_timesteps: bool = False
    old_karras: bool = False                # Karras from 0.1 to 10, as in 2022
    emphasis: str = "Original"              # "Original", "No norm", "Ignore", "None"
    old_emphasis: bool = False
    comma_backtrack: int = 20               # tokens, 0 to 74
    old_prompt_timelines: bool = False
    pad_conds: str = "off"                  # "off", "on", "v0"
    ngms: float = 0.0                       # negative guidance minimum sigma
    ngms_all_steps: bool = False
    skip_early_cfg: float = 0.0             # share of the steps, 0 to 1
    unipc_variant: str = "bh1"              # "bh1", "bh2", "vary_coeff"
    unipc_skip_type: str = "time_uniform"   # "time_uniform", "time_quadratic", "logSNR"
    unipc_order: int = 3
    unipc_lower_order_final: bool = True
    tiling: bool = False
    mask_weight: float = 1.0                # of models made for inpainting, 0 to 1: how well the part to change is hidden from them
    rules: str = TODAY                      # TODAY or OF_2022, where the two sample differently
    img2img: Img2Img | None = None
    inpaint: Inpaint | None = None
    hires: Hires | None = None
    version: str = LATEST                   # the web UI's version whose rules and spelling hold; "": none was written
    unknown: tuple[tuple[str, str], ...] = ()   # keys of an infotext that nbsd does not know, in order

    def nth(self, index: int) -> Recipe:
        """The recipe of picture `index` (from 0) of a batch: the seed counted up, or the variation seed where one is used."""
        if self.variation_strength > 0:
            return replace(self, variation_seed=(self.variation_seed + index) % (LARGEST_SEED + 1))
        return replace(self, seed=(self.seed + index) % (LARGEST_SEED + 1))

    def infotext(self, complete: bool = False) -> str:
        """This recipe in the web UI's text format, word for word as the web UI of its version writes it.

        `complete`: with what the web UI leaves out though it changes the picture, so that reading the text gives this recipe back.
        """
        from nbsd.infotext import write

        return write(self, complete=complete)

    @classmethod
    def from_infotext(cls, text: str) -> Recipe:
        """The recipe that a text in the web UI's format describes. Any text is understood; what is unknown is kept."""
        from nbsd.infotext import read

        return read(text)


def split_title(title: str | None) -> tuple[str, str]:
    """Name and hash of a model as a recipe names it; either may be empty.

    >>> split_title("tiny-sd1 [78e7fcdcdf]")
    ('tiny-sd1', '78e7fcdcdf')
    >>> split_title("925997e9")
    ('', '925997e9')
    """
    if not title:
        return "", ""
    if found := _TITLE.match(title):
        return found["name"], found["hash"]
    return ("", title) if _HASH.match(title) else (title, "")


def join_title(name: str, digest: str) -> str | None:
    """The inverse of `split_title`; None where both are empty."""
    if name and digest:
        return f"{name} [{digest}]"
    return name or digest or None
