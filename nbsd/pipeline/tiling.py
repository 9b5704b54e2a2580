"""Pictures whose opposite edges fit together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def circular(on: bool, *modules: nn.Module) -> Iterator[None]:
    """For the length of the block, every convolution of the modules reads on at the opposite edge instead of in zeros."""
    convolutions = [layer for module in modules for layer in module.modules() if isinstance(layer, nn.Conv2d)] if on else []
    before = [layer.padding_mode for layer in convolutions]
    try:
        for layer in convolutions:
            layer.padding_mode = "circular"
        yield
    finally:
        for layer, mode in zip(convolutions, before, strict=True):
            layer.padding_mode = mode
