"""The hashes of model files, against those that the web UI computed (family g_hashes)."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from nbsd.errors import ModelError
from nbsd.models import cache, hashes

DATA = Path(__file__).parent / "data" / "fidelity"
CASES = [case for case in json.loads((DATA / "g_hashes.json").read_text())["cases"] if (DATA / case.get("file", "none")).is_file()]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_the_web_uis_hashes(case):
    path = DATA / case["file"]
    assert hashes.sha256(path) == case["sha256"]
    assert hashes.short_hash(path) == case["short_hash"]
    assert hashes.old_hash(path) == case["old_hash"]
    if "addnet_hash" in case:
        assert hashes.addnet_hash(path) == case["addnet_hash"]


def test_enough_cases_are_looked_at():
    assert len(CASES) >= 4


def test_a_hash_is_computed_once_and_again_when_the_file_changes(tmp_path, monkeypatch):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"one")
    first = hashes.sha256(file)
    with monkeypatch.context() as patch:
        patch.setattr(hashes, "_digest", lambda *_: pytest.fail("computed again"))
        assert hashes.sha256(file) == first
    file.write_bytes(b"two")
    os.utime(file, ns=(1, 1))       # same size, other time
    assert hashes.sha256(file) != first


def test_both_hashes_of_a_file_are_kept(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes((3).to_bytes(8, "little") + b"{} numbers")
    hashes.sha256(file), hashes.addnet_hash(file)
    assert set(cache.CACHE.get(file)) == {"sha256", "addnet"}
    assert hashes.known_hashes([file, tmp_path / "none"]) == {file: hashes.sha256(file)}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1}', "\x00", "[" * 100_000])
def test_a_broken_cache_is_no_cache(tmp_path, text):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"one")
    place = cache.folder() / cache.FILE
    place.parent.mkdir(parents=True)
    place.write_text(text)
    assert hashes.short_hash(file) == "7692c3ad35"      # sha256sum of "one"
    assert cache.CACHE.get(file)["sha256"].startswith("7692c3ad35")


def test_a_cache_folder_that_cannot_be_written_is_no_cache(tmp_path, monkeypatch):
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"one")
    assert hashes.short_hash(file) == "7692c3ad35"


def test_the_trainers_own_hash_names_a_network_first(tmp_path):
    file = tmp_path / "line.safetensors"
    file.write_bytes((2).to_bytes(8, "little") + b"{}numbers")
    own = hashes.addnet_hash(file)[:12]
    assert hashes.network_hash(file, {}) == own
    assert hashes.network_hash(file, {"sshs_model_hash": "ABCDEF012345" + "0" * 52}) == "abcdef012345"
    for nonsense in ("", "abc", "no hash at all, but long enough"):
        assert hashes.network_hash(file, {"sshs_model_hash": nonsense}) == own
    other = tmp_path / "line.pt"
    other.write_bytes(b"numbers")
    assert hashes.network_hash(other, {}) == hashes.sha256(other)[:12]


def test_progress_counts_to_the_files_size(tmp_path):
    file = tmp_path / "model.ckpt"
    file.write_bytes(bytes(3 * hashes.BLOCK + 5))
    told = []
    hashes.sha256(file, lambda *numbers: told.append(numbers))
    assert told[-1] == (3 * hashes.BLOCK + 5,) * 2
    assert len(told) == 4


def test_what_is_no_safetensors_file_has_no_such_hash(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(ModelError, match="no .safetensors file"):
        hashes.addnet_hash(file)
    with pytest.raises(ModelError, match="there is no file"):
        hashes.sha256(tmp_path / "none.ckpt")
