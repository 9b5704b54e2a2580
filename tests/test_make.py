"""pipeline/make.py: the road from a recipe to pictures, on the tiny model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import nbsd
from nbsd import Recipe
from nbsd.errors import OutOfMemory, RecipeError, Skipped, Stopped
from nbsd.events import Note, Progress
from nbsd.infotext import rules
from nbsd.models.load import load_vae
from nbsd.pipeline import make as road
from nbsd.recipe import OF_2022

MODELS = Path(__file__).parent / "data" / "fidelity" / "models"
SMALL = Recipe(prompt="a (cat:1.2)", negative_prompt="lowres", steps=4, sampler="Euler a", width=64, height=64, seed=7, rng="CPU")


@pytest.fixture(scope="module")
def tiny():
    return nbsd.load(MODELS / "tiny-sd1.safetensors", device="cpu")


@pytest.fixture
def quick(tiny, monkeypatch):
    """The tiny model with a UNet of one line, which still hears the texts; and the time steps at which it was asked."""
    asked: list[float] = []

    def predict(x, t, context):
        asked.append(float(t[0]))
        return x * 0.5 + context.mean(dim=(1, 2)).view(-1, 1, 1, 1)

    monkeypatch.setattr(tiny, "predict", predict)
    monkeypatch.setattr(tiny, "asked", asked, raising=False)
    return tiny


def pixels(picture) -> bytes:
    return picture.image.tobytes()


def test_equal_recipes_make_equal_pictures_and_each_field_counts(tiny):
    first = tiny.generate(SMALL)[0]
    assert pixels(tiny.generate(SMALL)[0]) == pixels(first)
    for change in ({"seed": 8}, {"prompt": "a dog"}, {"negative_prompt": "x"}, {"cfg_scale": 3.0}, {"steps": 5}, {"clip_skip": 2},
                   {"ensd": 31337}, {"rng": "NV"}, {"sampler": "Euler"}, {"schedule": "Karras"}, {"eta": 0.5}, {"tiling": True}):
        assert pixels(tiny.generate(replace(SMALL, **change))[0]) != pixels(first), change


@pytest.mark.parametrize("changes", [{}, {"sampler": "DPM++ 2M SDE"}, {"sampler": "DDIM", "eta_ddim": 0.5}, {"ensd": 31337, "rng": "NV"},
                                     {"variation_strength": 0.3, "variation_seed": 5}], ids=str)
def test_a_picture_of_a_batch_is_the_picture_made_alone(tiny, changes):
    recipe = replace(SMALL, **changes)
    batch = tiny.generate(recipe, count=3, batch_size=2)
    assert [one.recipe.seed for one in batch] == [recipe.nth(n).seed for n in range(3)]
    for n, one in enumerate(batch):
        alone = tiny.generate(recipe.nth(n))[0]
        assert one.recipe == alone.recipe
        assert float((one.latent - alone.latent).abs().max()) < 1e-4 * float(alone.latent.std())


@pytest.mark.parametrize(("changes", "alike"), [
    ({}, True),                                             # today's rules know no such option
    ({"rules": OF_2022}, False),
    ({"rules": OF_2022, "ensd": 31337}, True),              # with it every picture's noise was prepared
    ({"rules": OF_2022, "sampler": "Euler"}, True),         # uses no noise
])
def test_batch_seeds_off_is_the_option_of_2022(quick, changes, alike):
    recipe = replace(SMALL, **changes)
    apart = quick.generate(recipe, count=2, batch_size=2)
    batch = quick.generate(recipe, count=2, batch_size=2, batch_seeds=False)
    assert all(one.latent.equal(other.latent) for one, other in zip(batch, apart, strict=True)) == alike
    assert [one.recipe for one in batch] == [one.recipe for one in apart]
    alone = (quick.generate(recipe, batch_seeds=on)[0].latent for on in (True, False))
    assert next(alone).equal(next(alone))


def test_the_recipe_of_a_picture_says_what_made_it(tiny):
    made = tiny.generate(replace(SMALL, model="another one", vae="that one"))[0]
    assert (made.recipe.model, made.recipe.vae) == ("tiny-sd1 [78e7fcdcdf]", None)
    other = nbsd.load(MODELS / "tiny-sd1.safetensors", vae=MODELS / "tiny-vae.vae.pt", device="cpu").generate(SMALL)[0]
    assert other.recipe.vae == "tiny-vae.vae.pt [50f3ff3583]"
    assert pixels(other) != pixels(made)
    assert "Model hash: 78e7fcdcdf, Model: tiny-sd1, VAE hash: 50f3ff3583, VAE: tiny-vae.vae.pt" in other.infotext


def test_progress_counts_every_picture_and_previews_are_pictures(tiny):
    told: list[Progress] = []
    list(tiny.make(SMALL, count=3, batch_size=2, report=told.append, preview=True))
    assert [(one.picture, one.step) for one in told] == [(n, step) for n in (0, 2) for step in range(SMALL.steps + 1)]
    assert {(one.pictures, one.steps) for one in told} == {(3, SMALL.steps)}
    assert told[0].seconds_left is None and told[-1].seconds_left == 0
    assert any(one.preview and one.preview.startswith(b"\xff\xd8") for one in told)


class Asked:
    """A control that raises at its nth look."""

    def __init__(self, look: int, error: type[Exception]) -> None:
        self.left, self.error = look, error

    def check(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise self.error("asked")


def test_stop_ends_the_job_between_two_calls_and_the_model_stays_usable(tiny):
    made = tiny.make(SMALL, count=3, control=Asked(7, Stopped))
    assert pixels(next(made)) == pixels(tiny.generate(SMALL)[0])
    with pytest.raises(Stopped):
        next(made)
    assert len(tiny.generate(SMALL)) == 1


def test_skip_leaves_one_picture_out(tiny):
    made = list(tiny.make(SMALL, count=3, control=Asked(7, Skipped)))
    assert [one.recipe.seed for one in made] == [7, 9]


def test_what_cannot_be_made_is_said_before_any_work(tiny):
    with pytest.raises(RecipeError, match="width is 100"):
        tiny.generate(replace(SMALL, width=100))
    class Short:
        class config:
            num_hidden_layers, vocab_size = 2, 49408
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny.checkpoint, "text_encoders", (Short,))
        with pytest.raises(RecipeError, match="clip skip is 3: the text encoder of tiny-sd1 has 2 layers"):
            tiny.generate(replace(SMALL, clip_skip=3))


def test_a_full_device_says_what_to_lower(tiny, monkeypatch):
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(tiny, "predict", full)
    with pytest.raises(OutOfMemory, match="lower the batch size"):
        tiny.generate(SMALL)


def test_a_vae_that_overflows_in_half_precision_is_widened_and_that_is_told(monkeypatch):
    model = nbsd.load(MODELS / "tiny-sd1.safetensors", device="cpu")
    model.checkpoint.vae = load_vae(model.checkpoint.path, model.checkpoint.family, "cpu", torch.float16)
    narrow, told = model.decode, []

    def overflowing(latents: torch.Tensor, **how: bool) -> torch.Tensor:
        decoded = narrow(latents, **how)
        return decoded if decoded.dtype == torch.float32 else decoded * float("inf")

    monkeypatch.setattr(model, "decode", overflowing)
    picture = road.decode(model, torch.zeros(4, 8, 8), told.append)
    assert picture.size == (64, 64)
    assert told == [Note("The VAE overflowed in half precision and now computes in float32.")]


@pytest.mark.parametrize("prompt", ["((((a", "a]]])", "猫と 🐱 в саду", "a" * 3000, "", "[a:b:", "\\("], ids=lambda prompt: prompt[:8] or "empty")
def test_odd_prompts_make_pictures(tiny, prompt):
    assert tiny.generate(replace(SMALL, prompt=prompt, negative_prompt=prompt, steps=1))[0].image.size == (64, 64)


def test_half_precision_runs_on_a_cpu_too():
    model = nbsd.load(MODELS / "tiny-sd1.safetensors", device="cpu", dtype="float16")
    whole = nbsd.load(MODELS / "tiny-sd1.safetensors", device="cpu").generate(SMALL)[0].latent
    half = model.generate(SMALL)[0].latent
    assert half.dtype == torch.float32
    assert float((half - whole).abs().mean()) < 0.05 * float(whole.std())


LONG = "a very long text of many words, " * 12      # more than one chunk of 75 tokens


@pytest.mark.parametrize(("changes", "said", "unsaid"), [
    ({"ngms": 4.0}, ["NGMS: 4.0"], ["NGMS all steps"]),
    ({"ngms": 4.0, "ngms_all_steps": True}, ["NGMS: 4.0", "NGMS all steps: True"], []),
    ({"ngms": 0.001, "ngms_all_steps": True}, [], ["NGMS"]),                    # lower than every sigma
    ({"ngms": 14.0, "steps": 1}, [], ["NGMS"]),
    ({"ngms": 4.0, "sampler": "DDIM"}, [], ["NGMS"]),                           # it is compared with the time step there
    ({"ngms": 600.0, "sampler": "DDIM"}, ["NGMS: 600.0"], []),
    ({"ngms": 4.0, "sampler": "PLMS", "steps": 2}, ["NGMS: 4.0"], []),          # asks at the end of its first step, too
    ({"ngms": 14.0, "sampler": "DPM adaptive", "steps": 1}, ["NGMS: 14.0"], []),
    ({"skip_early_cfg": 0.3}, ["Skip Early CFG: 0.3"], []),
    ({"skip_early_cfg": 0.3, "sampler": "DDIM", "steps": 1}, [], ["Skip Early"]),   # asks the model at no time
    ({"pad_conds": "on"}, [], ["Pad conds"]),
    ({"negative_prompt": "# (no)\nbad # (never)"}, ["Negative prompt: \nbad"], ["#"]),     # comments are no part of what was made
    ({"pad_conds": "v0"}, [], ["Pad conds"]),
    ({"pad_conds": "on", "prompt": LONG}, ["Pad conds: True"], ["Pad conds v0"]),
    ({"pad_conds": "v0", "negative_prompt": LONG}, ["Pad conds v0: True"], ["Pad conds: "]),
    ({"pad_conds": "on", "prompt": LONG, "negative_prompt": LONG}, [], ["Pad conds"]),
])  # fmt: skip
def test_guidance_settings_are_written_where_they_had_an_effect(quick, changes, said, unsaid):
    recipe = replace(SMALL, **changes)
    picture = quick.generate(recipe)[0]
    text = picture.recipe.infotext()
    assert [one for one in said if one not in text] == [one for one in unsaid if one in text] == []
    assert quick.generate(picture.recipe)[0].latent.equal(picture.latent)


def test_a_pasted_setting_without_effect_is_not_written_again(quick):
    text = SMALL.infotext().replace(", Version", ", Pad conds: True, Version")
    assert "Pad conds: True" in Recipe.from_infotext(text).infotext()
    assert "Pad conds" not in quick.generate(Recipe.from_infotext(text))[0].recipe.infotext()
    old = Recipe.from_infotext("a\nSteps: 3, Sampler: DDIM, CFG scale: 7, Seed: 1, Size: 64x64, Version: v1.5.0")
    assert old.pad_conds == "v0" and "Pad conds" not in quick.generate(old)[0].infotext


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("sampler", ["DDIM", "DDIM CFG++", "PLMS", "UniPC"])
def test_the_text_knows_at_which_time_steps_the_model_is_asked(quick, sampler, steps):
    recipe = replace(SMALL, sampler=sampler, steps=steps, unipc_order=1)
    quick.generate(recipe)
    assert quick.asked == pytest.approx(rules._time_steps(recipe), abs=1e-3)
