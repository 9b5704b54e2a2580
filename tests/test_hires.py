"""pipeline/hires.py, sizes.py and upscale.py: the second pass, on the tiny model."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import nbsd
from nbsd import Recipe
from nbsd.errors import ModelError, RecipeError, Stopped
from nbsd.events import Progress
from nbsd.infotext import read
from nbsd.names import LATENT_UPSCALERS
from nbsd.pipeline.hires import cut, scaled_latents, second_recipe
from nbsd.pipeline.progress import calls_of
from nbsd.pipeline.sizes import HiresSize, final_size, hires_size, hires_size_2022
from nbsd.pipeline.upscale import find_upscaler
from nbsd.recipe import Hires

DATA = Path(__file__).parent / "data" / "fidelity"
TOOLS = Path(__file__).parent.parent / "tools"
SMALL = Recipe(prompt="a (cat:1.2)", steps=3, sampler="Euler", width=64, height=64, seed=7, rng="CPU",
               hires=Hires(scale=1.5, denoising_strength=0.6))


@pytest.fixture(scope="module")
def tiny():
    return nbsd.load(DATA / "models" / "tiny-sd1.safetensors", device="cpu")


@pytest.mark.slow
def test_the_recorded_pictures_come_out(monkeypatch, capsys):
    sys.path.insert(0, str(TOOLS))
    try:
        tool = importlib.import_module("fidelity")
        monkeypatch.setattr(importlib.import_module("fidelity_pictures"), "bytes_of", lambda *_: 0.0)
        assert tool.main([str(DATA), "--family", "e_hires"]) == 0, capsys.readouterr().out
    finally:
        sys.path.remove(str(TOOLS))


# --- sizes

SIZES = [
    ({"scale": 2.0}, (512, 512), HiresSize(1024, 1024, 0, 0), (1024, 1024)),
    ({"scale": 1.3}, (512, 512), HiresSize(665, 665, 0, 0), (664, 664)),
    ({"width": 768}, (512, 256), HiresSize(768, 384, 0, 0), (768, 384)),
    ({"height": 512}, (512, 256), HiresSize(1024, 512, 0, 0), (1024, 512)),
    ({"width": 1024, "height": 512}, (512, 512), HiresSize(1024, 1024, 0, 64), (1024, 512)),
    ({"width": 512, "height": 1024}, (512, 512), HiresSize(1024, 1024, 64, 0), (512, 1024)),
    ({"width": 1000, "height": 1024}, (512, 512), HiresSize(1024, 1024, 3, 0), (1000, 1024)),
]


@pytest.mark.parametrize("hires, first, size, final", SIZES, ids=[str(row[:2]) for row in SIZES])
def test_the_size_of_the_second_pass(hires, first, size, final):
    recipe = Recipe(width=first[0], height=first[1], hires=Hires(**hires))
    assert hires_size(recipe) == size and final_size(recipe) == final


def test_in_2022_the_first_pass_was_cut():
    recipe = Recipe(width=512, height=512, hires=Hires(width=1024, height=512), rules="2022-10")
    assert hires_size_2022(recipe) == HiresSize(1024, 512, 0, 32) and final_size(recipe) == (1024, 512)
    assert final_size(Recipe(width=640)) == (640, 512)


def test_what_sticks_out_is_cut_at_both_sides():
    x = torch.arange(12.0).view(1, 1, 2, 6)
    assert cut(x, 1, 2, 0, 1)[0, 0].tolist() == [[1, 2, 3]]


def test_latents_are_scaled_in_six_ways():
    x = torch.randn(1, 4, 8, 8, generator=torch.manual_seed(0))
    made = [scaled_latents(x, HiresSize(96, 128, 0, 0), name) for name in LATENT_UPSCALERS]
    assert all(tuple(one.shape) == (1, 4, 16, 12) for one in made)
    assert scaled_latents(x, HiresSize(64, 64, 0, 0), "Latent").equal(x)
    smaller = [scaled_latents(x, HiresSize(32, 32, 0, 0), name) for name in LATENT_UPSCALERS]
    assert len({one.sum().item() for one in smaller}) >= 5      # smoothing shows where it is made smaller


# --- pictures


@pytest.mark.parametrize("upscaler", ["Latent", "Latent (bicubic antialiased)", "Lanczos", "Nearest", "None"])
def test_the_second_pass_makes_a_larger_picture(tiny, upscaler):
    made = tiny.generate(replace(SMALL, hires=replace(SMALL.hires, upscaler=upscaler)))[0]
    assert made.image.size == (96, 96) and (made.recipe.width, made.recipe.height) == (64, 64)
    assert f"Hires upscale: 1.5, Hires upscaler: {upscaler}" in made.infotext
    assert read(made.infotext).hires == made.recipe.hires


def test_each_setting_counts(tiny):
    first = tiny.generate(SMALL)[0].image.tobytes()
    for change in ({"denoising_strength": 0.9}, {"steps": 5}, {"sampler": "DDIM"}, {"schedule": "Karras"}, {"prompt": "a dog"},
                   {"negative_prompt": "blurry"}, {"extra_noise": 0.2}):
        assert tiny.generate(replace(SMALL, hires=replace(SMALL.hires, **change)))[0].image.tobytes() != first, change


def test_without_strength_the_enlarged_picture_comes_back(tiny):
    plain = tiny.generate(replace(SMALL, hires=None))[0]
    made = tiny.generate(replace(SMALL, hires=Hires(scale=1.5, denoising_strength=0)))[0]
    torch.testing.assert_close(made.latent, scaled_latents(plain.latent[None], HiresSize(96, 96, 0, 0), "Latent")[0], rtol=0, atol=0)


def test_a_picture_of_a_batch_is_the_picture_made_alone(tiny):
    recipe = replace(SMALL, sampler="Euler a", hires=replace(SMALL.hires, upscaler="Lanczos"))
    batch, alone = tiny.generate(recipe, count=2, batch_size=2), tiny.generate(recipe.nth(1))[0]
    gap = np.abs(np.asarray(batch[1].image).astype(int) - np.asarray(alone.image))
    assert (gap <= 1).mean() >= 0.99 and batch[1].recipe == alone.recipe


def test_a_prompt_changes_in_the_second_pass_where_it_says_so(tiny):
    late = tiny.generate(replace(SMALL, prompt="[a cat:a dog:1.5]"))[0].latent
    never = tiny.generate(replace(SMALL, prompt="a cat"))[0].latent
    own = tiny.generate(replace(SMALL, prompt="a cat", hires=replace(SMALL.hires, prompt="[a cat:a dog:1.5]")))[0].latent
    assert not late.equal(never)
    torch.testing.assert_close(late, own, rtol=0, atol=1e-5)


def test_the_second_prompt_brings_its_own_networks(tiny, monkeypatch):
    model = nbsd.load(DATA / "models" / "tiny-sd1.safetensors", device="cpu", networks=DATA / "models")
    recipe = replace(SMALL, hires=replace(SMALL.hires, prompt="a cat <lora:tiny-lora:1>"))
    made = model.generate(recipe)[0]
    assert 'Lora hashes: "tiny-lora: ' in made.infotext
    assert not made.latent.equal(model.generate(replace(recipe, hires=replace(recipe.hires, prompt="a cat")))[0].latent)


def test_a_second_model_makes_the_second_pass(tmp_path):
    folder = DATA / "models"
    for name in ("one", "two"):
        (tmp_path / f"{name}.safetensors").symlink_to(folder / "tiny-sd1.safetensors")
    model = nbsd.load(tmp_path / "one.safetensors", device="cpu")
    recipe = replace(SMALL, hires=replace(SMALL.hires, model="two"))
    made = model.generate(recipe)[0]
    assert model.other("two").name == "two" and model.other("two") is model.other("two") and model.other("one") is model
    assert "Hires checkpoint: two" in made.infotext
    torch.testing.assert_close(made.latent, model.generate(SMALL)[0].latent, rtol=0, atol=0)      # the same weights
    with pytest.raises(ModelError, match="'three'"):
        model.generate(replace(SMALL, hires=replace(SMALL.hires, model="three")))


def test_the_calls_of_both_passes_are_counted(tiny):
    told: list[Progress] = []
    list(tiny.make(SMALL, report=told.append))
    assert told[-1].step == told[-1].steps == calls_of(SMALL) == 6


def test_stop_is_heard_in_the_second_pass(tiny):
    class Late:
        looks = 0

        def check(self) -> None:
            self.looks += 1
            if self.looks == 5:
                raise Stopped("asked")

    with pytest.raises(Stopped):
        list(tiny.make(SMALL, control=Late()))
    assert len(tiny.generate(SMALL)) == 1


def test_the_second_recipe_takes_what_is_not_said_from_the_first():
    assert second_recipe(SMALL) == replace(SMALL, width=96, height=96, hires=None)
    other = replace(SMALL, hires=Hires(sampler="DDIM", steps=9, prompt="b", negative_prompt="c", schedule="Karras"))
    assert second_recipe(other) == replace(SMALL, width=128, height=128, sampler="DDIM", steps=9, prompt="b", negative_prompt="c",
                                           schedule="Karras", hires=None)


# --- upscalers without a model


def test_an_upscaler_gives_the_size_asked_for():
    image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).convert("RGB")
    for name in ("None", "Lanczos", "Nearest"):
        assert find_upscaler(name).fitted(image, (20, 12)).size == (20, 12)
        assert find_upscaler(name).fitted(image, (4, 4)).size == (4, 4)
        assert find_upscaler(name).enlarged(image, 2.6).size == (16, 16)       # a multiple of 8
    assert find_upscaler("Nearest").fitted(image, (16, 16)).tobytes() == image.resize((16, 16), Image.Resampling.NEAREST).tobytes()


def test_an_unknown_upscaler_is_named(tiny):
    with pytest.raises(ModelError, match="no upscaler called '4x-Ultra'"):
        tiny.generate(replace(SMALL, hires=replace(SMALL.hires, upscaler="4x-Ultra")))
    with pytest.raises(RecipeError, match="no upscaler is called ''"):
        find_upscaler("")
