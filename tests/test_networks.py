"""pipeline/networks.py and asked.py: what a prompt's tags ask for, found in folders, and at work for one picture only."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import nbsd
from nbsd import Recipe
from nbsd.errors import ModelError, RecipeError, WrongFamilyError
from nbsd.events import Note
from nbsd.infotext.pairs import with_pairs
from nbsd.models import hashes
from nbsd.models.packed import plain_weight
from nbsd.models.store import Store
from nbsd.pipeline.asked import asked_for
from nbsd.pipeline.model import Shelf
from nbsd.pipeline.networks import Networks

DATA = Path(__file__).parent / "data" / "fidelity"
MODELS = DATA / "models"
CASES = {case["id"]: case for case in json.loads((DATA / "e_prompts.json").read_text(encoding="utf-8"))["cases"]}
SMALL = Recipe(prompt="a cat", negative_prompt="lowres", steps=2, sampler="Euler", width=64, height=64, seed=7, rng="CPU")

# tag: strength in the text encoder, in the UNet, ranks
TAGS = {
    "<lora:ink>": (1, 1, None),
    "<lora:ink:0.8>": (0.8, 0.8, None),
    "<lora:ink:0.8:0.5>": (0.8, 0.5, None),
    "<lora:ink:0.8:0.5:2>": (0.8, 0.5, 2),
    "<lora:ink:te=0.3>": (0.3, 0.3, None),
    "<lora:ink:unet=0.3>": (1, 0.3, None),
    "<lora:ink:te=0:unet=0.4>": (0, 0.4, None),
    "<lora:ink:unet=0.4:te=0.2>": (0.2, 0.4, None),
    "<lora:ink:0.7:te=0.1>": (0.1, 0.1, None),
    "<lora:ink:1:dyn=3>": (1, 1, 3),
    "<lora:ink:-0.5>": (-0.5, -0.5, None),
    "<lyco:ink:0.5>": (0.5, 0.5, None),
}


@pytest.mark.parametrize("tag", TAGS)
def test_what_a_tag_asks_for(tag):
    (asked,) = asked_for(f"a cat {tag}, black")
    assert (asked.kind, asked.name, asked.tag) == ("lora", "ink", tag)
    assert (asked.strength, asked.unet, asked.ranks) == TAGS[tag]


def test_what_a_hypernetworks_tag_asks_for():
    assert [(one.kind, one.name, one.strength) for one in asked_for("<hypernet:a><hypernet:b:0.5>")] == [
        ("hypernetwork", "a", 1.0), ("hypernetwork", "b", 0.5)]


@pytest.mark.parametrize("prompt, message", [
    ("<lora:ink:1e9>", "'1e9' in <lora:ink:1e9> is no strength"), ("<lora:ink:nan>", "'nan' in"), ("<lora:ink:te=>", "'' in"),
    ("<lora:te=1>", "names no LoRA"), ("<hypernet:ink:x>", "'x' in"), ("<control:ink:1>", "no network is of the kind 'control'"),
])
def test_a_tag_that_cannot_be_read_is_said(prompt, message):
    with pytest.raises(RecipeError, match=message):
        asked_for(prompt)


@given(st.text(alphabet="<>:=,lorahypent#.0159-e \n", max_size=60).map(lambda text: f"a <lora:{text}> <hypernet:{text}>"))
def test_any_tag_is_read_or_refused_in_a_sentence(prompt):
    try:
        for asked in asked_for(prompt):
            assert abs(asked.strength) <= 1e4 and abs(asked.unet) <= 1e4
    except RecipeError as error:
        assert str(error)


@pytest.fixture(scope="module")
def tiny():
    return nbsd.load(MODELS / "tiny-sd1.safetensors", device="cpu", networks=MODELS, embeddings=MODELS)


@pytest.fixture(scope="module")
def recorded():
    with safe_open(str(DATA / "e_prompts.safetensors"), "pt") as file:
        yield file


@pytest.mark.parametrize("name", ["035", "040", "042", "044"])
def test_latents_and_hashes_are_the_web_uis(tiny, recorded, name):
    case = CASES[f"e_prompts_{name}"]
    params = case["params"]
    recipe = Recipe(prompt=params["prompt"], negative_prompt=params["negative_prompt"], seed=1000, steps=12, sampler="Euler",
                    cfg_scale=7.0, width=128, height=64, rng="CPU")
    (made,) = tiny.generate(recipe)
    want = recorded.get_tensor(f"{case['id']}/latents")
    allowed = max(1e-4, 10 * case["spread"]["latents_max_rel_to_std"]) * float(want.std())
    assert float((made.latent - want[0]).abs().max()) < allowed
    assert made.infotext.splitlines()[-1] == case["infotexts"][0].splitlines()[-1]


def bits(model) -> list[bytes]:
    modules = (model.checkpoint.unet, model.checkpoint.text_encoder)
    return [plain_weight(one).numpy().tobytes() for module in modules for one in module.state_dict().values()]


def test_the_model_is_as_before_afterwards(tiny):
    before, plain = bits(tiny), tiny.generate(SMALL)[0].latent
    changed = tiny.generate(replace(SMALL, prompt="a cat<lora:tiny-lora:0.7><hypernet:tiny-hyper:0.5>"))[0].latent
    assert not torch.equal(changed, plain)
    assert bits(tiny) == before
    assert torch.equal(tiny.generate(SMALL)[0].latent, plain)


def test_it_is_as_before_between_two_pictures_and_when_a_job_is_left(tiny):
    before = bits(tiny)
    job = tiny.make(replace(SMALL, prompt="a cat<lora:tiny-lora:0.7>"), count=2)
    next(job)
    assert bits(tiny) == before
    job.close()

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny.generate(replace(SMALL, prompt="a cat<lora:tiny-lora:0.7><hypernet:tiny-hyper>"), on_step=stop)
    assert bits(tiny) == before


def latent(model, prompt: str) -> torch.Tensor:
    return model.generate(replace(SMALL, prompt=prompt))[0].latent


def test_text_encoder_and_unet_have_strengths_of_their_own(tiny):
    plain, both = latent(tiny, "a cat"), latent(tiny, "a cat<lora:tiny-lora:1>")
    text, unet = latent(tiny, "a cat<lora:tiny-lora:1:0>"), latent(tiny, "a cat<lora:tiny-lora:0:1>")
    assert torch.equal(latent(tiny, "a cat<lora:tiny-lora:0>"), plain)
    assert torch.equal(latent(tiny, "a cat<lora:tiny-lora:te=0:unet=1>"), unet)
    assert len({one.numpy().tobytes() for one in (plain, both, text, unet)}) == 4


def test_a_name_given_twice_has_the_last_strength_twice(tiny):
    """Why: the web UI keeps one object for a name and applies it as often as it is named."""
    once = latent(tiny, "a cat<lora:tiny-lora:1>")
    twice = latent(tiny, "a cat<lora:tiny-lora:9><lora:tiny-lora:0.5>")
    assert float((twice - once).abs().max()) < 1e-4 * float(once.std())


def test_tags_in_the_negative_prompt_are_text(tiny):
    made = tiny.generate(replace(SMALL, negative_prompt="<lora:nothing:1>"))[0]
    assert "Lora hashes" not in made.infotext
    assert not torch.equal(made.latent, tiny.generate(replace(SMALL, negative_prompt=""))[0].latent)


@pytest.mark.parametrize("prompt, message", [
    ("a <lora:tiny-loca:1>", "no LoRA called 'tiny-loca' is in '.*models' \\(there is .*'tiny-locon'.*\\): put it there or take <lora:tiny-loca:1> out"),
    ("a <lora:tiny-hyper:1>", "no LoRA called 'tiny-hyper'"),
    ("a <hypernet:zzz>", "no hypernetwork called 'zzz' is in '.*models': put it there or take <hypernet:zzz> out"),
])
def test_what_is_not_there_is_said_before_any_work(tiny, prompt, message):
    with pytest.raises(RecipeError, match=message):
        tiny.generate(replace(SMALL, prompt=prompt))


def test_without_folders_too():
    model = nbsd.load(MODELS / "tiny-sd1.safetensors", device="cpu")
    with pytest.raises(RecipeError, match="is in any folder \\(none was given\\): put it there or take <lora:ink:1> out"):
        model.generate(replace(SMALL, prompt="<lora:ink:1>"))


@pytest.fixture
def folder(tmp_path):
    """A folder of networks, and a model that finds them."""
    def model():
        return nbsd.load(MODELS / "tiny-sd1.safetensors", device="cpu", networks=tmp_path)

    return tmp_path, model


def test_a_hypernetworks_hash_finds_it_under_another_name_and_is_that_of_the_file_used(tiny, folder):
    path, _ = folder
    shutil.copy(MODELS / "tiny-hyper.pt", path / "renamed.pt")
    networks = Networks(Store([path]))
    whole = hashes.sha256(path / "renamed.pt")
    for name, said, written in (("gone", whole[:10], whole[:10]), ("gone", hashes.old_hash(path / "renamed.pt"), hashes.old_hash(path / "renamed.pt")),
                                ("renamed", "0123abcdef", whole[:10]), ("renamed", "", ""), ("renamed", "no hash", "")):
        text = f"a cat\nSteps: 2, Sampler: Euler, Seed: 1, Hypernet: {name}, Hypernet strength: 0.5{f', Hypernet hash: {said}' if said else ''}"
        recipe = Recipe.from_infotext(text)
        prepared = networks.prepare(tiny.checkpoint, recipe, lambda event: None)
        assert [(one.path.name, strength) for one, strength in prepared.hypernetworks] == [("renamed.pt", 0.5)]
        assert prepared.hypernetwork_hash == written
        last = tiny.signed(recipe, prepared).infotext().splitlines()[-1]
        assert (f"Hypernet hash: {written}" in last) if written else "Hypernet hash" not in last


def test_another_familys_lora_is_refused_by_name(folder):
    path, model = folder
    up, down = torch.zeros(640, 4), torch.zeros(4, 2048)
    name = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
    save_file({f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down}, path / "ink.safetensors")
    with pytest.raises(WrongFamilyError, match="LoRA 'ink' is for SDXL, the model is SD 1: pick a model .* or remove <lora:ink:0.8>"):
        model().generate(replace(SMALL, prompt="<lora:ink:0.8>"))


def test_a_lora_that_fits_nowhere_is_refused(folder):
    path, model = folder
    save_file({"lora_unet_nowhere.lora_up.weight": torch.zeros(2, 1), "lora_unet_nowhere.lora_down.weight": torch.zeros(1, 2)},
              path / "ink.safetensors")
    with pytest.raises(WrongFamilyError, match="LoRA 'ink' fits no layer of tiny-sd1"):
        model().generate(replace(SMALL, prompt="<lora:ink:0.8>"))


def test_what_fits_only_in_part_is_told_once(folder):
    path, model = folder
    tensors = load_file(MODELS / "tiny-locon.safetensors")
    save_file({**tensors, "lora_unet_nowhere.lora_up.weight": torch.zeros(2, 1), "lora_unet_nowhere.lora_down.weight": torch.zeros(1, 2)},
              path / "ink.safetensors")
    told: list = []
    list(model().make(replace(SMALL, prompt="<lora:ink:0.5><lora:ink:0.5>"), count=2, report=told.append))
    assert [one for one in told if isinstance(one, Note)] == [
        Note("LoRA 'ink': applied 66 of 67 layers, the rest have no place in tiny-sd1 (e.g. lora_unet_nowhere).")]


def test_a_damaged_file_is_a_sentence(folder):
    path, model = folder
    tensors = load_file(MODELS / "tiny-lora.safetensors")
    save_file(tensors, path / "ink.safetensors")
    (path / "ink.safetensors").write_bytes((path / "ink.safetensors").read_bytes()[:-100])
    with pytest.raises((ModelError, RecipeError), match="ink"):
        model().generate(replace(SMALL, prompt="<lora:ink:0.8>"))


def test_a_file_that_changed_is_read_anew(folder):
    path, model = folder
    tensors = load_file(MODELS / "tiny-lora.safetensors")
    save_file(tensors, path / "ink.safetensors")
    loaded = model()
    first = latent(loaded, "a cat<lora:ink:1>")
    save_file({**{key: one * 2 for key, one in tensors.items()}, "extra.lora_up.weight": torch.zeros(1, 1)}, path / "ink.safetensors")
    assert not torch.equal(latent(loaded, "a cat<lora:ink:1>"), first)


def test_names_with_folders_endings_and_of_the_trainer(folder):
    path, model = folder
    (path / "style").mkdir()
    save_file(load_file(MODELS / "tiny-locon.safetensors"), path / "style" / "Ink.safetensors", metadata={"ss_output_name": "ink_v2"})
    loaded = model()
    wanted = latent(loaded, "a cat<lora:Ink:1>")
    for name in ("ink", "Ink.safetensors", "style/Ink", "style\\Ink", "ink_v2"):
        assert torch.equal(latent(loaded, f"a cat<lora:{name}:1>"), wanted), name


def test_a_lora_with_another_name_is_found_by_the_recipes_hash(folder):
    path, model = folder
    shutil.copy(MODELS / "tiny-lora.safetensors", path / "renamed.safetensors")
    for file in path.glob("tiny-lora*"):
        file.unlink()
    recipe = replace(SMALL, prompt="a cat<lora:gone:0.7>", unknown=(("Lora hashes", '"gone: 548b0b1b5a1f"'),))
    (made,) = model().generate(recipe)
    assert 'Lora hashes: "gone: 548b0b1b5a1f"' in made.infotext
    with pytest.raises(RecipeError, match="no LoRA called 'gone'"):
        model().generate(replace(recipe, unknown=(("Lora hashes", '"gone: 000000000000"'),)))


def test_a_folder_that_is_named_later_is_looked_in_too(tmp_path):
    shelf = Shelf([tmp_path], device="cpu")
    recipe = replace(SMALL, prompt="a cat<lora:tiny-lora:0.7>", model=str(MODELS / "tiny-sd1.safetensors"))
    with pytest.raises(RecipeError, match="no LoRA called"):
        shelf.model(recipe).generate(recipe)
    shelf.also(MODELS), shelf.also(MODELS)
    (made,) = shelf.model(recipe).generate(recipe)
    assert "Lora hashes" in made.infotext


def test_the_shelf_finds_networks_in_its_folders():
    recipe = replace(SMALL, prompt="a cat<lora:tiny-lora:0.7>", model="tiny-sd1")
    (made,) = Shelf([MODELS], device="cpu").model(recipe).generate(recipe)
    assert 'Lora hashes: "tiny-lora: 548b0b1b5a1f"' in made.infotext


def test_the_shelf_finds_embeddings_too_also_those_that_come_later(tmp_path):
    for name in ("tiny-sd1.safetensors", "tiny-embed.pt"):
        (tmp_path / name).symlink_to(MODELS / name)
    shelf, recipe = Shelf([tmp_path], device="cpu"), replace(SMALL, prompt="tiny-embed", negative_prompt="tiny-neg", model="tiny-sd1")
    first = shelf.model(recipe).generate(recipe)[0]
    assert 'TI hashes: "tiny-embed: 8fdf7dd86394", Version' in first.infotext
    (tmp_path / "tiny-neg.safetensors").symlink_to(MODELS / "tiny-neg.safetensors")
    second = shelf.model(recipe).generate(recipe)[0]
    assert 'TI hashes: "tiny-embed: 8fdf7dd86394, tiny-neg: 7ee15225de23"' in second.infotext
    assert not torch.equal(first.latent, second.latent)


def test_the_infotext_of_a_picture_makes_that_picture_again(tiny):
    recipe = replace(SMALL, prompt="a cat, tiny-embed<lora:tiny-lora:0.7>")
    (made,) = tiny.generate(recipe)
    assert 'RNG: CPU, Lora hashes: "tiny-lora: 548b0b1b5a1f", TI hashes: "tiny-embed: 8fdf7dd86394", Version: v1.10.1' in made.infotext
    (again,) = tiny.generate(Recipe.from_infotext(made.infotext))
    assert torch.equal(again.latent, made.latent)
    assert again.infotext == made.infotext


def test_hashes_that_no_longer_hold_are_taken_out(tiny):
    (made,) = tiny.generate(replace(SMALL, prompt="a cat<lora:tiny-lora:0.7>"))
    recipe = replace(Recipe.from_infotext(made.infotext), prompt="a cat<lora:tiny-locon:0.7>")
    text = tiny.generate(recipe)[0].infotext
    assert 'Lora hashes: "tiny-locon: 6bb3dd2ae930", Version' in text and "548b0b1b5a1f" not in text
    assert "Lora hashes" not in tiny.generate(replace(recipe, prompt="a cat"))[0].infotext


def test_the_hashes_of_embeddings_stand_in_the_web_uis_order(tiny):
    case = CASES["e_prompts_034"]
    recipe = replace(SMALL, prompt=case["params"]["prompt"], negative_prompt=case["params"]["negative_prompt"])
    assert 'TI hashes: "tiny-neg: 7ee15225de23, tiny-embed: 8fdf7dd86394"' in tiny.generate(recipe)[0].infotext
    recipe = replace(SMALL, prompt="[a|tiny-embed] cat", negative_prompt="tiny-neg")
    assert 'TI hashes: "tiny-embed: 8fdf7dd86394, tiny-neg: 7ee15225de23"' in tiny.generate(recipe)[0].infotext


def test_pairs_are_placed_and_nothing_else_is_touched():
    recipe = Recipe(unknown=(("Lora hashes", '"old: 1"'), ("Note", "x")))
    assert with_pairs(recipe, {"Lora hashes": "ink: 2", "TI hashes": ""}).unknown == (("Lora hashes", '"ink: 2"'), ("Note", "x"))
    assert with_pairs(recipe, {"Lora hashes": ""}).unknown == (("Note", "x"),)
    assert with_pairs(Recipe(), {"Lora hashes": ""}) == Recipe()


def test_half_precision_works_too():
    model = nbsd.load(MODELS / "tiny-sd1.safetensors", device="cpu", dtype="float16", networks=MODELS)
    before = bits(model)
    prompt = "a cat<lora:tiny-lora:0.7><hypernet:tiny-hyper:0.5>"
    whole = latent(nbsd.load(MODELS / "tiny-sd1.safetensors", device="cpu", networks=MODELS), prompt)
    assert float((latent(model, prompt) - whole).abs().mean()) < 0.05 * float(whole.std())
    assert bits(model) == before
