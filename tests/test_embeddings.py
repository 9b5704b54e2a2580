"""Textual-inversion files: their layouts, and finding them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nbsd.conditioning.embeddings import Embeddings, embedding_files, vectors_from
from nbsd.conditioning.tokens import Fix, Vocabulary, chunk
from nbsd.errors import ModelError, UnsafeFileError, WrongFamilyError

MODELS = Path(__file__).parent / "data" / "fidelity" / "models"
THREE = torch.arange(12.0).reshape(3, 4)


def read(path: Path) -> dict:
    return load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)


@pytest.mark.parametrize(
    "state",
    [
        {"string_to_token": {"*": 265}, "string_to_param": {"*": THREE}, "name": "any", "step": 500, "sd_checkpoint": None},
        {"string_to_param": {"*": THREE.double().requires_grad_()}},
        {"emb_params": THREE.half()},
        {"<token>": THREE},
    ],
    ids=["web UI", "double", "kohya", "diffusers"],
)
def test_known_layouts(state):
    vectors = vectors_from(state)
    assert vectors.dtype == torch.float32
    assert not vectors.requires_grad
    torch.testing.assert_close(vectors, THREE)


def test_one_vector_may_be_flat():
    torch.testing.assert_close(vectors_from({"<token>": THREE[0]}), THREE[:1])


def test_sdxl_files_hold_two_tables():
    state = {"clip_l": THREE, "clip_g": torch.zeros(3, 6)}
    assert vectors_from(state, "clip_l").shape == (3, 4)
    assert vectors_from(state, "clip_g").shape == (3, 6)
    with pytest.raises(WrongFamilyError, match="for SDXL"):
        vectors_from(state)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "got nothing"),
        ({"a": THREE, "b": THREE}, "got a, b"),
        ({"string_to_param": {}}, "got string_to_param"),
        ({"string_to_param": 3, "name": "x"}, "got name, string_to_param"),
        ({"state_dict": {}, "epoch": 1}, "got epoch, state_dict"),
        ({"x": torch.zeros(2, 3, 4)}, r"this file's tensor is \[2, 3, 4\]"),
        ({"x": torch.zeros(0, 4)}, r"this file's tensor is \[0, 4\]"),
        ({"x": torch.tensor(1.0)}, r"this file's tensor is \[\]"),
    ],
)
def test_anything_else_is_refused(state, message):
    with pytest.raises(ModelError, match=message):
        vectors_from(state)


def test_the_tiny_ones():
    found = Embeddings(embedding_files([MODELS]), read, width=48)
    assert found["tiny-embed"].shape == (3, 48)
    assert found["tiny-neg"].shape == (2, 48)
    assert found.path("tiny-neg").name == "tiny-neg.safetensors"


def test_files_are_found_by_stem_below_the_folders(tmp_path):
    for name in ("b/one.pt", "a/one.safetensors", "a/TWO.SAFETENSORS", "three.bin", "four.txt", "five.png", "b/six.v2.pt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = embedding_files([tmp_path, tmp_path / "missing"])
    assert set(found) == {"one", "TWO", "three", "six.v2"}
    assert found["one"] == tmp_path / "a" / "one.safetensors"


def test_a_file_is_read_once_and_only_when_it_is_used():
    asked = []

    def reading(path: Path) -> dict:
        asked.append(path.stem)
        return {"emb_params": THREE}

    found = Embeddings({"cat": Path("cat.pt"), "dog": Path("dog.pt")}, reading, width=4)
    assert "cat" in found
    assert asked == []
    for _ in range(2):
        (one,) = chunk([("a cat", 1.0)], Vocabulary(), embeddings=found)
        assert one.fixes == [Fix(1, "cat", 3)]
        assert found["cat"].shape == (3, 4)
    assert asked == ["cat"]


def test_an_embedding_of_another_width_is_plain_text():
    found = Embeddings({"cat": Path("cat.pt")}, lambda _: {"emb_params": THREE}, width=768)
    (one,) = chunk([("a cat", 1.0)], Vocabulary(), embeddings=found)
    assert one.fixes == []
    assert "cat" not in found
    assert found.left_out == {
        "cat": "the embedding 'cat' is left out and its name taken as text: "
        "its vectors have 4 numbers, the model's text encoder takes 768"
    }


@pytest.mark.parametrize("kind", [ModelError, UnsafeFileError])
def test_a_bad_file_is_named(kind):
    def reading(path: Path) -> dict:
        raise kind("it is damaged")

    found = Embeddings({"cat": Path("folder/cat.pt")}, reading, width=4)
    with pytest.raises(kind, match=r"the embedding 'cat.pt' cannot be used: it is damaged"):
        found["cat"]
