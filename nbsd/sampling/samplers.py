"""Samplers that step along the straight line of the probability flow: Euler, Heun and their kin.

After Karras et al. 2022 (arXiv:2206.00364) and k-diffusion (MIT), whose names they keep. Where a sampler draws noise that it does
not use, it says so: the order of draws is part of a recipe.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from nbsd.sampling.contract import Denoise, Noise, OnStep, Step, ignore
from nbsd.sampling.schedules import karras_sigmas

SQRT2_LESS_1 = math.sqrt(2) - 1     # the largest share of churn, Karras et al. 2022, algorithm 2
LMS_ORDER = 4                       # k-diffusion's default
RESTART_FROM, RESTART_TO = 0.1, 2.0     # the stretch that the web UI repeats


def ancestral_split(sigma: Tensor, sigma_next: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """The noise level to step down to, and the amount of fresh noise that lifts it to `sigma_next`."""
    up = (eta * (sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2) ** 0.5).clamp(max=sigma_next)
    return (sigma_next**2 - up**2) ** 0.5, up


def churned(
    x: Tensor, sigma: Tensor, noise: Tensor, steps: int, s_churn: float, s_tmin: float, s_tmax: float, s_noise: float
) -> tuple[Tensor, Tensor]:
    """x and its noise level after the churn of one step; `noise` is unit noise. `s_tmax` 0: no upper limit."""
    inside = s_tmin <= sigma <= (s_tmax or math.inf)
    gamma = min(s_churn / steps, SQRT2_LESS_1) if inside else 0.0
    if gamma <= 0:
        return x, sigma
    higher = sigma * (gamma + 1)
    return x + noise * s_noise * (higher**2 - sigma**2) ** 0.5, higher


def euler(
    denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise, on_step: OnStep = ignore, *,
    s_churn: float = 0.0, s_tmin: float = 0.0, s_tmax: float = 0.0, s_noise: float = 1.0,
) -> Tensor:
    """Euler steps, with churn where asked (algorithm 2). Draws noise at every step, used or not; so do Heun and DPM2."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x, higher = churned(x, sigma, noise(sigma, sigma_next), len(sigmas) - 1, s_churn, s_tmin, s_tmax, s_noise)
        x0 = denoise(x, higher)
        on_step(Step(i, higher, x, x0))
        x = x + (x - x0) / higher * (sigma_next - higher)
    return x


def euler_ancestral(
    denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise, on_step: OnStep = ignore, *, eta: float = 1.0
) -> Tensor:
    """Euler with fresh noise each step; none is drawn at the last."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, sigma)
        on_step(Step(i, sigma, x, x0))
        down, up = ancestral_split(sigma, sigma_next, eta)
        x = x + (x - x0) / sigma * (down - sigma)
        if sigma_next > 0:
            x = x + noise(sigma, sigma_next) * up
    return x


def heun(
    denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise, on_step: OnStep = ignore, *,
    s_churn: float = 0.0, s_tmin: float = 0.0, s_tmax: float = 0.0, s_noise: float = 1.0,
) -> Tensor:
    """Heun's method (algorithm 2): the slope is averaged with that at the end of the step, except at the last."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x, higher = churned(x, sigma, noise(sigma, sigma_next), len(sigmas) - 1, s_churn, s_tmin, s_tmax, s_noise)
        x0 = denoise(x, higher)
        on_step(Step(i, higher, x, x0))
        x = heun_step(denoise, x, x0, higher, sigma_next)
    return x


def heun_step(denoise: Denoise, x: Tensor, x0: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """From sigma to sigma_next, where x0 is the model's answer at x."""
    slope = (x - x0) / sigma
    there = x + slope * (sigma_next - sigma)
    if sigma_next == 0:
        return there
    slope_there = (there - denoise(there, sigma_next)) / sigma_next
    return x + (slope + slope_there) / 2 * (sigma_next - sigma)


def dpm_2(
    denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise, on_step: OnStep = ignore, *,
    s_churn: float = 0.0, s_tmin: float = 0.0, s_tmax: float = 0.0, s_noise: float = 1.0,
) -> Tensor:
    """The midpoint method, with the middle taken in log sigma (after DPM-Solver-2)."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x, higher = churned(x, sigma, noise(sigma, sigma_next), len(sigmas) - 1, s_churn, s_tmin, s_tmax, s_noise)
        x0 = denoise(x, higher)
        on_step(Step(i, higher, x, x0))
        x = midpoint_step(denoise, x, x0, higher, sigma_next)
    return x


def midpoint_step(denoise: Denoise, x: Tensor, x0: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """From sigma to sigma_next along the slope in the middle; x0 is the model's answer at x. An Euler step where it ends at 0."""
    slope = (x - x0) / sigma
    if sigma_next == 0:
        return x + slope * (sigma_next - sigma)
    middle = sigma.log().lerp(sigma_next.log(), 0.5).exp()
    halfway = x + slope * (middle - sigma)
    return x + (halfway - denoise(halfway, middle)) / middle * (sigma_next - sigma)


def dpm_2_ancestral(
    denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise, on_step: OnStep = ignore, *, eta: float = 1.0, s_noise: float = 1.0
) -> Tensor:
    """The midpoint method with fresh noise each step; none is drawn at the last."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, sigma)
        on_step(Step(i, sigma, x, x0))
        down, up = ancestral_split(sigma, sigma_next, eta)
        x = midpoint_step(denoise, x, x0, sigma, down)
        if down > 0:
            x = x + noise(sigma, sigma_next) * s_noise * up
    return x


def lms(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise, on_step: OnStep = ignore) -> Tensor:
    """Linear multistep of fourth order (Adams-Bashforth over uneven steps)."""
    slopes: list[Tensor] = []
    places = [float(sigma) for sigma in sigmas]
    for i, sigma in enumerate(sigmas[:-1]):
        x0 = denoise(x, sigma)
        on_step(Step(i, sigma, x, x0))
        slopes = [(x - x0) / sigma, *slopes[: LMS_ORDER - 1]]
        weights = lms_weights(places[max(0, i - len(slopes) + 1) : i + 2])
        x = x + sum((weight * slope for weight, slope in zip(weights, slopes, strict=True)), torch.zeros_like(x))
    return x


def lms_weights(places: list[float]) -> list[float]:
    """The weights of the slopes at all places but the last, latest first, for a step from the last but one to the last.

    Each is the integral of a Lagrange polynomial of at most third degree: Gauss-Legendre quadrature with two points is exact.
    """
    *known, end = places
    middle, half = (known[-1] + end) / 2, (end - known[-1]) / 2
    nodes = middle - half / math.sqrt(3), middle + half / math.sqrt(3)

    def polynomial(at: float, own: float) -> float:
        return math.prod((at - other) / (own - other) for other in known if other != own)

    return [half * sum(polynomial(node, own) for node in nodes) for own in reversed(known)]


def restart(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise, on_step: OnStep = ignore) -> Tensor:
    """Heun's method that goes back up with fresh noise and repeats a stretch (Xu et al. 2023, arXiv:2306.14878)."""
    last = sigmas[0]
    for i, (sigma, sigma_next) in enumerate(restart_plan(sigmas)):
        if sigma > last:
            x = x + noise(last, sigma) * (sigma**2 - last**2) ** 0.5
        x0 = denoise(x, sigma)
        on_step(Step(i, sigma, x, x0))
        x = heun_step(denoise, x, x0, sigma, sigma_next)
        last = sigma_next
    return x


def restart_plan(sigmas: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The web UI's choice of steps: from 20 steps on, a Karras schedule with one repeated stretch from 2 to 0.1 (from 36 on, two)."""
    steps = len(sigmas) - 1
    if steps < 20:
        return list(pairwise(sigmas))
    repeats, length = (1, 9) if steps < 36 else (2, steps // 4)
    sigmas = karras_sigmas(steps - length * repeats, float(sigmas[-2]), float(sigmas[0]))
    plan = list(pairwise(sigmas))
    low, high = (int((sigmas - level).abs().argmin()) for level in (RESTART_FROM, RESTART_TO))
    if high >= low:
        return plan
    again = list(pairwise(karras_sigmas(length + 1, float(sigmas[low]), float(sigmas[high]))[:-1]))
    return plan[:low] + again * repeats + plan[low:]


def lcm(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise, on_step: OnStep = ignore) -> Tensor:
    """Multistep consistency sampling (Song et al. 2023, arXiv:2303.01469, algorithm 1): x0, noised again to the next level."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, sigma)
        on_step(Step(i, sigma, x, x0))
        x = x0
        if sigma_next > 0:
            x = x + sigma_next * noise(sigma, sigma_next)
    return x
