"""Embeddings in pictures: the PNG's text, and the pixels of a card, written here as the web UI writes them."""

from __future__ import annotations

import base64
import json
import random
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from nbsd.conditioning.embeddings import Embeddings, embedding_files
from nbsd.errors import ModelError
from nbsd.models.pictured import pictured_embedding, pictured_in, pictured_name
from nbsd.models.small import read_small

VECTORS = [[0.5, -1.0, 2.0], [3.0, 0.25, -0.125]]
SAID = json.dumps({"string_to_token": {"*": 265}, "string_to_param": {"*": {"TORCHTENSOR": VECTORS}}, "name": "ink", "step": 7})
HEIGHT = 16


def mixed(nibbles: np.ndarray) -> np.ndarray:
    """[height, width, 3] numbers below 16, mixed with those of the generator; the upper four bits show a picture."""
    seed, row = 0, []
    for _ in range(nibbles.size):
        seed = (1664525 * seed + 1013904223) % 2**32
        row.append(seed % 255 & 15)
    return nibbles ^ np.array(row, dtype=np.uint8).reshape(nibbles.shape) | 0x50


def card(path: Path, raw: bytes, **saving) -> Path:
    packed = np.frombuffer(zlib.compress(raw, 9), np.uint8)
    width = -(-len(packed) // (HEIGHT * 3))
    packed = np.resize(packed, (HEIGHT, width, 3))
    black, picture = np.zeros((HEIGHT, 1, 3), np.uint8), np.full((HEIGHT, 20, 3), 200, np.uint8)
    pixels = np.concatenate([mixed(packed & 15), black, picture, black, mixed(packed >> 4)], axis=1)
    Image.fromarray(pixels).save(path, **saving)
    return path


def texted(path: Path, text: str) -> Path:
    about = PngInfo()
    about.add_text("sd-ti-embedding", text)
    Image.new("RGB", (8, 8), "white").save(path, pnginfo=about)
    return path


WRITERS = {
    "text.png": lambda path: texted(path, base64.b64encode(SAID.encode()).decode()),
    "card.png": lambda path: card(path, SAID.encode()),
    "card.webp": lambda path: card(path, SAID.encode(), lossless=True, exact=True),
}


@pytest.mark.parametrize("name", WRITERS)
def test_the_vectors_come_out_under_the_embeddings_own_name(tmp_path, name):
    path = WRITERS[name](tmp_path / name)
    assert torch.equal(read_small(path)["string_to_param"]["*"], torch.tensor(VECTORS))
    assert pictured_name(path) == "ink"
    found = Embeddings(embedding_files([tmp_path], pictured_name), read_small, width=3)
    assert list(found) == ["ink"]
    assert torch.equal(found["ink"], torch.tensor(VECTORS))


def test_a_picture_that_only_shows_something_is_no_embedding(tmp_path):
    Image.new("RGB", (30, 30), "red").save(tmp_path / "cat.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(tmp_path / "noise.png")
    stripes = np.full((20, 20, 3), 90, np.uint8)
    stripes[:, 5::5] = 0
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    Image.new("RGB", (30, 30)).save(tmp_path / "black.png")
    card(tmp_path / "ink.preview.png", SAID.encode())
    card(tmp_path / "pony.png", SAID.encode())
    (tmp_path / "pony.pt").write_bytes(b"x")        # what the picture of this name shows
    assert embedding_files([tmp_path], pictured_name) == {"pony": tmp_path / "pony.pt"}
    with pytest.raises(ModelError, match=r"the picture 'cat\.png' holds no embedding"):
        read_small(tmp_path / "cat.png")


def test_the_panel_looks_at_the_pictures_of_folders_for_embeddings_only(tmp_path):
    (tmp_path / "models" / "embeddings" / "deep").mkdir(parents=True)
    card(tmp_path / "models" / "outside.png", SAID.encode())
    card(tmp_path / "models" / "embeddings" / "deep" / "a.png", SAID.encode())
    card(tmp_path / "models" / "embeddings" / "a.preview.png", SAID.encode())
    inside = tmp_path / "models" / "embeddings" / "deep" / "a.png"
    assert pictured_in([tmp_path / "models"]) == pictured_in([tmp_path / "models" / "embeddings"]) == {"ink": inside}
    assert pictured_in([tmp_path]) == pictured_in([tmp_path / "nowhere"]) == {}
    Image.new("RGB", (9, 9), "red").save(inside)
    assert pictured_in([tmp_path / "models"]) == {}


BROKEN = {
    "no base64": "%%%",
    "no JSON": base64.b64encode(b"{").decode(),
    "no table": base64.b64encode(b"[1]").decode(),
    "a tensor of texts": base64.b64encode(b'{"a": {"TORCHTENSOR": ["x"]}}').decode(),
    "rows of several lengths": base64.b64encode(b'{"a": {"TORCHTENSOR": [[1], [1, 2]]}}').decode(),
    "depth": base64.b64encode(b"[" * 100_000).decode(),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_embedding_is_one_sentence(tmp_path, name):
    path = texted(tmp_path / "ink.png", BROKEN[name])
    with pytest.raises(ModelError, match=r"ink\.png") as caught:
        pictured_embedding(path)
    assert "\n" not in str(caught.value)
    assert pictured_name(path) is None


def test_a_card_that_unpacks_to_gigabytes_or_is_cut_off(tmp_path):
    bomb = card(tmp_path / "bomb.png", bytes(100_000_000))
    with pytest.raises(ModelError, match="damaged"):
        pictured_embedding(bomb)
    whole = WRITERS["card.png"](tmp_path / "card.png").read_bytes()
    for length in random.Random(0).sample(range(40, len(whole) - 40), 4):
        (tmp_path / "cut.png").write_bytes(whole[:length])
        with pytest.raises(ModelError, match=r"cut\.png"):
            pictured_embedding(tmp_path / "cut.png")
