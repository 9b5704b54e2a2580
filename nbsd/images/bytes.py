"""Tensors to pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor


def to_bytes(decoded: Tensor) -> Tensor:
    """What a decoder gave, nominally -1 to 1, as bytes of the same shape on the CPU.

    Cut off, not rounded: the web UI does (x + 1) / 2, clamp, times 255, integer part.
    """
    unit = ((decoded.float() + 1) / 2).clamp(0, 1)
    return (unit * 255).byte().cpu()


def to_pil(decoded: Tensor) -> Image.Image:
    """One decoded picture [3, H, W], nominally -1 to 1, as an RGB picture."""
    return Image.fromarray(to_bytes(decoded).permute(1, 2, 0).contiguous().numpy())
