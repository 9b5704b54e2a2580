"""Models with a known answer, for tests of samplers and of code around them: no weights, no download, milliseconds."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nbsd.sampling.contract import Denoise
from nbsd.sampling.parametrize import NoiseTable


class GaussianModel:
    """The best denoiser there is for data drawn from N(mean, std**2), and its exact probability flow. Is a `Denoise`."""

    def __init__(self, mean: float = 0.3, std: float = 0.5) -> None:
        self.mean, self.var = mean, std**2
        self.asked: list[float] = []    # the sigmas it was called at

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.asked.append(float(sigma))
        return (self.var * x + sigma**2 * self.mean) / (self.var + sigma**2)

    def exact(self, x: Tensor, sigma: Tensor, end: Tensor) -> Tensor:
        """Where x, at noise level sigma, lies at noise level end."""
        return self.mean + (x - self.mean) * ((self.var + end**2) / (self.var + sigma**2)) ** 0.5

    def noise_at(self, sigma_of: Callable[[Tensor], Tensor]) -> Denoise:
        """The same model for the timestep samplers: answers the noise in x (in the UNet's scale) at a time step.

        `sigma_of`: gives the noise level of a time step, such as `NoiseTable.t_to_sigma`.
        """

        def noise(x: Tensor, t: Tensor) -> Tensor:
            sigma = sigma_of(t).to(x.dtype)
            scaled = x * (1 + sigma**2) ** 0.5
            return (scaled - self(scaled, sigma)) / sigma

        return noise


class Replay:
    """A denoiser that gives recorded answers in order, and keeps what it was asked."""

    def __init__(self, answers: Tensor) -> None:
        """`answers`: [calls, 4, h, w], one for each call, for a batch of one."""
        self._answers = answers
        self.xs: list[Tensor] = []      # the input of each call, [1, 4, h, w]
        self.places: list[float] = []   # the sigma or time step of each call

    def __call__(self, x: Tensor, at: Tensor) -> Tensor:
        if len(self.xs) == len(self._answers):
            raise AssertionError(f"asked once more than the {len(self._answers)} times that were recorded")
        self.xs.append(x)
        self.places.append(float(at))
        return self._answers[len(self.xs) - 1][None]


def sd1_table() -> NoiseTable:
    """The noise levels of every Stable Diffusion 1 model: betas from 0.00085 to 0.012, evenly spaced in their roots."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return NoiseTable(torch.cumprod(1 - betas, dim=0).float())


def assert_same_path(got: list[Tensor], want: list[Tensor], *, atol: float) -> None:
    """Compare two runs step by step and name the first step where they part."""
    assert len(got) == len(want), f"{len(got)} steps, expected {len(want)}"
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        gap = (a - b).abs()
        if not gap.max() <= atol:
            at = [int(n) for n in torch.unravel_index(gap.argmax(), gap.shape)]
            raise AssertionError(f"parts at step {i}: gap {gap.max():.3g} at {at}, mean {gap.mean():.3g}; allowed {atol:g}")
