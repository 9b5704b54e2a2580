"""Samplers that step between the model's time steps and ask for the noise: DDIM and PLMS.

`x` is in the UNet's scale, sqrt(a) * x0 + sqrt(1 - a) * noise with a = alphas_cumprod of the time step. They walk the ascending
`timesteps` from the last to the first and stop there: the run ends at the first time step's noise level, not at 0.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from nbsd.sampling.contract import Denoise, Noise, OnStep, Step, ignore
from nbsd.sampling.parametrize import NoiseTable, root

# Adams-Bashforth of second to fourth order, latest first; Liu et al. 2022, equation 12
PLMS_WEIGHTS = {1: (3 / 2, -1 / 2), 2: (23 / 12, -16 / 12, 5 / 12), 3: (55 / 24, -59 / 24, 37 / 24, -9 / 24)}


Before = Callable[[Tensor, Tensor], Tensor]     # (x, time step) -> the x from which the step is made


def unchanged(x: Tensor, t: Tensor) -> Tensor:
    return x


def ddim(
    denoise: Denoise, x: Tensor, timesteps: Tensor, noise: Noise, on_step: OnStep = ignore, *,
    table: NoiseTable, eta: float = 0.0, before: Before = unchanged,
) -> Tensor:
    """DDIM (Song et al. 2020, arXiv:2010.02502, equation 12). Draws noise at every step, used or not.

    `before`: changes x at the start of each step, as inpainting did in 2022.
    """
    return _ddim(denoise, x, timesteps, noise, on_step, table, eta, lambda eps: eps, before)


def ddim_cfgpp(
    denoise: Denoise, x: Tensor, timesteps: Tensor, noise: Noise, on_step: OnStep = ignore, *,
    table: NoiseTable, uncond: Callable[[], Tensor], eta: float = 0.0,
) -> Tensor:
    """DDIM that goes on along the unguided noise (CFG++, Chung et al. 2024, arXiv:2406.08070).

    `uncond`: gives the unguided noise of the last call of `denoise` (`Guidance.uncond`).
    """
    return _ddim(denoise, x, timesteps, noise, on_step, table, eta, lambda eps: uncond())


def _ddim(
    denoise: Denoise, x: Tensor, timesteps: Tensor, noise: Noise, on_step: OnStep, table: NoiseTable, eta: float,
    onward: Callable[[Tensor], Tensor], before: Before = unchanged,
) -> Tensor:
    """`onward`: the noise to go on along, from the guided noise."""
    for i, (t, t_next) in enumerate(pairwise(timesteps.flip(0))):
        x = before(x, t)
        eps = denoise(x, t)
        alpha, alpha_next = table.alphas_cumprod[t], table.alphas_cumprod[t_next].double()
        x0 = clean(x, eps, alpha)
        on_step(Step(i, table.sigmas[t], x, x0))
        fresh = eta * ((1 - alpha_next) / (1 - alpha) * (1 - alpha / alpha_next)).sqrt()
        signal, rest = alpha_next.sqrt(), (1 - alpha_next - fresh**2).sqrt()
        # float32 scalars: not every device takes float64 ones
        x = signal.float() * x0 + rest.float() * onward(eps) + fresh.float() * noise(t, t_next)
    return x


def plms(
    denoise: Denoise, x: Tensor, timesteps: Tensor, noise: Noise, on_step: OnStep = ignore, *, table: NoiseTable
) -> Tensor:
    """Pseudo linear multistep (Liu et al. 2022, arXiv:2202.09778): DDIM along an average of the last four noises."""
    older: list[Tensor] = []    # latest first
    for i, (t, t_next) in enumerate(pairwise(timesteps.flip(0))):
        eps = denoise(x, t)
        alpha, alpha_next = table.alphas_cumprod[t], table.alphas_cumprod[t_next].float()

        def step(eps: Tensor, x: Tensor = x, a: Tensor = alpha, a_next: Tensor = alpha_next) -> Tensor:
            return root(a_next) * clean(x, eps, a) + root(1 - a_next) * eps

        on_step(Step(i, table.sigmas[t], x, clean(x, eps, alpha)))
        if older:
            weights = PLMS_WEIGHTS[len(older)]
            average = sum((w * e for w, e in zip(weights, [eps, *older], strict=True)), torch.zeros_like(eps))
        else:       # nothing to look back to: the slope at the end of the step is asked for
            average = (eps + denoise(step(eps), t_next)) / 2
        x = step(average)
        older = [eps, *older[:2]]
    return x


def clean(x: Tensor, eps: Tensor, alpha: Tensor) -> Tensor:
    """x0 from x and its noise, at the level of `alpha` (a scalar of the table, in the table's precision)."""
    return (x - root(1 - alpha) * eps) / root(alpha.float())
