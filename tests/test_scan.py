"""Model files as they lie: folders of other programs, the hub's cache, folders that are models; what each is, and what is not looked at."""

from __future__ import annotations

import json
import struct
from math import prod
from pathlib import Path

import pytest
import torch

from nbsd.models import hashes, scan
from nbsd.models.cache import CACHE, FileCache
from nbsd.models.store import Store

KEYS = {        # kind -> a key that shows it
    "vae": ("first_stage_model.decoder.conv_in.weight",),
    "lora": ("lora_unet_down_blocks_0.lora_down.weight",),
    "embedding": ("emb_params",),
    "upscaler": ("conv_first.weight",),
    "unknown": ("something",),
}


def small(kind: str) -> bytes:
    keys = KEYS[kind]
    header = json.dumps({key: {"dtype": "F16", "shape": [1], "data_offsets": [2 * n, 2 * n + 2]} for n, key in enumerate(keys)}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(2 * len(keys))


def put(root: Path, *names: str, kind: str = "lora") -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(small(kind))


def titles(*folders: Path) -> list[str]:
    return [entry.title for entry in Store(folders).scan()]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("kind", KEYS)
def test_every_kind(tmp_path, kind):
    put(tmp_path / "m", "a.safetensors", kind=kind)
    (entry,) = Store([tmp_path / "m"]).scan()
    assert (entry.kind, entry.size) == (kind, len(small(kind)))
    assert ("it is of no known model family" in entry.problem) == (kind == "unknown")


ATTENTION = "transformer_blocks.0.attn2.to_k.weight"
IN_LISTS = [       # tensors -> kind, family and what is said of it
    ({"text_model.embeddings.token_embedding.weight": [1, 768]}, "text encoder", "SD 1", ""),
    ({"text_model.embeddings.token_embedding.weight": [1, 64]}, "text encoder", "", ""),
    ({"encoder.block.0.layer.0.SelfAttention.q.weight": [1, 1]}, "text encoder", "T5", ""),
    ({"emb_params": [2, 1024]}, "embedding", "SD 2", ""),
    ({"<cat-toy>": [768]}, "embedding", "SD 1", ""),
    ({"sks": [4, 1024]}, "embedding", "SD 2", ""),
    ({"sks": [4, 5]}, "unknown", "", "it is of no known model family"),
    ({"clip_l": [1, 768], "clip_g": [1, 1280]}, "embedding", "SDXL", ""),
    ({"decoder.conv_in.weight": [1, 16, 3, 3], "decoder.mid.block_1.norm1.weight": [1]}, "vae", "SD 3 or Flux", ""),
    ({"decoder.conv_in.weight": [1, 4, 3, 3], "decoder.mid.block_1.norm1.weight": [1]}, "vae", "", ""),
    ({"control_model.x.weight": [1], f"control_model.input_blocks.1.1.{ATTENTION}": [1, 768]}, "controlnet", "SD 1", "is a ControlNet, not a model"),
    ({"double_blocks.0.img_attn.qkv.weight": [1, 1]}, "unet", "Flux", "is a model of the family Flux, which nbsd does not support"),
    ({"down_blocks.0.x": [1]}, "part", "", "is one part of a model in diffusers' layout"),
    ({"something": [1]}, "unknown", "", "it is of no known model family"),
]


@pytest.mark.parametrize(("shapes", "kind", "family", "said"), IN_LISTS)
def test_what_a_list_says_of_a_file(tmp_path, shapes, kind, family, said):
    header, at = {}, 0
    for key, shape in shapes.items():
        header[key] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at := at + 2 * prod(shape)]}
    text = json.dumps(header).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(at))
    (entry,) = Store([tmp_path]).scan()
    assert (entry.kind, entry.family) == (kind, family)
    assert (said in entry.problem) if said else not entry.problem


def test_hypernetworks_and_old_embeddings_have_families_too(tmp_path):
    two = {"linear.0.weight": torch.zeros(1)}
    torch.save({320: (two, two), 768: (two, two), 1280: (two, two)}, tmp_path / "a.pt")
    torch.save({"string_to_param": {"*": torch.zeros(3, 768)}}, tmp_path / "b.pt")
    assert [(entry.kind, entry.family) for entry in Store([tmp_path]).scan()] == [("hypernetwork", "SD 1"), ("embedding", "SD 1")]


def test_files_that_every_folder_has_are_called_like_their_folder(tmp_path):
    put(tmp_path, "ink/pytorch_lora_weights.safetensors", "oil/adapter_model.safetensors", "plain.safetensors",
        "models--owner--hair/snapshots/abc/pytorch_lora_weights.safetensors")
    assert sorted(titles(tmp_path)) == ["ink", "oil", "owner/hair", "plain"]


def test_a_checkpoint_has_a_family(tiny_model, tmp_path):
    (tmp_path / "a.safetensors").symlink_to(tiny_model)
    (entry,) = Store([tmp_path]).scan()
    assert (entry.kind, entry.family, entry.digest) == ("checkpoint", "SD 1", "88558282")


def test_a_folder_of_a1111_as_it_lies(tmp_path):
    root = tmp_path / "webui"
    put(root, "models/Stable-diffusion/anime.safetensors", "models/VAE/fine.vae.pt", "models/Lora/sub/ink.safetensors", "models/hypernetworks/old.pt",
        "models/ESRGAN/4x.pth", "embeddings/bad.pt", "venv/lib/torch/x.pt", "outputs/y.pt", "extensions/z/model.ckpt")
    assert sorted(titles(root)) == ["4x", "anime", "bad", "fine.vae", "ink", "old"]


def test_a_folder_of_comfyui_as_it_lies(tmp_path):
    root = tmp_path / "comfy"
    put(root, "models/checkpoints/anime.safetensors", "models/vae/fine.safetensors", "models/loras/ink.safetensors", "models/embeddings/bad.pt",
        "models/upscale_models/4x.pth", "input/x.pt", "python_embeded/y.pt")
    assert sorted(titles(root)) == ["4x", "anime", "bad", "fine", "ink"]


def test_a_program_inside_the_folder_and_its_models_folder_alone(tmp_path):
    root = tmp_path / "sd" / "webui"
    put(root, "models/Stable-diffusion/anime.safetensors", "embeddings/bad.pt", "repositories/x.pt", "extensions/z/model.ckpt")
    assert sorted(titles(tmp_path)) == sorted(titles(root / "models")) == ["anime", "bad"]


SHARED = """
a1111:
    base_path: {base}
    checkpoints: models/Stable-diffusion
    loras: |
         models/Lora
         models/LyCORIS
    vae: models/none
    controlnet: models/ControlNet
comfyui:
    is_default: true
    upscale_models: more/upscalers/
    checkpoints: $NBSD_TEST_DISK/big
"""


@pytest.mark.parametrize("base", ["../webui", "{root}/webui/"])
def test_the_folders_that_a_comfyui_shares_with_others(tmp_path, monkeypatch, base):
    monkeypatch.setenv("NBSD_TEST_DISK", str(tmp_path / "disk"))
    root = tmp_path / "comfy"
    put(root, "models/checkpoints/own.safetensors", "more/upscalers/4x.pth")
    put(tmp_path, "webui/models/Stable-diffusion/anime.safetensors", "webui/models/Lora/ink.safetensors", "webui/models/LyCORIS/oil.safetensors",
        "webui/models/ControlNet/pose.safetensors", "disk/big/large.safetensors", "disk/small.safetensors")
    (root / "extra_model_paths.yaml").write_text(SHARED.format(base=base.format(root=tmp_path)))
    assert sorted(titles(root)) == ["4x", "anime", "ink", "large", "oil", "own"]


@pytest.mark.parametrize("text", [
    "a:\n  checkpoints: /", "a:\n  base_path: ..\n  checkpoints: .", "a: [1", "- a", "a: b", "a:\n  checkpoints: [x]", "a:\n  checkpoints: ' '",
    "a:\n  base_path: 7\n  checkpoints: {b: c}", "!!python/object/apply:os.system [exit]", "a:\n  loras: 'x\0y'", "\xff", "# " + "x" * 200_000,
])  # fmt: skip
def test_a_list_of_folders_that_is_none_names_none(tmp_path, text):
    put(tmp_path, "elsewhere.safetensors")
    put(tmp_path / "comfy", "models/checkpoints/own.safetensors", "x.pt")
    (tmp_path / "comfy" / "extra_model_paths.yaml").write_bytes(text.encode("latin-1"))
    assert titles(tmp_path / "comfy") == ["own"]


def test_attached_data_sets_of_kaggle_are_found_however_deep(tmp_path):
    put(tmp_path, "input/anime-model/v1/anime.ckpt", "input/some/pytorch/default/1/ink.safetensors")
    assert titles(tmp_path / "input") == ["anime", "ink"]


def test_folders_that_hold_no_models_are_not_entered(tmp_path):
    put(tmp_path, *(f"{name}/x.pt" for name in scan.NEVER), "models/y.pt")
    assert titles(tmp_path) == ["y"]


def test_the_hubs_cache_shows_models_and_nothing_else(tmp_path):
    repo = tmp_path / "hub" / "models--owner--anime"
    put(repo, "blobs/0123")
    snapshot = repo / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "anime.safetensors").symlink_to(repo / "blobs" / "0123")
    put(tmp_path / "hub" / "models--owner--words" / "snapshots" / "abc", "pytorch_model.bin", "model.safetensors", kind="unknown")
    whole = tmp_path / "hub" / "models--owner--whole" / "snapshots" / "abc"
    put(whole, "unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors")
    (whole / "model_index.json").write_text("{}")
    (whole / "unet" / "config.json").write_text('{"cross_attention_dim": 768}')
    entries = {entry.title: entry for entry in Store([tmp_path / "hub"]).scan()}
    assert list(entries) == ["anime", "owner/whole"]
    assert (entries["owner/whole"].path, entries["owner/whole"].kind) == (whole, "checkpoint")
    assert entries["owner/whole"].size == 2 * len(small("lora"))
    assert Store([tmp_path / "hub"]).find("owner/whole") == whole


def test_a_file_is_shown_with_its_hash(tmp_path):
    put(tmp_path / "m", "a.safetensors")
    with (tmp_path / "m" / "b.ckpt").open("wb") as large:
        large.truncate(3_000_000)
    small_one, large_one = Store([tmp_path / "m"]).scan()
    assert small_one.digest == hashes.sha256(small_one.path)[:10]
    assert large_one.digest == ""       # it is no model
    header, size = small("lora")[8:-2], 3_000_000
    header = header.replace(b'"shape": [1]', b'"shape": [1500000]').replace(b"[0, 2]", b"[0, 3000000]")
    (tmp_path / "m" / "b.ckpt").write_bytes(struct.pack("<Q", len(header)) + header + bytes(size))
    (large_one,) = (entry for entry in Store([tmp_path / "m"]).scan() if entry.title == "b")
    assert large_one.kind == "lora" and large_one.digest == hashes.old_hash(large_one.path) and len(large_one.digest) == 8
    full = hashes.sha256(large_one.path)
    assert Store([tmp_path / "m"]).scan()[1].digest == full[:10]


def test_of_two_thousand_files_a_second_look_opens_none_and_reads_its_memory_once(tmp_path, monkeypatch):
    put(tmp_path / "m", *(f"{n % 50}/file {n}.safetensors" for n in range(2000)))
    first = Store([tmp_path / "m"]).scan()
    opened: list[Path] = []
    monkeypatch.setattr(scan, "open_weights", lambda path: opened.append(path))
    monkeypatch.setattr(hashes, "old_hash", lambda path: opened.append(path))
    reads, read = [], FileCache._read
    monkeypatch.setattr(FileCache, "_read", lambda self: reads.append(1) or read(self))
    assert Store([tmp_path / "m"]).scan() == first and len(first) == 2000
    assert (opened, len(reads)) == ([], 1)


def test_a_twelve_digit_hash_is_of_the_whole_file_or_of_what_lies_behind_its_header(tmp_path):
    put(tmp_path / "m", "a.safetensors", "b.safetensors")
    (tmp_path / "m" / "a.safetensors").write_bytes(small("lora")[:-1] + b"x")
    wanted = tmp_path / "m" / "a.safetensors"
    for digest in (hashes.addnet_hash(wanted)[:12], hashes.sha256(wanted)[:12]):
        for known in (True, False):
            if not known:
                CACHE.path.unlink()
            assert Store([tmp_path / "m"]).find(digest, "lora") == wanted
