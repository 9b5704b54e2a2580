"""What a sampler is given and what it tells: the types that every other module here shares."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor

from nbsd.names import SamplerFacts

Denoise = Callable[[Tensor, Tensor], Tensor]    # (x [B, 4, h, w], sigma) -> x0, same shape as x
Noise = Callable[[Tensor, Tensor], Tensor]      # (sigma, sigma_next) -> unit noise, shape of x


@dataclass(frozen=True)
class Step:
    """What a sampler tells after the first model call of each of its steps."""

    index: int      # from 0
    sigma: Tensor   # scalar, the noise level of x
    x: Tensor       # [B, 4, h, w], before this step
    x0: Tensor      # [B, 4, h, w], the model's guess of the clean latent


OnStep = Callable[[Step], None]


def ignore(step: Step) -> None:
    """The observer that observes nothing."""


@dataclass(frozen=True)
class Sampler(SamplerFacts):
    """A row of `SAMPLERS`: what is known of a sampler, and how to run it."""

    run: Callable[..., Tensor] = field(kw_only=True)
    model_calls: int = field(default=1, kw_only=True)   # per step, for the time estimate; DPM adaptive decides by itself
    cfg_divisor: float = field(default=1.0, kw_only=True)   # the guidance scale is divided by it

    @property
    def kind(self) -> str:
        """"k": steps in sigmas, asks for x0. "timesteps": steps in time steps, asks for the noise prediction."""
        return "timesteps" if self.timesteps else "k"

    @property
    def options(self) -> frozenset[str]:
        """The keywords that `run` takes besides the five that every sampler takes."""
        fixed = self.run.keywords if isinstance(self.run, partial) else {}
        parameters = inspect.signature(self.run).parameters.values()
        return frozenset(p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in fixed)
