"""From what the UNet answers to what a sampler asks, and between noise levels and time steps.

A latent x at noise level sigma is x0 + sigma * noise ("sigma scale", what the k-diffusion samplers step in). Divided by
sqrt(1 + sigma**2) it has the scale of the UNet's input, sqrt(a) * x0 + sqrt(1 - a) * noise with a = alphas_cumprod, in which the
timestep samplers step. The mapping between sigmas and time steps is k-diffusion's DiscreteSchedule.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from nbsd.errors import ModelError
from nbsd.sampling.contract import Denoise

TERMINAL_ALPHA = 4.8973451890853435e-08     # the web UI's last alphas_cumprod of a zero terminal SNR schedule
TRAINED_STEPS = 1000                        # of every Stable Diffusion model

# Latent consistency models (Luo et al. 2023, arXiv:2310.04378): distilled on 50 of the 1000 steps; the boundary condition's constants
LCM_STEPS, LCM_DATA, LCM_TIME_SCALE = 50, 0.5, 10.0

Unet = Callable[[Tensor, Tensor], Tensor]   # (x [N, 4, h, w] in the UNet's scale, t [N] float) -> prediction, same shape as x


class NoiseTable:
    """The model's noise levels: which sigma belongs to which time step. Lives on the CPU, so that reading it never waits for a GPU."""

    def __init__(self, alphas_cumprod: Tensor, *, quantize: bool = False) -> None:
        """`alphas_cumprod` [1000], descending; float16 stays float16 (see `downcast`), the rest becomes float32.

        `quantize`: `sigma_to_t` rounds to the nearest whole time step.
        """
        dtype = torch.float16 if alphas_cumprod.dtype == torch.float16 else torch.float32
        self.alphas_cumprod = alphas_cumprod.detach().to("cpu", dtype)
        # Roots and logarithms in double precision, then rounded: torch's own are one bit off on some processors, which would show
        self.sigmas = rounded(torch.sqrt, (1 - self.alphas_cumprod) / self.alphas_cumprod)      # [1000], ascending
        self.log_sigmas = rounded(torch.log, self.sigmas)
        self.quantize = quantize

    @property
    def sigma_min(self) -> float:
        return float(self.sigmas[0])

    @property
    def sigma_max(self) -> float:
        return float(self.sigmas[-1])

    def sigma_to_t(self, sigma: Tensor, quantize: bool | None = None) -> Tensor:
        """The time step of a noise level, float32 of the shape of sigma: linear in log sigma between the table's entries."""
        log_sigma, table = rounded(torch.log, sigma.detach().cpu().float()), self.log_sigmas.float()
        if self.quantize if quantize is None else quantize:
            return (log_sigma - table.view(-1, *[1] * sigma.ndim)).abs().argmin(dim=0).float()
        low = (torch.searchsorted(table, log_sigma, right=True) - 1).clamp(0, len(table) - 2)
        weight = ((table[low] - log_sigma) / (table[low] - table[low + 1])).clamp(0, 1)
        return (1 - weight) * low + weight * (low + 1)

    def t_to_sigma(self, t: Tensor) -> Tensor:
        """The noise level of a (fractional) time step from 0 to 999, float32 of the shape of t."""
        t = t.detach().cpu().float()
        low, high, weight = t.floor().long(), t.ceil().long(), t.frac()
        return ((1 - weight) * self.log_sigmas[low] + weight * self.log_sigmas[high]).exp()


def rounded(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A function computed in double precision and rounded to x's own: the same bits on every machine."""
    return function(x.double()).to(x.dtype)


class LcmTable(NoiseTable):
    """The noise levels of the LCM sampler: every 20th of the model's 1000."""

    def __init__(self, alphas_cumprod: Tensor) -> None:
        """`alphas_cumprod` [1000], the model's."""
        self.stride = TRAINED_STEPS // LCM_STEPS
        super().__init__(alphas_cumprod[self.stride - 1 :: self.stride].float())

    def sigma_to_t(self, sigma: Tensor, quantize: bool | None = None) -> Tensor:
        """The nearest of the 50 time steps 19, 39, ... 999."""
        return super().sigma_to_t(sigma, quantize=True) * self.stride + (self.stride - 1)

    def t_to_sigma(self, t: Tensor) -> Tensor:
        return super().t_to_sigma(((t.float() - (self.stride - 1)) / self.stride).clamp(0, LCM_STEPS - 1))


def root(values: Tensor) -> Tensor:
    """The square root, rounded once, of numbers from the table.

    torch's own float32 root is one bit off for some numbers on some processors, and near the end of a zero terminal SNR schedule
    tiny differences of roots decide.
    """
    return values.double().sqrt().to(values.dtype)


def zero_terminal_snr(alphas_cumprod: Tensor) -> Tensor:
    """The schedule shifted and stretched so that its last step is (nearly) pure noise; Lin et al. 2023, arXiv:2305.08891, algorithm 1."""
    roots = root(alphas_cumprod)
    first, last = roots[0].clone(), roots[-1].clone()
    rescaled = ((roots - last) * (first / (first - last))) ** 2
    rescaled[-1] = TERMINAL_ALPHA
    return rescaled


def downcast(alphas_cumprod: Tensor) -> Tensor:
    """Rounded to float16, as the web UI in half precision had them before 1.7. Apply before `zero_terminal_snr`."""
    return alphas_cumprod.half()


class Parametrization(Protocol):
    """One way to ask a UNet: what goes in, and what its prediction means to the sampler.

    `at` is what the sampler calls its place: sigma for the k-diffusion samplers, the time step for the timestep samplers.
    """

    def prepare(self, x: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        """x in the UNet's scale, and the time step as a scalar on the CPU."""
        ...

    def finish(self, x: Tensor, at: Tensor, prediction: Tensor) -> Tensor:
        """x0, or the noise for the timestep samplers; same shape as x."""
        ...


class EpsToX0:
    """The UNet predicts the noise; the sampler asks for x0."""

    def __init__(self, table: NoiseTable) -> None:
        self.table = table

    def prepare(self, x: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        return x * (1 / (at**2 + 1) ** 0.5), self.table.sigma_to_t(at)

    def finish(self, x: Tensor, at: Tensor, prediction: Tensor) -> Tensor:
        return x + prediction * -at


class VToX0(EpsToX0):
    """The UNet predicts v (Salimans and Ho 2022, arXiv:2202.00512); the sampler asks for x0."""

    def finish(self, x: Tensor, at: Tensor, prediction: Tensor) -> Tensor:
        return prediction * (-at / (at**2 + 1) ** 0.5) + x * (1 / (at**2 + 1))


class LcmToX0(EpsToX0):
    """The consistency function of a latent consistency model. The web UI reads the UNet's answer as noise here for v models too."""

    def finish(self, x: Tensor, at: Tensor, prediction: Tensor) -> Tensor:
        scaled = self.table.sigma_to_t(at) * LCM_TIME_SCALE
        skip = LCM_DATA**2 / (scaled**2 + LCM_DATA**2)
        out = scaled / (scaled**2 + LCM_DATA**2) ** 0.5
        return super().finish(x, at, prediction) * out + x * skip


class EpsToEps:
    """The UNet predicts the noise and the sampler asks for it, at time steps."""

    def prepare(self, x: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        return x, at.float()

    def finish(self, x: Tensor, at: Tensor, prediction: Tensor) -> Tensor:
        return prediction


class VToEps(EpsToEps):
    """The UNet predicts v; the sampler asks for the noise, at time steps (fractional ones are cut off for the table)."""

    def __init__(self, table: NoiseTable) -> None:
        self.table = table

    def finish(self, x: Tensor, at: Tensor, prediction: Tensor) -> Tensor:
        alpha = self.table.alphas_cumprod[int(at)]
        return root(alpha) * prediction + root(1 - alpha) * x


def parametrization(table: NoiseTable, prediction: str = "epsilon", kind: str = "k") -> Parametrization:
    """How to ask a model that predicts `prediction` ("epsilon", "v_prediction") for a sampler of that kind ("k", "timesteps").

    `table` is the one the sampler steps in: a `LcmTable` for LCM.
    """
    if prediction not in ("epsilon", "v_prediction"):
        raise ModelError(f"a model that predicts {prediction!r} cannot be sampled: use 'epsilon' or 'v_prediction'")
    if kind == "timesteps":
        return EpsToEps() if prediction == "epsilon" else VToEps(table)
    if isinstance(table, LcmTable):
        return LcmToX0(table)
    return EpsToX0(table) if prediction == "epsilon" else VToX0(table)


def denoiser(unet: Unet, how: Parametrization) -> Denoise:
    """A `Denoise` that asks an unguided model."""

    def denoise(x: Tensor, at: Tensor) -> Tensor:
        x_in, t = how.prepare(x, at)
        prediction = unet(x_in, torch.full((len(x),), float(t), device=x.device))
        return how.finish(x, at, prediction.to(x.dtype))

    return denoise


def eps_denoiser(unet: Unet, table: NoiseTable) -> Denoise:
    """A `Denoise` from a model that predicts the noise."""
    return denoiser(unet, parametrization(table, "epsilon"))


def v_denoiser(unet: Unet, table: NoiseTable) -> Denoise:
    """A `Denoise` from a model that predicts v."""
    return denoiser(unet, parametrization(table, "v_prediction"))
