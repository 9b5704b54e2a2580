"""Finding the file that a recipe means, and keeping what is loaded."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch

from nbsd.errors import ModelError, Stopped
from nbsd.models import hashes, load
from nbsd.models import scan as scanning
from nbsd.models.store import Store
from nbsd.recipe import join_title

MODELS = Path(__file__).parent / "data" / "fidelity" / "models"
TINY, TINY_VAE = MODELS / "tiny-sd1.safetensors", MODELS / "tiny-vae.vae.pt"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    """A folder as users have them: models, a VAE and an embedding in folders below, and things that are none."""
    root = tmp_path / "models"
    for place in ("checkpoints", "vae", "embeddings/old"):
        (root / place).mkdir(parents=True)
    (root / "checkpoints" / "tiny-sd1.safetensors").symlink_to(TINY)
    shutil.copy(TINY_VAE, root / "vae")
    shutil.copy(MODELS / "tiny-embed.pt", root / "embeddings" / "old")
    (root / "broken.ckpt").write_bytes(b"<html>")
    (root / "readme.txt").write_text("x")
    return root


def test_a_scan_says_what_each_file_is(folder):
    entries = {entry.title: entry for entry in Store([folder, folder / "vae", folder / "none"]).scan()}
    assert {title: (entry.kind, entry.family) for title, entry in entries.items()} == {
        "tiny-sd1": ("checkpoint", "SD 1"), "tiny-vae.vae": ("vae", ""), "tiny-embed": ("embedding", ""), "broken": ("unknown", ""),
    }  # fmt: skip
    assert entries["tiny-sd1"].size == TINY.stat().st_size
    assert "is a web page" in entries["broken"].problem


def test_a_second_scan_opens_no_file_that_did_not_change(folder, monkeypatch):
    first = Store([folder]).scan()
    looked = []
    real = scanning.open_weights
    monkeypatch.setattr(scanning, "open_weights", lambda path: looked.append(path.name) or real(path))
    assert Store([folder]).scan() == first
    assert looked == []
    (folder / "broken.ckpt").write_bytes(b"still broken")
    Store([folder]).scan()
    assert looked == ["broken.ckpt"]


def test_two_files_of_one_name_have_two_titles(folder):
    (folder / "tiny-sd1.safetensors").symlink_to(TINY)
    (folder / "tiny-sd1.ckpt").symlink_to(TINY)
    titles = {entry.title: entry.path for entry in Store([folder]).scan() if entry.kind == "checkpoint"}
    assert set(titles) == {"checkpoints/tiny-sd1.safetensors", "models/tiny-sd1.safetensors", "tiny-sd1.ckpt"}
    assert all(Store([folder]).find(title) == path for title, path in titles.items())


def test_folders_that_link_in_a_circle_are_walked_once(folder):
    (folder / "checkpoints" / "up").symlink_to(folder)
    (folder / "linked").symlink_to(folder / "vae")
    assert sorted(path.name for path in Store([folder]).files()) == ["broken.ckpt", "tiny-embed.pt", "tiny-sd1.safetensors", "tiny-vae.vae.pt"]


@pytest.mark.parametrize("title", [
    "tiny-sd1", "tiny-sd1.safetensors", "Tiny-SD1", "checkpoints/tiny-sd1", "checkpoints\\tiny-sd1.safetensors",
    "tiny-sd1 [78e7fcdcdf]", "78e7fcdcdf", "88558282", "78e7fcdcdf11", "tiny-sd1 [88558282]",
    "78e7fcdcdf11be42dfc7fe68a90b3f0657294f7673a0cda69f390697880f3612", "another name [78e7fcdcdf]", str(TINY),
])  # fmt: skip
def test_every_way_to_name_a_model_finds_it(folder, title):
    assert Store([folder]).find(title).samefile(TINY)


def test_a_vae_is_found_by_its_file_name_and_hash(folder):
    assert Store([folder]).find("tiny-vae.vae.pt [50f3ff3583]", "vae") == folder / "vae" / "tiny-vae.vae.pt"
    assert Store([folder]).find("tiny-vae.vae.pt", "vae") == folder / "vae" / "tiny-vae.vae.pt"
    assert Store([folder]).find("f3a7aa41", "vae") == folder / "vae" / "tiny-vae.vae.pt"


@pytest.mark.parametrize("title, says", [
    ("tiny-sd2", "no checkpoint called 'tiny-sd2' is in .*models'. Did you mean 'tiny-sd1'"),
    ("", "no checkpoint called"), ("0123456789", "no checkpoint called '0123456789'"), ("x" * 5000, "no checkpoint called"),
    ("~nobody-of-this-name/a", "no checkpoint called"), ("a\0b", "no checkpoint called"), ("[", "no checkpoint called"),
    ("tiny-sd1 [0123456789]", r"'tiny-sd1\.safetensors' here has another hash \(78e7fcdcdf\)"),
    ("/none/a.ckpt", "folder '/none' does not exist"),
])  # fmt: skip
def test_what_is_not_there_is_said_with_the_nearest_names(folder, title, says):
    with pytest.raises(ModelError, match=says):
        Store([folder]).find(title)


def test_an_empty_folder_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("nbsd.models.first.FILE", tmp_path / "none")
    with pytest.raises(ModelError, match="There is no checkpoint there at all: put one there"):
        Store([tmp_path]).find("a")
    with pytest.raises(ModelError, match="there is no model in .*: put a .safetensors or .ckpt file"):
        Store([tmp_path]).checkpoint(None)


@pytest.fixture
def built_in(tmp_path, monkeypatch):
    """A package whose built-in model is a small random one, and a folder of the user's without a model."""
    package, mine = tmp_path / "package", tmp_path / "mine"
    package.mkdir(), mine.mkdir()
    monkeypatch.setattr("nbsd.models.first.FILE", package / "first.safetensors")
    shutil.copy(TINY, package / "first.safetensors")
    return mine


@pytest.mark.parametrize("title", ["first", "First", "first [78e7fcdcdf]"])
def test_the_built_in_model_is_found_by_its_name(built_in, title):
    assert Store([built_in]).find(title).parent.name == "package"


def test_the_built_in_model_is_taken_where_there_is_no_other(built_in):
    assert Store([built_in])._at_hand().parent.name == "package"
    shutil.copy(TINY, built_in / "mine.safetensors")
    assert Store([built_in])._at_hand().parent.name == "mine"


def test_a_file_of_the_users_goes_before_the_built_in_one(built_in):
    shutil.copy(TINY, built_in / "first.safetensors")
    assert Store([built_in]).find("first").parent.name == "mine"


def test_another_hash_is_not_the_built_in_model(built_in):
    with pytest.raises(ModelError, match="another hash"):
        Store([built_in]).find("first [0123456789]")


def test_the_built_in_model_is_no_vae(built_in):
    with pytest.raises(ModelError, match="no VAE called 'first'"):
        Store([built_in]).find("first", "vae")


def test_a_known_hash_is_looked_up_and_not_computed(folder, monkeypatch):
    path = folder / "checkpoints" / "tiny-sd1.safetensors"
    hashes.sha256(path)
    (folder / "a-first-one.safetensors").symlink_to(TINY)       # comes first, and its hash is not known
    monkeypatch.setattr(hashes, "_digest", lambda *_: pytest.fail("a file was hashed"))
    assert Store([folder]).find("78e7fcdcdf") == path


def test_a_name_that_looks_like_a_hash(tmp_path):
    (tmp_path / "deadbeef.safetensors").symlink_to(TINY)
    assert Store([tmp_path]).find("deadbeef") == tmp_path / "deadbeef.safetensors"


def test_the_same_request_gives_the_same_object_and_only_what_changed_is_loaded(folder, monkeypatch):
    shelf, read = Store([folder]), []
    real = load.fill
    monkeypatch.setattr(load, "fill", lambda plan, *rest: read.append(type(plan.module).__name__) or real(plan, *rest))
    first = shelf.checkpoint("tiny-sd1")
    assert read == ["UNet2DConditionModel", "CLIPTextModel", "AutoencoderKL"]
    assert shelf.checkpoint(join_title("tiny-sd1", first.hash)) is first
    assert shelf.checkpoint(None) is first

    other = shelf.checkpoint("tiny-sd1", "tiny-vae.vae.pt")
    assert read[3:] == ["AutoencoderKL"]
    assert (other.unet is first.unet, other.vae is first.vae, other.vae_name, first.vae_name) == (True, False, "tiny-vae.vae.pt", None)

    turned = shelf.checkpoint("tiny-sd1", "tiny-vae.vae.pt", prediction="v_prediction")
    assert (turned.vae is other.vae, turned.prediction, other.prediction) == (True, "v_prediction", "epsilon")
    back = shelf.checkpoint("tiny-sd1")
    assert back is first and back.vae_hash is None and len(read) == 4

    # the VAE of one prediction is the VAE of the other
    assert shelf.checkpoint("tiny-sd1", prediction="v_prediction").vae is first.vae and len(read) == 4

    assert shelf.checkpoint("tiny-sd1", dtype=torch.float16).unet.dtype == torch.float16
    assert len(read) == 7
    assert shelf.checkpoint("tiny-sd1") is first and len(read) == 7
    shelf.forget()
    shelf.checkpoint("tiny-sd1", dtype=torch.float16)
    assert len(read) == 10


def test_beyond_the_budget_the_oldest_model_goes_and_a_bad_file_costs_nobody_his_place(folder):
    for name in ("second", "third"):
        shutil.copy(TINY, folder / f"{name}.safetensors")
    shelf = Store([folder])
    first = shelf.checkpoint("tiny-sd1")
    size = shelf.rack.taken(torch.device("cpu"))
    shelf.rack._ram = 2 * size + 1
    second = shelf.checkpoint("second")
    with pytest.raises(ModelError):
        shelf.checkpoint("broken")
    assert shelf.checkpoint("tiny-sd1") is first and shelf.checkpoint("second") is second
    shelf.checkpoint("third")
    assert first not in shelf.rack and second in shelf.rack and shelf.rack.taken(torch.device("cpu")) == 2 * size


def test_a_load_that_fails_or_is_stopped_keeps_the_old_model(folder):
    def stop(*_: int) -> None:
        raise Stopped

    shelf = Store([folder])
    first = shelf.checkpoint("tiny-sd1")
    for title, vae, progress, error in (
        ("broken", None, None, ModelError), ("none", None, None, ModelError), ("tiny-vae.vae", None, None, ModelError),
        ("tiny-sd1", "tiny-embed", None, ModelError), ("tiny-sd1", "tiny-vae.vae", stop, Stopped),
    ):  # fmt: skip
        with pytest.raises(error):
            shelf.checkpoint(title, vae, on_progress=progress)
        assert shelf.checkpoint("tiny-sd1") is first


def test_a_file_that_changed_is_loaded_anew(tmp_path):
    shutil.copy(TINY, tmp_path / "a.safetensors")
    shelf = Store([tmp_path])
    first = shelf.checkpoint(None)
    os.utime(tmp_path / "a.safetensors", ns=(1, 1))
    assert shelf.checkpoint(None) is not first


def test_of_several_models_one_has_to_be_chosen(folder):
    (folder / "second.safetensors").symlink_to(TINY)
    with pytest.raises(ModelError, match="no model was chosen, and there are 2 in"):
        Store([folder]).checkpoint(None)
