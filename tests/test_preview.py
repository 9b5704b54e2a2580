"""The live preview."""

from __future__ import annotations

import io
import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from nbsd.images import to_bytes
from nbsd.models.families import SD2, SDXL
from nbsd.pipeline.preview import (
    LATENT_TO_RGB,
    PreviewThrottle,
    cheap_preview,
    latent_to_rgb,
)

DATA = Path(__file__).parent / "data" / "fidelity"
CASES = {case["kind"]: case for case in json.loads((DATA / "h_rounding.json").read_text(encoding="utf-8"))["cases"]}


def test_colours_are_those_of_the_web_ui():
    case, tensors = CASES["approx cheap"], load_file(DATA / "h_rounding.safetensors")
    assert [list(row) for row in LATENT_TO_RGB] == case["coefficients"]
    rgb = latent_to_rgb(tensors["h002/latent"][0])
    assert float((rgb - tensors["h002/rgb"][0]).abs().max()) <= 1e-6
    torch.testing.assert_close(to_bytes(rgb).permute(1, 2, 0), tensors["h002/bytes"], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(64, 64, (512, 512)), (8, 16, (128, 64)), (96, 64, (341, 512)), (64, 128, (512, 256)), (256, 8, (16, 512)), (300, 1, (2, 512))],
)
def test_the_preview_is_at_most_512_pixels_wide_and_high(height, width, size):
    picture = Image.open(io.BytesIO(cheap_preview(torch.randn(4, height, width, generator=torch.Generator().manual_seed(1)))))
    assert picture.format == "JPEG"
    assert picture.size == size


def test_sdxls_latents_have_other_colours():
    flat = torch.tensor([1.0, 0.0, 0.0, 0.0]).view(4, 1, 1)
    assert latent_to_rgb(flat, SDXL).flatten().tolist() == pytest.approx([0.3448, 0.4168, 0.4395])
    assert torch.equal(latent_to_rgb(flat, SD2), latent_to_rgb(flat))
    assert cheap_preview(flat.expand(4, 8, 8), SDXL) != cheap_preview(flat.expand(4, 8, 8))


def test_a_flat_latent_gives_its_colour():
    picture = Image.open(io.BytesIO(cheap_preview(torch.tensor([1.0, 0.5, -0.5, 0.0]).view(4, 1, 1).expand(4, 8, 8))))
    want = to_bytes(latent_to_rgb(torch.tensor([1.0, 0.5, -0.5, 0.0]).view(4, 1, 1))).flatten().tolist()
    assert max(abs(got - one) for got, one in zip(picture.getpixel((30, 30)), want, strict=True)) <= 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_latents(dtype):
    assert cheap_preview(torch.zeros(4, 8, 8, dtype=dtype))[:2] == b"\xff\xd8"


def test_no_more_than_five_a_second():
    now = 100.0
    throttle = PreviewThrottle(clock=lambda: now)
    shown = []
    for step in range(300):
        now = 100.0 + step / 100
        if throttle.due():
            shown.append(now)
    assert shown[0] == 100.0
    assert len(shown) == 15
    assert min(b - a for a, b in pairwise(shown)) >= 0.2 - 1e-9


def test_a_slow_step_is_always_shown():
    now = 0.0
    throttle = PreviewThrottle(clock=lambda: now)
    for _ in range(5):
        assert throttle.due()
        assert not throttle.due()
        now += 1.5
