"""Every sampler: along a path that the web UI took, against a model whose exact solution is known, and by the spread of its results."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nbsd.errors import NbsdError, RecipeError, Stopped
from nbsd.names import SAMPLER_FACTS
from nbsd.sampling import SAMPLERS, find_sampler, make_sigmas, make_timesteps
from nbsd.sampling.img2img import from_noise
from nbsd.sampling.noise import BrownianNoise, ImageNoise
from nbsd.sampling.parametrize import NoiseTable, downcast, zero_terminal_snr
from nbsd.sampling.samplers import lms_weights, restart_plan
from nbsd.sampling.schedules import karras_sigmas
from nbsd.sampling.unipc import Clock, orders
from nbsd.testing import GaussianModel, Replay, assert_same_path, sd1_table

DATA = Path(__file__).parent / "data" / "fidelity"
FAMILY = json.loads((DATA / "e_samplers.json").read_text())
WANT = load_file(DATA / "e_samplers.safetensors")
PATHS = {
    case["params"]["sampler_name"]: case | {"params": FAMILY["defaults_of_params"] | case["params"]}
    for case in FAMILY["cases"] if "trace_x" in case["tensors"]
}  # fmt: skip
TABLE = sd1_table()
K = [name for name, row in SAMPLERS.items() if row.kind == "k"]
TIMESTEP = [name for name, row in SAMPLERS.items() if row.kind == "timesteps"]
DRAWS_EACH_STEP = ("Euler", "Heun", "DPM2", "DDIM", "DDIM CFG++", "DPM fast")


class Drawn:
    """A noise that counts."""

    def __init__(self, noise=None):
        self.noise, self.asked = noise, []

    def __call__(self, sigma, sigma_next):
        self.asked.append((float(sigma), float(sigma_next)))
        return self.noise(sigma, sigma_next) if self.noise else torch.zeros(1)


def unasked(sigma, sigma_next):
    return torch.zeros(1, dtype=torch.float64)


# --- along the web UI's paths ----------------------------------------------------------------------------------------------------------

def replayed(name):
    """A recorded run: the replay, the result, the wanted x of each call and the wanted result, and the draws."""
    case, row = PATHS[name], SAMPLERS[name]
    params = case["params"]
    recorded = {key: WANT[f"{case['id']}/{key}"] for key in ("trace_x", "trace_denoised", "noise", "latents")}
    noise = ImageNoise(case["all_seeds"], tuple(recorded["noise"].shape[1:]))
    first = noise.next()
    assert torch.equal(first, recorded["noise"])
    steps = params["steps"]
    plan = make_timesteps(steps) if row.timesteps else make_sigmas(params["scheduler"], steps, TABLE, sampler=row)
    tree = BrownianNoise(first.shape, case["all_seeds"], float(plan[plan > 0].min()), float(plan.max()))
    drawn = Drawn(tree if row.brownian else noise)
    denoise = Replay(recorded["trace_denoised"])
    options = {"table": TABLE, "sigma_min": TABLE.sigma_min, "sigma_max": TABLE.sigma_max}
    options = {key: value for key, value in options.items() if key in row.options}
    x, plan = from_noise(row, first, plan)
    result = row.run(denoise, x, plan, drawn, **options)
    return denoise, result, list(recorded["trace_x"][:, None]), recorded["latents"], drawn


# The recorded answers do not hold the unguided noise that DDIM CFG++ steps along
@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "DDIM CFG++"])
def test_the_path_is_that_of_the_web_ui(name):
    denoise, result, want, latents, _ = replayed(name)
    # DPM adaptive's steps depend on an error estimate: rounding changes the steps themselves
    assert_same_path(denoise.xs, want, atol=1e-4 if name == "DPM adaptive" else 1e-5)
    assert_same_path([result], [latents], atol=1e-5)
    assert denoise.places == pytest.approx(PATHS[name]["sigma_or_timestep_of_each_call"], rel=2e-5 if name == "DPM adaptive" else 1e-6)


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "DDIM CFG++"])
def test_noise_is_drawn_as_often_as_in_the_web_ui(name):
    *_, drawn = replayed(name)
    if not SAMPLERS[name].brownian:     # those have their own source, which the web UI's counter does not see
        assert len(drawn.asked) + 1 == PATHS[name]["noise_calls"]


def recorded_runs():
    """Every recorded run from noise whose places do not depend on the model."""
    for family in ("e_samplers", "e_options", "e_schedulers"):
        recorded = json.loads((DATA / f"{family}.json").read_text())
        for case in recorded["cases"]:
            params = recorded["defaults_of_params"] | case["params"]
            if params["sampler_name"] != "DPM adaptive":
                yield pytest.param(case, params, id=f"{case['id']}-{params['sampler_name']}")


def table_of(options):
    alphas = TABLE.alphas_cumprod
    if options.get("use_downcasted_alpha_bar"):
        alphas = downcast(alphas)
    if options.get("sd_noise_schedule") == "Zero Terminal SNR":
        alphas = zero_terminal_snr(alphas)
    return NoiseTable(alphas)


@pytest.mark.parametrize("case, params", recorded_runs())
def test_the_model_is_asked_where_the_web_ui_asks_it(case, params):
    row, settings = SAMPLERS[params["sampler_name"]], case["options"]
    given = {key: value for key, value in (settings | params).items() if value is not None}
    table, drawn, places = table_of(given), Drawn(), []
    discard, old = given.get("always_discard_next_to_last_sigma", False), given.get("use_old_karras_scheduler_sigmas", False)
    if row.timesteps:
        plan = make_timesteps(given["steps"], discard_penultimate=discard)
    else:
        plan = make_sigmas(given["scheduler"], given["steps"], table, sampler=row, discard_penultimate=discard, old_karras=old)
    theirs = {name.replace("unipc", "uni_pc"): name for name in row.options} | {"eta_ancestral": "eta", "eta_ddim": "eta"}
    options = {ours: given[name] for name, ours in theirs.items() if name in given and ours in row.options}
    ends = {"table": table, "sigma_min": table.sigma_min, "sigma_max": table.sigma_max, "uncond": lambda: torch.zeros(1)}
    options |= {name: value for name, value in ends.items() if name in row.options}

    def denoise(x, at):
        places.append(float(at))
        return torch.zeros_like(x)

    row.run(denoise, torch.zeros(1, 4, 2, 2), plan, drawn, **options)
    assert places == pytest.approx(case["sigma_or_timestep_of_each_call"], rel=2e-6, abs=1e-6)
    if not row.brownian:
        assert len(drawn.asked) + 1 == case["noise_calls"] // case["params"].get("n_iter", 1)


def test_every_sampler_has_a_path():
    assert set(PATHS) == set(SAMPLERS)


# --- against an exact solution ---------------------------------------------------------------------------------------------------------

def k_miss(name, n):
    """How far a k sampler is from the exact answer after n - 1 steps, without fresh noise."""
    high, low = 14.6 ** (1 / 7), 0.03 ** (1 / 7)
    sigmas = (high + torch.linspace(0, 1, n, dtype=torch.float64) * (low - high)) ** 7
    model, x = GaussianModel(), torch.full((1, 4, 2, 2), 19.0, dtype=torch.float64)
    row = SAMPLERS[name]
    options = {"eta": 0.0} if "eta" in row.options else {}
    if "sigma_min" in row.options:
        options["sigma_min"] = float(sigmas[-1])
    got = row.run(model, x, sigmas, unasked, **options)
    return float((got - model.exact(x, sigmas[0], sigmas[-1])).abs().max())


# DPM++ 3M SDE without noise takes a third order term of second order answers: its error falls like that of order 2, LMS nearly like 4
ORDERS = {
    "Euler": 1, "Euler a": 1, "Heun": 2, "DPM2": 2, "DPM2 a": 2, "DPM++ 2M": 2, "DPM++ 2M SDE": 2, "DPM++ 2M SDE Heun": 2,
    "DPM++ SDE": 2, "DPM++ 2S a": 2, "DPM++ 3M SDE": 2, "LMS": 4,
}  # fmt: skip


@pytest.mark.parametrize("name, order", ORDERS.items())
def test_twice_the_steps_divides_the_error(name, order):
    assert k_miss(name, 80) / k_miss(name, 160) == pytest.approx(2**order, rel=0.15)


@pytest.mark.parametrize("points", [2, 11, 20])
def test_restart_of_less_than_20_steps_is_heun(points):
    assert k_miss("Restart", points) == k_miss("Heun", points)


@pytest.mark.parametrize("name", ["DPM fast", "DPM adaptive"])
def test_the_solvers_of_third_order_come_near(name):
    assert k_miss(name, 40) < 0.02
    assert name == "DPM adaptive" or k_miss(name, 160) < 5e-5


def eps_run(name, n, x, **options):
    row, model = SAMPLERS[name], GaussianModel()
    denoise, last = model.noise_at(TABLE.t_to_sigma), []

    def kept(x, t):
        last[:] = [denoise(x, t)]
        return last[0]

    if "uncond" in row.options:
        options["uncond"] = lambda: last[0]
    return row.run(kept, x, make_timesteps(n), options.pop("noise", unasked), table=TABLE, **options)


def eps_miss(name, n, first, last, **options):
    """How far a timestep sampler is from the exact answer, between the levels at the time steps first and last."""
    x = torch.full((1, 4, 2, 2), 1.3, dtype=torch.float64)
    start, end = (TABLE.sigmas[t].double() for t in (first, last))
    want = GaussianModel().exact(x * (1 + start**2) ** 0.5, start, end) / (1 + end**2) ** 0.5
    return float((eps_run(name, n, x, **options) - want).abs().max())


@pytest.mark.parametrize("name, least", [("DDIM", 1.8), ("DDIM CFG++", 1.8), ("PLMS", 2.3)])
def test_twice_the_time_steps_divides_the_error(name, least):
    few, many = (eps_miss(name, n, make_timesteps(n)[-1], 1) for n in (50, 100))
    assert few / many > least


@pytest.mark.parametrize("variant, order, ratio", [("bh1", 1, 4.6), ("bh2", 1, 4.0), ("bh1", 2, 7.7), ("bh2", 2, 6.4),
                                                   ("vary_coeff", 1, 4.1), ("vary_coeff", 2, 1.5), ("vary_coeff", 3, 1.8)])
def test_unipc_converges(variant, order, ratio):
    # order p with its corrector has order p + 1; vary_coeff beyond order 1 has the authors' slip, and falls to 1
    errors = [eps_miss("UniPC", n, 999, 0, unipc_variant=variant, unipc_order=order, unipc_skip_type="logSNR") for n in (20, 40)]
    assert errors[0] / errors[1] == pytest.approx(ratio, rel=0.1)


@pytest.mark.parametrize("variant", ["bh1", "bh2"])
def test_unipc_of_third_order_comes_near(variant):
    assert eps_miss("UniPC", 20, 999, 0, unipc_variant=variant, unipc_skip_type="logSNR") < 5e-5


# --- by the spread of the results ------------------------------------------------------------------------------------------------------

# measured with 100,000 points; the data's is 0.5. Samplers of first order come near it slowly, LCM's steps are not meant to
SPREADS = {
    "DPM++ SDE": 0.462, "DPM++ 2M SDE": 0.505, "DPM++ 2M SDE Heun": 0.508, "DPM++ 2S a": 0.496, "DPM++ 3M SDE": 0.502,
    "Euler a": 0.458, "Euler": 0.441, "Heun": 0.510, "DPM2": 0.510, "DPM2 a": 0.504, "DPM fast": 0.500, "DPM adaptive": 0.501,
    "Restart": 0.506, "DDIM": 0.447, "DDIM CFG++": 0.447, "LCM": 0.338,
}  # fmt: skip


@pytest.mark.parametrize("name", SPREADS)
def test_fresh_noise_keeps_the_spread_of_the_data(name):
    row, generator = SAMPLERS[name], torch.Generator().manual_seed(1)

    def noise(*_):
        return torch.randn((1, 1, 1, 100_000), generator=generator)

    if row.timesteps:
        result = eps_run(name, 40, noise(), noise=noise, eta=1.0)
    else:
        sigmas = karras_sigmas(40, 0.03, 14.6)
        options = {"s_churn": 20.0} if "s_churn" in row.options else {}
        result = row.run(GaussianModel(), noise() * sigmas[0], sigmas, noise, **options)
    assert float(result.mean()) == pytest.approx(0.3, abs=0.01)
    assert float(result.std()) == pytest.approx(SPREADS[name], abs=0.006)


# --- options, draws, stopping ----------------------------------------------------------------------------------------------------------

SIGMAS = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.0])


def start():
    return torch.full((1, 4, 2, 2), 9.0)


@pytest.mark.parametrize("name", ["Euler", "Heun", "DPM2"])
def test_churn_counts_only_between_its_ends(name):
    run = SAMPLERS[name].run
    models = [GaussianModel() for _ in range(3)]
    run(models[0], start(), SIGMAS, Drawn())
    run(models[1], start(), SIGMAS, Drawn(), s_churn=1.0)
    run(models[2], start(), SIGMAS, Drawn(), s_churn=1.0, s_tmin=2.0, s_tmax=4.0)
    starts = SIGMAS.tolist()[:-1]
    assert set(starts) <= set(models[0].asked)
    assert {sigma * 1.25 for sigma in starts} <= set(models[1].asked)
    assert {8.0, 5.0, 2.5, 1.0} <= set(models[2].asked)


@pytest.mark.parametrize("name", ["Euler", "Heun", "DPM2"])
def test_s_noise_scales_the_churn(name):
    def run(noise, **options):
        return SAMPLERS[name].run(GaussianModel(), start(), SIGMAS, lambda *_: torch.full((1, 4, 2, 2), noise), s_churn=1.0, **options)

    assert torch.allclose(run(1.0, s_noise=0.5), run(0.5))
    assert not torch.allclose(run(1.0), run(0.5))


def test_eta_above_1_adds_no_more_noise_than_the_next_level():
    drawn = Drawn()
    assert SAMPLERS["Euler a"].run(GaussianModel(), start(), SIGMAS, drawn, eta=50.0).isfinite().all()


def test_the_tree_of_dpmpp_sde_is_asked_at_the_roots_of_logarithms():
    # the web UI does, and the tree's rounding to six digits makes another path of the last bit
    drawn, sigmas = Drawn(), make_sigmas("Karras", 28, TABLE, sampler=SAMPLERS["DPM++ SDE"])
    SAMPLERS["DPM++ SDE"].run(GaussianModel(), start(), sigmas, drawn)
    asked = [float(sigma.log().neg().neg().exp()) for sigma in sigmas[:-2]]
    assert [pair[0] for pair in drawn.asked[::2]] == asked and asked != sigmas[:-2].tolist()
    assert [pair[0] for pair in drawn.asked[1::2]] == asked


def test_ddim_cfgpp_goes_on_along_the_unguided_noise():
    x, eps, uncond = (torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(n)) for n in range(3))
    timesteps = torch.tensor([1, 501])
    row = SAMPLERS["DDIM CFG++"]
    got = row.run(lambda x, t: eps, x, timesteps, Drawn(), table=TABLE, uncond=lambda: uncond)
    alpha, alpha_next = TABLE.alphas_cumprod[501], TABLE.alphas_cumprod[1]
    x0 = (x - (1 - alpha).sqrt() * eps) / alpha.sqrt()
    assert torch.allclose(got, alpha_next.sqrt() * x0 + (1 - alpha_next).sqrt() * uncond, atol=1e-5)


def test_churn_has_a_limit():
    model = GaussianModel()
    SAMPLERS["Euler"].run(model, start(), SIGMAS, Drawn(), s_churn=100.0)
    assert model.asked == pytest.approx([sigma * 2**0.5 for sigma in SIGMAS.tolist()[:-1]])


@pytest.mark.parametrize("name", DRAWS_EACH_STEP)
def test_noise_is_drawn_even_where_it_is_not_used(name):
    drawn, row = Drawn(), SAMPLERS[name]
    if row.timesteps:
        eps_run(name, 10, start(), noise=drawn)
        assert len(drawn.asked) == len(make_timesteps(10)) - 1
    else:
        row.run(GaussianModel(), start(), SIGMAS, drawn, **({"eta": 0.0} if "eta" in row.options else {}))
        assert len(drawn.asked) == (2 if name == "DPM fast" else len(SIGMAS) - 1)


@pytest.mark.parametrize("name", ["Euler a", "DPM2 a", "DPM++ 2S a"])
def test_ancestral_samplers_draw_none_at_the_last_step(name):
    drawn = Drawn()
    SAMPLERS[name].run(GaussianModel(), start(), SIGMAS, drawn)
    assert drawn.asked == list(pairwise(SIGMAS.tolist()))[:-1]


@pytest.mark.parametrize("name", [name for name, row in SAMPLERS.items() if "s_noise" in row.options and "s_churn" not in row.options])
def test_s_noise_scales_the_fresh_noise(name):
    def run(noise, **options):
        return SAMPLERS[name].run(GaussianModel(), start(), SIGMAS, lambda *_: torch.full((1, 4, 2, 2), noise), **options)

    assert torch.allclose(run(1.0, s_noise=0.5), run(0.5))
    assert not torch.allclose(run(1.0), run(0.5))


@pytest.mark.parametrize("name", [name for name, row in SAMPLERS.items() if "eta" in row.options])
def test_eta_0_uses_no_noise(name):
    def run(noise):
        def draw(*_):
            return torch.full((1, 4, 2, 2), noise)

        if SAMPLERS[name].timesteps:
            return eps_run(name, 10, start(), noise=draw, eta=0.0)
        return SAMPLERS[name].run(GaussianModel(), start(), SIGMAS, draw, eta=0.0)

    assert torch.equal(run(0.0), run(1.0))


def test_dpm_fast_makes_the_calls_it_is_given():
    for n in (3, 4, 5, 6, 20):
        model = GaussianModel()
        SAMPLERS["DPM fast"].run(model, start(), SIGMAS, Drawn(), sigma_min=0.03, n=n)
        assert len(model.asked) == n


def test_dpm_fast_and_adaptive_take_their_ends_from_the_sigmas_or_as_given():
    for name in ("DPM fast", "DPM adaptive"):
        models = GaussianModel(), GaussianModel()
        SAMPLERS[name].run(models[0], start(), SIGMAS, Drawn())
        SAMPLERS[name].run(models[1], start(), SIGMAS, Drawn(), sigma_min=0.1, sigma_max=9.0)
        assert models[0].asked[0] == pytest.approx(8.0) and min(models[0].asked) > 1.0
        assert models[1].asked[0] == pytest.approx(9.0) and min(models[1].asked) < 1.0


def test_dpm_adaptive_does_not_go_on_for_ever():
    with pytest.raises(NbsdError, match="not finite"):
        SAMPLERS["DPM adaptive"].run(lambda x, sigma: x * float("nan"), start(), SIGMAS, Drawn())


@pytest.mark.parametrize("steps, repeated", [(19, 0), (20, 1), (35, 1), (36, 2), (60, 2)])
def test_restart_goes_back_up_as_often_as_in_the_web_ui(steps, repeated):
    sigmas = karras_sigmas(steps, 0.0292, 14.6146)
    plan = restart_plan(sigmas)
    jumps = [(float(a[1]), float(b[0])) for a, b in pairwise(plan) if b[0] > a[1]]
    assert len(jumps) == repeated and len(plan) == steps
    for low, high in jumps:
        assert low == pytest.approx(0.1, abs=0.06) and high == pytest.approx(2.0, abs=0.6)


def test_restart_of_the_end_of_a_schedule_does_not_go_above_it():
    plan = restart_plan(karras_sigmas(24, 0.0292, 0.05))
    assert all(b[0] <= a[1] for a, b in pairwise(plan))


def test_lms_weights_are_exact_for_cubics():
    places = [9.0, 7.5, 5.0, 4.0, 1.0]
    *known, end = places
    for power in range(4):
        exact = (end ** (power + 1) - known[-1] ** (power + 1)) / (power + 1)
        got = sum(w * place**power for w, place in zip(lms_weights(places), reversed(known), strict=True))
        assert got == pytest.approx(exact)


@pytest.mark.parametrize("given", [{"unipc_variant": "bh3"}, {"unipc_skip_type": "logsnr"}, {"unipc_order": 11}])
def test_unipc_says_what_it_cannot_do(given):
    with pytest.raises(RecipeError, match="UniPC"):
        eps_run("UniPC", 10, start(), **given)


@pytest.mark.parametrize("steps, order, lower, want", [
    (5, 3, True, [1, 2, 3, 2, 1]), (5, 3, False, [1, 2, 3, 3, 3]), (4, 4, True, [1, 2, 3, 1]), (3, 1, True, [1, 1, 1]),
    (2, 2, True, [1, 1]),
])  # fmt: skip
def test_unipc_rises_to_its_order_before_it_falls(steps, order, lower, want):
    assert orders(steps, order, lower) == want


def test_unipc_in_quadratic_time():
    times = Clock(TABLE).time_steps(4, "time_quadratic", 1.0).tolist()
    assert times == pytest.approx([(1 + (0.001**0.5 - 1) * i / 4) ** 2 for i in range(5)])


def test_unipc_starts_at_the_last_time_step_in_img2img():
    times = []

    def denoise(x, t):
        times.append(float(t))
        return x

    SAMPLERS["UniPC"].run(denoise, start(), make_timesteps(20)[:10], Drawn(), table=TABLE, img2img=True)
    assert times[0] == pytest.approx(451.0, abs=1e-3) and len(times) == 10


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_step_is_told_and_can_stop(name):
    row, told = SAMPLERS[name], []

    def on_step(step):
        told.append(step)
        if len(told) == 3:
            raise Stopped

    plan = make_timesteps(20) if row.timesteps else make_sigmas("Karras", 20, TABLE, sampler=row)
    options = {"table": TABLE} if row.timesteps else {}
    if "uncond" in row.options:
        options["uncond"] = lambda: torch.zeros(1, 4, 2, 2)
    with pytest.raises(Stopped):
        row.run(lambda x, at: x * 0.5, start(), plan, Drawn(), on_step, **options)
    assert [step.index for step in told] == [0, 1, 2]
    assert all(a.sigma >= b.sigma for a, b in pairwise(told))
    assert torch.equal(told[0].x, start()) and told[0].x0.shape == told[0].x.shape


@pytest.mark.parametrize("name", SAMPLERS)
def test_what_it_is_given_stays_as_it_is(name):
    row, x = SAMPLERS[name], start()
    plan = make_timesteps(5) if row.timesteps else SIGMAS.clone()
    before = plan.clone()
    options = {"table": TABLE} if row.timesteps else {}
    if "uncond" in row.options:
        options["uncond"] = lambda: torch.zeros(1, 4, 2, 2)
    row.run(lambda x, at: x * 0.5, x, plan, Drawn(), **options)
    assert torch.equal(x, start()) and torch.equal(plan, before)


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "DPM adaptive"])
def test_no_step_reads_a_number_back_from_the_device(name):
    # a tensor on "meta" has no numbers: reading one, which on a GPU means waiting for it, is an error
    row, x = SAMPLERS[name], torch.zeros(1, 4, 8, 8, device="meta")
    plan = make_timesteps(20) if row.timesteps else make_sigmas("Karras", 24, TABLE, sampler=row)
    options = {"table": TABLE} if row.timesteps else {"s_churn": 10.0} if "s_churn" in row.options else {}
    if "uncond" in row.options:
        options["uncond"] = lambda: x
    assert row.run(lambda x, at: x * 0.5, x, plan, lambda *_: x, **options).is_meta


# --- the table -------------------------------------------------------------------------------------------------------------------------

def test_there_is_a_row_for_every_name():
    assert list(SAMPLERS) == list(SAMPLER_FACTS)
    for name, row in SAMPLERS.items():
        assert all(getattr(row, field) == getattr(SAMPLER_FACTS[name], field) for field in vars(SAMPLER_FACTS[name]))


def test_the_facts_are_those_that_the_web_ui_states():
    stated = json.loads((DATA / "d_sigmas.json").read_text())["sampler_options"]
    for name, row in SAMPLERS.items():
        facts = stated[name]
        assert row.schedule.casefold() == facts.get("scheduler", "automatic")
        assert row.aliases == tuple(facts["aliases"])
        for ours, theirs in (("second_order", "second_order"), ("brownian", "brownian_noise"), ("uses_ensd", "uses_ensd"),
                             ("discard_penultimate", "discard_next_to_last_sigma")):
            assert getattr(row, ours) == facts.get(theirs, False)


@pytest.mark.parametrize("asked, found", [
    ("euler A", "Euler a"), ("k_dpmpp_2m", "DPM++ 2M"), ("UNIPC", "UniPC"), ("ddim_cfgpp", "DDIM CFG++"), ("Eulr", None),
])  # fmt: skip
def test_samplers_are_found_by_any_of_their_names(asked, found):
    row = find_sampler(asked)
    assert (row.name if row else None) == found


def test_a_row_says_which_options_its_sampler_takes():
    assert SAMPLERS["Euler"].options == {"s_churn", "s_tmin", "s_tmax", "s_noise"}
    assert SAMPLERS["Euler a"].options == {"eta"}
    assert SAMPLERS["DPM++ 2M"].options == set()
    assert "solver_type" not in SAMPLERS["DPM++ 2M SDE Heun"].options
    assert SAMPLERS["UniPC"].options >= {"unipc_variant", "unipc_skip_type", "unipc_order", "unipc_lower_order_final", "table", "img2img"}


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_row_says_how_many_calls_a_step_takes(name):
    calls, row = len(WANT[f"{PATHS[name]['id']}/trace_x"]), SAMPLERS[name]
    if name != "DPM adaptive":
        assert abs(calls - row.model_calls * 12) <= 1
    assert row.cfg_divisor == (12.5 if name == "DDIM CFG++" else 1.0)
