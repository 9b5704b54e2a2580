"""Packed weights: the same layers, faster."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nbsd.models import packed
from nbsd.models.packed import Packed, available, pack_layers, plain_weight, unpack

needs_packing = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")

# layer -> the shape of what goes in
LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (nn.Linear(40, 64), (2, 7, 40)),
    "linear without bias": (nn.Linear(33, 17, bias=False), (5, 33)),
    "convolution": (nn.Conv2d(64, 128, 3, padding=1), (2, 64, 9, 7)),
    "1x1": (nn.Conv2d(128, 64, 1), (1, 128, 4, 4)),
    "stride": (nn.Conv2d(64, 64, 3, stride=2, padding=1), (2, 64, 9, 7)),
    "uneven padding given before": (nn.Conv2d(64, 64, 3, stride=2), (1, 64, 10, 9)),
    "groups": (nn.Conv2d(64, 64, 3, padding=1, groups=4, bias=False), (1, 64, 6, 6)),
    "circular": (nn.Conv2d(64, 64, 3, padding=1, padding_mode="circular"), (1, 64, 5, 6)),
}


def packed_copy(layer: nn.Module) -> nn.Sequential:
    """The layer alone in a module, its weight packed."""
    module = nn.Sequential(layer).requires_grad_(False)
    for name, one in pack_layers(module).items():
        one.weight = nn.Parameter(one.packed(module.get_parameter(name)), requires_grad=False)
    return module


@needs_packing
def test_this_pytorch_can_pack() -> None:
    assert available()


@needs_packing
@pytest.mark.parametrize("name", LAYERS)
@torch.inference_mode()
def test_a_packed_layer_gives_the_same(name: str) -> None:
    layer, shape = LAYERS[name]
    given = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    expected, weight = layer(given), layer.weight.detach().clone()
    module = packed_copy(layer)
    assert isinstance(module[0], Packed) and module[0].weight.is_mkldnn
    assert module[0].weight.shape == weight.shape
    torch.testing.assert_close(module(given), expected, rtol=0, atol=2e-5)
    if len(shape) == 4:
        torch.testing.assert_close(module(given.contiguous(memory_format=torch.channels_last)), expected, rtol=0, atol=2e-5)
    unpack(module)
    assert type(module[0]) in (nn.Linear, nn.Conv2d)
    assert torch.equal(module[0].weight, weight), "unpacking must give the weight back bit for bit"
    assert torch.equal(module(given), expected)


def test_convolutions_that_would_be_slower_stay_plain() -> None:
    module = nn.Sequential(nn.Conv2d(96, 96, 3), nn.Conv2d(4, 64, 3), nn.Conv2d(64, 4, 3))
    assert pack_layers(module) == {}
    assert [type(layer) for layer in module] == [nn.Conv2d] * 3


def test_a_plain_weight_is_itself() -> None:
    weight = torch.ones(2, 3)
    assert plain_weight(weight).data_ptr() == weight.data_ptr()


@pytest.mark.parametrize("fault", ["gone", "raises", "wrong"])
def test_without_working_operations_layers_stay_plain(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def raising(*_args: object) -> Tensor:
        raise RuntimeError("not here")

    if fault == "gone":
        monkeypatch.setattr(packed, "OPERATIONS", ("_no_such_operation",))
    elif fault == "raises":
        monkeypatch.setattr(packed.PackedLinear, "packed", raising)
    else:
        monkeypatch.setattr(packed.PackedLinear, "forward", lambda self, given: given.new_zeros((*given.shape[:-1], self.out_features)))
    available.cache_clear()
    try:
        module = nn.Sequential(nn.Linear(3, 3))
        assert not available()
        assert pack_layers(module) == {} and type(module[0]) is nn.Linear
    finally:
        available.cache_clear()
