"""Loading, against what the web UI computes with the same file (family h_rounding)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from nbsd.errors import ModelError
from nbsd.models.load import load_checkpoint

DATA = Path(__file__).parent / "data" / "fidelity"
TINY = DATA / "models" / "tiny-sd1.safetensors"
TINY_VAE = DATA / "models" / "tiny-vae.vae.pt"
CLOSE = 1e-5        # absolute; the single parts' tolerance


@pytest.fixture(scope="module")
def tiny():
    return load_checkpoint(TINY)


@pytest.fixture(scope="module")
def recorded():
    return load_file(DATA / "h_rounding.safetensors")


@pytest.fixture(scope="module")
def tensors():
    return load_file(TINY)


@pytest.mark.parametrize("case", ["h007", "h009"])
@torch.no_grad()
def test_the_unet_answers_as_the_web_uis_does_also_where_the_size_is_no_multiple_of_64(tiny, recorded, case):
    got = tiny.unet(recorded[f"{case}/x"], recorded[f"{case}/t"], recorded[f"{case}/context"]).sample
    assert (got - recorded[f"{case}/eps"]).abs().max() < CLOSE


@torch.no_grad()
def test_the_vae_decodes_as_the_web_uis_does(tiny, recorded):
    got = tiny.vae.decode(recorded["h004/latent"] / tiny.family.latent_scale).sample
    assert (got - recorded["h004/decoded"]).abs().max() < CLOSE


@torch.no_grad()
def test_the_vae_encodes_as_the_web_uis_does(tiny, recorded):
    got = tiny.vae.encode(recorded["h005/image"] * 2 - 1).latent_dist
    assert (got.mean * tiny.family.latent_scale - recorded["h005/latent_mean"]).abs().max() < CLOSE
    assert (got.logvar - recorded["h005/logvar"]).abs().max() < CLOSE
