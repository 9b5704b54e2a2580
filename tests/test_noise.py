"""The noise of a run: what the web UI draws, and the promises that a picture makes about its batch."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nbsd.errors import RecipeError
from nbsd.sampling.brownian import BrownianPath
from nbsd.sampling.noise import BrownianNoise, ImageNoise, centred, slerp

DATA = Path(__file__).parent / "data" / "fidelity"
CASES = json.loads((DATA / "c_noise.json").read_text())["cases"]
IMAGES = [case for case in CASES if "kind" not in case]
TREES = [case for case in CASES if case.get("kind") == "brownian_tree"]
WANT = load_file(DATA / "c_noise.safetensors")
SHAPE = (4, 8, 16)
SIGMA_MIN, SIGMA_MAX = 0.0292, 14.6146


def noise_of(case) -> ImageNoise:
    return ImageNoise(
        case["seeds"], tuple(case["shape"]), case["randn_source"], case["eta_noise_seed_delta"],
        variation_seeds=case["subseeds"], variation_strength=case["subseed_strength"],
        resize_from=(case["seed_resize_from_h"] // 8, case["seed_resize_from_w"] // 8),
    )  # fmt: skip


@pytest.mark.parametrize("case", IMAGES, ids=lambda case: case["id"])
def test_draws_are_those_of_the_web_ui(case):
    noise, want = noise_of(case), WANT[f"{case['id']}/next"]
    exact = case["randn_source"] == "CPU" and not case["subseed_strength"]
    for call, expected in enumerate(want):
        assert (noise.next() - expected).abs().max() <= (0 if exact else 2e-6), f"call {call}"


@pytest.mark.parametrize("case", TREES, ids=lambda case: case["id"])
def test_the_tree_is_that_of_the_web_ui(case):
    noise = BrownianNoise(case["shape"], case["seeds"], case["sigma_min"], case["sigma_max"], case["randn_source"])
    sigmas = WANT[f"{case['id']}/sigmas"]
    for (sigma, sigma_next), expected in zip(pairwise(sigmas), WANT[f"{case['id']}/noise"], strict=True):
        assert (noise(sigma, sigma_next) - expected).abs().max() <= 2e-6


@pytest.mark.parametrize("source", ["CPU", "NV", "GPU"])
@pytest.mark.parametrize("ensd", [0, 31337])
def test_a_picture_does_not_depend_on_its_batch(source, ensd):
    batch, alone = ImageNoise([5, 6, 7], SHAPE, source, ensd), ImageNoise([6], SHAPE, source, ensd)
    for _ in range(3):
        assert torch.equal(batch.next()[1:2], alone.next())


def test_ensd_gives_every_draw_but_the_first():
    plain, other, shifted = ImageNoise([5], SHAPE), ImageNoise([5], SHAPE, ensd=2), ImageNoise([7], SHAPE)
    assert torch.equal(plain.next(), other.next())
    assert not torch.equal(plain.next(), again := other.next())
    assert torch.equal(again, shifted.next())


@pytest.mark.parametrize("source", ["CPU", "NV"])
def test_a_seed_may_have_64_bits_and_ensd_may_lead_beyond(source):
    largest, zero, same = (ImageNoise([seed], SHAPE, source, ensd) for seed, ensd in ((2**64 - 1, 1), (2**32, -(2**32)), (0, 0)))
    same.next()
    assert not torch.equal(largest.next(), zero.next())
    assert torch.equal(largest.next(), zero.next())         # both go on from seed 0
    assert BrownianNoise((1, *SHAPE), [2**64 - 1], 0.1, 10, source)(torch.tensor(2.0), torch.tensor(1.0)).isfinite().all()


def test_gpu_without_a_gpu_draws_what_a_gpu_would():
    assert torch.equal(ImageNoise([3], SHAPE, "GPU").next(), ImageNoise([3], SHAPE, "NV").next())


def test_it_is_a_noise_of_samplers():
    noise, same = ImageNoise([3], SHAPE), ImageNoise([3], SHAPE)
    assert torch.equal(noise(torch.tensor(2.0), torch.tensor(1.0)), same.next())


def test_an_unknown_source_is_named():
    with pytest.raises(RecipeError, match="'TPU'"):
        ImageNoise([1], SHAPE, "TPU")


def test_no_variation_at_strength_0_and_no_resize_from_0():
    plain = ImageNoise([3], SHAPE).next()
    assert torch.equal(plain, ImageNoise([3], SHAPE, variation_seeds=[9], variation_strength=0.0).next())
    assert torch.equal(plain, ImageNoise([3], SHAPE, resize_from=(0, 4)).next())


def test_slerp_takes_its_norms_down_the_columns_as_the_web_ui_does():
    low, high = torch.randn(4, 5, 3), torch.randn(4, 5, 3)
    column = slerp(0.3, low[1:2, :, 2:3], high[1:2, :, 2:3])
    assert torch.allclose(slerp(0.3, low, high)[1:2, :, 2:3], column, atol=1e-6)


def test_slerp_of_equals_is_a_mix_with_the_ends_the_other_way_round_as_in_the_web_ui():
    low = torch.randn(4, 5, 3)
    high = low * 2
    assert torch.allclose(slerp(0.25, low, high), 0.25 * low + 0.75 * high)


@pytest.mark.parametrize("old, new", [
    ((2, 3), (6, 8)), ((6, 8), (2, 3)), ((3, 8), (6, 3)), ((3, 4), (4, 7)), ((7, 4), (4, 9)), ((4, 4), (4, 4)),
])  # fmt: skip
def test_the_old_noise_lies_in_the_middle(old, new):
    small, large = torch.ones(1, *old), torch.zeros(1, *new)
    out = centred(small, large)
    assert out.shape == large.shape and large.sum() == 0
    rows, columns = out[0].any(1), out[0].any(0)
    for marks, had, has in ((rows, old[0], new[0]), (columns, old[1], new[1])):
        before, after = int(marks.int().argmax()), int(marks.flip(0).int().argmax())
        assert abs(before - after) <= 1
        # where an odd number sticks out, the web UI loses one more than it has to
        assert int(marks.sum()) == (had if had <= has else has if (had - has) % 2 == 0 else has - 1)


def test_the_path_does_not_depend_on_the_order_of_questions():
    ends = [(0.5, 3.0), (3.0, 9.0), (0.1, 0.5), (9.0, 10.0), (0.1, 10.0)]
    paths = [BrownianPath(3, 0.1, 10.0, (4, 2, 2), "CPU", "cpu") for _ in range(2)]
    there = [paths[0].increment(*pair) for pair in ends]
    back = [paths[1].increment(*pair) for pair in reversed(ends)][::-1]
    for a, b in zip(there, back, strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    assert torch.allclose(there[0] + there[1] + there[2] + there[3], there[4], atol=1e-5)


def test_the_path_keeps_few_numbers():
    path = BrownianPath(3, SIGMA_MIN, SIGMA_MAX, (4, 2, 2), "CPU", "cpu")
    for low, high in pairwise(torch.linspace(SIGMA_MIN, SIGMA_MAX, 50).tolist()):
        path.increment(low, high)
    assert len(path._kept) <= 64


def test_the_path_ends_where_the_schedule_does():
    path = BrownianPath(3, 1.0, 2.0, (4, 2, 2), "CPU", "cpu")
    assert torch.equal(path.increment(0.0, 5.0), path.increment(1.0, 2.0))
    assert not path.increment(2.0, 3.0).any()


def test_brownian_noise_is_unit_noise_and_one_path_a_picture():
    sigmas = torch.logspace(1.16, -1.5, 12)
    noise = BrownianNoise((2, 4, 32, 32), [8, 9], SIGMA_MIN, SIGMA_MAX)
    alone = BrownianNoise((1, 4, 32, 32), [9], SIGMA_MIN, SIGMA_MAX)
    for sigma, sigma_next in pairwise(sigmas.clamp(SIGMA_MIN, SIGMA_MAX)):
        draw = noise(sigma, sigma_next)
        assert draw.shape == (2, 4, 32, 32) and abs(draw.std() - 1) < 0.05
        assert torch.equal(draw[1:], alone(sigma, sigma_next))


def test_own_draws_come_first_and_then_the_last_pictures_stream_gives_those_of_the_batch():
    """What 2022 had prepared for each picture, and then its global generator."""
    shape = (4, 8, 8)
    usual, old = (ImageNoise([5, 6], shape, own_draws=many) for many in (None, 2))
    for _ in range(3):      # the starting noise and two more
        assert torch.equal(old.next(), usual.next())
    generator = torch.Generator().manual_seed(6)
    for _ in range(3):
        torch.randn(shape, generator=generator)
    assert torch.equal(old.next(), torch.randn((2, *shape), generator=generator))


@pytest.mark.parametrize("ensd", [0, 31337])
def test_one_picture_alone_is_the_same_with_and_without_own_draws(ensd):
    usual, old = (ImageNoise([5], (4, 8, 8), ensd=ensd, own_draws=many) for many in (None, 0))
    for _ in range(4):
        assert torch.equal(old.next(), usual.next())
