"""Plans and checkpoints of a training run."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Plan:
    """How long to train: `steps` fixes the learning-rate curve, `minutes` is when this run stops and saves."""

    steps: int
    minutes: float = float("inf")
    warmup: int = 100

    def rate(self, step: int) -> float:
        """Share of the full learning rate: a linear rise, then half a cosine down to 2 %."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        done = min(1.0, (step - self.warmup) / max(1, self.steps - self.warmup))
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done))


def save_state(path: Path, **state: Any) -> None:
    """Writes the state so that a kill at any moment leaves the old file or the new one."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)
