"""From the UNet's answer to what a sampler asks: the web UI's tables, and models whose answer is known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nbsd.errors import ModelError
from nbsd.sampling.parametrize import (
    LcmTable,
    NoiseTable,
    denoiser,
    downcast,
    eps_denoiser,
    parametrization,
    root,
    v_denoiser,
    zero_terminal_snr,
)
from nbsd.testing import GaussianModel, sd1_table

DATA = Path(__file__).parent / "data" / "fidelity"
CASES = [case for case in json.loads((DATA / "d_sigmas.json").read_text())["cases"] if case.get("kind") == "model tables"]
WANT = load_file(DATA / "d_sigmas.safetensors")
TABLE = sd1_table()
X = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))


def close(got, want):
    got, same = got.float(), (got == want) | (got.isnan() & want.isnan())
    return bool((same | ((got - want).abs() <= 1e-6 * want.abs())).all())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_tables_are_those_of_the_web_ui(case):
    alphas = TABLE.alphas_cumprod
    if case["options"].get("use_downcasted_alpha_bar"):
        alphas = downcast(alphas)
    if case["options"].get("sd_noise_schedule"):
        alphas = zero_terminal_snr(alphas)
    table = NoiseTable(alphas)
    want = {name: WANT[f"{case['id']}/{name}"] for name in ("alphas_cumprod", "sigmas", "t", "t_to_sigma", "sigma", "sigma_to_t")}
    assert close(table.alphas_cumprod, want["alphas_cumprod"])
    assert close(table.sigmas, want["sigmas"])
    assert close(table.t_to_sigma(want["t"]), want["t_to_sigma"])
    assert close(table.sigma_to_t(want["sigma"]), want["sigma_to_t"])


def test_the_model_has_the_schedule_of_all_sd_1():
    alphas = load_file(DATA / "models" / "tiny-sd1.safetensors")["alphas_cumprod"]
    assert torch.equal(TABLE.alphas_cumprod, alphas)


def test_time_steps_and_levels_agree():
    t = torch.linspace(0, 999, 777)
    assert torch.allclose(TABLE.sigma_to_t(TABLE.t_to_sigma(t)), t, atol=2e-3)
    assert torch.allclose(TABLE.t_to_sigma(torch.arange(1000)), TABLE.sigmas, rtol=1e-6)
    for scalar in (TABLE.sigma_to_t(torch.tensor(1.0)), TABLE.t_to_sigma(torch.tensor(3.5))):
        assert scalar.shape == ()


def test_levels_beyond_the_table_are_its_ends():
    assert TABLE.sigma_to_t(torch.tensor([1e-4, 1e4])).tolist() == [0, 999]


def test_quantized_time_steps_are_whole_and_the_nearest():
    table = NoiseTable(TABLE.alphas_cumprod, quantize=True)
    sigmas = torch.tensor([0.001, 0.05, 1.0, 7.7, 99.0])
    got = table.sigma_to_t(sigmas)
    assert torch.equal(got, got.round()) and (got - TABLE.sigma_to_t(sigmas)).abs().max() <= 0.501
    assert torch.equal(TABLE.sigma_to_t(sigmas, quantize=True), got)
    assert torch.equal(table.sigma_to_t(sigmas, quantize=False), TABLE.sigma_to_t(sigmas))


def test_roots_are_rounded_once():
    values = torch.rand(10_000)
    assert torch.equal(root(values), torch.tensor([v**0.5 for v in values.tolist()]))
    assert root(values.half()).dtype == torch.float16


def test_downcast_keeps_the_web_uis_half_precision():
    table = NoiseTable(downcast(TABLE.alphas_cumprod))
    assert table.sigmas.dtype == torch.float16 and table.sigma_max == 14.609375


def noise_in(x, sigma):
    """What a perfect UNet predicts for x in the sampler's scale."""
    return (x - GaussianModel()(x, sigma)) / sigma


@pytest.mark.parametrize("sigma", [0.05, 1.0, 10.0])
def test_an_eps_model_and_a_v_model_of_the_same_data_give_the_same_x0(sigma):
    sigma, asked = torch.tensor(sigma), []

    def eps(x_in, t):
        asked.append(t)
        return noise_in(x_in * (1 + sigma**2) ** 0.5, sigma)

    def v(x_in, t):
        x = x_in * (1 + sigma**2) ** 0.5
        signal, share = 1 / (1 + sigma**2) ** 0.5, sigma / (1 + sigma**2) ** 0.5
        return signal * noise_in(x, sigma) - share * GaussianModel()(x, sigma)

    want = GaussianModel()(X, sigma)
    assert torch.allclose(eps_denoiser(eps, TABLE)(X, sigma), want, atol=2e-5)
    assert torch.allclose(v_denoiser(v, TABLE)(X, sigma), want, atol=2e-5)
    assert asked[0].tolist() == [float(TABLE.sigma_to_t(sigma))] * 2


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_timestep_samplers_are_told_the_noise(prediction):
    t = torch.tensor(301)
    alpha = TABLE.alphas_cumprod[t]
    noise, x0 = torch.randn_like(X), torch.randn_like(X)
    x = alpha.sqrt() * x0 + (1 - alpha).sqrt() * noise
    predicted = noise if prediction == "epsilon" else alpha.sqrt() * noise - (1 - alpha).sqrt() * x0
    asked = []

    def unet(x_in, times):
        asked.append((x_in, times))
        return predicted

    got = denoiser(unet, parametrization(TABLE, prediction, "timesteps"))(x, t)
    assert torch.allclose(got, noise, atol=1e-5)
    assert torch.equal(asked[0][0], x) and asked[0][1].tolist() == [301.0, 301.0]


def test_a_fractional_time_step_is_cut_off_for_the_v_table_as_in_the_web_ui():
    how = parametrization(TABLE, "v_prediction", "timesteps")
    whole, part = (how.finish(X, torch.tensor(at), X) for at in (300.0, 300.9))
    assert torch.equal(whole, part)


def test_lcm_asks_at_its_own_time_steps():
    table = LcmTable(TABLE.alphas_cumprod)
    assert len(table.sigmas) == 50
    t = table.sigma_to_t(TABLE.sigmas)
    assert set(t.tolist()) == set(range(19, 1000, 20))
    assert torch.allclose(table.t_to_sigma(t.unique()), table.sigmas)


def test_lcm_leaves_nothing_of_its_input_at_high_noise():
    sigma = torch.tensor(14.6)
    denoise = denoiser(lambda x, t: torch.zeros_like(x), parametrization(LcmTable(TABLE.alphas_cumprod)))
    assert torch.allclose(denoise(X, sigma), X, rtol=1e-3)     # x0 = x where no noise is predicted
    how = parametrization(LcmTable(TABLE.alphas_cumprod), "v_prediction")
    assert type(how).__name__ == "LcmToX0"                     # the web UI reads LCM's answer as noise, whatever the model says


def test_an_unknown_prediction_is_refused():
    with pytest.raises(ModelError, match="'score'"):
        parametrization(TABLE, "score")


def test_half_precision_answers_do_not_lower_the_samplers_precision():
    sigma, answer = torch.tensor(2.7), X.half()
    got = eps_denoiser(lambda x, t: answer, TABLE)(X, sigma)
    assert got.dtype == torch.float32 and torch.equal(got, X - answer.float() * sigma)
