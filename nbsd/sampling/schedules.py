"""Which noise levels a run goes through: the twelve schedules of the web UI, and the time steps of the timestep samplers.

Every schedule is computed on the CPU and returned there as float32, highest first, the last one being 0 (but for KL Optimal).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nbsd.errors import RecipeError
from nbsd.names import AUTOMATIC, SCHEDULE_NAMES, ScheduleName
from nbsd.sampling.contract import Sampler
from nbsd.sampling.parametrize import TRAINED_STEPS, LcmTable, NoiseTable

OLD_KARRAS = 0.1, 10.0      # the ends that the web UI gave Karras until October 2022
# NVIDIA's published tables (Sabour et al. 2024, arXiv:2404.14507): ten steps. The web UI takes the first for all that is not SDXL
ALIGNED_SIGMAS: dict[str, tuple[float, ...]] = {
    "SD 1": (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029),
    "SDXL": (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029),
}


class Ends(NamedTuple):
    """What a schedule is made from besides the number of steps."""

    table: NoiseTable
    sigma_min: float
    sigma_max: float
    rho: float          # only for schedules that have a default
    alpha: float        # of the beta distribution, as the next
    beta: float
    aligned: tuple[float, ...]      # falling


@dataclass(frozen=True)
class Schedule(ScheduleName):
    """A row of `SCHEDULES`: its names, and n steps -> n + 1 sigmas. None: the sampler's default."""

    sigmas: Callable[[int, Ends], Tensor] | None = None


def ended(sigmas: Tensor) -> Tensor:
    """With a 0 at the end."""
    return torch.cat([sigmas, sigmas.new_zeros(1)])


def uniform(n: int, ends: Ends) -> Tensor:
    """The model's own: evenly spaced time steps from the last to the first."""
    table = ends.table
    if isinstance(table, LcmTable):
        first, last = (float(table.sigma_to_t(torch.tensor(s))) for s in (table.sigma_max, table.sigma_min))
    else:
        first, last = len(table.sigmas) - 1, 0
    return ended(table.t_to_sigma(torch.linspace(first, last, n)))


def karras(n: int, ends: Ends) -> Tensor:
    """Evenly spaced in the rho-th root of sigma."""
    return karras_sigmas(n, ends.sigma_min, ends.sigma_max, ends.rho)


def karras_sigmas(n: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Tensor:
    """Karras et al. 2022, arXiv:2206.00364, equation 5: n levels and 0."""
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return ended((high + torch.linspace(0, 1, n) * (low - high)) ** rho)


def exponential(n: int, ends: Ends) -> Tensor:
    """Evenly spaced in log sigma."""
    return ended(torch.linspace(math.log(ends.sigma_max), math.log(ends.sigma_min), n).exp())


def polyexponential(n: int, ends: Ends) -> Tensor:
    """A power of evenly spaced in log sigma."""
    low, high = math.log(ends.sigma_min), math.log(ends.sigma_max)
    return ended((torch.linspace(1, 0, n) ** ends.rho * (high - low) + low).exp())


def time_steps_between(n: int, ends: Ends) -> Tensor:
    """n time steps, evenly spaced from that of sigma_max to that of sigma_min."""
    first, last = (ends.table.sigma_to_t(torch.tensor(s)) for s in (ends.sigma_max, ends.sigma_min))
    return torch.linspace(float(first), float(last), n)


def sgm_uniform(n: int, ends: Ends) -> Tensor:
    """One time step more than asked, and the last one left out (as in Stability's generative-models)."""
    return ended(ends.table.t_to_sigma(time_steps_between(n + 1, ends)[:-1]))


def normal(n: int, ends: Ends) -> Tensor:
    """As the model's own, between the given ends."""
    return ended(ends.table.t_to_sigma(time_steps_between(n, ends)))


def kl_optimal(n: int, ends: Ends) -> Tensor:
    """Evenly spaced in the arc tangent of sigma (Sabour et al. 2024, section 3.1). Ends at sigma_min: the web UI adds no 0."""
    low, high = torch.tensor(ends.sigma_min).arctan(), torch.tensor(ends.sigma_max).arctan()
    share = torch.arange(n + 1) / n
    return (share * low + (1 - share) * high).tan()


def align_your_steps(n: int, ends: Ends) -> Tensor:
    """The published table at 11 steps, else log-linear between its entries."""
    places = np.linspace(0, 1, n), np.linspace(0, 1, len(ends.aligned))
    sigmas = np.exp(np.interp(*places, np.log(ends.aligned[::-1])))[::-1].copy()
    return ended(torch.tensor(sigmas, dtype=torch.float32))


def simple(n: int, ends: Ends) -> Tensor:
    """Every so many entries of the table, from the last (ComfyUI's "simple")."""
    table, stride = ends.table.sigmas.float(), len(ends.table.sigmas) / n
    return ended(table[[-(1 + int(i * stride)) for i in range(n)]])


def ddim(n: int, ends: Ends) -> Tensor:
    """The levels of DDIM's time steps. Gives more than n where n does not divide the table (28: 29)."""
    table = ends.table.sigmas.float()
    return ended(table[1 :: max(len(table) // n, 1)].flip(0))


def beta(n: int, ends: Ends) -> Tensor:
    """Quantiles of a beta distribution, linear in sigma (Lee et al. 2024, arXiv:2407.12173, has them in time)."""
    quantiles = [beta_quantile(float(p), ends.alpha, ends.beta) for p in 1 - np.linspace(0, 1, n)]
    return ended(torch.tensor([ends.sigma_min + q * (ends.sigma_max - ends.sigma_min) for q in quantiles]))


_SIGMAS: dict[str, Callable[[int, Ends], Tensor]] = {
    "Uniform": uniform,
    "Karras": karras,
    "Exponential": exponential,
    "Polyexponential": polyexponential,
    "SGM Uniform": sgm_uniform,
    "KL Optimal": kl_optimal,
    "Align Your Steps": align_your_steps,
    "Simple": simple,
    "Normal": normal,
    "DDIM": ddim,
    "Beta": beta,
}
SCHEDULES: dict[str, Schedule] = {
    label: Schedule(row.label, row.name, row.aliases, row.default_rho, _SIGMAS.get(label)) for label, row in SCHEDULE_NAMES.items()
}


def find_schedule(name: str) -> Schedule | None:
    """The row of a label, internal name or alias, in any case; None where there is none."""
    asked = name.casefold()
    for row in SCHEDULES.values():
        if asked in (row.label.casefold(), row.name.casefold(), *(alias.casefold() for alias in row.aliases)):
            return row
    return None


def resolve_schedule(sampler: Sampler, label: str) -> str:
    """The label of the schedule really used, as the infotext writes it.

    "Automatic" (or nothing) is the sampler's default, and stays "Automatic" where that is the model's own sigmas.
    """
    row = find_schedule(label or AUTOMATIC)
    if row is None:
        raise RecipeError(f"no schedule is called {label!r}: use one of {', '.join(SCHEDULES)}")
    return sampler.schedule if row.label == AUTOMATIC else row.label


def make_sigmas(
    schedule: str,
    n: int,
    table: NoiseTable,
    *,
    sampler: Sampler,
    sigma_min: float = 0.0,
    sigma_max: float = 0.0,
    rho: float = 0.0,
    beta_alpha: float = 0.6,
    beta_beta: float = 0.6,
    discard_penultimate: bool = False,
    old_karras: bool = False,
    aligned: str = "SD 1",
    device: torch.device | str = "cpu",
) -> Tensor:
    """The noise levels of n steps: float32, [n + 1] for most schedules, highest first.

    `sigma_min`, `sigma_max`, `rho`: 0 means the schedule's own. `discard_penultimate`: for samplers that do not by themselves.
    `old_karras`: every schedule that has ends runs from 10 to 0.1. `aligned`: a name in ALIGNED_SIGMAS. Computed on the CPU; samplers want them there
    (a scalar on the CPU multiplies a tensor on the GPU without waiting for it).
    """
    row = SCHEDULES[resolve_schedule(sampler, schedule)]
    table = sampler_table(sampler, table)
    low, high = OLD_KARRAS if old_karras else (table.sigma_min, table.sigma_max)
    ends = Ends(table, sigma_min or low, sigma_max or high, rho or row.default_rho, beta_alpha, beta_beta, ALIGNED_SIGMAS[aligned])
    discard = discard_penultimate or sampler.discard_penultimate
    sigmas = (row.sigmas or uniform)(n + discard, ends)
    if discard:
        sigmas = torch.cat([sigmas[:-2], sigmas[-1:]])
    return sigmas.to(device)


def make_timesteps(n: int, *, discard_penultimate: bool = False, old: bool = False) -> Tensor:
    """The time steps of DDIM, DDIM CFG++, PLMS and UniPC: int64, *ascending*: 1, 1 + s, 1 + 2 s, ... with s = 1000 // n.

    `discard_penultimate` only adds a step here, as in the web UI. `old`: as in October 2022 the run goes on from 1 to 0, and where
    the last time step would be 1000, which no model has, it runs with one step more (9 runs as 10).
    """
    n += discard_penultimate
    if not 1 <= n <= TRAINED_STEPS:
        raise RecipeError(f"{n} steps cannot be cut from the model's {TRAINED_STEPS} time steps: use 1 to {TRAINED_STEPS}")
    timesteps = torch.arange(0, TRAINED_STEPS, TRAINED_STEPS // n) + 1
    if not old:
        return timesteps.clamp(max=TRAINED_STEPS - 1)
    if timesteps[-1] == TRAINED_STEPS and TRAINED_STEPS // n > 1:
        return make_timesteps(n + 1, old=True)
    return torch.cat([timesteps.new_zeros(1), timesteps.clamp(max=TRAINED_STEPS - 1)])


def sampler_table(sampler: Sampler, table: NoiseTable) -> NoiseTable:
    """The table that a sampler steps in: the model's, but fewer levels for LCM."""
    return LcmTable(table.alphas_cumprod) if sampler.name == "LCM" else table


def beta_quantile(p: float, alpha: float, beta: float) -> float:
    """Where the cumulative beta distribution reaches p, by bisection."""
    low, high = 0.0, 1.0
    if p <= 0 or p >= 1:
        return min(max(p, low), high)
    for _ in range(60):
        middle = (low + high) / 2
        if _beta_cumulative(middle, alpha, beta) < p:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _beta_cumulative(x: float, alpha: float, beta: float) -> float:
    """The regularised incomplete beta function: Gauss's series, which converges fast on the lower half (DLMF 8.17.7)."""
    if x > 0.5:
        return 1 - _beta_cumulative(1 - x, beta, alpha)
    if x <= 0:
        return 0.0
    log_front = alpha * math.log(x) + math.lgamma(alpha + beta) - math.lgamma(alpha) - math.lgamma(beta)
    term, total, k = 1.0, 1 / alpha, 0
    while abs(term) > 1e-17:
        k += 1
        term *= (k - beta) / k * x
        total += term / (alpha + k)
    return math.exp(log_front) * total
