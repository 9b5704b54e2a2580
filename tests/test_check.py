"""pipeline/check.py: every problem of a recipe, in one error."""

from dataclasses import fields, replace

import pytest

from nbsd import Recipe
from nbsd.errors import RecipeError
from nbsd.pipeline.check import CHOICES, RANGES, check, problems
from nbsd.recipe import Hires, Img2Img, Inpaint, Soft

WRONG = [
    ({"width": 100}, "width is 100: use a multiple of 8, such as 96"),
    ({"height": 63}, "height is 63: use a value from 64 to 8192"),
    ({"height": 8}, "height is 8: use a value from 64 to 8192"),
    ({"steps": 0}, "steps is 0: use a value from 1 to 1000"),
    ({"steps": 2.5}, "steps is 2.5: use a whole number"),
    ({"steps": True}, "steps is True: use a number"),
    ({"cfg_scale": float("nan")}, "cfg_scale is nan: use a number"),
    ({"cfg_scale": "7"}, "cfg_scale is '7': use a number"),
    ({"seed": -1}, "seed is -1: use a value from 0 to 18446744073709551615"),
    ({"sampler": "Euler A"}, "no sampler is called 'Euler A'; did you mean 'Euler a'?"),
    ({"sampler": "zzz"}, "no sampler is called 'zzz'; use one of DPM++ 2M, "),
    ({"schedule": "Karas"}, "no schedule is called 'Karas'; did you mean 'Karras'?"),
    ({"rng": "cpu"}, "no rng is called 'cpu'"),
    ({"clip_skip": 13}, "clip_skip is 13: use a value from 1 to 12"),
    ({"img2img": Img2Img(denoising_strength=1.5)}, "img2img denoising_strength is 1.5: use a value from 0 to 1"),
    ({"img2img": Img2Img(resize_mode="Stretch")}, "no img2img resize_mode is called 'Stretch'"),
    ({"img2img": Img2Img(background="wite")}, "img2img background is 'wite': use a colour such as #ffffff"),
    ({"img2img": Img2Img(denoising_strength=0.001, exact_steps=True)}, "img2img denoising_strength is 0.001: 20 steps of so little"),
    ({"inpaint": Inpaint(mask_blur=2.5)}, "inpaint mask_blur is 2.5: use a whole number"),
    ({"inpaint": Inpaint(fill="latent noice")}, "no inpaint fill is called 'latent noice'; did you mean 'latent noise'?"),
    ({"inpaint": Inpaint(soft=Soft(transition_contrast_boost=0))}, "inpaint soft transition_contrast_boost is 0: use a value from 1 to 32"),
    ({"hires": Hires(scale=0.5)}, "hires scale is 0.5: use a value from 1 to 8"),
    ({"hires": Hires(scale=8), "width": 2048}, "the hires fix would make 16384x4096: choose a size from 64 to 8192 pixels"),
    ({"hires": Hires(width=64, height=16)}, "the hires fix would make 64x16"),
    ({"hires": Hires(sampler="Oiler")}, "no hires sampler is called 'Oiler'; did you mean 'Euler'?"),
    ({"hires": Hires(denoising_strength=0.001)}, "hires denoising_strength is 0.001: 20 steps of so little"),
    ({"zero_terminal_snr": True, "downcast_alphas": True}, "zero_terminal_snr and downcast_alphas together begin at an infinite noise level"),
    ({"prompt": "a cat <lora:ink:much>"}, "'much' in <lora:ink:much> is no strength: use a number such as 0.8"),
    ({"prompt": "a cat <lora:te=1>"}, "<lora:te=1> names no LoRA"),
    ({"prompt": "a cat <hyper:ink:1>"}, "no network is of the kind 'hyper'"),
]


@pytest.mark.parametrize("changes, message", WRONG, ids=[str(changes) for changes, _ in WRONG])
def test_each_problem_says_what_and_what_to_do(changes, message):
    assert [one[: len(message)] for one in problems(replace(Recipe(), **changes))] == [message]


def test_all_problems_stand_in_one_error():
    with pytest.raises(RecipeError) as caught:
        check(Recipe(width=100, steps=0, sampler="Oiler"), count=0)
    for words in ("width is 100", "steps is 0", "'Oiler'; did you mean 'Euler'?", "batch count is 0"):
        assert words in str(caught.value)


def test_the_defaults_can_be_made():
    assert problems(Recipe()) == problems(Recipe(sampler="DDIM", zero_terminal_snr=True, downcast_alphas=True)) == []
    assert problems(Recipe(prompt="a <lora:ink> <hypernet:wash:0.5> # <lora:no:comment>", negative_prompt="<lora:text:here>")) == []
    check(Recipe(), count=3, batch_size=2)


def test_every_number_has_a_range_and_every_name_its_choices():
    texts = {"prompt", "negative_prompt", "version", "img2img.background", "img2img.image_hash",
             "hires.prompt", "hires.negative_prompt", "hires.model", "hires.upscaler"}     # the last two are names of files
    kinds = {"": Recipe, "img2img.": Img2Img, "inpaint.": Inpaint, "inpaint.soft.": Soft, "hires.": Hires}
    types = {f"{prefix}{field.name}": field.type for prefix, kind in kinds.items() for field in fields(kind)}
    assert {name for name, kind in types.items() if kind in ("int", "float")} == set(RANGES)
    assert {name for name, kind in types.items() if kind == "str"} - texts == set(CHOICES)
