"""Samplers that step between the model's time steps and ask for the noise: DDIM and PLMS.

`x` is in the UNet's scale, sqrt(a) * x0 + sqrt(1 - a) * noise with a = alphas_cumprod of the time step. They walk the ascending
`timesteps` from the last to the first and stop there: the run ends at the first time step's noise level, not at 0.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor

from nbsd.sampling.contract import Denoise, Noise, OnStep, Step, ignore
from nbsd.sampling.parametrize import NoiseTable


def ddim(
    denoise: Denoise, x: Tensor, timesteps: Tensor, noise: Noise, on_step: OnStep = ignore, *, table: NoiseTable, eta: float = 0.0
) -> Tensor:
    """DDIM (Song et al. 2020, arXiv:2010.02502, equation 12). Draws noise at every step, used or not."""
    for i, (t, t_next) in enumerate(pairwise(timesteps.flip(0))):
        eps = denoise(x, t)
        alpha, alpha_next = table.alphas_cumprod[t], table.alphas_cumprod[t_next].double()
        x0 = clean(x, eps, alpha)
        on_step(Step(i, table.sigmas[t], x, x0))
        fresh = eta * ((1 - alpha_next) / (1 - alpha) * (1 - alpha / alpha_next)).sqrt()
        x = (alpha_next.sqrt() * x0 + (1 - alpha_next - fresh**2).sqrt() * eps) + fresh * noise(t, t_next)
    return x


def clean(x: Tensor, eps: Tensor, alpha: Tensor) -> Tensor:
    """x0 from x and its noise, at the level of `alpha` (a scalar of the table, in the table's precision)."""
    return (x - (1 - alpha).sqrt() * eps) / alpha.float().sqrt()
