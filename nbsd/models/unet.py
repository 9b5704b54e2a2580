"""diffusers' UNet, with the one difference that sizes which are no multiple of 64 pixels need."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.models.upsampling import Upsample2D
from torch import Tensor
from torch.nn import functional


class SkipSized(Upsample2D):
    """Doubles, convolves, and then takes the size of the skip connection that it is to meet, by nearest neighbour.

    Why: the web UI (ldm's UNet as A1111 patches it) does it in this order; diffusers' own goes to that size first and convolves
    then, which differs by 0.1 to 0.2 standard deviations. Where twice the size is the size, both do the same.
    """

    def forward(self, hidden_states: Tensor, output_size: Any = None, *args: Any, **kwargs: Any) -> Tensor:
        """[B, C, h, w] -> [B, C', *output_size], or [B, C', 2h, 2w] where no size is given."""
        doubled: Tensor = super().forward(hidden_states)
        if output_size is None or tuple(doubled.shape[-2:]) == tuple(output_size):
            return doubled
        return functional.interpolate(doubled, size=tuple(output_size), mode="nearest")


def make_unet(config: dict[str, Any]) -> UNet2DConditionModel:
    """The UNet of a config, without memory: its parameters are on the meta device."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**config)
        for block in unet.up_blocks:
            for index, plain in enumerate(block.upsamplers or ()):
                block.upsamplers[index] = SkipSized(plain.channels, use_conv=True, out_channels=plain.out_channels)
    return unet
