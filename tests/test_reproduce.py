"""Finding the settings that an infotext leaves open, on pictures of the tiny model."""

from __future__ import annotations

import io
import random
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

import nbsd
from nbsd import Picture, Recipe
from nbsd.errors import NbsdError, RecipeError, Stopped
from nbsd.events import Note, Progress
from nbsd.pipeline.compare import Target, apart
from nbsd.pipeline.model import Model
from nbsd.pipeline.open_settings import open_questions
from nbsd.pipeline.reproduce import reproduce

MODELS = Path(__file__).parent / "data" / "fidelity" / "models"
OTHER_VAE = MODELS / "tiny-vae.vae.pt"
SMALL = Recipe(prompt="a (cat:1.3), [red:blue:2] hat", negative_prompt="lowres", steps=4, sampler="Euler a", width=64, height=64, seed=7,
               cfg_scale=9.0)
OPEN_KEYS = ("RNG", "ENSD", "Clip skip", "Emphasis", "Old prompt editing timelines", "VAE hash", "VAE")
FIELDS = ("rng", "ensd", "clip_skip", "emphasis", "old_emphasis", "old_karras", "old_prompt_timelines")
# Sampler, schedule, and what makes it draw noise; those that draw none leave ENSD out of the picture.
SAMPLERS = (
    ("Euler a", "Automatic", {}), ("Euler", "Karras", {}), ("DPM++ 2M", "Automatic", {}), ("DPM++ 2S a", "Karras", {}),
    ("DPM++ 2M SDE", "Karras", {}), ("DPM2 a", "Automatic", {}), ("DDIM", "Automatic", {"eta_ddim": 0.7}),
    ("Heun", "Karras", {"s_churn": 8.0}), ("LMS", "Karras", {}), ("UniPC", "Automatic", {}),
)  # fmt: skip
PROMPTS = ("a (cat:1.3), [red:blue:2] hat", "((night)), city in [rain]", "two dogs, [sun|moon]", "[a:(wide:1.4) b:1.0] river", "one tree")


@pytest.fixture(scope="module")
def tiny() -> Model:
    return nbsd.load(MODELS / "tiny-sd1.safetensors", device="cpu")


@pytest.fixture(scope="module")
def tiny_other_vae() -> Model:
    return nbsd.load(MODELS / "tiny-sd1.safetensors", vae=OTHER_VAE, device="cpu")


def stripped(text: str) -> str:
    """An infotext without the keys that say the open settings."""
    head, _, last = text.rpartition("\n")
    return f"{head}\n" + re.sub(rf"(?<!\w)(?:{'|'.join(OPEN_KEYS)}): [^,]+, ", "", last)


def png(picture: Picture) -> bytes:
    """The picture as a PNG file whose infotext leaves the open settings out."""
    texts, out = PngImagePlugin.PngInfo(), io.BytesIO()
    texts.add_text("parameters", stripped(picture.infotext))
    picture.image.save(out, "PNG", pnginfo=texts)
    return out.getvalue()


def made(model: Model, recipe: Recipe) -> Picture:
    return model.generate(recipe)[0]


def pixels(picture: Picture) -> np.ndarray:
    return np.asarray(picture.image, dtype=int)


def cases(count: int) -> list[tuple[Recipe, bool]]:
    """Recipes with every open setting drawn, and whether the other VAE is used."""
    draw = random.Random(20221006)
    found = []
    for n in range(count):
        sampler, schedule, more = SAMPLERS[n % len(SAMPLERS)]
        recipe = Recipe(
            prompt=draw.choice(PROMPTS), negative_prompt=draw.choice(["", "lowres, (bad:1.2)"]), steps=draw.choice([3, 4]), sampler=sampler,
            schedule=schedule, cfg_scale=draw.choice([7.0, 12.0]), seed=draw.randrange(2**32), width=64, height=64, **more,
            rng=draw.choice(["CPU", "NV"]), ensd=draw.choice([0, 31337]), clip_skip=draw.choice([1, 2]),
            emphasis=draw.choice(["Original", "No norm", "Ignore", "None"]), old_emphasis=draw.random() < 0.2,
            old_karras=draw.random() < 0.5, old_prompt_timelines=draw.random() < 0.5,
        )  # fmt: skip
        found.append((recipe, n % 3 == 0))
    return found


def wrong(result, truth: Recipe) -> list[str]:
    """The settings that were found and are not those of the picture."""
    names = [question.name for question in open_questions(replace(truth, unknown=()))]
    decided = dict(result.found)
    told = {"RNG": "rng", "ENSD": "ensd", "clip skip": "clip_skip", "emphasis": "emphasis", "old emphasis": "old_emphasis",
            "old Karras sigmas": "old_karras", "old prompt editing timelines": "old_prompt_timelines"}
    assert set(decided) <= {*names, *told, "VAE"}
    gpu = {"NV": "GPU"}
    return [name for name in decided if name in told
            and gpu.get(*[getattr(result.recipe, told[name])] * 2) != gpu.get(*[getattr(truth, told[name])] * 2)]


def is_found(tiny: Model, other: Model, truth: Recipe, with_other: bool) -> tuple[bool, str]:
    model = other if with_other else tiny
    result = reproduce(png(made(model, truth)), tiny, vaes=[OTHER_VAE])
    vae = dict(result.found)["VAE"] == ("tiny-vae.vae.pt" if with_other else "of the model")
    return result.matches and vae and not wrong(result, truth), f"{truth}\n  {result.text}\n  tried: {len(result.tried)}"


def test_two_pictures_are_found(tiny, tiny_other_vae):
    known = replace(SMALL, rng="CPU", ensd=31337, clip_skip=2)
    for truth, with_other in ((known, False), (replace(SMALL, old_prompt_timelines=True), True)):
        found, told = is_found(tiny, tiny_other_vae, truth, with_other)
        assert found, told


@pytest.mark.slow
def test_at_least_19_of_20_are_found(tiny, tiny_other_vae):
    told = [is_found(tiny, tiny_other_vae, *case) for case in cases(20)]
    failed = [text for found, text in told if not found]
    print("\n".join(text for _, text in told))
    assert len(failed) <= 1, "\n".join(failed)


def test_what_was_found_is_said_in_a_sentence(tiny):
    truth = replace(SMALL, prompt="a cat", rng="CPU", ensd=31337, clip_skip=2)
    result = reproduce(png(made(tiny, truth)), tiny)
    assert result.text == "The picture matches with RNG CPU, ENSD 31337, clip skip 2; the recipe did not say RNG, ENSD and clip skip."
    assert result.matches and result.score > 0.9999 and str(result) == result.text
    assert np.array_equal(pixels(result.picture), pixels(made(tiny, truth)))
    assert all(f"{key}: " in result.recipe.infotext() for key in ("RNG", "ENSD", "Clip skip"))
    assert result.tried[0].recipe == result.recipe and len(result.tried) > 4


def test_a_setting_without_effect_is_not_said_to_be_found(tiny):
    result = reproduce(png(made(tiny, replace(SMALL, prompt="a cat", sampler="Euler", ensd=31337))), tiny)
    assert "ENSD" not in result.text
    nothing = replace(SMALL, prompt="a cat", sampler="Euler a", eta=0.0)
    assert [question.name for question in open_questions(nothing)] == ["RNG", "clip skip"]


def test_of_two_settings_with_one_picture_neither_is_said_to_be_found(tiny):
    """Without weights, the old emphasis has nothing to do."""
    truth = replace(SMALL, prompt="a (cat:1.5)", sampler="Euler", steps=2, emphasis="None")
    result = reproduce(png(made(tiny, truth)), tiny)
    assert result.matches and dict(result.found) == {"RNG": "GPU", "clip skip": "1", "emphasis": "None"}
    assert result.undecided == ("old emphasis",)
    assert result.text.endswith("; old emphasis cannot be told from this picture.")
    assert result.recipe.old_emphasis is False


def test_what_the_text_says_is_not_tried(tiny):
    truth = replace(SMALL, prompt="a cat", rng="CPU", clip_skip=2, sampler="Euler")
    bytes_of = io.BytesIO()
    texts = PngImagePlugin.PngInfo()
    picture = made(tiny, truth)
    texts.add_text("parameters", picture.infotext)
    picture.image.save(bytes_of, "PNG", pnginfo=texts)
    result = reproduce(bytes_of.getvalue(), tiny)
    assert len(result.tried) == 1
    assert result.text == "The picture matches with RNG CPU, clip skip 2."


@pytest.mark.parametrize("given", ["path", "bytes", "pil", "picture", "recipe"])
def test_a_picture_may_be_given_in_many_ways(tiny, tmp_path, given):
    truth = replace(SMALL, prompt="a cat", sampler="Euler", steps=2, rng="CPU")
    picture = made(tiny, truth)
    data = png(picture)
    (tmp_path / "one.png").write_bytes(data)
    source = {"path": tmp_path / "one.png", "bytes": data, "pil": Image.open(io.BytesIO(data)), "picture": picture, "recipe": picture.image}
    recipe = replace(truth, rng="GPU") if given == "recipe" else None
    result = reproduce(source[given], tiny, recipe=recipe)
    assert result.matches and result.recipe.rng == "CPU"


def test_fewer_steps_for_the_search_and_all_of_them_at_the_end(tiny):
    truth = replace(SMALL, prompt="a cat", sampler="Euler", steps=12, rng="CPU", clip_skip=2)
    result = reproduce(png(made(tiny, truth)), tiny, steps=6)
    assert result.matches and (result.recipe.rng, result.recipe.clip_skip, result.recipe.steps) == ("CPU", 2, 12)
    assert {trial.recipe.steps for trial in result.tried} == {12}


def test_a_foreign_picture_is_not_said_to_match(tiny):
    truth = replace(SMALL, prompt="a cat", sampler="Euler", steps=2)
    strange = replace(made(tiny, truth), image=made(tiny, replace(truth, seed=99)).image)
    result = reproduce(png(strange), tiny)
    assert not result.matches and not result.close
    assert result.text.startswith("No combination gives this picture; the nearest (score ")


def test_a_picture_saved_with_losses_comes_close(tiny, tmp_path):
    truth = replace(SMALL, prompt="a cat", sampler="Euler", steps=2, rng="CPU", clip_skip=2)
    picture, told = made(tiny, truth), []
    picture.image.save(tmp_path / "one.jpg", quality=100, subsampling=0)
    recipe = Recipe.from_infotext(stripped(picture.infotext))
    result = reproduce(tmp_path / "one.jpg", tiny, recipe=recipe, report=told.append)
    assert result.close and not result.matches
    assert (result.recipe.rng, result.recipe.clip_skip) == ("CPU", 2)
    assert result.text.startswith("It comes close, but not to the byte (score 0.9")
    assert "The picture was saved with losses, so no setting gives exactly its bytes." in [getattr(event, "text", "") for event in told]


def test_progress_counts_pictures_and_it_can_be_stopped(tiny):
    told: list = []
    data = png(made(tiny, replace(SMALL, prompt="a cat", sampler="Euler", steps=2, rng="CPU", clip_skip=2)))
    result = reproduce(data, tiny, report=told.append)
    progress = [event for event in told if isinstance(event, Progress)]
    assert [event.picture for event in progress] == sorted(event.picture for event in progress)
    assert all(event.picture < event.pictures for event in progress)
    assert progress[-1].picture == len(result.tried) - 1
    assert told[-1] == Note(result.text)

    class Asked:
        looks = 0

        def check(self) -> None:
            self.looks += 1
            if self.looks == 4:
                raise Stopped("asked")

    with pytest.raises(Stopped):
        reproduce(data, tiny, control=Asked())


def test_another_model_and_another_size_are_told(tiny):
    told: list = []
    picture = made(tiny, replace(SMALL, prompt="a cat", sampler="Euler", steps=1))
    data = picture.image.resize((96, 96))
    reproduce(data, tiny, recipe=replace(picture.recipe, model="other [0123456789]"), report=told.append)
    notes = " ".join(event.text for event in told if isinstance(event, Note))
    assert "The picture was made with the model other [0123456789]; tiny-sd1 is another one" in notes
    assert "The picture is 96x96 and its recipe 64x64" in notes


def test_what_cannot_be_compared_is_told(tiny, tmp_path):
    bare = Image.new("RGB", (64, 64))
    with pytest.raises(RecipeError, match="this picture carries no recipe"):
        reproduce(bare, tiny)
    (tmp_path / "no.png").write_text("no picture")
    for source in (tmp_path / "no.png", tmp_path / "missing.png", b"no"):
        with pytest.raises(NbsdError, match="this cannot be read as a picture"):
            reproduce(source, tiny)
    with pytest.raises(NbsdError, match="got int"):
        reproduce(3, tiny)
    with pytest.raises(RecipeError, match="width is 100"):
        reproduce(bare, tiny, recipe=replace(SMALL, width=100))


def test_a_text_without_version_leaves_the_rules_open():
    old = Recipe.from_infotext("a cat\nSteps: 4, Sampler: DPM++ 2M, CFG scale: 7, Seed: 1, Size: 64x64")
    rules = next(question for question in open_questions(old) if question.name == "rules")
    assert rules.answers[0].changes == {}
    assert rules.answers[1].changes["schedule"] == "Automatic"
    today = "Schedule type: Karras, CFG scale: 7, Seed: 1, Size: 64x64, Version: v1.10.1"
    new = Recipe.from_infotext(f"a cat\nSteps: 4, Sampler: DPM++ 2M, {today}")
    assert "rules" not in [question.name for question in open_questions(new)]


def test_likeness():
    grey = Image.new("RGB", (8, 8), (100, 100, 100))
    nearly = Image.new("RGB", (8, 8), (101, 100, 100))
    target = Target(grey, (8, 8))
    assert target.compare(grey).same and target.compare(grey).score == 1
    assert target.compare(nearly).matches and not target.compare(nearly).same
    assert target.compare(nearly).difference == pytest.approx((1 / 3) ** 0.5)
    assert apart(grey, nearly) == target.compare(nearly).difference
    assert not target.compare(Image.new("RGB", (8, 8), (110, 100, 100))).matches
