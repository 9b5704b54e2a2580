"""Where a run begins: in noise, or in a picture that is noised up to a level of the schedule. The web UI's rules, as plain functions.

`latent` and `noise` are [B, 4, h, w]; `noise` is the first draw of `ImageNoise`, times the recipe's noise multiplier in img2img.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from nbsd.errors import RecipeError
from nbsd.sampling.contract import Sampler
from nbsd.sampling.parametrize import NoiseTable, root


class Start(NamedTuple):
    """What a sampler is run on."""

    x: Tensor       # [B, 4, h, w], in the sampler's scale
    plan: Tensor    # sigmas, or time steps for a timestep sampler


def img2img_steps(steps: int, denoising_strength: float, exact: bool) -> tuple[int, int]:
    """How many steps the schedule has, and the number t (from 0) of the step at which the picture is noised.

    k-diffusion samplers run the schedule's last t + 1 steps. `exact`: "do exactly the steps", as the hires fix always does.
    """
    share = min(denoising_strength, 0.999)
    if not exact:
        return steps, int(share * steps)
    return (int(steps / share) if denoising_strength > 0 else 0), steps - 1


def from_noise(sampler: Sampler, noise: Tensor, plan: Tensor, *, sgm_noise_multiplier: bool = False) -> Start:
    """txt2img: `plan` is the whole schedule, sigmas or time steps."""
    if sampler.timesteps:
        return Start(noise, plan)
    return Start(noise * ((1 + plan[0] ** 2).sqrt() if sgm_noise_multiplier else plan[0]), plan)


def from_latent(
    sampler: Sampler, latent: Tensor, noise: Tensor, plan: Tensor, steps: tuple[int, int], table: NoiseTable, *, extra_noise: float = 0.0
) -> Start:
    """img2img and the hires fix: the part of the whole `plan` that is run, and the latent noised for it.

    `steps`: as `img2img_steps` gave them. `extra_noise`: of the same draw again, on top of what the level asks for. Raises RecipeError where
    the schedule is too short for that.
    """
    schedule_steps, t = steps
    if not sampler.timesteps:
        sigmas = plan[schedule_steps - t - 1 :]
        if len(sigmas) < 2:     # the DDIM schedule has no more levels than the model
            raise RecipeError(f"this schedule has {len(plan) - 1} steps and not {schedule_steps}: use a higher denoising strength or another one")
        return Start(latent + noise * sigmas[0] + noise * extra_noise, sigmas)
    # The noise is that of time step number t, but the first call is made at number t - 1
    alpha = table.alphas_cumprod[plan[t]]
    return Start(latent * root(alpha) + noise * root(1 - alpha) + noise * (extra_noise * root(alpha)), plan[:t])
