"""The DPM-Solver family: exponential integrators of the noise in the logarithm of the noise level.

DPM-Solver-fast and -adaptive (Lu et al. 2022, arXiv:2206.00927) with k-diffusion's ancestral noise and step control (MIT). They choose
their own steps, in t = log(1 / sigma): of `sigmas` only the ends count.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nbsd.errors import NbsdError
from nbsd.sampling.contract import Denoise, Noise, OnStep, Step, ignore
from nbsd.sampling.samplers import ancestral_split

# k-diffusion's defaults for the adaptive solver
RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE = 0.05, 0.0078
FIRST_STEP, ACCEPTED_FROM = 0.05, 0.81
END_SLACK = 1e-5        # in t: so near the end counts as there


def dpm_fast(
    denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise, on_step: OnStep = ignore, *,
    eta: float = 1.0, s_noise: float = 1.0, sigma_min: float = 0.0, sigma_max: float = 0.0, n: int = 0,
) -> Tensor:
    """Evenly spaced steps of third order, the last ones lower, with n model calls in all. Draws noise at every step.

    `sigma_min`, `sigma_max`, `n`: 0 takes them from `sigmas`, as in img2img. In txt2img the web UI gives the model's own ends and
    the recipe's steps, whatever the schedule is.
    """
    n = n or len(sigmas) - 1
    start, end = ends(sigmas, sigma_min, sigma_max)
    orders = [3] * (n // 3 - 1) + [2, 1] if n % 3 == 0 else [3] * (n // 3) + [n % 3]
    times = torch.linspace(float(start), float(end), len(orders) + 1, dtype=start.dtype)
    for i, order in enumerate(orders):
        t, t_next = times[i], times[i + 1]
        solver = Solver(denoise, x, t)
        on_step(Step(i, level(t), x, x - level(t) * solver.eps))
        down, up = split(t, t_next, end, eta)
        x = solver.step(order, down) + up * s_noise * noise(level(t), level(t_next))
    return x


def dpm_adaptive(
    denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise, on_step: OnStep = ignore, *,
    eta: float = 1.0, sigma_min: float = 0.0, sigma_max: float = 0.0,
) -> Tensor:
    """Steps of third order, as long as their difference from second order allows. The error is that of the whole batch.

    `sigma_min`, `sigma_max`: as for `dpm_fast`.
    """
    t, end = ends(sigmas, sigma_min, sigma_max)
    control = StepControl(1.5 if eta else 3)
    x_low_before, tried = x, 0
    while t < end - END_SLACK:
        t_next = (t + control.h).clamp(max=end)
        down, up = split(t, t_next, end, eta)
        solver = Solver(denoise, x, t)
        on_step(Step(tried, level(t), x, x - level(t) * solver.eps))
        x_low, x_high = solver.step(2, down, first=1 / 3), solver.step(3, down)
        allowed = (RELATIVE_TOLERANCE * torch.maximum(x_low.abs(), x_low_before.abs())).clamp(min=ABSOLUTE_TOLERANCE)
        error = float(torch.linalg.norm((x_low - x_high) / allowed)) / x.numel() ** 0.5
        tried += 1
        if not math.isfinite(error):
            raise NbsdError("DPM adaptive got numbers that are not finite from the model: use float32, or another sampler")
        if control.accepts(error):
            x_low_before = x_low
            x = x_high + up * noise(level(t), level(t_next))
            t = t_next
    return x


def level(t: Tensor) -> Tensor:
    """The noise level at t."""
    return (-t).exp()


def ends(sigmas: Tensor, sigma_min: float, sigma_max: float) -> tuple[Tensor, Tensor]:
    """First and last t. The last sigma is 0, which t cannot reach: the one before it counts."""
    first = torch.tensor(sigma_max, dtype=sigmas.dtype) if sigma_max else sigmas[0]
    last = torch.tensor(sigma_min, dtype=sigmas.dtype) if sigma_min else sigmas[-2]
    return -first.log(), -last.log()


def split(t: Tensor, t_next: Tensor, end: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """The t to step down to, at most `end`, and the amount of fresh noise that lifts it to t_next."""
    if not eta:
        return t_next, torch.zeros_like(t)
    down, _ = ancestral_split(level(t), level(t_next), eta)
    t_down = (-down.log()).clamp(max=end)
    return t_down, (level(t_next) ** 2 - level(t_down) ** 2) ** 0.5


class Solver:
    """Steps from one place x at t; what the model answered on the way is kept for the step of another order."""

    def __init__(self, denoise: Denoise, x: Tensor, t: Tensor) -> None:
        self._denoise, self._x, self._t = denoise, x, t
        self._inner: dict[float, Tensor] = {}
        self.eps = self._ask(x, t)

    def step(self, order: int, t_next: Tensor, first: float = 0.5) -> Tensor:
        """x at t_next by the solver of order 1, 2 or 3. `first`: share of the step at which order 2 asks again."""
        h = t_next - self._t
        straight = self._x - level(t_next) * h.expm1() * self.eps
        if order == 1:
            return straight
        if order == 2:
            return straight - level(t_next) / (2 * first) * h.expm1() * (self._inside(first, h) - self.eps)
        third, two_thirds = 1 / 3, 2 / 3
        part, at = two_thirds * h, self._t + two_thirds * h
        bend = self._inside(third, h) - self.eps
        there = self._x - level(at) * part.expm1() * self.eps
        there = there - level(at) * (two_thirds / third) * (part.expm1() / part - 1) * bend
        return straight - level(t_next) / two_thirds * (h.expm1() / h - 1) * (self._ask(there, at) - self.eps)

    def _inside(self, share: float, h: Tensor) -> Tensor:
        """The noise at a share of the step h, reached by first order."""
        if share not in self._inner:
            at = self._t + share * h
            self._inner[share] = self._ask(self._x - level(at) * (share * h).expm1() * self.eps, at)
        return self._inner[share]

    def _ask(self, x: Tensor, t: Tensor) -> Tensor:
        return (x - self._denoise(x, level(t))) / level(t)


class StepControl:
    """How long the next step is: an integral controller of the error, k-diffusion's PID with its default coefficients (0, 1, 0)."""

    def __init__(self, order: float) -> None:
        self.h = FIRST_STEP
        self._power = 1 / order

    def accepts(self, error: float) -> bool:
        """Whether a step with this error (1: as large as allowed) counts. Sets the length of the next one."""
        factor = 1 + math.atan((1 / (error + 1e-8)) ** self._power - 1)
        self.h *= factor
        return factor >= ACCEPTED_FROM
