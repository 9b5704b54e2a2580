"""Will this match? What a report says of a pasted recipe."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from nbsd.match import (
    NUMBERS,
    Listed,
    Row,
    draws_noise,
    named_files,
    report,
    runs_karras,
    timelines_differ,
    uses_emphasis,
    written,
)
from nbsd.recipe import Hires, Recipe

CLASSIC = """best quality, masterpiece, asuka langley sitting cross legged on a chair
Negative prompt: lowres
Steps: 28, Sampler: Euler, CFG scale: 12, Seed: 2870305590, Size: 512x512, Model hash: 925997e9, Clip skip: 2, ENSD: 31337"""
NEW = "{}\nSteps: 20, Sampler: {}, Schedule type: {}, CFG scale: 7, Seed: 1, Size: 512x512, {}Version: v1.10.1"


class Folder:
    """Files by what they answer to."""

    def __init__(self, **names: str) -> None:
        self.names = names

    def find_by_title(self, title: str, kind: str) -> Path | None:
        found = self.names.get(title.replace(" ", "_").replace("[", "").replace("]", ""))
        return Path(f"/models/{found}") if found else None


def text(prompt: str = "a cat", sampler: str = "Euler", schedule: str = "Automatic", more: str = "") -> Recipe:
    return Recipe.from_infotext(NEW.format(prompt, sampler, schedule, more))


def test_a_recipe_whose_files_are_here_is_complete():
    match = report(Recipe.from_infotext(CLASSIC), Folder(**{"925997e9": "animefull.ckpt"}))
    assert match.complete
    assert match.honoured == ("Steps", "Sampler", "CFG scale", "Seed", "Size", "Model hash", "Clip skip", "ENSD")
    assert match.text.startswith("8 settings honoured: Steps, Sampler, CFG scale, Seed, Size, Model hash, Clip skip, ENSD.\n"
                                 "The model 925997e9 is animefull.ckpt here.")
    assert match.text.endswith(NUMBERS)
    assert str(match) == match.text and "<br>" in match._repr_html_()


def test_unknown_keys_are_named_and_harmless_ones_are_not():
    match = report(text(more="Foo bar: 3, Face restoration: CodeFormer, Batch size: 4, User: me, "))
    assert match.unknown == ("Foo bar", "Face restoration")
    assert not match.complete
    assert "Foo bar" not in match.honoured and "Without effect: Foo bar, Face restoration." in match.text
    assert "Which model restored faces" in match.text
    assert report(text(more="Batch size: 4, User: me, ")).complete


@pytest.mark.parametrize(("more", "prompt", "files", "sentence"), [
    ("Model hash: 0123456789, Model: ink, ", "a", {}, "Missing here: model ink [0123456789]."),
    ("Model hash: 0123456789, Model: ink, ", "a", {"ink": "ink.safetensors"},
     "Missing here: model ink [0123456789]; ink.safetensors has that name and another hash."),
    ("Model hash: 0123456789, Model: ink, ", "a", {"ink_0123456789": "paint.safetensors"},
     "The model ink [0123456789] is paint.safetensors here."),
    ("VAE hash: 0123456789, VAE: fine.vae.pt, ", "a", {}, "Missing here: VAE fine.vae.pt [0123456789]."),
    ("", "a <lora:line:0.8>", {}, "Missing here: LoRA line."),
    ('Lora hashes: "line: 0123456789ab", ', "a <lora:line:0.8>", {}, "Missing here: LoRA line [0123456789ab]."),
    ('Lora hashes: "line: 0123456789ab", ', "a <lora:line:0.8>", {"line_0123456789ab": "ink.safetensors"},
     "The LoRA line [0123456789ab] is ink.safetensors here."),
    ("", "a <hypernet:old:1>", {}, "Missing here: hypernetwork old."),
    ("Hypernet: old, Hypernet hash: 0123abcd, ", "a", {}, "Missing here: hypernetwork old [0123abcd]."),
    ('TI hashes: "bad: 0123456789", ', "a", {}, "Missing here: embedding bad [0123456789]."),
    ("Hires upscale: 2, Hires checkpoint: big.safetensors [0123456789], ", "a", {}, "Missing here: model big.safetensors [0123456789]."),
    ("Hires upscale: 2, Hires prompt: a <lora:ink:1>, ", "a", {}, "Missing here: LoRA ink."),
    ("Hires upscale: 2, Hires upscaler: 4x-Fancy, ", "a", {}, "Missing here: upscaler 4x-Fancy."),
    ("Hires upscale: 2, Hires upscaler: DAT x2, ", "a", {}, "Missing here: upscaler DAT x2, the file DAT_x2.pth."),
    ("Hires upscale: 2, Hires upscaler: R-ESRGAN 4x+, ", "a", {"RealESRGAN_x4plus": "RealESRGAN_x4plus.pth"},
     "The upscaler R-ESRGAN 4x+ is RealESRGAN_x4plus.pth here."),
])
def test_files_that_are_not_here_are_named(more, prompt, files, sentence):
    match = report(text(prompt, more=more), Folder(**files))
    assert sentence in match.text.split("\n")
    assert match.complete == sentence.endswith(" here.") == (not match.missing)


def test_what_is_here_under_its_own_name_needs_no_sentence():
    named = text("a <lora:line:0.8>", more='Model: ink, Lora hashes: "line: 0123456789ab", ')
    match = report(named, Folder(ink="ink.safetensors", line_0123456789ab="line.pt"))
    assert match.complete and [file.path.name for file in match.files] == ["ink.safetensors", "line.pt"]
    assert "Missing" not in match.text and "here." not in match.text


def test_an_upscaler_that_the_web_ui_fetches_is_named_with_its_link():
    missing = report(text(more="Hires upscale: 2, Hires upscaler: R-ESRGAN 4x+, "), Folder()).text
    assert "upscaler R-ESRGAN 4x+, the file RealESRGAN_x4plus.pth of https://github.com/xinntao/" in missing
    assert not named_files(text(more="Hires upscale: 2, Hires upscaler: Lanczos, "))


def test_without_files_none_is_called_missing():
    named = text("a <lora:line:0.8>", more="Model: ink, ")
    assert len(named_files(named)) == 2 and report(named).files == () and report(named).complete


@pytest.mark.parametrize(("title", "kind", "expected"), [
    ("ink", "checkpoint", "ink.safetensors"), ("INK.safetensors", "checkpoint", "ink.safetensors"), ("ink", "vae", None),
    ("ink [0123456789]", "checkpoint", "ink.safetensors"), ("ink [ffffffffff]", "checkpoint", None),
    ("0123456789", "checkpoint", "ink.safetensors"), ("925997e9", "checkpoint", "ink.safetensors"), ("ffffffffff", "checkpoint", None),
    ("new [ffffffffff]", "checkpoint", "new.ckpt"),      # its hash is not known, so nothing speaks against it
    ("new [aaaaaaaa]", "checkpoint", "new.ckpt"), ("new [bbbbbbbb]", "checkpoint", None),
    ("other [0123456789]", "checkpoint", "ink.safetensors"), ("other", "checkpoint", None), ("fine.vae.pt", "vae", "fine.vae.pt"),
])
def test_files_of_a_list_are_found_by_name_and_known_hash(title, kind, expected):
    files = Listed([
        Row("checkpoint", Path("/m/new.ckpt"), ("", "aaaaaaaa")), Row("vae", Path("/m/fine.vae.pt")),
        Row("checkpoint", Path("/m/ink.safetensors"), ("0123456789" + "0" * 54, "925997e9")),
    ])
    found = files.find_by_title(title, kind)
    assert (found and found.name) == expected


def test_a_lora_of_that_name_with_another_hash_is_used_and_said():
    named = text("a <lora:line:0.8>", more='Lora hashes: "line: 0123456789ab", ')
    rows = [Row("lora", Path("/m/line.safetensors"), body="f" * 64)]
    match = report(named, Listed(rows))
    assert "The LoRA line.safetensors here has another hash than the recipe's: it is used, and the picture may differ." in match.text
    assert not match.complete and not match.missing
    for row in (Row("lora", Path("/m/line.safetensors"), ("f" * 64,)), Row("lora", Path("/m/other.safetensors"), body="0123456789ab" + "0" * 52)):
        found = report(named, Listed([row]))        # the hash of the whole file says nothing of a LoRA; its own hash finds it by any name
        assert found.complete and found.files[0].path == row.path, row


def test_a_vae_that_is_none_is_not_looked_for():
    assert report(text(more="VAE: None, "), Folder()).complete


def test_problems_are_passed_on():
    match = report(text(), problems=["hires fix is not supported yet"])
    assert not match.complete and "This cannot be made yet: hires fix is not supported yet." in match.text


@pytest.mark.parametrize(("recipe", "word", "told"), [
    (text(schedule="Karras"), "Karras sigmas", True),
    (text(sampler="DPM++ 2M"), "Karras sigmas", True),                      # its default schedule
    (text(), "Karras sigmas", False),
    (text(schedule="Karras", more="Old Karras sigmas: False, "), "Karras sigmas", False),
    (text("a (cat:1.2)"), "old emphasis", True),
    (text("a cat"), "old emphasis", False),
    (text("a \\(cat\\)"), "old emphasis", False),
    (text(), "Quantization", True),
    (text(sampler="DDIM"), "Quantization", False),
    (text(", ".join(["tree"] * 40)), "word wrap", True),
    (text("tree, cat"), "word wrap", False),
    (text(sampler="LCM"), "ENSD", True),
    (text(sampler="Restart"), "ENSD", True),
    (text(sampler="DDIM", more="Eta DDIM: 0.5, "), "ENSD", True),
    (text(sampler="Euler", more="Sigma churn: 3, "), "ENSD", True),
    (text(sampler="Euler"), "ENSD", False),
    (text(sampler="DDIM"), "ENSD", False),
    (text(sampler="Euler a"), "ENSD", False),                               # written where it is not 0
    (text(sampler="DPM++ SDE"), "ENSD", False),                             # uses none
    (text(sampler="LCM", more="ENSD: 5, "), "ENSD", False),
    (text(sampler="Euler", more="Hires upscale: 2, Hires sampler: Restart, "), "ENSD", True),
    (text(sampler="Euler a", more="Hires upscale: 2, Hires sampler: DDIM, "), "ENSD", False),
    (text(sampler="Euler a", more="Hires upscale: 2, Hires sampler: Euler, "), "ENSD", False),
    (text(sampler="UniPC"), "UniPC", True),
    (text("a cat # mine"), "Comments", True),
    (text("a <lora:line:1>"), "LoRAs", True),
    (text(), "LoRAs", False),
    (text(sampler="DPM++ 2M SDE"), "SDE sampler", True),
    (text(), "img2img", False),
    (text(more="Denoising strength: 0.5, "), "img2img", True),
    (text(more="Hires upscale: 2, Hires upscaler: Latent, "), "second pass", True),
])
def test_only_what_matters_to_this_recipe_is_called_unwritten(recipe, word, told):
    assert any(word in sentence for sentence in report(recipe).unwritten) == told


@pytest.mark.parametrize(("recipe", "expected"), [
    (Recipe(sampler="Euler a"), True), (Recipe(sampler="Euler a", eta=0.0), False), (Recipe(sampler="Euler a", steps=1), False),
    (Recipe(sampler="Euler"), False), (Recipe(sampler="Heun", s_churn=1.0), True), (Recipe(sampler="DDIM", eta_ddim=0.1), True),
    (Recipe(sampler="DDIM"), False), (Recipe(sampler="PLMS", eta_ddim=1.0), False), (Recipe(sampler="DPM++ SDE"), False),
    (Recipe(sampler="LCM"), True), (Recipe(sampler="nobody's"), False), (Recipe(sampler="Euler", hires=Hires(sampler="Euler a")), True),
])
def test_who_draws_noise(recipe, expected):
    assert draws_noise(recipe) == expected


@pytest.mark.parametrize(("prompt", "dialect", "expected"), [
    ("(a)", "webui", True), ("{a}", "webui", False), ("{a}", "novelai", True), ("(a)", "novelai", False), ("a BREAK b", "webui", False),
    ("[a:(b:1.2):0.5]", "webui", True), ("[a:b:0.5]", "webui", False),
])
def test_what_is_emphasis(prompt, dialect, expected):
    assert uses_emphasis(Recipe(prompt=prompt, dialect=dialect)) == expected
    assert uses_emphasis(Recipe(negative_prompt=prompt, dialect=dialect)) == expected


def test_which_edits_depend_on_the_version():
    assert timelines_differ(Recipe(prompt="[a:b:1.0]"))
    assert not timelines_differ(Recipe(prompt="[a:b:0.5]"))
    assert not timelines_differ(Recipe(prompt="[a:b:1.0]", dialect="novelai"))


def test_old_behaviours_are_told():
    old = Recipe.from_infotext("a cat\nSteps: 20, Sampler: DPM++ 2M, CFG scale: 7, Seed: 1, Size: 512x512, Version: v1.4.0")
    match = report(old)
    assert "noise schedule rounded to float16" in match.old and "DPM++ 2M on the model's own sigmas" in match.old
    assert "The text is from an older version" in match.text
    assert not runs_karras(old)
    assert report(text()).old == ()


def test_a_recipe_that_no_text_said():
    mine = replace(Recipe(), steps=28, clip_skip=2, prompt="a")
    assert written(mine) is None
    assert set(report(mine).honoured) == {"Steps", "Clip skip"}


def test_it_needs_no_torch():
    code = "import sys, nbsd.match, nbsd.presets; print([m for m in ('torch', 'PIL', 'ipywidgets') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
