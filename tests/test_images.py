"""Tensors to bytes, as the web UI cuts them off."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from nbsd.images import to_bytes, to_pil

DATA = Path(__file__).parent / "data" / "fidelity"
CASES = {case["kind"]: case for case in json.loads((DATA / "h_rounding.json").read_text(encoding="utf-8"))["cases"]}


def test_values_are_cut_off_not_rounded():
    case = CASES["decoded value to byte"]
    assert to_bytes(torch.tensor(case["values"])).tolist() == case["bytes"]


def test_a_decoded_picture():
    tensors = load_file(DATA / "h_rounding.safetensors")
    decoded, want = tensors["h004/decoded"], tensors["h004/bytes"]
    torch.testing.assert_close(to_bytes(decoded), want, rtol=0, atol=0)
    picture = to_pil(decoded[0])
    assert (picture.mode, picture.size) == ("RGB", (64, 64))
    got = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).reshape(64, 64, 3).permute(2, 0, 1)
    torch.testing.assert_close(got, want[0], rtol=0, atol=0)


def test_height_and_width_do_not_change_places():
    decoded = torch.full((3, 2, 5), -1.0)
    decoded[0, 1, 4] = 1.0
    picture = to_pil(decoded)
    assert picture.size == (5, 2)
    assert picture.getpixel((4, 1)) == (255, 0, 0)
    assert picture.getpixel((3, 1)) == (0, 0, 0)


def test_half_precision_is_widened_first():
    values = torch.linspace(-1.1, 1.1, 999).half()
    torch.testing.assert_close(to_bytes(values), to_bytes(values.float()), rtol=0, atol=0)


def test_every_byte_comes_back():
    values = (torch.arange(256) + 0.5) / 255 * 2 - 1
    assert to_bytes(values).tolist() == [*range(255), 255]
