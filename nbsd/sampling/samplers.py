"""Samplers that step along the straight line of the probability flow: Euler, Heun and their kin.

After Karras et al. 2022 (arXiv:2206.00364) and k-diffusion (MIT), whose names they keep. Where a sampler draws noise that it does
not use, it says so: the order of draws is part of a recipe.
"""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor

from nbsd.sampling.contract import Denoise, Noise, OnStep, Step, ignore

SQRT2_LESS_1 = math.sqrt(2) - 1     # the largest share of churn, Karras et al. 2022, algorithm 2


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
    """Euler steps, with churn where asked (algorithm 2). Draws noise at every step, used or not."""
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
