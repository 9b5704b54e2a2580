"""Presets: what they set, that they can be set twice, and that they go away again."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbsd.errors import RecipeError
from nbsd.presets import NOVELAI_QUALITY, NOVELAI_UNDESIRED, PRESETS, apply, remove
from nbsd.recipe import Recipe

PROMPTS = ["", "a cat", "{cat}, tree", "masterpiece", "a (cat:1.2)", "[a:b:0.5]", "a AND b", "a [[cat]]",
           "<lora:ink:1> cat", NOVELAI_QUALITY]
STRANGE = Recipe(prompt="a cat", negative_prompt="blurry", seed=7, steps=50, sampler="DDIM", cfg_scale=3.0, clip_skip=4, ensd=1, rng="NV",
                 width=768, model="ink [0123456789]", tiling=True)


def test_the_defaults_are_a_new_recipes_and_the_words_stay():
    assert apply("A1111 defaults", STRANGE) == Recipe(prompt="a cat", negative_prompt="blurry", seed=7, model="ink [0123456789]")


def test_novelai_sets_its_settings_and_words():
    made = apply("NovelAI", STRANGE)
    assert (made.clip_skip, made.ensd, made.sampler, made.steps, made.cfg_scale) == (2, 31337, "Euler a", 28, 11.0)
    assert made.prompt == "masterpiece, best quality, a cat"
    assert made.negative_prompt == f"{NOVELAI_UNDESIRED}, blurry"
    assert made.dialect == "novelai"
    assert (made.seed, made.model, made.width, made.rng) == (7, STRANGE.model, 768, "NV")


def test_novelais_other_sampler_stays():
    assert apply("NovelAI", replace(STRANGE, sampler="Euler")).sampler == "Euler"


@pytest.mark.parametrize(("prompt", "dialect"), [
    ("a cat", "novelai"), ("{cat}", "novelai"), ("", "novelai"), ("a (cat:1.2)", "webui"), ("[cat]", "webui"), ("a \\(cat\\)", "webui"),
    ("a AND b", "webui"), ("[a:b:0.5]", "webui"), ("<lora:ink:1> a", "webui"),
])
def test_prompts_in_the_web_uis_language_keep_it(prompt, dialect):
    assert apply("NovelAI", Recipe(prompt=prompt)).dialect == dialect
    assert apply("NovelAI", Recipe(negative_prompt=prompt)).dialect == dialect


@pytest.mark.parametrize("preset", PRESETS)
@settings(max_examples=50, deadline=None)
@given(prompt=st.sampled_from(PROMPTS) | st.text("a,({[:|]}) 1.", max_size=12), negative=st.sampled_from(PROMPTS),
       sampler=st.sampled_from(["Euler", "Euler a", "DPM++ 2M"]))
def test_twice_is_once_and_remove_is_the_way_back(preset, prompt, negative, sampler):
    before = Recipe(prompt=prompt, negative_prompt=negative, sampler=sampler)
    once = apply(preset, before)
    assert apply(preset, once) == once
    back = remove(preset, once)
    assert replace(apply(preset, back), sampler=once.sampler) == once
    if not before.prompt.startswith(NOVELAI_QUALITY):
        assert back.prompt == before.prompt
    assert (back.negative_prompt, back.dialect) == (before.negative_prompt, before.dialect)
    assert (back.clip_skip, back.ensd, back.steps, back.cfg_scale) == (1, 0, 20, 7.0)


def test_remove_leaves_what_was_changed_since():
    mine = replace(apply("NovelAI", Recipe(prompt="a cat")), clip_skip=3, steps=40)
    back = remove("NovelAI", mine)
    assert (back.clip_skip, back.steps, back.ensd, back.prompt) == (3, 40, 0, "a cat")


def test_an_unknown_preset_is_told():
    for act in (apply, remove):
        with pytest.raises(RecipeError, match="no preset is called 'NAI': use one of 'A1111 defaults', 'NovelAI'"):
            act("NAI", Recipe())
