"""Samplers, schedules, noise and guidance. Knows no model and no recipe.

One contract for every sampler: `run(denoise, x, sigmas, noise, on_step=ignore, **options) -> x`. It stops when `on_step` or
`denoise` raises. `options` of a row says which keywords it takes; they have the names of the recipe's fields.

* kind "k": `x` [B, 4, h, w] is at the noise level `sigmas[0]`; `denoise(x, sigma)` answers x0.
* kind "timesteps": the third argument holds time steps, ascending, as `make_timesteps` gives them (they are walked from the
  last to the first); `x` is in the UNet's scale (the bare starting noise); `denoise(x, t)` answers the guided *noise*; the
  keyword `table` is the model's `NoiseTable`.

`sigmas` and `table` stay on the CPU, so that no step waits for a GPU to learn a scalar.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import partial

from torch import Tensor

from nbsd.names import SAMPLER_FACTS
from nbsd.sampling.contract import Denoise, Noise, Sampler, Step, ignore
from nbsd.sampling.dpm import dpmpp_2m, dpmpp_2m_sde, dpmpp_2s_ancestral, dpmpp_3m_sde, dpmpp_sde
from nbsd.sampling.dpm_solver import dpm_adaptive, dpm_fast
from nbsd.sampling.samplers import dpm_2, dpm_2_ancestral, euler, euler_ancestral, heun, lcm, lms, restart
from nbsd.sampling.schedules import SCHEDULES, Schedule, find_schedule, make_sigmas, make_timesteps, resolve_schedule
from nbsd.sampling.timesteps import ddim, ddim_cfgpp, plms
from nbsd.sampling.unipc import unipc

__all__ = [
    "SAMPLERS",
    "SCHEDULES",
    "Denoise",
    "Noise",
    "Sampler",
    "Schedule",
    "Step",
    "find_sampler",
    "find_schedule",
    "ignore",
    "make_sigmas",
    "make_timesteps",
    "resolve_schedule",
]


def _row(name: str, run: Callable[..., Tensor], model_calls: int = 1, cfg_divisor: float = 1.0) -> Sampler:
    facts = SAMPLER_FACTS[name]
    return Sampler(**{f.name: getattr(facts, f.name) for f in fields(facts)}, run=run, model_calls=model_calls, cfg_divisor=cfg_divisor)


SAMPLERS: dict[str, Sampler] = {
    row.name: row
    for row in (
        _row("DPM++ 2M", dpmpp_2m),
        _row("DPM++ SDE", dpmpp_sde, 2),
        _row("DPM++ 2M SDE", dpmpp_2m_sde),
        _row("DPM++ 2M SDE Heun", partial(dpmpp_2m_sde, solver_type="heun")),
        _row("DPM++ 2S a", dpmpp_2s_ancestral, 2),
        _row("DPM++ 3M SDE", dpmpp_3m_sde),
        _row("Euler a", euler_ancestral),
        _row("Euler", euler),
        _row("LMS", lms),
        _row("Heun", heun, 2),
        _row("DPM2", dpm_2, 2),
        _row("DPM2 a", dpm_2_ancestral, 2),
        _row("DPM fast", dpm_fast),
        _row("DPM adaptive", dpm_adaptive, 3),
        _row("Restart", restart, 2),
        _row("DDIM", ddim),
        _row("DDIM CFG++", ddim_cfgpp, cfg_divisor=12.5),
        _row("PLMS", plms),
        _row("UniPC", unipc),
        _row("LCM", lcm),
    )
}


def find_sampler(name: str) -> Sampler | None:
    """The row of a sampler's name or alias, in any case; None where there is none."""
    asked = name.casefold()
    for row in SAMPLERS.values():
        if asked in (row.name.casefold(), *(alias.casefold() for alias in row.aliases)):
            return row
    return None
