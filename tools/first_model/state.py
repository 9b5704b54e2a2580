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
    """How long to train: `steps` fixes the learning-rate curve, `minutes` of processor time is when this run stops and saves.

    Processor time, so that a run that has to wait for other programs does not end early.
    """

    steps: int
    minutes: float = float("inf")
    warmup: int = 100
    level: float = 0.0      # share of the steps before the rate begins to fall

    def rate(self, step: int) -> float:
        """Share of the full learning rate: a linear rise, level for a while, then half a cosine down to 2 %."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        start = max(self.warmup, self.level * self.steps)
        done = min(1.0, max(0.0, (step - start) / max(1, self.steps - start)))
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done))


def save_state(path: Path, **state: Any) -> None:
    """Writes the state so that a kill at any moment leaves the old file or the new one."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)
