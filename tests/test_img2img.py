"""pipeline/img2img.py: a given picture on the road, on the tiny model."""

from __future__ import annotations

import importlib
import io
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import nbsd
from nbsd import Recipe
from nbsd.errors import NbsdError, RecipeError
from nbsd.events import Progress
from nbsd.images.colors import with_colors_of
from nbsd.infotext import read
from nbsd.names import CROP, FILL, LATENT_NOISE, LATENT_RESIZE, MASKED_CONTENTS, SAMPLER_FACTS
from nbsd.pipeline.img2img import encode, latent_mask, prepare, tensor_of
from nbsd.pipeline.progress import calls_of
from nbsd.recipe import Hires, Img2Img, Inpaint

DATA = Path(__file__).parent / "data" / "fidelity"
TOOLS = Path(__file__).parent.parent / "tools"
START = DATA / "inputs" / "init_128x64.png"
SMALL = Recipe(prompt="a (cat:1.2)", negative_prompt="lowres", steps=6, sampler="Euler", width=128, height=64, seed=7, rng="CPU",
               img2img=Img2Img(denoising_strength=0.5))
MASKED = replace(SMALL, inpaint=Inpaint(mask_blur=0))


@pytest.fixture(scope="module")
def tiny():
    return nbsd.load(DATA / "models" / "tiny-sd1.safetensors", device="cpu")


@pytest.fixture(scope="module")
def tool():
    sys.path.insert(0, str(TOOLS))
    yield importlib.import_module("fidelity")
    sys.path.remove(str(TOOLS))


def start(mode: str = "RGB") -> Image.Image:
    with Image.open(START) as image:
        return image.convert(mode)


def painted(size: tuple[int, int] = (128, 64), box: tuple[int, int, int, int] = (40, 8, 87, 55)) -> Image.Image:
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).rectangle(box, fill=255)
    return mask


def pixels(picture) -> np.ndarray:
    return np.asarray(picture.image).astype(int)


# --- as recorded


@pytest.mark.slow
@pytest.mark.parametrize("family", ["e_img2img", "e_inpaint", "e_vae"])
def test_the_recorded_pictures_come_out(tool, monkeypatch, capsys, family):
    """Latents and infotexts; the bytes are compared where the recorded pictures are."""
    monkeypatch.setattr(importlib.import_module("fidelity_pictures"), "bytes_of", lambda *_: 0.0)
    assert tool.main([str(DATA), "--family", family]) == 0, capsys.readouterr().out


# --- img2img


def test_any_form_of_the_picture_will_do_and_gives_the_same(tiny):
    out = io.BytesIO()
    start().save(out, "PNG")
    made = [tiny.generate(SMALL, image=source)[0] for source in (START, str(START), out.getvalue(), start(), start("RGBA"))]
    assert all((pixels(one) == pixels(made[0])).all() for one in made)
    again = tiny.generate(SMALL, image=made[0])[0]      # a Picture too
    assert (pixels(again) != pixels(made[0])).any()


def test_a_picture_alone_is_changed_by_the_defaults(tiny):
    made = tiny.generate(replace(SMALL, img2img=None), image=START)[0]
    assert made.recipe.img2img.denoising_strength == 0.75
    assert (pixels(made) == pixels(tiny.generate(replace(SMALL, img2img=Img2Img()), image=START)[0])).all()


def test_each_setting_counts(tiny):
    first = pixels(tiny.generate(SMALL, image=START)[0])
    for change in ({"denoising_strength": 0.9}, {"noise_multiplier": 0.8}, {"extra_noise": 0.2}, {"color_correction": True},
                   {"exact_steps": True}):
        made = tiny.generate(replace(SMALL, img2img=replace(SMALL.img2img, **change)), image=START)[0]
        assert (pixels(made) != first).any(), change
    large = start().resize((200, 150))
    modes = [pixels(tiny.generate(replace(SMALL, img2img=Img2Img(resize_mode=mode)), image=large)[0]).tobytes()
             for mode in ("Just resize", CROP, FILL, LATENT_RESIZE)]
    assert len(set(modes)) == 4


def test_no_strength_gives_the_picture_back(tiny):
    exact = replace(SMALL, img2img=Img2Img(denoising_strength=0, exact_steps=True))
    made = tiny.generate(exact, image=START)[0]
    torch.testing.assert_close(made.latent[None], encode(tiny, [start()]), rtol=0, atol=0)


def test_transparency_becomes_the_background(tiny):
    faint = start("RGBA")
    faint.putalpha(0)
    made = tiny.generate(replace(SMALL, img2img=Img2Img(background="#204060")), image=faint)[0]
    flat = tiny.generate(replace(SMALL, img2img=Img2Img()), image=Image.new("RGB", (128, 64), "#204060"))[0]
    assert (pixels(made) == pixels(flat)).all()


@pytest.mark.parametrize("sampler", sorted(set(SAMPLER_FACTS) - {"DPM adaptive"}))     # whose steps the whole batch decides
def test_every_sampler_changes_a_picture(tiny, sampler):
    made = tiny.generate(replace(SMALL, sampler=sampler, img2img=Img2Img(denoising_strength=0.7)), image=START)[0]
    assert made.latent.isfinite().all() and (pixels(made) != np.asarray(start())).any()


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ 2M SDE", "DDIM"])
def test_a_picture_of_a_batch_is_the_picture_made_alone(tiny, sampler):
    recipe = replace(SMALL, sampler=sampler, inpaint=Inpaint(mask_blur=0, fill=LATENT_NOISE))
    batch = tiny.generate(recipe, count=2, batch_size=2, image=START, mask=painted())
    alone = tiny.generate(recipe.nth(1), image=START, mask=painted())[0]
    assert batch[1].recipe == alone.recipe
    assert float((batch[1].latent - alone.latent).abs().max()) < 1e-4 * float(alone.latent.std())


def test_the_calls_are_counted_before_they_are_made(tiny):
    for changes in ({}, {"sampler": "DDIM"}, {"sampler": "Heun"}, {"img2img": Img2Img(denoising_strength=0.5, exact_steps=True)}):
        told: list[Progress] = []
        recipe = replace(SMALL, **changes)
        list(tiny.make(recipe, image=START, report=told.append))
        # DDIM makes one call less, as in txt2img; Heun's last step makes one call, not two
        assert told[-1].step == calls_of(recipe) - (recipe.sampler in ("Heun", "DDIM"))


def test_the_recipe_says_which_picture_it_was(tiny):
    made = tiny.generate(SMALL, image=START)[0]
    assert "Init image hash: " in made.infotext and "Init image hash" not in made.recipe.infotext()
    assert read(made.infotext).img2img == made.recipe.img2img
    assert made.recipe.img2img.image_hash == tiny.generate(SMALL, image=start())[0].recipe.img2img.image_hash


# --- inpainting


@pytest.mark.parametrize("fill", MASKED_CONTENTS)
@pytest.mark.parametrize("only_masked", [False, True])
def test_only_what_is_painted_changes(tiny, fill, only_masked):
    recipe = replace(MASKED, inpaint=replace(MASKED.inpaint, fill=fill, only_masked=only_masked, padding=4))
    made, before = pixels(tiny.generate(recipe, image=START, mask=painted())[0]), np.asarray(start()).astype(int)
    inside = np.asarray(painted()) > 0
    assert (made[~inside] == before[~inside]).all()
    assert (made[inside] != before[inside]).mean() > 0.5


def test_only_masked_keeps_the_size_of_the_given_picture(tiny):
    large = start().resize((300, 200))
    recipe = replace(MASKED, inpaint=replace(MASKED.inpaint, only_masked=True))
    made = tiny.generate(recipe, image=large, mask=painted((300, 200), (100, 60, 160, 120)))[0]
    assert made.image.size == (300, 200) and (made.recipe.width, made.recipe.height) == (128, 64)
    bare = replace(recipe, inpaint=replace(recipe.inpaint, overlay=False))
    assert tiny.generate(bare, image=large, mask=painted((300, 200), (100, 60, 160, 120)))[0].image.size == (128, 64)


def test_inverted_is_the_other_part(tiny):
    recipe = replace(MASKED, inpaint=replace(MASKED.inpaint, invert=True))
    made, before = pixels(tiny.generate(recipe, image=START, mask=painted())[0]), np.asarray(start()).astype(int)
    inside = np.asarray(painted()) > 0
    assert (made[inside] == before[inside]).all() and (made[~inside] != before[~inside]).mean() > 0.5


def test_the_mask_in_the_alpha_channel_is_the_mask(tiny):
    clear = Image.new("RGBA", (128, 64), (0, 0, 0, 0))
    clear.paste((9, 9, 9, 255), mask=painted())
    assert (pixels(tiny.generate(MASKED, image=START, mask=clear)[0]) == pixels(tiny.generate(MASKED, image=START, mask=painted())[0])).all()


def test_a_mask_of_another_size_is_brought_to_the_recipes_at_once():
    mask = painted((256, 128), (60, 30, 200, 90))
    assert prepare(MASKED, start(), mask).mask.tobytes() == mask.resize((128, 64), Image.Resampling.LANCZOS).tobytes()


def test_what_came_of_another_picture_keeps_its_colours_and_its_mask():
    first, made = start().resize((200, 150)).rotate(90), start().rotate(180)
    recipe = replace(MASKED, width=64, height=64, img2img=replace(MASKED.img2img, resize_mode="Crop and resize", color_correction=True))
    given = prepare(recipe, start().resize((64, 64)), painted((200, 150)), first)
    assert given.mask.size == (64, 64)
    assert given.finish(made, replace(recipe, inpaint=None)).tobytes() == with_colors_of(made, first).tobytes()
    with pytest.raises(RecipeError, match="the mask is 200x150 and the picture 64x64"):
        prepare(recipe, start().resize((64, 64)), painted((200, 150)))


def test_a_mask_that_is_not_rounded_is_grey_in_the_latents():
    edge = Image.new("L", (128, 64))
    ImageDraw.Draw(edge).rectangle((44, 0, 127, 63), fill=255)
    assert set(latent_mask(edge, (8, 16)).unique().tolist()) == {0, 1}
    assert len(latent_mask(edge, (8, 16), rounded=False).unique()) > 2
    assert latent_mask(edge, (8, 16))[0, 0, 0].tolist() == [0] * 5 + [1] * 11 or latent_mask(edge, (8, 16))[0, 0, 0, 6:].min() == 1


@pytest.mark.parametrize("sampler", ["Euler", "DDIM", "DPM++ SDE", "UniPC"])
def test_the_latents_outside_are_those_of_the_given_picture(tiny, sampler):
    made = tiny.generate(replace(MASKED, sampler=sampler), image=START, mask=painted())[0]
    before = encode(tiny, [start()])[0]
    outside = latent_mask(painted(), (8, 16))[0, 0] == 0
    torch.testing.assert_close(made.latent[:, outside], before[:, outside], rtol=0, atol=0)


# --- what does not go together


WRONG = [
    (SMALL, {}, "changes a given picture"),
    (MASKED, {"image": START}, "give a mask with mask="),
    (replace(SMALL, img2img=None), {"mask": painted()}, "a mask without a picture"),
    (SMALL, {"image": START, "mask": painted((64, 64))}, "the mask is 64x64 and the picture 128x64"),
    (MASKED, {"image": START, "mask": Image.new("L", (128, 64))}, "the mask is empty"),
    (replace(SMALL, hires=Hires()), {"image": START}, "the hires fix belongs to a new picture"),
    (SMALL, {"image": b""}, "empty"),
    (SMALL, {"image": START, "mask": b"x" * 99}, "no picture"),
]


@pytest.mark.parametrize("recipe, given, words", WRONG, ids=[row[2] for row in WRONG])
def test_what_does_not_go_together_is_said_before_any_work(tiny, monkeypatch, recipe, given, words):
    monkeypatch.setattr(tiny, "predict", None)
    with pytest.raises(NbsdError, match=words) as refused:
        tiny.generate(recipe, **given)
    assert "\n" not in str(refused.value)


def test_the_number_of_steps_that_a_strength_leaves_for_unipc_is_said(tiny):
    with pytest.raises(RecipeError, match="UniPC of order 3 needs"):
        tiny.generate(replace(SMALL, sampler="UniPC", img2img=Img2Img(denoising_strength=0.2)), image=START)


def test_pictures_and_tensors_have_the_same_places():
    one = tensor_of(Image.fromarray(np.array([[[255, 0, 0], [0, 51, 0]]], dtype=np.uint8)))
    assert tuple(one.shape) == (1, 3, 1, 2)
    torch.testing.assert_close(one[0, :, 0].T, torch.tensor([[1.0, -1, -1], [-1, -0.6, -1]]))
