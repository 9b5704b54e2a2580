"""Any recipe, made twice: the second time from the text of the picture that the first time gave. For tools/fuzz.py."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from nbsd import load
from nbsd.names import IMAGE_UPSCALERS, LATENT_UPSCALERS, MASKED_CONTENTS, RESIZE_MODES, SAMPLER_FACTS, SCHEDULE_NAMES
from nbsd.recipe import OF_2022, Hires, Img2Img, Inpaint, Recipe, Soft

PROMPTS = ("", "a cat", "a (cat:1.3), [dog|cow], blue", "a [cat:dog:0.5] AND a tree :0.7", "((x)) BREAK y", "a [b::3] [c:4]", "long " * 90)
# Values of a recipe's fields: those that are drawn always, and those that a field has now and then.
ALWAYS: dict[str, tuple[Any, ...]] = {
    "prompt": PROMPTS, "negative_prompt": PROMPTS, "steps": (1, 2, 3, 4, 7), "sampler": tuple(SAMPLER_FACTS), "cfg_scale": (1.0, 1.5, 7.0, 7, 12.5),
    "seed": (0, 1, 2**32 - 1, 2**32, 2**63), "width": (64, 72, 96, 128), "height": (64, 80, 128), "rng": ("CPU", "GPU", "NV"),
}
SELDOM: dict[str, tuple[Any, ...]] = {
    "schedule": tuple(SCHEDULE_NAMES), "clip_skip": (2, 3, 12), "ensd": (31337, -1), "variation_strength": (0.1, 1.0), "variation_seed": (7,),
    "seed_resize_width": (64, 128), "seed_resize_height": (64, 256), "eta": (0.0, 0.5), "eta_ddim": (0.4, 1.0), "s_churn": (5.0, 100.0),
    "s_tmin": (1.0,), "s_tmax": (10.0,), "s_noise": (0.9, 1.1), "sigma_min": (0.1,), "sigma_max": (10.0,), "rho": (5.0,),
    "discard_penultimate_sigma": (True,), "sgm_noise_multiplier": (True,), "zero_terminal_snr": (True,), "downcast_alphas": (True,),
    "quantize_timesteps": (True,), "old_karras": (True,), "emphasis": ("No norm", "Ignore", "None"), "old_emphasis": (True,),
    "comma_backtrack": (0, 74), "old_prompt_timelines": (True,), "pad_conds": ("on", "v0"), "ngms": (1.0, 4.0), "ngms_all_steps": (True,),
    "skip_early_cfg": (0.3, 1.0), "unipc_variant": ("bh2", "vary_coeff"), "unipc_skip_type": ("time_quadratic", "logSNR"),
    "unipc_order": (1, 2, 4), "unipc_lower_order_final": (False,), "tiling": (True,), "rules": (OF_2022,),
}  # fmt: skip
IMG2IMG: dict[str, tuple[Any, ...]] = {
    "denoising_strength": (0.0, 0.05, 0.3, 0.5, 0.99, 1.0), "resize_mode": RESIZE_MODES, "noise_multiplier": (0.8, 1.2), "extra_noise": (0.1, 1.0),
    "color_correction": (True,), "exact_steps": (True,), "background": ("#00ff00",),
}
INPAINT: dict[str, tuple[Any, ...]] = {
    "mask_blur": (0, 1, 64), "fill": MASKED_CONTENTS, "only_masked": (True,), "padding": (0, 4, 256), "invert": (True,), "overlay": (False,),
    "round_mask": (False,), "soft": (Soft(),),
}
HIRES: dict[str, tuple[Any, ...]] = {
    "upscaler": (*LATENT_UPSCALERS, *IMAGE_UPSCALERS), "scale": (1.0, 1.1, 1.5), "width": (128, 200), "height": (96, 136), "steps": (1, 5),
    "denoising_strength": (0.0, 0.1, 0.5, 1.0), "sampler": tuple(SAMPLER_FACTS), "schedule": tuple(SCHEDULE_NAMES), "prompt": PROMPTS,
    "negative_prompt": PROMPTS, "extra_noise": (0.2,),
}
SIZES = ((64, 64), (128, 64), (100, 37), (300, 20), (256, 256))


def some(draw: random.Random, table: dict[str, tuple[Any, ...]], share: float) -> dict[str, Any]:
    """Values of a share of a table's fields."""
    return {name: draw.choice(values) for name, values in table.items() if draw.random() < share}


def recipe_of(draw: random.Random) -> Recipe:
    """Any recipe, of words alone or of a picture too."""
    kind = draw.choice(("txt2img", "img2img", "inpaint", "hires"))
    return Recipe(
        **some(draw, ALWAYS, 1.0), **some(draw, SELDOM, 0.12),
        img2img=Img2Img(**some(draw, IMG2IMG, 0.5)) if kind in ("img2img", "inpaint") else None,
        inpaint=Inpaint(**some(draw, INPAINT, 0.4)) if kind == "inpaint" else None,
        hires=Hires(**some(draw, HIRES, 0.4)) if kind == "hires" else None,
    )


def given(draw: random.Random, recipe: Recipe) -> dict[str, Image.Image]:
    """The picture and the mask that a recipe changes."""
    if recipe.img2img is None:
        return {}
    width, height = draw.choice(SIZES)
    pixels = np.random.default_rng(draw.randrange(100)).integers(0, 255, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).convert(draw.choice(("RGB", "RGB", "L", "RGBA", "P", "CMYK", "1")))
    if recipe.inpaint is None:
        return {"image": image}
    mask, x, y = Image.new("L", image.size), draw.randrange(width), draw.randrange(height)
    ImageDraw.Draw(mask).rectangle((x, y, x + draw.choice((0, 10, 99)), y + draw.choice((0, 10, 99))), fill=draw.choice((255, 255, 128)))
    return {"image": image, "mask": mask}


class Made:
    """A recipe goes in; the picture's own text has to give the same recipe's text and the same picture again, to the byte."""

    def __init__(self, model: Path) -> None:
        self._path = model

    @cached_property
    def model(self) -> Any:
        """Loaded when it is first wanted: the other parsers need no torch."""
        return load(self._path)

    def __call__(self, draw: random.Random) -> Iterator[object]:
        recipe = recipe_of(draw)
        pictures, count = given(draw, recipe), draw.choice((1, 1, 2))
        yield recipe, pictures, count
        made = list(self.model.make(recipe, count=count, **pictures))
        assert len(made) == count
        text = made[-1].recipe.infotext(complete=True)
        back = Recipe.from_infotext(text)
        assert back.infotext(complete=True) == text
        (again,) = self.model.make(back, **pictures)
        off = np.abs(np.asarray(made[-1].image, dtype=int) - np.asarray(again.image, dtype=int)).max()
        assert off == 0, f"another picture, off by {off}: {text}"
