"""Noise levels and time steps: what the web UI runs through."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nbsd.errors import RecipeError
from nbsd.names import SCHEDULE_NAMES
from nbsd.sampling import SAMPLERS, SCHEDULES, find_schedule, make_sigmas, make_timesteps, resolve_schedule
from nbsd.sampling.img2img import from_latent, from_noise, img2img_steps
from nbsd.sampling.parametrize import NoiseTable, downcast, zero_terminal_snr
from nbsd.sampling.schedules import beta_quantile, sampler_table
from nbsd.testing import sd1_table

DATA = Path(__file__).parent / "data" / "fidelity"
CASES = json.loads((DATA / "d_sigmas.json").read_text())["cases"]
SIGMAS = [case for case in CASES if "sigmas" in case and "kind" not in case]
TIMESTEPS = [case for case in CASES if "timesteps" in case]
STARTS = [case for case in CASES if case.get("kind") == "img2img steps"]
OPTIONS = {     # the web UI's option -> our argument
    "sigma_min": "sigma_min",
    "sigma_max": "sigma_max",
    "rho": "rho",
    "beta_dist_alpha": "beta_alpha",
    "beta_dist_beta": "beta_beta",
    "always_discard_next_to_last_sigma": "discard_penultimate",
    "use_old_karras_scheduler_sigmas": "old_karras",
}
TABLE = sd1_table()


def table_of(options) -> NoiseTable:
    alphas = TABLE.alphas_cumprod
    if options.get("use_downcasted_alpha_bar"):
        alphas = downcast(alphas)
    if options.get("sd_noise_schedule") == "Zero Terminal SNR":
        alphas = zero_terminal_snr(alphas)
    return NoiseTable(alphas, quantize=options.get("enable_quantization", False))


def test_every_case_is_looked_at():
    tables = [case for case in CASES if case.get("kind") == "model tables"]     # in test_parametrize
    assert len(SIGMAS) + len(TIMESTEPS) + len(STARTS) + len(tables) == len(CASES)


@pytest.mark.parametrize("case", SIGMAS, ids=lambda case: case["id"])
def test_sigmas_are_those_of_the_web_ui(case):
    sampler, options = SAMPLERS[case["sampler"]], case["options"]
    given = {ours: options[theirs] for theirs, ours in OPTIONS.items() if theirs in options}
    sigmas = make_sigmas(case["scheduler"] or "", case["steps"], table_of(options), sampler=sampler, **given)
    want = torch.tensor(case["sigmas"])
    assert sigmas.dtype == torch.float32 and sigmas.device.type == "cpu"
    assert sigmas.shape == want.shape
    assert ((sigmas - want).abs() <= 1e-6 * want).all()


@pytest.mark.parametrize("case", SIGMAS, ids=lambda case: case["id"])
def test_the_schedule_is_called_as_the_infotext_calls_it(case):
    said = case["infotext_extras"].get("Schedule type", "Automatic")
    assert resolve_schedule(SAMPLERS[case["sampler"]], case["scheduler"] or "") == said


@pytest.mark.parametrize("case", TIMESTEPS, ids=lambda case: case["id"])
def test_time_steps_are_those_of_the_web_ui(case):
    assert make_timesteps(case["steps"]).tolist() == case["timesteps"]


@pytest.mark.parametrize("case", STARTS, ids=lambda case: case["id"])
def test_img2img_begins_where_the_web_ui_does(case):
    exact = case["options"]["img2img_fix_steps"]
    assert img2img_steps(case["steps"], case["denoising_strength"], exact) == (case["schedule_steps"], case["t_enc"])


def test_there_is_a_schedule_for_every_name():
    assert list(SCHEDULES) == list(SCHEDULE_NAMES)
    assert [label for label, row in SCHEDULES.items() if row.sigmas is None] == ["Automatic"]


@pytest.mark.parametrize("label", [label for label in SCHEDULES if label != "Automatic"])
@pytest.mark.parametrize("n", [1, 2, 3, 11, 20, 75, 150])
def test_every_schedule_falls(label, n):
    sigmas = make_sigmas(label, n, TABLE, sampler=SAMPLERS["Euler"])
    assert sigmas.isfinite().all() and (sigmas.diff() < 0).all()
    assert len(sigmas) == n + 1 or label == "DDIM"
    assert sigmas[-1] == 0 or label == "KL Optimal"


@pytest.mark.parametrize("asked, found", [("karras", "Karras"), ("SGMUniform", "SGM Uniform"), ("align_your_steps", "Align Your Steps"),
                                          ("sgm uniform", "SGM Uniform"), ("Automatic", "Automatic"), ("cosine", None)])
def test_schedules_are_found_by_any_of_their_names(asked, found):
    row = find_schedule(asked)
    assert (row.label if row else None) == found


def test_an_unknown_schedule_is_refused_with_the_choices():
    with pytest.raises(RecipeError, match=r"'cosine'.*Karras"):
        make_sigmas("cosine", 20, TABLE, sampler=SAMPLERS["Euler"])


def test_the_penultimate_sigma_is_discarded_once():
    dpm2 = SAMPLERS["DPM2"]
    assert torch.equal(*(make_sigmas("Karras", 10, TABLE, sampler=dpm2, discard_penultimate=d) for d in (True, False)))
    plain = replace(dpm2, discard_penultimate=False)
    longer = make_sigmas("Karras", 11, TABLE, sampler=plain)
    assert torch.equal(make_sigmas("Karras", 10, TABLE, sampler=dpm2), torch.cat([longer[:-2], longer[-1:]]))


def test_a_discarded_penultimate_is_one_more_time_step():
    assert torch.equal(make_timesteps(20, discard_penultimate=True), make_timesteps(21))


@pytest.mark.parametrize("n, calls", [(20, 20), (12, 13), (9, 10), (8, 8), (50, 50)])
def test_the_old_time_steps_go_on_to_0(n, calls):
    timesteps = make_timesteps(n, old=True)
    assert timesteps[:2].tolist() == [0, 1] and timesteps[-1] < 1000
    assert len(timesteps) - 1 == calls      # what DDIM made in October 2022
    assert torch.equal(timesteps[1:], make_timesteps(10 if n == 9 else n))


def test_time_steps_end_with_the_table():
    assert make_timesteps(1000).tolist() == [*range(1, 1000), 999]
    for n in (0, 1001):
        with pytest.raises(RecipeError, match="1 to 1000"):
            make_timesteps(n)


@pytest.mark.parametrize("p, alpha, beta, want", [
    (0.5, 1.0, 1.0, 0.5), (0.3, 2.0, 1.0, 0.3**0.5), (0.3, 1.0, 2.0, 1 - 0.7**0.5), (0.0, 0.6, 0.6, 0.0), (1.0, 0.6, 0.6, 1.0),
    # scipy 1.17: stats.beta.ppf
    (0.25, 0.6, 0.6, 0.17568037865269498), (0.9, 0.5, 0.7, 0.9188348842782802), (0.05, 0.5, 0.7, 0.003921301529818253),
])  # fmt: skip
def test_quantiles_of_the_beta_distribution(p, alpha, beta, want):
    assert beta_quantile(p, alpha, beta) == pytest.approx(want, rel=1e-9, abs=1e-12)


def test_txt2img_starts_at_the_first_level():
    noise, sigmas = torch.ones(1, 4, 2, 2), torch.tensor([3.0, 1.0, 0.0])
    assert from_noise(SAMPLERS["Euler"], noise, sigmas).x.unique().item() == 3
    assert from_noise(SAMPLERS["Euler"], noise, sigmas, sgm_noise_multiplier=True).x.unique().item() == pytest.approx(10**0.5)
    assert from_noise(SAMPLERS["DDIM"], noise, make_timesteps(20), sgm_noise_multiplier=True).x.unique().item() == 1


def test_img2img_runs_the_end_of_the_schedule():
    latent, noise, sigmas = torch.full((1, 4, 2, 2), 5.0), torch.ones(1, 4, 2, 2), torch.tensor([9.0, 7.0, 5.0, 3.0, 1.0, 0.0])
    steps = img2img_steps(5, 0.5, False)
    x, plan = from_latent(SAMPLERS["Euler"], latent, noise, sigmas, steps, TABLE)
    assert steps == (5, 2) and plan.tolist() == [5, 3, 1, 0] and x.unique().item() == 10
    assert from_latent(SAMPLERS["Euler"], latent, noise, sigmas, steps, TABLE, extra_noise=0.5).x.unique().item() == 10.5


def test_a_schedule_that_ends_too_soon_is_said():
    """DDIM's has a level for each of the model's 1000, so the last 20 of 2000 steps are not there; the web UI fails too."""
    steps, latent = img2img_steps(20, 0.01, True), torch.zeros(1, 4, 2, 2)
    plan = make_sigmas("DDIM", steps[0], TABLE, sampler=SAMPLERS["Euler"])
    with pytest.raises(RecipeError, match="has 999 steps and not 2000"):
        from_latent(SAMPLERS["Euler"], latent, latent, plan, steps, TABLE)


def test_img2img_of_timestep_samplers_noises_one_step_above_the_first_call():
    latent, noise, timesteps = torch.full((1, 4, 2, 2), 5.0), torch.ones(1, 4, 2, 2), make_timesteps(20)
    x, plan = from_latent(SAMPLERS["DDIM"], latent, noise, timesteps, (20, 10), TABLE)
    alpha = TABLE.alphas_cumprod[501]
    assert plan.tolist() == timesteps.tolist()[:10]
    assert torch.allclose(x, alpha.sqrt() * latent + (1 - alpha).sqrt() * noise)


def test_lcm_has_its_own_table():
    table = sampler_table(SAMPLERS["LCM"], TABLE)
    assert torch.equal(table.sigmas, TABLE.sigmas[19::20])
    assert sampler_table(SAMPLERS["Euler"], TABLE) is TABLE
