"""Where random numbers come from: one seed, draws in order.

Where numbers are drawn is part of a recipe: "CPU" and the GPU draw different ones from one seed. "NV" computes a GPU's anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from nbsd.errors import RecipeError
from nbsd.sampling.philox import Philox


class Stream(Protocol):
    """Draws in order from one seed."""

    def randn(self, shape: Sequence[int]) -> Tensor:
        """The next draw: float32 unit noise of the given shape."""
        ...


class TorchStream:
    """torch's own generator of a device."""

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        self._generator = torch.Generator(device).manual_seed(seed % 2**64)     # with an ENSD it may be out of range

    def randn(self, shape: Sequence[int]) -> Tensor:
        return torch.randn(tuple(shape), generator=self._generator, device=self._generator.device)


def stream(source: str, seed: int, device: torch.device | str = "cpu") -> Stream:
    """The stream of a source: "CPU", "NV", or "GPU", which is the device's own generator on CUDA and "NV" elsewhere."""
    if source == "CPU":
        return TorchStream(seed)
    on_cuda = torch.device(device).type == "cuda"
    if source == "GPU" and on_cuda:
        return TorchStream(seed, device)
    if source in ("NV", "GPU"):
        return Philox(seed, device if on_cuda else "cpu")   # needs float64, which not every other device has
    raise RecipeError(f"no random number source is called {source!r}: use 'GPU', 'CPU' or 'NV'")
