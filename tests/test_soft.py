"""pipeline/soft.py: soft inpainting, its formulas by hand and on the road."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter

import nbsd
from nbsd import Recipe
from nbsd.infotext import read
from nbsd.pipeline.img2img import encode, latent_mask
from nbsd.pipeline.soft import changed_places, mixed, weighted_part
from nbsd.recipe import Img2Img, Inpaint, Soft
from nbsd.sampling import SAMPLERS, make_sigmas

RECIPE = Recipe(prompt="a cat", steps=3, sampler="Euler", width=128, height=64, seed=7, rng="CPU", cfg_scale=1.0,
                img2img=Img2Img(denoising_strength=0.9), inpaint=Inpaint(mask_blur=4, soft=Soft()))


@pytest.fixture(scope="module")
def tiny(tiny_model):
    return nbsd.load(tiny_model, device="cpu")


def picture(size=(128, 64)) -> Image.Image:
    return Image.merge("RGB", [Image.radial_gradient("L").rotate(turn).resize(size) for turn in (0, 90, 180)])


def painted(size=(128, 64), box=(72, 8, 111, 55)) -> Image.Image:
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).rectangle(box, fill=255)
    return mask.filter(ImageFilter.GaussianBlur(6))


@pytest.mark.parametrize(("at", "how"), [(2.0, Soft()), (0.3, Soft(schedule_bias=0.5, preservation_strength=2, transition_contrast_boost=1))], ids=str)
def test_latents_are_mixed_in_direction_and_length_apart(at, how):
    given, made = torch.randn(2, 1, 4, 3, 5, generator=torch.manual_seed(0))
    change = torch.linspace(0, 1, 15).view(1, 1, 3, 5)
    got = mixed(given, made, change, torch.tensor(at), how)
    for y in range(3):
        for x in range(5):
            a, b = (one[0, :, y, x].double().numpy() for one in (given, made))
            m = float(change[0, 0, y, x]) ** (at**how.schedule_bias * how.preservation_strength)
            length = (np.linalg.norm(a) ** how.transition_contrast_boost * (1 - m) + np.linalg.norm(b) ** how.transition_contrast_boost * m
                      ) ** (1 / how.transition_contrast_boost)
            want = a * (1 - m) + b * m
            np.testing.assert_allclose(got[0, :, y, x], want / np.linalg.norm(want) * length, rtol=2e-4, atol=1e-5)
    assert got.dtype == made.dtype


@pytest.mark.parametrize("part", [(0.9, 1.0), (0.25, 0.75)])
def test_the_mean_of_a_part_of_the_window(part):
    values = np.random.default_rng(0).random((5, 6)).astype(np.float32)
    got = weighted_part(values, part)
    for y, x in ((0, 0), (2, 3), (4, 1)):
        near = sorted((float(values[j, i]), (math.exp(-((j - y) ** 2 + (i - x) ** 2) / 2.25) - math.exp(-4)) / (1 - math.exp(-4)))
                      for j in range(5) for i in range(6) if abs(j - y) <= 2 and abs(i - x) <= 2)
        whole = sum(weight for _, weight in near)
        low, high = part[0] * whole, part[1] * whole
        if high - low < 1:
            low, high = (low + high) / 2 - 0.5, (low + high) / 2 + 0.5
            low, high = (whole - 1, whole) if high > whole else (low, high)
        seen = total = passed = 0.0
        for value, weight in near:
            share = max(0.0, min(high, passed + weight) - max(low, passed))
            seen, total, passed = seen + value * share, total + share, passed + weight
        assert got[y, x] == pytest.approx(seen / total, rel=1e-6)
    np.testing.assert_allclose(weighted_part(np.full((3, 4), 2.5), part), 2.5)


def test_what_differs_is_seen_and_what_does_not_is_kept():
    given = torch.zeros(4, 8, 16)
    made = given.clone()
    made[0, :, 8:] = 5
    mask = np.asarray(changed_places(given, made, torch.ones(8, 16), (128, 64), Soft()))
    assert mask.shape == (64, 128) and mask[:, :24].max() == 0 and mask[:, 96:].min() > 240
    # At the distance of the threshold, half of each is seen
    made[0] = 0.5
    assert abs(int(changed_places(given, made, torch.ones(8, 16), (128, 64), Soft()).getpixel((60, 30))) - 127) <= 1
    # With all the influence of the mask, whatever is masked fully is seen, however little it differs
    by_mask = changed_places(given, made * 0.01, torch.ones(8, 16), (128, 64), Soft(mask_influence=1))
    assert by_mask.getextrema() == (255, 255)


@torch.inference_mode()
def test_the_road_mixes_at_each_call_and_not_at_the_end(tiny, monkeypatch):
    monkeypatch.setattr(tiny, "predict", lambda x, t, context: x * 0.5)
    made = tiny.generate(RECIPE, image=picture(), mask=painted())[0]
    given, how = encode(tiny, [picture()]), RECIPE.inpaint.soft
    table = tiny.table(RECIPE)
    sigmas = make_sigmas("Automatic", RECIPE.steps, table, sampler=SAMPLERS["Euler"])
    from nbsd.images.masks import blurred
    change = latent_mask(blurred(painted(), 4), (8, 16), rounded=False)
    assert float((change * (1 - change)).max()) > 0
    x = given + torch.randn(1, 4, 8, 16, generator=torch.manual_seed(7)) * sigmas[0]
    for sigma, following in pairwise(sigmas):
        clean = mixed(given, x - sigma * 0.5 * x / (sigma**2 + 1) ** 0.5, change, sigma, how)
        x = x + (x - clean) / sigma * (following - sigma)
    assert float((made.latent[None] - x).abs().max()) < 1e-4 * float(x.std())


@pytest.mark.parametrize(("changes", "size"), [({}, (128, 64)), ({"sampler": "DDIM"}, (128, 64)), ({"only_masked": True, "overlay": False}, (300, 200))], ids=str)
def test_what_is_far_from_the_mask_stays_to_the_byte(tiny, changes, size):
    changes = dict(changes)
    how = {name: changes.pop(name) for name in ("only_masked", "overlay") if name in changes}      # it is laid over even without `overlay`
    recipe = replace(RECIPE, cfg_scale=7.0, inpaint=replace(RECIPE.inpaint, padding=8, **how), **changes)
    box = (72, 8, 111, 55) if size == (128, 64) else (200, 40, 280, 80)
    batch = tiny.generate(recipe, count=2, batch_size=2, image=picture(size), mask=painted(size, box))
    made, before = np.asarray(batch[1].image).astype(int), np.asarray(picture(size)).astype(int)
    assert made.shape == before.shape
    far = slice(0, box[0] - (56 if size == (128, 64) else 120))
    assert (made[:, far] == before[:, far]).all()
    if recipe.sampler == "Euler":       # DDIM compares the time step with the mask, as NGMS does: little is left to change
        middle = (slice(box[1] + 12, box[3] - 12), slice(box[0] + 12, box[2] - 12))
        assert (made[middle] != before[middle]).mean() > 0.5
    assert ("Soft inpainting enabled: True, Soft inpainting schedule bias: 1, Soft inpainting preservation strength: 0.5, Soft inpainting "
            "transition contrast boost: 4, Soft inpainting mask influence: 0, Soft inpainting difference threshold: 0.5, Soft inpainting "
            "difference contrast: 2") in batch[0].infotext
    assert read(batch[0].infotext).inpaint.soft == Soft()
