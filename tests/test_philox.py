"""The numbers a GPU draws: against the published generator, the web UI's recorded draws and, where there is one, a GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nbsd.sampling.philox import Philox, normals, words

DATA = Path(__file__).parent / "data" / "fidelity"
DRAWS = [case for case in json.loads((DATA / "c_noise.json").read_text())["cases"] if case.get("kind") == "randn_local"]


def test_the_words_are_those_of_the_published_test():
    # Random123's known answers for philox4x32-10 with counter 0 and key 0: 6627e8d5 e169c58d bc57ac4c 9b00dbd8
    first, second = words(torch.zeros(1, dtype=torch.int64), 0, 0)
    assert (int(first), int(second)) == (0x6627E8D5, 0xE169C58D)


@pytest.mark.parametrize("case", DRAWS, ids=lambda case: case["id"])
def test_draws_are_those_of_the_web_ui(case):
    want = load_file(DATA / "c_noise.safetensors")[f"{case['id']}/value"]
    assert (Philox(case["seed"]).randn(case["shape"]) - want).abs().max() <= 2e-6


def test_draws_go_on():
    stream = Philox(7)
    first, second = stream.randn((2, 3)), stream.randn((2, 3))
    assert torch.equal(first.flatten(), normals(7, 6, draw=0))
    assert torch.equal(second.flatten(), normals(7, 6, draw=1))
    assert not torch.equal(first, second)


def test_a_value_depends_on_its_place_alone():
    assert torch.equal(normals(5, 10), normals(5, 1000)[:10])


@pytest.mark.parametrize("seed, same", [(-3, 2**64 - 3), (2**64 + 5, 5)])
def test_seeds_are_taken_modulo_64_bits(seed, same):
    assert torch.equal(normals(seed, 8), normals(same, 8))


def test_the_high_half_of_the_seed_counts():
    assert not torch.equal(normals(1, 8), normals(1 + 2**32, 8))


def test_they_are_normal():
    values = normals(0, 200_000)
    assert values.dtype == torch.float32 and values.isfinite().all()
    assert abs(values.mean()) < 0.01 and abs(values.std() - 1) < 0.01
    assert abs((values.abs() < 1).float().mean() - 0.6827) < 0.005


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_draws_the_same():
    for seed in (0, 2870305590, 2**32 - 1):
        stream, generator = Philox(seed), torch.Generator("cuda").manual_seed(seed)
        for _ in range(3):
            want = torch.randn((4, 64, 64), generator=generator, device="cuda").cpu()
            assert (stream.randn((4, 64, 64)) - want).abs().max() <= 2e-6
        assert torch.equal(Philox(seed).randn((4, 64, 64)), Philox(seed, "cuda").randn((4, 64, 64)).cpu())
