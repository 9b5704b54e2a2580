"""infotext: the web UI's text read raw, read into recipes, written, and taken out of pictures."""

from __future__ import annotations

import contextlib
import doctest
import gzip
import importlib.util
import io
import json
import pickle
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from nbsd import infotext
from nbsd.errors import NbsdError
from nbsd.infotext import KEYS, from_image, parse, quote, read, recipes, split_sampler_name, text, unquote, write
from nbsd.infotext.rules import BEHAVIOURS, label
from nbsd.names import SAMPLER_FACTS, SCHEDULE_NAMES
from nbsd.recipe import Hires, Img2Img, Inpaint, Recipe, Soft, join_title

LONG = 100_000     # characters; what cost more than linear time would hang here. Its speed is measured by bench/parsers.py
ROOT = Path(__file__).parent.parent
DATA = ROOT / "tests/data"
FIDELITY = DATA / "fidelity"

ASUKA = """best quality, masterpiece, asuka langley sitting cross legged on a chair
Negative prompt: lowres, bad anatomy, bad hands, text, error, missing fingers, extra digit, fewer digits, cropped, worst quality
Steps: 28, Sampler: Euler, CFG scale: 12, Seed: 2870305590, Size: 512x512, Model hash: 925997e9, Clip skip: 2, ENSD: 31337"""


def _tool(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CASE = _tool("fidelity_case")


def recorded(kind):
    cases = json.loads((FIDELITY / "f_infotext.json").read_text(encoding="utf-8"))["cases"]
    return [pytest.param(case, id=case["id"]) for case in cases if case["kind"] == kind]


def pictures():
    """(family's file, case, number of the picture) for every recorded picture."""
    families = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FIDELITY.glob("e_*.json"))}
    families.update(json.loads((DATA / "infotexts.json").read_text(encoding="utf-8")))
    for family in families.values():
        about = {key: value for key, value in family.items() if key != "cases"}
        for case in family["cases"]:
            for index in range(len(case["infotexts"])):
                whole = {**case, "params": {**family["defaults_of_params"], **case["params"]}}
                yield pytest.param(about, whole, index, id=f"{case['id']}-{index}")


# Raw reading, as recorded


@pytest.mark.parametrize("case", recorded("parse"))
def test_parse_reads_as_the_web_ui_does(case):
    assert parse(case["text"]) == case["result"]
    plain = parse(case["text"], backcompat=False)
    assert {key: value for key, value in case["result"].items() if plain.get(key) != value} == case["differs_without_auto_backcompat"]
    sampler = case["result"].get("Sampler"), case["result"].get("Schedule type")
    assert list(split_sampler_name(*sampler)) == case["sampler_and_schedule"]


@pytest.mark.parametrize("case", recorded("quote"))
def test_quoting(case):
    assert quote(case["value"]) == case["quoted"]
    assert unquote(case["quoted"]) == case["unquoted_again"]


@pytest.mark.parametrize("case", recorded("sampler name"))
def test_sampler_names(case):
    assert list(split_sampler_name(case["name"], case["schedule_type"])) == case["pasted"]
    assert list(split_sampler_name(case["name"], case["schedule_type"], paste=False)) == case["as_run"]


@pytest.mark.parametrize(("line", "key", "value"), [
    ('Foo bar: "a, b", Steps: 1, Size: 1x1', "Foo bar", "a, b"),
    ('Foo bar: "a, b" c, Steps: 1, Size: 1x1', "Foo bar", '"a'),           # a quoted string that goes on is none
    ('Foo bar: "", Steps: 1, Size: 1x1', "Foo bar", ""),
    ("- / Foo bar : x, Steps: 1, Size: 1x1", "Foo bar ", "x"),
    ("F: x, Steps: 1, Size: 1x1, Seed: 2", "F", None),                      # a key has at least two letters
    ("Refiner: x, Steps: 1, Version: v1.8.0", "Refiner switch by sampling steps", False),
    ("Foo: , Steps: 1, Size: 1x1, Seed: 2", "Foo", None),                   # nothing is no value
])
def test_what_is_a_pair(line, key, value):
    assert parse(f"a cat\n{line}").get(key) == value


# Recipes written as the web UI writes them


@pytest.mark.parametrize("case", recorded("create"))
def test_create(case):
    assert write(CASE.recipe_of(case, {})) == case["result"]


@pytest.mark.parametrize(("about", "case", "index"), pictures())
def test_infotexts_of_the_recorded_pictures(about, case, index):
    want = case["infotexts"][index]
    pairs = parse(want)
    recipe = CASE.recipe_of(case, about).nth(index)
    recipe = replace(
        recipe, model=join_title(pairs.get("Model", ""), pairs["Model hash"]),
        vae=join_title(pairs.get("VAE", ""), pairs.get("VAE hash", "")),
        unknown=tuple((key, pairs[key]) for key in ("Lora hashes", "TI hashes") if key in pairs),      # the pipeline knows them
    )
    each = {key: case["params"][key][index] for key in ("prompt", "negative_prompt", "seed") if isinstance(case["params"][key], list)}
    assert CASE.infotext_of(case, replace(recipe, **each), index) == want
    assert write(read(want)) == want


def test_a_recorded_hires_fix_says_networks_and_old_sizes():
    """Without scripts the first prompt lost its tags and the second one kept them; an old option makes the size that of the second pass."""
    case = {"params": {"prompt": "a <lora:b:1>", "width": 768, "height": 768, "enable_hr": True}, "options": {"use_old_hires_fix_width_height": True}}
    recipe = CASE.recipe_of(case, {})
    assert (recipe.width, recipe.height, recipe.hires.width, recipe.hires.height) == (512, 512, 768, 768)
    assert CASE.infotext_of(case, recipe).startswith("a \n") and 'Hires prompt: "a <lora:b:1>", Hires resize: 768x768' in CASE.infotext_of(case, recipe)


@pytest.mark.parametrize(("case", "name"), [
    ({"params": {"prompt": "a", "no_such_thing": 1}}, "parameter 'no_such_thing' = 1"),
    ({"params": {"prompt": "a"}, "options": {"hires_fix_use_firstpass_conds": True}}, "option 'hires_fix_use_firstpass_conds' = True"),
    ({"kind": "create", "params": {}, "set_fields": {"odd": 1}}, "field 'odd' = 1"),
])
def test_what_no_recipe_can_say_is_named(case, name):
    with pytest.raises(KeyError) as error:
        CASE.recipe_of(case, {})
    assert str(error.value) == name


# Round trips


@pytest.mark.parametrize("case", recorded("parse"))
def test_a_text_comes_back_as_it_was(case):
    assert write(read(case["text"])) == case["text"].strip()


TEXTS = {
    "asuka": ASUKA,
    "1.6, all kinds of keys": (
        "1girl, \nNegative prompt: (bad:1.2), \nSteps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 1, Size: 512x768, "
        "Model hash: 6ce0161689, Model: v1-5-pruned, VAE hash: 735e4c3a44, VAE: vae-ft.safetensors, Denoising strength: 0.5, "
        "Clip skip: 2, ControlNet 0: \"Module: canny, Weight: 1\", Hires upscale: 2, Hires steps: 10, Hires upscaler: R-ESRGAN 4x+, "
        "TI hashes: \"easyneg: c74b4e810b03\", "
        "Lora hashes: \"ink: 0123456789ab\", Version: v1.6.0"
    ),
    "civitai": (
        "a cat\nSteps: 30, Sampler: Euler a, CFG scale: 7.50, Seed: 5, Clip skip: 1, Created Date: 2024-01-01T00:00:00Z, "
        'Civitai resources: [{"type":"checkpoint","modelVersionId":128713}], Civitai metadata: {}'
    ),
    "junk in known keys": "a\nSteps: many, Sampler: Kuler 3, Schedule type: Wavy, CFG scale: 1e999, Seed: -1, Size: 0512x512, "
                          "Clip skip: two, RNG: dice",
    "other spellings": "a\nSteps: 020, Sampler: k_euler_a, CFG scale: +7.0, Seed: 007, Size: 64x64, Model hash: ABC, "
                       "Beta scheduler alpha: .50",
    "defaults that are said": "a\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Automatic, CFG scale: 7.0, ENSD: 0, RNG: GPU, "
                              "Eta: 1.0, Tiling: False",
    "a key twice": "a\nSteps: 20, Steps: 30, Foo: 1, Sampler: Euler, Foo: 2",
    "hashes as JSON": 'a\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 64x64, Model hash: 6ce0161689, Hashes: {"vae": "735e4c3a44", '
                      '"lora:a b": "0123456789ab", "embed:neg-x": "1", "model": "6ce0161689"}, Version: v1.6.0',
    "resources as JSON": 'a\nSteps: 30, Sampler: Euler a, Seed: 5, Civitai resources: [{"type":"checkpoint","modelName":"One: two, XL"},'
                         '{"type":"lora","weight":0.8}], Civitai metadata: {"a":{"Seed: 9, b":[1]}}',
    "nearly JSON": 'a\nSteps: 30, Sampler: Euler a, Seed: 5, Template: {a|b}, c, Other: ["x: y", Third: [1, 2, Fourth: {"a": 1} x, Fifth: 5',
    "2022": "a\nSteps: 20, Sampler: DDIM, CFG scale: 7, Seed: 1, Size: 1024x768, Model hash: 925997e9, Hypernet: anime(925997e9), "
            "Batch size: 2, Batch pos: 1, Denoising strength: 0.7, Eta: 0.5, First pass size: 0x0",
    "AddNet": "a\nSteps: 20, Sampler: Euler, Seed: 1, AddNet Enabled: True, AddNet Module 1: LoRA, AddNet Model 1: ink(0123456789ab), "
              "AddNet Weight A 1: 0.6",
    "forge": "a\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Distilled CFG Scale: 3.5, Seed: 1, Size: 64x64, "
             "Model: \"a, b\", Version: f2.0.1v1.10.1-previous-636-gb835f24a",
    "no parameters": "just a prompt: with, some: colons",
    "nothing": "",
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_from_the_wild_come_back_as_they_were(name):
    recipe = read(TEXTS[name])
    assert write(recipe) == TEXTS[name]
    again = pickle.loads(pickle.dumps(recipe))
    assert again == recipe and write(again) == TEXTS[name]


@pytest.mark.parametrize("line", [      # found by tools/fuzz.py: put together anew from its pairs, each of them says something else
    'Seed: 1, Resize mode: "a, b"Steps: 20, Sampler: Euler',
    'Seed: 1, Hypernet: {"a": [1, "b"]}Steps: 20, Sampler: Euler',
    "Seed: 1,Sampler:Euler,  Steps:  20, User: me, ,",
])
def test_an_odd_line_comes_back_as_it_was(line):
    recipe = read(f"a\n{line}")
    assert recipe.infotext() == f"a\n{line}"
    changed = replace(recipe, seed=2).infotext()
    assert "Seed: 2" in changed and "Seed: 1" not in changed


def test_a_change_changes_only_its_own_key():
    recipe = read(TEXTS["1.6, all kinds of keys"])
    changed = write(replace(recipe, seed=5, schedule="Exponential", clip_skip=1, ensd=0, tiling=True))
    want = TEXTS["1.6, all kinds of keys"].replace("Seed: 1,", "Seed: 5,").replace("2M Karras", "2M Exponential")
    assert changed == want.replace("Clip skip: 2,", "Tiling: True,")
    assert write(replace(recipe, hires=None)).find("Hires") < 0
    assert write(replace(read(ASUKA), prompt="a dog")) == ASUKA.replace(ASUKA.splitlines()[0], "a dog")
    small = write(replace(read("a\nSteps: 1, Sampler: Euler, Seed: 1"), hires=Hires(scale=1.5)))
    assert small == "a\nSteps: 1, Sampler: Euler, Seed: 1, Denoising strength: 0.7, Hires upscale: 1.5, Hires upscaler: Latent"


def test_a_control_may_make_a_number_another_kind_of_number():
    recipe = read(ASUKA)
    assert write(replace(recipe, cfg_scale=12.0)) == ASUKA
    assert write(replace(recipe, cfg_scale=12.5)) == ASUKA.replace("CFG scale: 12", "CFG scale: 12.5")


def test_a_value_that_meant_nothing_gives_way():
    recipe = read("a\nSteps: many, Sampler: Euler, Seed: 1")
    assert recipe.steps == 20 and recipe.unknown == (("Steps", "many"),)
    assert write(replace(recipe, steps=30)) == "a\nSteps: 30, Sampler: Euler, Seed: 1"


def test_a_hypernetwork_of_2022_is_a_tag_until_it_is_taken_out():
    recipe = read("a cat\nSteps: 20, Sampler: Euler, Seed: 1, Hypernet: anime, Hypernet strength: 0.5")
    assert recipe.prompt == "a cat<hypernet:anime:0.5>"
    assert write(replace(recipe, prompt="a dog<hypernet:anime:0.5>")).startswith("a dog\nSteps")
    assert "Hypernet" not in write(replace(recipe, prompt="a dog"))


def test_networks_of_the_additional_networks_extension_are_tags():
    line = "Steps: 2, Sampler: Euler, Seed: 1, AddNet Module {}: {}, AddNet Model {}: ink(0123456789ab), AddNet Weight A {}: 0.6"
    assert read("a\n" + line.format(1, "LoRA", 1, 1)).prompt == "a\n<lora:ink:0.6>"
    assert read("a\n" + line.format(1, "LoRA", 1, 2)).prompt == "a\n<lora:ink:1.0>"
    assert read("a\n" + line.format(1, "ControlLoRA", 1, 1)).prompt == "a"
    assert read("a\n" + line.format(1, "LoRA", 2, 1)).prompt == "a"


# What a text means


@pytest.mark.parametrize(("sampler", "schedule", "version", "means"), [
    ("Euler", None, "", ("Euler", "Automatic")),
    ("DPM++ 2M", None, "", ("DPM++ 2M", "Uniform")),               # FACTS D.4, 1
    ("DPM++ 2M", None, "v1.8.0", ("DPM++ 2M", "Uniform")),
    ("DPM++ 2M", None, "v1.9.0", ("DPM++ 2M", "Automatic")),
    ("DPM++ 2M", "Automatic", "", ("DPM++ 2M", "Automatic")),
    ("DPM++ 2M Karras", None, "", ("DPM++ 2M", "Karras")),
    ("DPM++ 2M SDE Heun Exponential", None, "v1.7.0", ("DPM++ 2M SDE Heun", "Exponential")),
    ("Restart", None, "v1.7.0", ("Restart", "Automatic")),         # always ran Karras, under this name
    ("DPM++ 2M", "Karras", "v1.10.1", ("DPM++ 2M", "Karras")),
    ("Euler SGM Uniform", None, "", ("Euler", "SGM Uniform")),
    ("euler A", None, "", ("Euler a", "Automatic")),
    ("k_dpm_2_ancestral", None, "", ("DPM2 a", "Uniform")),        # NovelAI's name
    ("Mystery Karras", None, "", ("Mystery Karras", "Automatic")),
    ("Euler", "align_your_steps", "v1.10.1", ("Euler", "Align Your Steps")),
])
def test_sampler_and_schedule(sampler, schedule, version, means):
    line = f"Steps: 1, Sampler: {sampler}, Seed: 1, Size: 1x1" + (f", Schedule type: {schedule}" if schedule else "")
    recipe = read(f"a\n{line}" + (f", Version: {version}" if version else ""))
    assert (recipe.sampler, recipe.schedule) == means


@pytest.mark.parametrize(("version", "timelines", "pad", "downcast"), [
    ("", True, "v0", True),                 # FACTS D.4, 8
    ("v1.5.2", True, "v0", True),
    ("v1.6.0", False, "off", True),
    ("v1.7.0-224-g11223344", False, "off", True),
    ("v1.7.0-225-g11223344", False, "off", False),
    ("v1.10.1", False, "off", False),
    ("ComfyUI", False, "off", False),
])
def test_old_behaviours(version, timelines, pad, downcast):
    line = "Steps: 1, Sampler: DDIM, Seed: 1, Size: 1x1" + (f", Version: {version}" if version else "")
    recipe = read(f"[a]\n{line}")
    assert (recipe.old_prompt_timelines, recipe.pad_conds, recipe.downcast_alphas) == (timelines, pad, downcast)
    assert not read(f"[a]\n{line}, Downcast alphas_cumprod: False").downcast_alphas
    assert not read(f"[a]\n{line}, Noise Schedule: Zero Terminal SNR").downcast_alphas      # a key of the same age
    assert {field for _, _, field, _ in BEHAVIOURS} == {"old_prompt_timelines", "pad_conds", "downcast_alphas", "rules", "old_karras"}


@pytest.mark.parametrize(("line", "rules", "old_karras"), [
    ("Sampler: DPM2 Karras, Model hash: 925997e9", "2022-10", True),
    ("Sampler: DPM2, Model hash: 925997e9", "2022-10", False),
    ("Sampler: DPM2 Karras, Model hash: 78e7fcdcdf, Model: tiny-sd1", "v1.10", False),
    ("Sampler: DPM2 Karras, Model hash: 925997e9, Version: v1.5.2", "v1.10", False),
    ("Sampler: DPM2 Karras", "v1.10", False),
])
def test_a_hash_of_eight_digits_tells_that_a_text_is_of_2022(line, rules, old_karras):
    given = f"a\nSteps: 5, {line}"
    recipe = read(given)
    assert (recipe.rules, recipe.old_karras) == (rules, old_karras)
    assert recipe.infotext() == given
    here = replace(recipe, model="tiny-sd1 [78e7fcdcdf]")       # made with the file that is here: the text must still say how
    again = read(here.infotext())
    assert (again.rules, again.old_karras) == (rules, old_karras)


def test_the_asuka_recipe():
    recipe = read(ASUKA)
    assert recipe == Recipe(
        prompt=ASUKA.splitlines()[0], negative_prompt=ASUKA.splitlines()[1].removeprefix("Negative prompt: "), steps=28, sampler="Euler",
        cfg_scale=12, seed=2870305590, width=512, height=512, model="925997e9", clip_skip=2, ensd=31337, version="", downcast_alphas=True,
        rules="2022-10",
    )
    assert read("a\nSteps: 1, Sampler: Euler, CFG scale: 7., Eta: .5").cfg_scale == 7.0
    assert isinstance(recipe.cfg_scale, int) and isinstance(read("a\nCFG scale: 7.0, Seed: 1, Steps: 1").cfg_scale, float)


def test_hires_img2img_and_inpainting():
    line = "Steps: 9, Sampler: Euler, Seed: 1, Denoising strength: 0.6, "
    assert read(f"a\n{line}Hires resize: 1024x512, Hires steps: 5, Hires upscaler: Lanczos, Hires sampler: DPM++ 2M Karras").hires == Hires(
        width=1024, height=512, steps=5, upscaler="Lanczos", sampler="DPM++ 2M", schedule="Karras", denoising_strength=0.6)
    assert read(f"a\n{line}Hires checkpoint: Use same checkpoint, Hires upscale: 1.5").hires == Hires(scale=1.5, denoising_strength=0.6)
    assert read(f"a\n{line}Noise multiplier: 0.9, Extra noise: 0.1").img2img == Img2Img(
        denoising_strength=0.6, noise_multiplier=0.9, extra_noise=0.1)
    recipe = read(f"a\n{line}Mask blur: 8, Mask mode: Inpaint not masked, Masked content: latent noise, Inpaint area: Only masked, "
                  "Masked area padding: 16, Soft inpainting enabled: True, Soft inpainting mask influence: 0.5")
    assert recipe.img2img == Img2Img(denoising_strength=0.6)
    assert recipe.inpaint == Inpaint(
        mask_blur=8, invert=True, fill="latent noise", only_masked=True, padding=16, soft=Soft(mask_influence=0.5))
    # the web UI takes the sampler's default for "Automatic", and so does the second pass
    other = read("a\nSteps: 9, Sampler: DPM++ 2M, Schedule type: Karras, Seed: 1, Hires sampler: Euler, Version: v1.10.1")
    assert (other.schedule, other.hires.schedule) == ("Karras", "Automatic")
    inherits = Recipe(sampler="DPM++ 2M", schedule="Karras", hires=Hires(sampler="Euler"))
    assert "Hires schedule" not in write(inherits) and read(write(inherits, complete=True)).hires.schedule == "Karras"
    assert "Hires schedule" not in write(replace(inherits, schedule="Automatic"), complete=True)
    old = read("a\nSteps: 9, Sampler: Euler, Seed: 1, Size: 1024x768, Denoising strength: 0.7, First pass size: 0x0")
    # then pictures were enlarged, not latents, unless a setting was on that is not written
    assert (old.width, old.height, old.hires) == (640, 448, Hires(upscaler="Lanczos", width=1024, height=768, denoising_strength=0.7))
    for sampler, version, second in (("UniPC", "v1.5.2", "DDIM"), ("PLMS", "", "DDIM"), ("UniPC", "v1.6.0", ""), ("Euler", "v1.5.2", "")):
        text = f"a\nSteps: 9, Sampler: {sampler}, Seed: 1, Hires upscale: 2" + f", Version: {version}" * bool(version)
        assert read(text).hires.sampler == second and write(read(text)) == text
    # a blur of 0 is what a text that speaks of the mask does not say
    for said, blur in (("Inpaint area: Only masked", 0), ("Mask mode: Inpaint not masked, Mask blur: 6", 6), ("Soft inpainting enabled: True", 4)):
        assert read(f"a\n{line}{said}").inpaint.mask_blur == blur


SOFTLY = ("Soft inpainting enabled: True, Soft inpainting schedule bias: 1, Soft inpainting preservation strength: 0.5, Soft inpainting transition "
          "contrast boost: 4, Soft inpainting mask influence: 0, Soft inpainting difference threshold: 0.5, Soft inpainting difference contrast: 2")


@pytest.mark.parametrize(("recipe", "said", "complete"), [
    (Recipe(sampler="LCM", ensd=31337), "", "ENSD: 31337"),                         # FACTS D.4, 7
    (Recipe(sampler="Euler a", ensd=31337), "ENSD: 31337", ""),
    (Recipe(sampler="Euler a", ensd=31337, eta=0.0), "Eta: 0.0", "ENSD: 31337, Eta: 0.0"),
    (Recipe(sampler="UniPC", unipc_order=2), "", "UniPC order: 2"),                 # FACTS D.4, 3
    (Recipe(sampler="Euler", emphasis="No norm"), "", "Emphasis: No norm"),
    (Recipe(prompt="(a)", sampler="Euler", emphasis="No norm"), "Emphasis: No norm", ""),
    (Recipe(prompt="[a:b:0.5]", sampler="Euler", emphasis="No norm"), "", "Emphasis: No norm"),     # no bracket is encoded
    (Recipe(prompt="[a:b:1.5]", sampler="Euler", old_prompt_timelines=True), "Old prompt editing timelines: True", ""),
    (Recipe(prompt="[a:b:0.5]", sampler="Euler", old_prompt_timelines=True), "", "Old prompt editing timelines: True"),
    # said when the first prompt is encoded for which they differ: before the first pass, or between the two
    (Recipe(prompt="[a:b:1.5]", sampler="Euler a", eta=0.5, old_prompt_timelines=True, hires=Hires()),
     "Hires upscale: 2.0, Hires upscaler: Latent, Old prompt editing timelines: True, Eta: 0.5", ""),
    (Recipe(prompt="[a:b:0.5]", sampler="Euler a", eta=0.5, old_prompt_timelines=True, hires=Hires()),
     "Hires upscale: 2.0, Hires upscaler: Latent, Eta: 0.5, Old prompt editing timelines: True", ""),
    (Recipe(sampler="DPM2", discard_penultimate_sigma=True), "", "Discard penultimate sigma: True"),    # it does so anyway
    (Recipe(sampler="Euler", schedule="Karras", rho=5.0, sigma_min=0.1), "Schedule min sigma: 0.1, Schedule rho: 5.0", ""),
    (Recipe(sampler="Euler", rho=5.0, sigma_min=0.1), "", "Schedule min sigma: 0.1, Schedule rho: 5.0"),
    (Recipe(sampler="DDIM", steps=20, ngms=4.0), "", "NGMS: 4.0"),
    # The hires fix runs a second sampler, which says what it uses behind what the first one said
    (Recipe(sampler="DDIM", eta=0.5, s_churn=2.0, hires=Hires(sampler="Euler a")), "Hires sampler: Euler a, Hires upscale: 2.0, "
     "Hires upscaler: Latent, Eta: 0.5", "Hires sampler: Euler a, Hires upscale: 2.0, Hires upscaler: Latent, Eta: 0.5, Sigma churn: 2.0"),
    (Recipe(sampler="Euler a", eta=0.5, eta_ddim=0.3, ensd=1, hires=Hires(sampler="DDIM", extra_noise=0.1)), "ENSD: 1, Hires sampler: DDIM, "
     "Hires upscale: 2.0, Hires upscaler: Latent, Eta: 0.5, Extra noise: 0.1, Eta DDIM: 0.3", ""),
    (Recipe(sampler="Euler a", ensd=1, hires=Hires()), "ENSD: 1, Hires upscale: 2.0, Hires upscaler: Latent", ""),
    # after the hires fix the web UI has forgotten its samplers, and with them their eta
    (Recipe(sampler="Euler a", ensd=1, hires=Hires(sampler="DDIM")), "ENSD: 1, Hires sampler: DDIM, Hires upscale: 2.0, Hires upscaler: Latent", ""),
    (Recipe(sampler="Euler a", ensd=1, eta=0.0, hires=Hires()), "ENSD: 1, Hires upscale: 2.0, Hires upscaler: Latent, Eta: 0.0", ""),
    (Recipe(sampler="Euler", ensd=1, hires=Hires(sampler="Euler a")), "Hires sampler: Euler a, Hires upscale: 2.0, Hires upscaler: Latent",
     "ENSD: 1, Hires sampler: Euler a, Hires upscale: 2.0, Hires upscaler: Latent"),
    # scripts and soft inpainting speak before the mask does
    (Recipe(sampler="Euler", img2img=Img2Img(), inpaint=Inpaint(mask_blur=0, only_masked=True, soft=Soft()), unknown=(("Denoising curve", "Lazy"),)),
     f"Denoising strength: 0.75, Denoising curve: Lazy, {SOFTLY}, Inpaint area: Only masked, Masked area padding: 32",
     f"Denoising strength: 0.75, Denoising curve: Lazy, {SOFTLY}, Mask blur: 0, Inpaint area: Only masked, Masked area padding: 32"),
    (Recipe(sampler="DPM2", schedule="Uniform", discard_penultimate_sigma=True, sigma_min=0.1, hires=Hires(sampler="Euler", schedule="Beta")),
     "Hires sampler: Euler, Hires schedule type: Beta, Hires upscale: 2.0, Hires upscaler: Latent, Schedule min sigma: 0.1, "
     "Discard penultimate sigma: True, Beta schedule alpha: 0.6, Beta schedule beta: 0.6", ""),
    (Recipe(sampler="DDIM", ngms=4.0, hires=Hires(sampler="Euler")), "Hires sampler: Euler, Hires upscale: 2.0, Hires upscaler: Latent, "
     "NGMS: 4.0", ""),
    (Recipe(sampler="Euler", old_prompt_timelines=True, hires=Hires(prompt="[a:b:1.5]")), 'Hires prompt: "[a:b:1.5]", '
     "Hires upscale: 2.0, Hires upscaler: Latent, Old prompt editing timelines: True", ""),
    (Recipe(sampler="Euler", old_karras=True, dialect="novelai"), "Dialect: novelai", "Dialect: novelai, Old Karras sigmas: True"),
])
def test_what_is_said_and_what_only_completely(recipe, said, complete):
    def extras(text):
        return text.rpartition("Size: 512x512")[2].removesuffix(", Version: v1.10.1").removeprefix(", ").replace("Denoising strength: 0.7, ", "")
    assert extras(write(recipe)) == said
    assert extras(write(recipe, complete=True)) == (complete or said)


def test_every_field_is_written_somewhere():
    assert {path.split(".")[0] for row in KEYS for path in row.paths} | infotext.ELSEWHERE == {field.name for field in fields(Recipe)}
    for part, kind in (("hires", Hires), ("img2img", Img2Img), ("inpaint", Inpaint), ("inpaint.soft", Soft)):
        assert {path.removeprefix(f"{part}.").split(".")[0] for row in KEYS for path in row.paths if path.startswith(f"{part}.")} == {
            field.name for field in fields(kind)}
    assert len({row.key for row in KEYS}) == len(KEYS)


# Any recipe, any text

NUMBER = st.floats(0, 100).map(lambda number: round(number, 3))
WORDS = st.from_regex(r"(\w[\w, :.()\-]{0,10}\w)?", fullmatch=True)
RECIPES = st.builds(
    Recipe, prompt=WORDS, negative_prompt=WORDS, dialect=st.sampled_from(["webui", "novelai"]), steps=st.integers(1, 150),
    sampler=st.sampled_from(list(SAMPLER_FACTS)), schedule=st.sampled_from(list(SCHEDULE_NAMES)), cfg_scale=NUMBER | st.integers(1, 30),
    seed=st.integers(0, 2**32 - 1), width=st.integers(8, 4096), height=st.integers(8, 4096), clip_skip=st.integers(1, 12),
    model=st.sampled_from([None, "a model", "a, b [0123456789]", "0123456789ab", "925997e9"]), rules=st.sampled_from(["v1.10", "2022-10"]), vae=st.sampled_from([None, "x.pt", "x.pt [01234567]"]),
    ensd=st.integers(-5, 31337), rng=st.sampled_from(["GPU", "CPU", "NV"]), variation_seed=st.integers(0, 9), variation_strength=NUMBER,
    seed_resize_width=st.integers(0, 9), seed_resize_height=st.integers(0, 9), eta=NUMBER, eta_ddim=NUMBER, s_churn=NUMBER, s_tmin=NUMBER,
    s_tmax=NUMBER, s_noise=NUMBER, sigma_min=NUMBER, sigma_max=NUMBER, rho=NUMBER, beta_alpha=NUMBER, beta_beta=NUMBER,
    discard_penultimate_sigma=st.booleans(), sgm_noise_multiplier=st.booleans(), zero_terminal_snr=st.booleans(),
    downcast_alphas=st.booleans(), quantize_timesteps=st.booleans(), old_karras=st.booleans(), old_emphasis=st.booleans(),
    emphasis=st.sampled_from(["Original", "No norm", "Ignore", "None"]), comma_backtrack=st.integers(0, 74),
    old_prompt_timelines=st.booleans(), pad_conds=st.sampled_from(["off", "on", "v0"]), ngms=NUMBER, ngms_all_steps=st.booleans(),
    skip_early_cfg=NUMBER, unipc_variant=st.sampled_from(["bh1", "bh2", "vary_coeff"]), unipc_order=st.integers(1, 9),
    unipc_skip_type=st.sampled_from(["time_uniform", "logSNR"]), unipc_lower_order_final=st.booleans(), tiling=st.booleans(),
    version=st.sampled_from(["", "v1.5.2", "v1.8.0", "v1.10.1", "ComfyUI"]),
)
PARTS = st.fixed_dictionaries({}) | st.fixed_dictionaries({"hires": st.builds(
    Hires, upscaler=st.sampled_from(["Latent", "None"]), scale=NUMBER, width=st.integers(0, 9), height=st.integers(0, 9),
    steps=st.integers(0, 9), denoising_strength=NUMBER, sampler=st.sampled_from(["", "Euler", "DPM++ 2M"]),
    model=st.sampled_from(["", "m"]),
    prompt=WORDS, negative_prompt=WORDS, schedule=st.sampled_from(["", "Karras", "Beta"]),
)}) | st.fixed_dictionaries({"img2img": st.builds(
    Img2Img, denoising_strength=NUMBER, resize_mode=st.sampled_from(["Just resize", "Resize and fill"]), noise_multiplier=NUMBER,
    extra_noise=NUMBER, color_correction=st.booleans(), exact_steps=st.booleans(),
), "inpaint": st.none() | st.builds(
    Inpaint, mask_blur=st.integers(0, 9), fill=st.sampled_from(["fill", "original"]), only_masked=st.booleans(), padding=st.integers(0, 9),
    invert=st.booleans(), overlay=st.booleans(), round_mask=st.booleans(),
    soft=st.none() | st.builds(Soft, schedule_bias=NUMBER, mask_influence=NUMBER),
)})


def same_picture(recipe):
    """With the schedules by the names that run, as a text has them; the model's own has two names."""
    def runs(sampler, schedule):
        return label(sampler, schedule).replace("Uniform", "Automatic")
    hires = recipe.hires
    if hires:
        sampler = hires.sampler or recipe.sampler
        hires = replace(hires, sampler=sampler, schedule=runs(sampler, hires.schedule or recipe.schedule))
    return replace(recipe, schedule=runs(recipe.sampler, recipe.schedule), hires=hires)


@settings(max_examples=300, deadline=None)
@given(RECIPES, PARTS)
@example(Recipe(sampler="Restart", schedule="Karras", model="925997e9", version=""), {})     # its name does not say the schedule
def test_a_recipe_written_completely_reads_back(recipe, parts):
    recipe = replace(recipe, **parts)
    again = read(write(recipe, complete=True))
    assert same_picture(again) == same_picture(recipe)
    assert write(again, complete=True) == write(recipe, complete=True)


PAIRS = st.lists(st.tuples(
    st.sampled_from([row.key for row in KEYS if row.key] + ["Foo", "Beta scheduler alpha", "AddNet Model 1", "AddNet Module 1"]),
    st.sampled_from(["", "1", "-1", "0.5", "1e999", "9" * 30, "512x512", "0x0", "True", "False", "Karras", "Euler", "LoRA",
                     '"a, b: c"', '"', "\\", "x y"]),
))


@given(st.text(), PAIRS)
def test_any_text_is_read_and_written(before, pairs):
    for given_text in (before, f"{before}\n{', '.join(f'{key}: {value}' for key, value in pairs)}"):
        recipe = read(given_text)
        parse(given_text)
        write(recipe, complete=True)
        write(replace(recipe, unknown=tuple(recipe.unknown)), complete=True)
        assert read(write(recipe)) == recipe


@pytest.mark.parametrize("piece", [
    "a", "key: value, ", "ab:", 'ab: "', 'ab: "\\"', " ", "\n", "- ", "Negative prompt:\n", "Steps: 1, ", "ab: [{", "ab: [", 'ab: {"a b":',
    'ab: ["", ', "ab: [1] x, ", "ab: [1], ",
])
def test_a_long_text_is_no_trouble(piece):
    given_text = "p\n" + (piece * LONG)[:LONG]
    assert write(read(given_text)) == given_text.strip() or parse(given_text)["Prompt"] is not None


# Pictures


def picture(kind, **options):
    out = io.BytesIO()
    Image.new("RGBA" if options.pop("alpha", False) else "RGB", (64, 64), 7).save(out, kind, **options)
    return out.getvalue()


def png(**chunks):
    info = PngInfo()
    for key, value in chunks.items():
        info.add_itxt(key, value)
    return picture("PNG", pnginfo=info)


def exif(comment):
    tags = Image.Exif()
    tags.get_ifd(0x8769)[0x9286] = comment
    return tags.tobytes()


def hidden(mark, data):
    """A picture with `data` in the lowest bits of its alpha channel."""
    bits = "".join(f"{byte:08b}" for byte in mark + (len(data) * 8).to_bytes(4, "big") + data)
    image = Image.new("RGBA", (128, 128), (1, 2, 3, 254))
    for at, bit in enumerate(bits):
        image.putpixel((at // 128, at % 128), (1, 2, 3, 254 + int(bit)))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


UNICODE = ASUKA + "\nünï 日本語 🙂"
NOVELAI = {"steps": 28, "sampler": "k_euler_ancestral", "seed": 3, "strength": 0.69, "noise": 0.667, "scale": 11.0, "uc": "lowres, [text]"}


@pytest.mark.parametrize("data", [
    png(parameters=UNICODE),
    picture("JPEG", exif=exif(b"UNICODE\0" + UNICODE.encode("utf-16-be"))),
    picture("JPEG", exif=exif(b"UNICODE\0" + UNICODE.encode("utf-16-le"))),
    picture("WEBP", exif=exif(b"UNICODE\0" + UNICODE.encode("utf-16-be"))),
    picture("WEBP", exif=exif(b"ASCII\0\0\0" + UNICODE.encode())),
    picture("GIF", comment=UNICODE.encode()),
    hidden(b"stealth_pngcomp", gzip.compress(UNICODE.encode())),
    hidden(b"stealth_pnginfo", UNICODE.encode()),
], ids=["png", "jpeg", "jpeg, other byte order", "webp", "webp, no unicode", "gif", "hidden, zipped", "hidden"])
def test_the_text_of_a_picture(data, tmp_path):
    assert from_image(data) == UNICODE
    (tmp_path / "picture").write_bytes(data)
    assert from_image(tmp_path / "picture") == from_image(str(tmp_path / "picture")) == UNICODE


@pytest.mark.parametrize("data", [
    png(Software="NovelAI", Description="{masterpiece}, cat", Source="Stable Diffusion 81274D13", Comment=json.dumps(NOVELAI)),
    hidden(b"stealth_pngcomp", gzip.compress(json.dumps(
        {"Description": "{masterpiece}, cat", "Source": "Stable Diffusion 81274D13", "Comment": json.dumps(NOVELAI)}).encode())),
], ids=["chunks", "hidden"])
def test_novelai(data):
    found = from_image(data)
    recipe = read(found)
    size = 128 if b"IDAT" in data and b"Comment" not in data else 64
    assert recipe == Recipe(
        prompt="{masterpiece}, cat", negative_prompt="lowres, [text]", dialect="novelai", steps=28, sampler="Euler a", cfg_scale=11.0,
        seed=3,
        width=size, height=size, clip_skip=2, ensd=31337, version="", downcast_alphas=True, unknown=recipe.unknown,
    )
    assert dict(recipe.unknown)["NovelAI source"] == "Stable Diffusion 81274D13"
    assert json.loads(unquote(dict(recipe.unknown)["NovelAI settings"])) == {"strength": 0.69, "noise": 0.667}
    assert write(recipe) == found


def test_novelai_of_today():
    comment = {**NOVELAI, "prompt": "a cat", "width": 832, "height": 1216, "sampler": "k_dpmpp_2m", "noise_schedule": "karras",
               "request_type": "Img2ImgRequest"}
    recipe = read(from_image(png(Software="NovelAI", Comment=json.dumps(comment))))
    assert (recipe.prompt, recipe.width, recipe.height, recipe.sampler, recipe.schedule) == ("a cat", 832, 1216, "DPM++ 2M", "Karras")
    assert recipe.img2img == Img2Img(denoising_strength=0.69)
    del comment["prompt"], comment["uc"]
    comment |= {"v4_prompt": {"caption": {"base_caption": "a dog"}}, "sampler": "nai_smea"}
    recipe = read(from_image(png(Software="NovelAI", Comment=json.dumps(comment))))
    assert (recipe.prompt, recipe.negative_prompt, recipe.sampler) == ("a dog", "", "nai_smea")


@pytest.mark.parametrize("data", [
    picture("PNG"), picture("PNG", alpha=True), picture("JPEG"), png(Comment="made with love"), png(Comment="[1]"), png(Comment='{"a": 1}'), png(Comment='{"steps": 1}'),
    picture("JPEG", exif=exif(b"")), hidden(b"stealth_pngcomp", b"no gzip"), hidden(b"stealth_pnginfo", b""),
])
def test_pictures_without_a_text(data):
    assert from_image(data) in (None, "made with love", "[1]")


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n\x1a\n", picture("PNG")[:30]])
def test_what_is_no_picture(data, tmp_path):
    with pytest.raises(NbsdError, match="picture"):
        from_image(data)
    with pytest.raises(NbsdError, match=r"none\.png cannot be read"):
        from_image(tmp_path / "none.png")


@given(st.binary(max_size=200))
def test_broken_pictures(junk):
    whole = png(parameters=ASUKA)
    for data in (whole[:8] + junk, whole[:60] + junk + whole[60:], hidden(b"stealth_pngcomp", junk) if len(junk) < 40 else junk):
        with contextlib.suppress(NbsdError):
            from_image(data)


def test_json_stays_whole():
    recipe = read(TEXTS["hashes as JSON"])
    assert [key for key, _ in recipe.unknown] == ["Hashes"]
    assert json.loads(recipe.unknown[0][1])["lora:a b"] == "0123456789ab"
    assert read(TEXTS["resources as JSON"]).seed == 5
    assert [key for key, _ in read(TEXTS["nearly JSON"]).unknown] == ["Template", "Other", "Third", "Fourth", "Fifth"]
    assert "lora" in parse(TEXTS["hashes as JSON"])      # the web UI's own reading


# The rest


def test_the_names_are_those_that_were_recorded():
    recorded = json.loads((FIDELITY / "d_sigmas.json").read_text(encoding="utf-8"))
    for name, options in recorded["sampler_options"].items():
        facts = SAMPLER_FACTS[name]
        schedule = next((row.label for row in SCHEDULE_NAMES.values() if row.name == options.get("scheduler")), "Automatic")
        assert [list(facts.aliases), facts.schedule] == [options["aliases"], schedule]
        flags = facts.second_order, facts.brownian, facts.uses_ensd, facts.discard_penultimate
        names = ("second_order", "brownian_noise", "uses_ensd", "discard_next_to_last_sigma")
        assert flags == tuple(options.get(key, False) for key in names)
    assert list(SAMPLER_FACTS) == list(recorded["sampler_options"])
    assert recorded["scheduler_names"] == {
        row.name: {"label": row.label, "default_rho": row.default_rho, "aliases": list(row.aliases) or None}
        for row in SCHEDULE_NAMES.values()
    }


def test_it_is_light():
    code = "import sys, nbsd.infotext; print([name for name in ('torch', 'ipywidgets', 'PIL', 'numpy') if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_the_examples_in_the_docstrings_hold():
    for module in (text, recipes):
        result = doctest.testmod(module)
        assert result.attempted and not result.failed


def test_a_picture_with_a_header_of_one_byte_is_one_sentence():
    with pytest.raises(NbsdError, match="cannot be read"):
        from_image(b"\x89PNG\r\n\x1a\n\0\0\0\x01IHDR\0\0\0\x40" + bytes(40))


def test_a_blank_at_the_end_is_no_value():
    text = "a\nSteps: 1, Seed: 2, Foo: x ,"
    assert read(write(read(text))) == read(text)
