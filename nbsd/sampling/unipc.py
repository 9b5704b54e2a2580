"""UniPC: a predictor and a corrector of the same order from the same model calls (Zhao et al. 2023, arXiv:2302.04867).

Steps in the continuous time of the authors' code (MIT), in which the model's time step is (t - 1 / 1000) * 1000, so that the UNet is
asked at fractional time steps. Of the given time steps only the number counts, and in img2img the last.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from nbsd.errors import RecipeError
from nbsd.sampling.contract import Denoise, Noise, OnStep, Step, ignore
from nbsd.sampling.parametrize import NoiseTable, root

VARIANTS = ("bh1", "bh2", "vary_coeff")
SKIP_TYPES = ("time_uniform", "time_quadratic", "logSNR")


class Place(NamedTuple):
    """A time and what the noise is there: x = alpha * x0 + sigma * noise."""

    t: Tensor           # scalar, 1 / 1000 to 1
    alpha: Tensor
    sigma: Tensor
    log_snr: Tensor     # log(alpha / sigma), "lambda" in the paper


class Clock:
    """Noise levels in continuous time: linear in log alpha between the model's time steps, and beyond the first."""

    def __init__(self, table: NoiseTable) -> None:
        self._log_alphas = 0.5 * table.alphas_cumprod.log().float()         # [1000], descending
        self._times = torch.linspace(0, 1, len(self._log_alphas) + 1)[1:]
        self.first, self.last = 1 / len(self._times), 1.0

    def at(self, t: Tensor) -> Place:
        log_alpha = interpolate(t, self._times, self._log_alphas)
        variance = 1 - (2 * log_alpha).exp()
        return Place(t, log_alpha.exp(), root(variance), log_alpha - 0.5 * variance.log())

    def time_of(self, log_snr: Tensor) -> Tensor:
        log_alpha = -0.5 * torch.logaddexp(torch.zeros(1), -2 * log_snr)
        return interpolate(log_alpha, self._log_alphas.flip(0), self._times.flip(0))

    def time_steps(self, steps: int, skip_type: str, start: float) -> Tensor:
        """steps + 1 times from `start` to the first."""
        if skip_type == "time_uniform":
            return torch.linspace(start, self.first, steps + 1)
        if skip_type == "time_quadratic":
            return torch.linspace(start**0.5, self.first**0.5, steps + 1) ** 2
        low, high = (float(self.at(torch.tensor(t)).log_snr) for t in (start, self.first))
        return self.time_of(torch.linspace(low, high, steps + 1))

    def model_time(self, t: Tensor) -> Tensor:
        """What the UNet is told."""
        return (t - self.first) * 1000


def interpolate(at: Tensor, xs: Tensor, ys: Tensor) -> Tensor:
    """Linear between the points, xs ascending; goes on straight beyond the ends."""
    i = (torch.searchsorted(xs, at) - 1).clamp(0, len(xs) - 2)
    return ys[i] + (at - xs[i]) * (ys[i + 1] - ys[i]) / (xs[i + 1] - xs[i])


class Weights(NamedTuple):
    """How far a step goes along what. The differences are (answer before - last answer) / their share of the step, latest first."""

    last: Tensor        # scalar, of the last answer
    predictor: Tensor   # [order - 1], of the differences
    corrector: Tensor   # [order], the same; the last is that of (answer at the end - last answer)


def unipc(
    denoise: Denoise, x: Tensor, timesteps: Tensor, noise: Noise, on_step: OnStep = ignore, *,
    table: NoiseTable, unipc_variant: str = "bh1", unipc_skip_type: str = "time_uniform", unipc_order: int = 3,
    unipc_lower_order_final: bool = True, img2img: bool = False,
) -> Tensor:
    """UniPC with x0 prediction, in as many steps as there are time steps. `img2img`: starts at the last of them instead of at 1000."""
    steps, order = len(timesteps), unipc_order
    check(steps, order, unipc_variant, unipc_skip_type)
    clock = Clock(table)
    start = float(timesteps[-1] / 1000 + 1 / 1000) if img2img else clock.last
    places = [clock.at(t) for t in clock.time_steps(steps, unipc_skip_type, start)]

    def ask(x: Tensor, index: int) -> Tensor:
        place = places[index]
        x0 = (x - place.sigma * denoise(x, clock.model_time(place.t))) / place.alpha
        on_step(Step(index, place.sigma / place.alpha, x, x0))
        return x0

    known = [ask(x, 0)]     # answers at the last places, latest last
    for i, used in enumerate(orders(steps, order, unipc_lower_order_final), start=1):
        before, place, last = places[i - used : i], places[i], known[-1]
        shares, h = shares_of(place, before)
        weights = (weights_vary if unipc_variant == "vary_coeff" else weights_bh)(shares, -h, unipc_variant)
        differences = [(answer - last) / share for answer, share in zip(reversed(known[-used:-1]), shares, strict=False)]
        straight = place.sigma / before[-1].sigma * x - place.alpha * weights.last * last
        x = straight - place.alpha * weighted(weights.predictor, differences, x)
        if i < steps:       # the answer at the end of the last step would only correct it; the authors save that call
            answer = ask(x, i)
            x = straight - place.alpha * weighted(weights.corrector, [*differences, answer - last], x)
            known = [*known[-order + 1 :], answer] if order > 1 else [answer]
    return x


def orders(steps: int, order: int, lower_order_final: bool) -> list[int]:
    """The order of each step: rising to `order`, and falling to 1 at the end where asked (but not before it was reached)."""
    rising = range(1, order)
    full = [min(order, steps + 1 - i) if lower_order_final else order for i in range(order, steps + 1)]
    return [*rising, *full]


def check(steps: int, order: int, variant: str, skip_type: str) -> None:
    """Raise RecipeError for what UniPC cannot do."""
    if variant not in VARIANTS or skip_type not in SKIP_TYPES:
        raise RecipeError(f"UniPC knows no {variant!r} with {skip_type!r}: use {', '.join(VARIANTS)} with {', '.join(SKIP_TYPES)}")
    if steps < order:
        raise RecipeError(f"UniPC of order {order} needs at least as many steps, not {steps}: use more steps or a lower order")


def shares_of(place: Place, before: list[Place]) -> tuple[Tensor, Tensor]:
    """Where the earlier places and the end of the step lie, in steps from its start, latest first: [order]; and the step in log SNR."""
    start = before[-1].log_snr
    h = place.log_snr - start
    return torch.stack([*((other.log_snr - start) / h for other in reversed(before[:-1])), torch.ones(())]), h


def phis(h: Tensor, count: int) -> list[Tensor]:
    """h * phi_k(h) for k = 1, 2, ... (the paper's equation 5): by their recursion, whose rounding is part of the web UI's numbers."""
    values, factorial = [h.expm1()], 1
    for k in range(1, count):
        values.append(values[-1] / h - 1 / factorial)
        factorial *= k + 1
    return values


def weights_bh(shares: Tensor, h: Tensor, variant: str) -> Weights:
    """The paper's B(h) form, with B(h) = h or exp(h) - 1. Order 2 predicts and order 1 corrects with one half, whatever h is."""
    order = len(shares)
    phi = phis(h, order + 2)
    scale = h if variant == "bh1" else h.expm1()
    powers = torch.stack([shares**k for k in range(order)])
    goal = torch.stack([phi[k] * math.factorial(k) / scale for k in range(1, order + 1)])
    half = torch.tensor([0.5])
    predictor = half if order == 2 else torch.linalg.solve(powers[:-1, :-1], goal[:-1])
    corrector = half if order == 1 else torch.linalg.solve(powers, goal)
    return Weights(phi[0], scale * predictor, scale * corrector)


def weights_vary(shares: Tensor, h: Tensor, variant: str) -> Weights:
    """The paper's form with varying coefficients."""
    order = len(shares)
    phi = torch.stack(phis(h, order + 1))
    basis = torch.stack([shares**k / math.factorial(k + 1) for k in range(order)], dim=1)
    predictor = phi[1:order] @ torch.linalg.inv(basis[:-1, :-1])
    inverse = torch.linalg.inv(basis)
    # The authors' code takes the last weight from the last row but one, and so must this
    last = phi[order] * inverse[max(order - 2, 0), -1]
    return Weights(phi[0], predictor, torch.cat([phi[1:order] @ inverse[:-1, :-1], last[None]]))


def weighted(weights: Tensor, differences: list[Tensor], like: Tensor) -> Tensor:
    return sum((weight * difference for weight, difference in zip(weights, differences, strict=True)), torch.zeros_like(like))
