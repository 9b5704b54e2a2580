"""tools/fidelity.py: it passes what is right, and it names what is not."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

DATA = Path(__file__).parent / "data" / "fidelity"
TOOLS = Path(__file__).parent.parent / "tools"
# A case of each kind: a list, a tensor and a number, the key in the case or the tensor's name, and what the tool must then say.
CHANGES = [
    ("a_prompts", "a002", "parse_prompt_attention", [["  ", 1.0]], "weights"),
    ("c_noise", "c000", "next", None, "noise: off by"),
    ("d_sigmas", "d000", "sigmas", None, "sigmas: off by"),
    ("d_sigmas", "d137", "timesteps", [1, 2], "time steps"),
    ("g_hashes", "g_tiny-neg.safetensors", "short_hash", "0000000000", "hashes: 'short_hash'"),
]


@pytest.fixture(scope="module")
def tool():
    sys.path.insert(0, str(TOOLS))
    yield importlib.import_module("fidelity")
    sys.path.remove(str(TOOLS))


def copied(folder: Path, family: str, case: str) -> tuple[dict, dict]:
    """One case of a family, in a folder of its own."""
    recorded = json.loads((DATA / f"{family}.json").read_text(encoding="utf-8"))
    recorded["cases"] = [one for one in recorded["cases"] if one["id"] == case]
    tensors = {}
    if (DATA / f"{family}.safetensors").is_file():
        tensors = {name: value for name, value in load_file(DATA / f"{family}.safetensors").items() if name.startswith(f"{case}/")}
    written(folder, family, recorded, tensors)
    return recorded, tensors


def written(folder: Path, family: str, recorded: dict, tensors: dict) -> None:
    (folder / f"{family}.json").write_text(json.dumps(recorded))
    save_file(tensors, folder / f"{family}.safetensors")


@pytest.mark.parametrize("family, case, name, value, words", CHANGES, ids=[f"{change[1]} {change[2]}" for change in CHANGES])
def test_a_changed_number_is_named(tool, tmp_path, capsys, family, case, name, value, words):
    recorded, tensors = copied(tmp_path, family, case)
    out = tmp_path / "result.json.txt"
    assert tool.main([str(tmp_path), "--models", str(DATA / "models"), "--json", str(out)]) == 0
    assert json.loads(out.read_text())["families"][family] == {
        "cases": 1, "passed": 1, "worst": pytest.approx(0, abs=1), "worst_case": case, "failed": [],
    }
    if value is None:
        tensors[f"{case}/{name}"].view(-1)[3] += 1e-3
    else:
        recorded["cases"][0][name] = value
    written(tmp_path, family, recorded, tensors)
    capsys.readouterr()
    assert tool.main([str(tmp_path), "--models", str(DATA / "models"), "--json", str(out)]) == 1
    assert f"{case}: {words}" in capsys.readouterr().out
    assert json.loads(out.read_text())["families"][family]["failed"] == [case]


def picture(folder: Path, tool, monkeypatch) -> tuple[dict, dict]:
    """A recorded picture whose PNG is made here, as the recorded one is not among the test data."""
    recorded, tensors = copied(folder, "e_vae", "e_vae_000")
    pictures = importlib.import_module("fidelity_pictures")
    monkeypatch.setattr(pictures, "bytes_of", lambda *_: 0.0)
    return recorded, tensors


def test_a_picture_whose_latents_differ_fails(tool, tmp_path, capsys, monkeypatch):
    recorded, tensors = picture(tmp_path, tool, monkeypatch)
    arguments = [str(tmp_path), "--models", str(DATA / "models")]
    assert tool.main(arguments) == 0
    tensors["e_vae_000/latents"].view(-1)[7] += 1e-2
    written(tmp_path, "e_vae", recorded, tensors)
    assert tool.main(arguments) == 1
    assert "e_vae_000: latents: off by 0.01" in capsys.readouterr().out


def test_a_nudge_is_a_share_of_each_answer(tool):
    model, x = SimpleNamespace(predict=lambda x: x), torch.full((1000,), 3.0)
    importlib.import_module("fidelity_pictures").nudge(model, 1e-3)
    first, second = model.predict(x), model.predict(x)
    assert float((first - x).std()) == pytest.approx(3e-3, rel=0.1)
    assert not torch.equal(first, second)


def test_what_nbsd_cannot_make_is_counted_as_failed_and_named(tool, tmp_path, capsys):
    recorded, tensors = copied(tmp_path, "e_vae", "e_vae_000")
    recorded["cases"][0]["params"]["sampler_name"] = "Another"
    written(tmp_path, "e_vae", recorded, tensors)
    assert tool.main([str(tmp_path), "--models", str(DATA / "models")]) == 1
    assert "e_vae_000: not run: this recipe cannot be made: no sampler is called 'Another'" in capsys.readouterr().out


def test_a_folder_without_cases_is_no_success(tool, tmp_path):
    assert tool.main([str(tmp_path)]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("family", ["e_samplers", "e_seeds", "e_sizes", "e_schedulers"])
def test_the_recorded_pictures_come_out(tool, monkeypatch, capsys, family):
    """Latents and infotexts of every recorded txt2img case of these families; the bytes are compared where the PNGs are."""
    monkeypatch.setattr(importlib.import_module("fidelity_pictures"), "bytes_of", lambda *_: 0.0)
    assert tool.main([str(DATA), "--family", family]) == 0, capsys.readouterr().out
