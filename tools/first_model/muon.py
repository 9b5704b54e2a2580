"""Momentum whose matrices are made orthogonal before they are applied (Jordan et al. 2024, "Muon"), AdamW for all other weights.

A convolution counts as the matrix [out, in * k * k]. The step's size follows Liu et al. 2025: 0.2 * sqrt(longer side), so that one learning
rate serves both halves.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

ROOT = 3.4445, -4.7750, 2.0315      # coefficients of the fifth-order iteration, Jordan et al.
NESTEROV, DECAY = 0.95, 0.01


def orthogonal(g: Tensor, rounds: int = 5) -> Tensor:
    """The matrices [n, rows, columns] with all singular values brought near 1."""
    a, b, c = ROOT
    x = g.bfloat16()
    if tall := x.shape[1] > x.shape[2]:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(rounds):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return (x.mT if tall else x).to(g.dtype)


class Muon:
    """An optimiser of named parameters. `plain` names those that are no matrices in spite of their shape."""

    def __init__(self, named: Iterable[tuple[str, nn.Parameter]], rate: float, plain: Iterable[str]) -> None:
        rest: list[nn.Parameter] = []
        self.groups: dict[tuple[int, int], list[nn.Parameter]] = defaultdict(list)
        plain = tuple(plain)
        for name, parameter in named:
            if parameter.ndim < 2 or any(part in name for part in plain):
                rest.append(parameter)
            else:
                self.groups[len(parameter), parameter[0].numel()].append(parameter)
        self.adam = torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.99), weight_decay=DECAY, foreach=True)
        self.momentum = {shape: torch.zeros(len(group), *shape, device=group[0].device) for shape, group in self.groups.items()}
        self.rate = rate

    @torch.no_grad()
    def step(self, rate: float) -> None:
        for group in self.adam.param_groups:
            group["lr"] = rate
        self.adam.step()
        for shape, parameters in self.groups.items():
            gradient = torch.stack([p.grad.reshape(shape) for p in parameters if p.grad is not None])
            momentum = self.momentum[shape].lerp_(gradient, 1 - NESTEROV)
            moved = orthogonal(gradient.lerp(momentum, NESTEROV)) * (0.2 * max(shape) ** 0.5)
            for parameter, change in zip(parameters, moved, strict=True):
                parameter.mul_(1 - rate * DECAY).sub_(change.view_as(parameter), alpha=rate)

    def state_dict(self) -> dict[str, Any]:
        return {"adam": self.adam.state_dict(), "momentum": list(self.momentum.values())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.adam.load_state_dict(state["adam"])
        for mine, saved in zip(self.momentum.values(), state["momentum"], strict=True):
            mine.copy_(saved)
