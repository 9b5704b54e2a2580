"""Weights kept in the order that the CPU's kernels read them in.

PyTorch keeps weights in a plain order. Its convolutions on a CPU put them into the kernels' order anew at every call, and its
linear layers in float32 use a library that is slow on processors of other makers. oneDNN, which PyTorch carries, computes with
weights packed once. The UNet of SD 1 at 256 x 256 takes about half the time then (`bench/image.py`). The numbers are the same ones:
packing moves them and changes none.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

OPERATIONS = ("_reorder_convolution_weight", "_convolution_pointwise", "_reorder_linear_weight", "_linear_pointwise")
NO_POINTWISE: tuple[Any, ...] = ("none", [], "")     # nothing is computed behind the layer


class PackedLinear(nn.Linear):
    """A linear layer with a packed weight; a plain layer becomes one by `pack`."""

    def forward(self, input: Tensor) -> Tensor:
        """[..., in] -> [..., out], float32."""
        return torch.ops.mkldnn._linear_pointwise(input, self.weight, self.bias, *NO_POINTWISE)

    def packed(self, weight: Tensor) -> Tensor:
        """A plain weight [out, in] as the kernels want it."""
        return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())


class PackedConv2d(nn.Conv2d):
    """A convolution with a packed weight; a plain layer becomes one by `pack`."""

    def forward(self, input: Tensor) -> Tensor:
        """[B, in, h, w] -> [B, out, h', w'], float32."""
        padding = self.padding
        if self.padding_mode != "zeros":
            input, padding = functional.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode), (0, 0)
        return torch.ops.mkldnn._convolution_pointwise(
            input, self.weight, self.bias, padding, self.stride, self.dilation, self.groups, *NO_POINTWISE
        )

    def packed(self, weight: Tensor) -> Tensor:
        """A plain weight [out, in, kh, kw] as the kernels want it."""
        # The order depends on the input's size: without one, 1x1 kernels got an order three times slower; any size does.
        size = [2, self.in_channels, 32, 32]
        return torch.ops.mkldnn._reorder_convolution_weight(
            weight.contiguous(), self.padding, self.stride, self.dilation, self.groups, size
        )


Packed = (PackedLinear, PackedConv2d)
PACKED: dict[type[nn.Module], type[PackedLinear] | type[PackedConv2d]] = {nn.Linear: PackedLinear, nn.Conv2d: PackedConv2d}


def pack_layers(module: nn.Module) -> dict[str, PackedLinear | PackedConv2d]:
    """Turn a module's convolutions and linear layers into packed ones; {name of the weight: its layer}.

    The weights themselves are the caller's to pack, by `layer.packed(weight)`. {} where this PyTorch cannot do it.
    The convolutions of a VAE's encoder stay as they are: packed ones answer in channels-last order, in which torch's group norm
    rounds so much that a latent is off by 1.5e-4 of its standard deviation, not by 1e-5.
    """
    layers = {}
    for name, layer in module.named_modules() if available() else ():
        kind = PACKED.get(type(layer))
        if kind and (kind is PackedLinear or (_gains(layer) and not name.startswith("encoder."))):
            layer.__class__ = kind
            layers[f"{name}.weight"] = layer
    return layers  # type: ignore[return-value]


def unpack(module: nn.Module) -> None:
    """Give every packed layer its plain weight back, bit for bit."""
    for layer in module.modules():
        if isinstance(layer, Packed):
            plain = plain_weight(layer.weight)
            layer.__class__ = layer.__class__.__mro__[1]
            layer.weight = nn.Parameter(plain, requires_grad=False)


def plain_weight(weight: Tensor) -> Tensor:
    """A weight in its plain order: itself, or of a packed one a copy."""
    return weight.detach().to_dense() if weight.is_mkldnn else weight.detach()


@lru_cache(maxsize=1)
def available() -> bool:
    """Whether this PyTorch can compute with packed weights, tried out: the operations are not part of its public surface."""
    if not torch.backends.mkldnn.is_available() or not all(hasattr(torch.ops.mkldnn, name) for name in OPERATIONS):
        return False
    try:
        with torch.inference_mode():
            return all(_agrees(*trial) for trial in ((nn.Linear(24, 40), (2, 3, 24)), (nn.Conv2d(8, 16, 3, padding=1), (2, 8, 6, 5))))
    except (RuntimeError, TypeError):
        return False


def _agrees(layer: Any, shape: tuple[int, ...]) -> bool:
    values = torch.linspace(-1, 1, layer.weight.numel()).view_as(layer.weight)
    layer.weight = nn.Parameter(values, requires_grad=False)
    layer.requires_grad_(False)
    given = torch.linspace(-1, 1, torch.Size(shape).numel()).view(shape)
    expected = layer(given)
    layer.__class__ = PACKED[type(layer)]
    layer.weight = nn.Parameter(layer.packed(values), requires_grad=False)
    exact = torch.equal(plain_weight(layer.weight), values)
    return exact and torch.allclose(layer(given), expected, rtol=0, atol=1e-4)


def _gains(convolution: Any) -> bool:
    """Whether it is one that oneDNN has a good order for. With 96 channels the packed one took 14 times as long (measured)."""
    return bool(convolution.in_channels % 64 == 0 and convolution.out_channels % 64 == 0)
