"""One model in every format: as a checkpoint of every precision and age, with averages, without a text encoder, as a folder of diffusers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import short, their_texts, their_unet, their_vae, write

import nbsd
from nbsd.errors import ModelError, NoTextEncoderError, WrongFamilyError
from nbsd.models.beside import chosen_vae, stated_prediction
from nbsd.models.folder import folder_family
from nbsd.models.hashes import short_hash
from nbsd.models.keys import UNET, VAE, averaged
from nbsd.models.load import load_checkpoint, load_vae
from nbsd.models.packed import plain_weight, unpack
from nbsd.models.store import Store
from nbsd.pipeline.model import Shelf
from nbsd.recipe import Recipe

NAMES = ("sd1", "sd2", "sdxl", "refiner")
INDEX_NAME = "diffusion_pytorch_model.safetensors.index.json"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("formats")
    return {name: write(folder / f"{name}.safetensors", name, texts=short(name)) for name in NAMES}


@pytest.fixture(scope="module")
def loaded(files):
    return {name: load_checkpoint(path) for name, path in files.items()}


def weights_of(module) -> dict[str, torch.Tensor]:
    return {key: plain_weight(tensor) for key, tensor in module.state_dict().items()}


def same(one, other) -> bool:
    """Whether two checkpoints have the same weights."""
    pairs = [(one.unet, other.unet), (one.vae, other.vae), *zip(one.text_encoders, other.text_encoders, strict=True)]
    tables = [(weights_of(left), weights_of(right)) for left, right in pairs]
    return all(left.keys() == right.keys() and all(torch.equal(tensor, right[key]) for key, tensor in left.items()) for left, right in tables)


# Checkpoints


@pytest.mark.parametrize("name", ["sd2", "sdxl"])
@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_a_ckpt_is_the_same_model(files, loaded, tmp_path, name, new):
    torch.save({"state_dict": load_file(files[name]), "global_step": 7}, tmp_path / "a.ckpt", _use_new_zipfile_serialization=new)
    assert same(load_checkpoint(tmp_path / "a.ckpt"), loaded[name])


def test_a_transposed_view_in_a_pickle_is_read_as_it_is_meant(files, loaded, tmp_path):
    """The attention's one matrix and the projection, saved as views of other tensors: neither lies packed in the file."""
    tensors = load_file(files["sdxl"])
    for key, tensor in tensors.items():
        if key.endswith(("in_proj_weight", "text_projection")):
            tensors[key] = tensor.T.contiguous().T
    torch.save(tensors, tmp_path / "a.pt")
    assert same(load_checkpoint(tmp_path / "a.pt"), loaded["sdxl"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_files_of_lower_precision(files, loaded, tmp_path, dtype):
    tensors = {key: tensor.to(dtype) if tensor.is_floating_point() and not key.startswith("alphas") else tensor for key, tensor in load_file(files["sd1"]).items()}
    save_file(tensors, tmp_path / "low.safetensors")
    got = load_checkpoint(tmp_path / "low.safetensors")
    wanted = plain_weight(loaded["sd1"].unet.conv_in.weight).to(dtype).float()
    assert torch.equal(plain_weight(got.unet.conv_in.weight), wanted)


def test_running_averages_beside_the_weights_are_left_and_alone_are_used(files, loaded, tmp_path):
    tensors = load_file(files["sdxl"])
    averages = {"model_ema." + key.removeprefix("model.").replace(".", ""): tensor for key, tensor in tensors.items() if key.startswith(UNET)}
    assert {averaged(key) for key in averages} == {key for key in tensors if key.startswith(UNET)}
    counts = {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(7)}
    both = {**tensors, **{key: tensor + 1 for key, tensor in averages.items()}, **counts}
    save_file(both, tmp_path / "both.safetensors")
    assert same(load_checkpoint(tmp_path / "both.safetensors"), loaded["sdxl"])
    save_file({**{key: tensor for key, tensor in tensors.items() if not key.startswith(UNET)}, **averages, **counts}, tmp_path / "ema.safetensors")
    assert same(load_checkpoint(tmp_path / "ema.safetensors"), loaded["sdxl"])


# Without a text encoder


@pytest.fixture
def bare(files, tmp_path):
    """UNet and VAE alone, of each family: NovelAI's own release of its first model is such a file."""

    def make(name: str) -> Path:
        tensors = {key: tensor for key, tensor in load_file(files[name]).items() if key.startswith((UNET, VAE))}
        save_file(tensors, tmp_path / f"{name}-bare.safetensors")
        return tmp_path / f"{name}-bare.safetensors"

    return make


@pytest.mark.parametrize("name", ["sd1", "sd2"])
def test_a_file_without_a_text_encoder_says_what_to_do_and_takes_one_from_another_model(files, loaded, bare, name):
    family = {"sd1": "SD 1", "sd2": "SD 2"}[name]
    with pytest.raises(ModelError, match=f"is of {family} and holds a UNet and a VAE, but no text encoder: take it from another"):
        load_checkpoint(bare(name))
    assert same(load_checkpoint(bare(name), text_encoder=files[name]), loaded[name])


def test_a_text_encoder_without_all_of_clips_words_is_refused_in_a_sentence(files):
    model = nbsd.load(files["sd1"], device="cpu")
    with pytest.raises(ModelError, match="the text encoder of sd1 knows 60 words and CLIP's has 49408"):
        model.generate(Recipe(steps=1, width=64, height=64))


def test_the_store_takes_the_text_encoder_from_a_model_that_it_finds_and_the_recipe_says_which(files, loaded, bare, tmp_path):
    path = bare("sd1")
    (tmp_path / "whole.safetensors").write_bytes(files["sd1"].read_bytes())
    shelf = Shelf([tmp_path])
    entries = {entry.title: entry for entry in Store([tmp_path]).scan()}
    assert {title: (one.kind, one.family, one.lacks) for title, one in entries.items()} == {
        "sd1-bare": ("checkpoint", "SD 1", "text encoder"), "whole": ("checkpoint", "SD 1", "")}
    with pytest.raises(NoTextEncoderError):
        shelf.model(Recipe(model="sd1-bare"))
    model = shelf.model(Recipe(model="sd1-bare", text_encoder="whole"))
    assert same(model.checkpoint, loaded["sd1"])
    signed, digest = model.signed(Recipe()), short_hash(tmp_path / "whole.safetensors")
    assert signed.text_encoder == f"whole [{digest}]"
    assert f"Text encoder: whole [{digest}]" in signed.infotext()
    assert Recipe.from_infotext(signed.infotext()).text_encoder == signed.text_encoder
    assert shelf.model(Recipe(model=signed.model, text_encoder=signed.text_encoder)) is model
    assert model.checkpoint.path == path


def test_a_text_encoders_own_file_and_folder_will_do_too(files, loaded, bare, tmp_path):
    (encoder,) = their_texts("sd1", load_file(files["sd1"]), words=60)
    kept(encoder, tmp_path / "folder" / "text_encoder")
    assert same(load_checkpoint(bare("sd1"), text_encoder=tmp_path / "folder"), loaded["sd1"])
    assert same(load_checkpoint(bare("sd1"), text_encoder=tmp_path / "folder" / "text_encoder" / "model.safetensors"), loaded["sd1"])
    with pytest.raises(WrongFamilyError, match="chosen as text encoder and holds none of SD 1"):
        load_checkpoint(bare("sd1"), text_encoder=bare("sd2"))


# Folders of diffusers


def kept(module: torch.nn.Module, place: Path, **saving) -> None:
    """Save a module as diffusers and transformers do."""
    unpack(module)
    module.save_pretrained(place, **saving)


def folder(tmp_path: Path, name: str, files: dict[str, Path], **saving) -> Path:
    """The model as diffusers would save it."""
    tensors, path = load_file(files[name]), tmp_path / f"model.{name}"
    kept(their_unet(name, tensors), path / "unet", **saving)
    kept(their_vae(tensors), path / "vae", **saving)
    encoders = their_texts(name, tensors, words=60)
    places = {"sdxl": ("text_encoder", "text_encoder_2"), "refiner": ("text_encoder_2",)}.get(name, ("text_encoder",))
    for encoder, place in zip(encoders, places, strict=True):
        kept(encoder, path / place, **{key: value for key, value in saving.items() if key != "safe_serialization"})
    (path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    return path


SEVERAL = {"max_shard_size": "300KB"}       # parts in several files, as large models have them


@pytest.mark.parametrize(("name", "saving", "there"), [
    ("refiner", {}, "unet/diffusion_pytorch_model.safetensors"),
    ("sd2", {"variant": "fp16"}, "text_encoder/model.fp16.safetensors"),
    ("sd1", SEVERAL, f"unet/{INDEX_NAME}"),
    ("sdxl", {**SEVERAL, "variant": "fp16"}, "text_encoder_2/model.safetensors.index.fp16.json"),
])  # fmt: skip
def test_a_folder_of_diffusers_is_the_same_model(files, loaded, tmp_path, name, saving, there):
    path = folder(tmp_path, name, files, **saving)
    assert (path / there).is_file()
    assert folder_family(path) is loaded[name].family
    got = load_checkpoint(path)
    assert same(got, loaded[name])
    assert (got.name, got.family) == (f"model.{name}", loaded[name].family)
    assert torch.equal(got.alphas_cumprod, loaded[name].alphas_cumprod)
    assert len(got.hash) == 10
    weights = [file for part in path.iterdir() if part.is_dir() for file in part.glob("*.safetensors")]
    (path / "unet" / "another.safetensors").write_bytes(b"not counted")
    (path / "model_index.json").unlink()
    (entry,) = Store([tmp_path]).scan()
    assert (entry.path, entry.kind, entry.family) == (path, "checkpoint", loaded[name].family.name)
    assert entry.size == sum(file.stat().st_size for file in weights)
    store = Store([tmp_path])
    assert store.find(got.hash) == store.find(f"{got.name} [{got.hash}]") == path
    with pytest.raises(ModelError, match=f"has another hash .{got.hash}."):
        store.find(f"{got.name} [0123456789]")


def test_a_folder_with_pickles_and_a_schedulers_word(files, loaded, tmp_path):
    path = folder(tmp_path, "sd2", files, safe_serialization=False, variant="non_ema", max_shard_size="3MB")
    assert len(list((path / "unet").glob("diffusion_pytorch_model*.bin"))) > 1
    (path / "scheduler").mkdir()
    said = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "beta_schedule": "scaled_linear"}
    (path / "scheduler" / "scheduler_config.json").write_text(json.dumps(said))
    got = load_checkpoint(path)
    assert same(got, loaded["sd2"])
    assert (got.prediction, got.zero_terminal_snr) == ("v_prediction", True)
    for wrong, says in (({"prediction_type": "sample"}, "predicts 'sample' is not supported"), ({"beta_schedule": "linear"}, "noise schedule that")):
        (path / "scheduler" / "scheduler_config.json").write_text(json.dumps(wrong))
        with pytest.raises(ModelError, match=says):
            load_checkpoint(path)


BROKEN_FOLDERS = {
    "no UNet": (lambda path: (path / "unet" / "config.json").unlink(), "holds no UNet"),
    "no weights": (lambda path: (path / "unet" / "diffusion_pytorch_model.safetensors").unlink(), "holds no weights of a unet"),
    "an index without its files": (lambda path: indexed(path, {"weight_map": {"a": "one.safetensors"}}), "one.safetensors' is missing, one of 1"),
    "an index that names nothing": (lambda path: indexed(path, {"metadata": {}}), "does not say which files hold the weights"),
    "an index of other things": (lambda path: indexed(path, {"weight_map": {"a": ["one.safetensors"]}}), "does not say which files hold the weights"),
    "an index that leads elsewhere": (lambda path: indexed(path, {"weight_map": {"a": "../vae/diffusion_pytorch_model.safetensors"}}), "not beside it"),
    "an index of itself": (lambda path: indexed(path, {"weight_map": {"a": INDEX_NAME}}), "not beside it"),
    "an index that promises more": (lambda path: indexed(path, {"weight_map": {"no.such.tensor": "one.safetensors"}}, "one.safetensors"),
                                    "lists 1 tensors that its files do not hold, e.g. no.such.tensor"),
    "a tensor in two files": (lambda path: indexed(path, {"weight_map": {"conv_in.bias": "1.safetensors", "b": "2.safetensors"}},
                                                   "1.safetensors", "2.safetensors"), "stands in two of its files"),
    "no text encoder": (lambda path: [file.unlink() for file in (path / "text_encoder").iterdir()] and (path / "text_encoder").rmdir(),
                        "no text encoder: take it from another SD 1 model"),
    "a config that is none": (lambda path: (path / "unet" / "config.json").write_text("{"), "cannot be read"),
    "a config that is a list": (lambda path: (path / "unet" / "config.json").write_text("[]"), "no table of settings"),
    "a config of another size": (lambda path: reconfigured(path, block_out_channels=[32, 32, 64, 64]), "unexpected shape|no place|lacks"),
    "a config that asks for a thousand million layers": (lambda path: reconfigured(path, layers_per_block=10**9), "impossible layers_per_block"),
    "a config that asks for nonsense": (lambda path: reconfigured(path, down_block_types=["eval", "x", "y", "z"]), "cannot be built from its config"),
    "a config of another class": (lambda path: reconfigured(path, _class_name="UNetSpatioTemporalConditionModel"), "which nbsd does not support"),
    "a config with a class embedding": (lambda path: reconfigured(path, class_embed_type="projection"), "of a kind that nbsd does not support"),
}





def indexed(path: Path, index: dict, *names: str) -> None:
    """Put an index in the place of the UNet's file, and that file's bytes under these names."""
    whole = path / "unet" / "diffusion_pytorch_model.safetensors"
    for name in names:
        (path / "unet" / name).write_bytes(whole.read_bytes())
    whole.unlink()
    (path / "unet" / INDEX_NAME).write_text(json.dumps(index))


def reconfigured(path: Path, **changes) -> None:
    config = json.loads((path / "unet" / "config.json").read_text())
    (path / "unet" / "config.json").write_text(json.dumps(config | changes))


def test_a_folder_that_is_broken_says_how(files, tmp_path):
    import shutil

    whole = folder(tmp_path, "sd1", files)
    for number, (change, says) in enumerate(BROKEN_FOLDERS.values()):
        path = tmp_path / f"broken{number}"
        shutil.copytree(whole, path)
        change(path)
        with pytest.raises(ModelError, match=says) as caught:
            load_checkpoint(path)
        assert "\n" not in str(caught.value)


# VAEs


def test_a_vae_beside_the_model_is_found_by_its_name(tmp_path):
    for name in ("anything.ckpt", "anything.safetensors", "anything-v3.vae.pt", "other.vae.pt", "Anything.vae.safetensors"):
        (tmp_path / name).write_bytes(b"x")
    model = tmp_path / "anything.ckpt"
    assert chosen_vae(model, None) == tmp_path / "Anything.vae.safetensors"
    assert chosen_vae(model, "Automatic") == tmp_path / "Anything.vae.safetensors"
    (tmp_path / "Anything.vae.safetensors").unlink()
    assert chosen_vae(model, None) == tmp_path / "anything-v3.vae.pt"       # the web UI's rule: it begins like the model's
    assert chosen_vae(model, "None") is None
    assert chosen_vae(model, "other.vae.pt") == Path("other.vae.pt")
    assert chosen_vae(tmp_path / "another.ckpt", None) is None


def test_the_vae_beside_a_model_is_loaded_and_signed(files, tmp_path):
    path = write(tmp_path / "m.safetensors", "sd1", texts=short("sd1"))
    tensors = {key.removeprefix(VAE): tensor * 2 for key, tensor in load_file(path).items() if key.startswith(VAE)}
    torch.save({"state_dict": tensors}, tmp_path / "m.vae.pt")
    assert load_checkpoint(path).vae_name == "m.vae.pt"
    assert load_checkpoint(path, vae="None").vae_name is None
    store = Store([tmp_path])
    assert store.checkpoint("m").vae_name == "m.vae.pt"
    assert store.checkpoint("m", "None").vae_name is None
    assert store.checkpoint("m", "Automatic").vae_name == "m.vae.pt"


def test_a_vae_of_diffusers_as_file_and_as_folder(files, loaded, tmp_path):
    vae = their_vae(load_file(files["sd1"]))
    kept(vae, tmp_path / "vae")
    family = loaded["sd1"].family
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(tmp_path / "vae" / "diffusion_pytorch_model.safetensors")
    for new, name in old.items():
        tensors = {key.replace(f".attentions.0.{new}.", f".attentions.0.{name}."): tensor for key, tensor in tensors.items()}
    save_file(tensors, tmp_path / "old.safetensors")
    for place in (tmp_path / "vae", tmp_path, tmp_path / "vae" / "diffusion_pytorch_model.safetensors", tmp_path / "old.safetensors"):
        got = weights_of(load_vae(place, family, "cpu", torch.float32))
        assert all(torch.equal(tensor, got[key]) for key, tensor in weights_of(loaded["sd1"].vae).items())


def test_a_vae_with_other_latents_is_refused(files, loaded, tmp_path):
    tensors = {key: tensor for key, tensor in load_file(files["sd1"]).items() if key.startswith(VAE)}
    tensors[f"{VAE}decoder.conv_in.weight"] = torch.zeros(64, 16, 3, 3)
    save_file(tensors, tmp_path / "sixteen.safetensors")
    with pytest.raises(ModelError, match="latents of 16 channels, and those of SD 1 have 4"):
        load_vae(tmp_path / "sixteen.safetensors", loaded["sd1"].family, "cpu", torch.float32)


@pytest.mark.parametrize(("text", "says"), [
    ("model:\n  target: x\n  params:\n    parameterization: v\n", "v_prediction"),
    ("model:\n  target: x\n  params:\n    parameterization: 'v'   # as trained\n", "v_prediction"),
    ("model:\n  target: x\n  params:\n    parameterization: eps\n", "epsilon"),
    ("model:\n  target: x\n", "epsilon"),
    ("title: notes of mine\n", None),
])  # fmt: skip
def test_the_settings_beside_a_model(tmp_path, text, says):
    (tmp_path / "m.yaml").write_text(text)
    assert stated_prediction(tmp_path / "m.safetensors") == says
    assert stated_prediction(tmp_path / "n.safetensors") is None
