"""The DPM-Solver++ family: exponential integrators of x0 in the logarithm of the noise level.

DPM-Solver++ (Lu et al. 2022, arXiv:2211.01095) and k-diffusion's stochastic and ancestral forms of it (MIT), whose names they keep.
`h` is always the step in log(1 / sigma). The SDE forms want `BrownianNoise`.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor

from nbsd.sampling.contract import Denoise, Noise, OnStep, Step, ignore
from nbsd.sampling.samplers import ancestral_split


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


def dpmpp_3m_sde(
    denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise, on_step: OnStep = ignore, *, eta: float = 1.0, s_noise: float = 1.0
) -> Tensor:
    """DPM-Solver++(3M) with fresh noise: third order from the last three answers."""
    older: list[tuple[Tensor, Tensor]] = []     # answer and step of the steps before, latest first
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, sigma)
        on_step(Step(i, sigma, x, x0))
        if sigma_next == 0:
            return x0
        h = sigma.log() - sigma_next.log()
        h_eta = h * (eta + 1)
        x = (-h_eta).exp() * x - (-h_eta).expm1() * x0
        phi_2 = (-h_eta).expm1() / h_eta + 1
        if len(older) == 1:
            (x0_1, h_1), = older
            x = x + phi_2 * ((x0 - x0_1) / (h_1 / h))
        elif older:
            (x0_1, h_1), (x0_2, h_2) = older
            r_0, r_1 = h_1 / h, h_2 / h
            slope, slope_before = (x0 - x0_1) / r_0, (x0_1 - x0_2) / r_1
            bend = (slope - slope_before) / (r_0 + r_1)
            x = x + phi_2 * (slope + bend * r_0) - (phi_2 / h_eta - 0.5) * bend
        if eta:
            x = x + noise(sigma, sigma_next) * sigma_next * (-(-2 * h * eta).expm1()).sqrt() * s_noise
        older = [(x0, h), *older[:1]]
    return x


def dpmpp_sde(
    denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise, on_step: OnStep = ignore, *, eta: float = 1.0, s_noise: float = 1.0
) -> Tensor:
    """DPM-Solver++ with a second call in the middle of each step, and fresh noise there and at its end."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, sigma)
        on_step(Step(i, sigma, x, x0))
        if sigma_next == 0:
            return x + (x - x0) / sigma * (sigma_next - sigma)
        # The tree rounds its times to six digits: it must be asked at exp(log(sigma)), as k-diffusion does, to the last bit
        start, middle, end = ((-t).exp() for t in (-sigma.log(), half(sigma, sigma_next), -sigma_next.log()))
        down, up = ancestral_split(start, middle, eta)
        halfway = solver_step(x, x0, sigma, down) + noise(start, middle) * s_noise * up
        x0_middle = denoise(halfway, middle)
        down, up = ancestral_split(start, end, eta)
        x = solver_step(x, x0_middle, sigma, down) + noise(start, end) * s_noise * up
    return x


def dpmpp_2s_ancestral(
    denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise, on_step: OnStep = ignore, *, eta: float = 1.0, s_noise: float = 1.0
) -> Tensor:
    """DPM-Solver++(2S): a second call in the middle of each step, then fresh noise; none is drawn at the last."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, sigma)
        on_step(Step(i, sigma, x, x0))
        down, up = ancestral_split(sigma, sigma_next, eta)
        if down == 0:
            x = x + (x - x0) / sigma * (down - sigma)
        else:
            middle = (-half(sigma, down)).exp()
            x = solver_step(x, denoise(solver_step(x, x0, sigma, middle), middle), sigma, down)
        if sigma_next > 0:
            x = x + noise(sigma, sigma_next) * s_noise * up
    return x


def half(sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """Half way between two levels in log(1 / sigma)."""
    start = -sigma.log()
    return start + (-sigma_next.log() - start) * 0.5


def solver_step(x: Tensor, x0: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """DPM-Solver++ of first order: where x goes if the model's answer stays x0."""
    h = sigma.log() - sigma_next.log()
    return sigma_next / sigma * x - (-h).expm1() * x0
