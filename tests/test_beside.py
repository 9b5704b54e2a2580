"""pipeline/beside.py: models for inpainting and editing, against a plain Euler loop over diffusers' own UNet and VAE."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file
from tiny_models import their_unet, their_vae, write

import nbsd
from nbsd import Recipe
from nbsd.names import LATENT_RESIZE
from nbsd.pipeline.beside import beside, masked_picture
from nbsd.pipeline.img2img import prepare, tensor_of
from nbsd.recipe import Hires, Img2Img, Inpaint
from nbsd.sampling.schedules import make_sigmas

WORDS = Recipe(prompt="a cat", negative_prompt="lowres", steps=3, sampler="Euler", width=64, height=64, seed=7, rng="CPU", cfg_scale=5.0)
CHANGE = replace(WORDS, img2img=Img2Img(denoising_strength=0.6))
CHANNELS = {"inpainting": 9, "editing": 8}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {name: write(folder / f"{name}.safetensors", "sd1", channels=channels) for name, channels in CHANNELS.items()}


@pytest.fixture(scope="module")
def models(files):
    return {name: nbsd.load(path, device="cpu") for name, path in files.items()}


@pytest.fixture(scope="module")
def theirs(files):
    tensors = {name: load_file(path) for name, path in files.items()}
    return {name: (their_unet("sd1", one, CHANNELS[name]), their_vae(one)) for name, one in tensors.items()}


def picture() -> Image.Image:
    return Image.merge("RGB", [Image.linear_gradient("L").rotate(turn).resize((64, 64)) for turn in (0, 90, 180)])


def painted() -> Image.Image:
    mask = Image.new("L", (64, 64))
    ImageDraw.Draw(mask).rectangle((16, 8, 47, 39), fill=255)
    return mask


def euler(model, unet, recipe, start, given, change=None, unseen=None):
    """The latents of k-diffusion's Euler from `start`, with `given` behind x; guided by the picture too where `unseen` stands for none."""
    table = model.table(recipe)
    strength = recipe.img2img.denoising_strength if recipe.img2img else 1
    sigmas = make_sigmas("Automatic", recipe.steps, table, sampler=nbsd.sampling.SAMPLERS["Euler"])
    sigmas = sigmas[recipe.steps - int(min(strength, 0.999) * recipe.steps) - 1 :]
    texts = [model.texts.positive(recipe)[0].timeline[0].context, model.texts.negative(recipe)[0].context]
    x = start + torch.randn(1, 4, 8, 8, generator=torch.manual_seed(recipe.seed)) * sigmas[0]

    def clean(x, sigma, text, behind):
        asked = torch.cat([x / (sigma**2 + 1) ** 0.5, behind], dim=1)
        return x - sigma * unet(asked, table.sigma_to_t(sigma)[None], text[None], return_dict=False)[0]

    for sigma, following in pairwise(sigmas):
        cond, uncond = (clean(x, sigma, text, given) for text in texts)
        found = uncond + recipe.cfg_scale * (cond - uncond)
        if unseen is not None:
            blind = clean(x, sigma, texts[1], unseen)
            found = blind + recipe.cfg_scale * (cond - uncond) + recipe.img2img.image_cfg_scale * (uncond - blind)
        if change is not None:
            found = found * change + start * (1 - change)
        x = x + (x - found) / sigma * (following - sigma)
    return x if change is None else x * change + start * (1 - change)


def assert_same(made, want):
    assert float((made.latent[None] - want).abs().max()) < 1e-4 * float(want.std())


@torch.inference_mode()
@pytest.mark.parametrize(("weight", "masked"), [(1.0, True), (0.3, True), (0.3, False)])
def test_an_inpainting_model_sees_the_mask_and_what_is_around_it(models, theirs, weight, masked):
    model, (unet, vae) = models["inpainting"], theirs["inpainting"]
    recipe = replace(CHANGE, inpaint=Inpaint(mask_blur=0) if masked else None, mask_weight=weight)
    source, mask = tensor_of(picture()), torch.ones(1, 1, 64, 64)
    if masked:
        mask = torch.zeros(1, 1, 64, 64)
        mask[:, :, 8:40, 16:48] = 1
    small = mask[:, :, ::8, ::8]
    start, around = (vae.encode(one).latent_dist.mode() * 0.18215 for one in (source, source * (1 - weight * mask)))
    want = euler(model, unet, recipe, start, torch.cat([small, around], dim=1), small if masked else None)
    made = model.generate(recipe, image=picture(), mask=painted() if masked else None)[0]
    assert_same(made, want)
    assert f"Denoising strength: 0.6, Conditional mask weight: {weight}" in made.infotext
    assert Recipe.from_infotext(made.infotext).mask_weight == weight


@torch.inference_mode()
def test_from_words_alone_everything_is_hidden(models, theirs):
    model, (unet, vae) = models["inpainting"], theirs["inpainting"]
    grey = vae.encode(torch.zeros(1, 3, 64, 64)).latent_dist.mode() * 0.18215
    want = euler(model, unet, WORDS, torch.zeros(1, 4, 8, 8), torch.cat([torch.ones(1, 1, 8, 8), grey], dim=1))
    assert_same(model.generate(WORDS)[0], want)


@torch.inference_mode()
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_an_editing_model_follows_the_picture_as_closely_as_asked(models, theirs, scale):
    model, (unet, vae) = models["editing"], theirs["editing"]
    recipe = replace(CHANGE, img2img=replace(CHANGE.img2img, image_cfg_scale=scale))
    latent = vae.encode(tensor_of(picture())).latent_dist.mode()
    want = euler(model, unet, recipe, latent * 0.18215, latent, unseen=latent * 0)
    made = model.generate(recipe, image=picture())[0]
    assert_same(made, want)
    assert f"CFG scale: 5.0, Image CFG scale: {scale}, Seed: 7" in made.infotext
    assert Recipe.from_infotext(made.infotext).img2img.image_cfg_scale == scale


@torch.inference_mode()
def test_an_editing_model_draws_from_words_without_a_picture(models, theirs):
    want = euler(models["editing"], theirs["editing"][0], WORDS, torch.zeros(1, 4, 8, 8), torch.zeros(1, 4, 8, 8))
    made = models["editing"].generate(WORDS)[0]
    assert_same(made, want)
    assert "Image CFG scale" not in made.infotext


@pytest.mark.parametrize(("name", "changes"), [("inpainting", {"sampler": "DDIM"}), ("editing", {"sampler": "DDIM CFG++"}),
                                               ("editing", {"prompt": "a cat AND a dog", "ngms": 900.0, "ngms_all_steps": True})], ids=str)
def test_a_picture_of_a_batch_is_the_picture_made_alone(models, name, changes):
    recipe = replace(CHANGE, steps=2, **changes)
    batch = models[name].generate(recipe, count=2, batch_size=2, image=picture())
    alone = models[name].generate(recipe.nth(1), image=picture())[0]
    assert float((batch[1].latent - alone.latent).abs().max()) < 1e-4 * float(alone.latent.std())
    assert "NGMS" not in alone.infotext     # the web UI never leaves the negative prompt out where the picture has a scale of its own


def test_every_resize_mode_gives_what_fits(models):
    for size in ((64, 64), (96, 48)):
        for mode in (LATENT_RESIZE, "Just resize"):
            recipe = replace(CHANGE, img2img=Img2Img(resize_mode=mode), inpaint=Inpaint(mask_blur=0))
            given = prepare(recipe, picture().resize(size), painted().resize(size))
            assert {name: tuple(beside(model, recipe, given).shape) for name, model in models.items()} == {
                "inpainting": (1, 5, 8, 8), "editing": (1, 4, 8, 8)}


def test_the_second_pass_sees_the_enlarged_picture_through_a_thin_mask(models, monkeypatch):
    asked = []
    model, predict = models["inpainting"], models["inpainting"].predict
    monkeypatch.setattr(model, "predict", lambda x, *said: asked.append(x[0, 4:]) or predict(x, *said))
    recipe = replace(WORDS, steps=1, hires=Hires(scale=2, steps=1))
    for weight, alike in ((1.0, True), (0.2, False)):
        asked.clear()
        model.generate(replace(recipe, mask_weight=weight))
        assert [tuple(one.shape) for one in asked] == [(5, 8, 8), (5, 16, 16)]
        hidden = beside(model, replace(WORDS, width=128, height=128, mask_weight=weight))[0]
        assert bool(torch.allclose(asked[1], hidden, atol=1e-4)) == alike
    # pictures that an upscaler made larger: their values from 0 to 1
    asked.clear()
    seen = replace(WORDS, steps=1, mask_weight=0.2)
    model.generate(replace(seen, hires=Hires(scale=2, steps=1, upscaler="Lanczos")))
    large = model.generate(seen)[0].image.resize((128, 128), Image.Resampling.LANCZOS)
    want = masked_picture(model, tensor_of(large) / 2 + 0.5, torch.ones(1, 1, 128, 128), replace(seen, width=128, height=128))[0]
    torch.testing.assert_close(asked[1], want, rtol=0, atol=1e-4)


def test_other_models_say_nothing_of_it(models, tiny_model):
    plain = nbsd.load(tiny_model, device="cpu")
    recipe = replace(CHANGE, steps=1, mask_weight=0.5, img2img=Img2Img(image_cfg_scale=3))
    made = plain.generate(recipe, image=picture())[0]
    assert "Image CFG" not in made.infotext and "Conditional" not in made.infotext
    assert "Image CFG scale: 3" in recipe.infotext() and "Conditional mask weight: 0.5" in recipe.infotext()
