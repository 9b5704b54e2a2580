"""The DPM-Solver family: exponential integrators in the logarithm of the noise level.

DPM-Solver (Lu et al. 2022, arXiv:2206.00927), DPM-Solver++ (arXiv:2211.01095) and k-diffusion's stochastic and ancestral forms of
them (MIT), whose names they keep. `h` is always the step in log(1 / sigma).
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor

from nbsd.sampling.contract import Denoise, Noise, OnStep, Step, ignore


def dpmpp_2m(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise, on_step: OnStep = ignore) -> Tensor:
    """DPM-Solver++(2M): second order from the last two answers."""
    old_x0, old_h = None, None
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, sigma)
        on_step(Step(i, sigma, x, x0))
        h = sigma.log() - sigma_next.log()      # infinite at the end, where the step lands on x0
        guess = x0
        if old_x0 is not None and old_h is not None and sigma_next > 0:
            share = h / (2 * old_h)
            guess = (1 + share) * x0 - share * old_x0
        x = sigma_next / sigma * x - (-h).expm1() * guess
        old_x0, old_h = x0, h
    return x


def dpmpp_2m_sde(
    denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise, on_step: OnStep = ignore, *,
    eta: float = 1.0, s_noise: float = 1.0, solver_type: str = "midpoint",
) -> Tensor:
    """DPM-Solver++(2M) with fresh noise; `solver_type` "midpoint" or "heun" says how the second order is taken."""
    old_x0, old_h = None, None
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, sigma)
        on_step(Step(i, sigma, x, x0))
        if sigma_next == 0:
            return x0
        h = sigma.log() - sigma_next.log()
        decay = -h - eta * h
        gain = -decay.expm1()
        x = sigma_next / sigma * (-eta * h).exp() * x + gain * x0
        if old_x0 is not None and old_h is not None:
            weight = gain / 2 if solver_type == "midpoint" else gain / decay + 1
            x = x + weight * (h / old_h) * (x0 - old_x0)
        if eta:
            x = x + noise(sigma, sigma_next) * sigma_next * (-(-2 * eta * h).expm1()).sqrt() * s_noise
        old_x0, old_h = x0, h
    return x
