"""models/patch.py: weights changed for a block come back bit for bit, whatever happens in it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nbsd.models.packed import pack_layers, plain_weight
from nbsd.models.patch import patched


def layer(dtype: torch.dtype = torch.float32) -> nn.Linear:
    module = nn.Linear(3, 3).to(dtype).requires_grad_(False)
    module.weight.copy_(torch.arange(9).reshape(3, 3) / 7)
    return module


def bits(module: nn.Module) -> bytes:
    return b"".join(one.contiguous().view(torch.uint8).numpy().tobytes() for one in module.state_dict().values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_weights_come_back_bit_for_bit(dtype):
    module = layer(dtype)
    before = bits(module)
    with patched(module, {"weight": [lambda weight: weight * 0.3, torch.ones_like], "bias": [torch.ones_like]}):
        assert bits(module) != before
    assert bits(module) == before


def test_changes_add_up_one_after_another():
    module = layer()
    before = module.weight.clone()
    with patched(module, {"weight": [torch.ones_like, lambda weight: weight * 2]}):
        assert torch.equal(module.weight, (before + 1) * 3)


def test_a_break_in_the_block_puts_them_back_too():
    module = layer()
    before = bits(module)
    with pytest.raises(KeyboardInterrupt), patched(module, {"weight": [torch.ones_like]}):
        raise KeyboardInterrupt
    assert bits(module) == before


def test_a_break_among_the_changes_puts_back_those_that_were_made():
    module = layer()
    before = bits(module)

    def breaks(_: torch.Tensor) -> torch.Tensor:
        raise MemoryError

    with pytest.raises(MemoryError), patched(module, {"weight": [torch.ones_like], "bias": [breaks]}):
        raise AssertionError("the block must not be reached")
    assert bits(module) == before


def test_an_unknown_name_changes_nothing():
    module = layer()
    before = bits(module)
    with pytest.raises(KeyError), patched(module, {"weight": [torch.ones_like], "wait": [torch.ones_like]}):
        raise AssertionError("the block must not be reached")
    assert bits(module) == before


def test_half_precision_is_rounded_once_so_that_small_changes_count():
    module = layer(torch.float16)
    module.weight.fill_(1.0)
    step = 2.0**-12         # a quarter of the distance from 1 to the next float16: added alone it is lost
    with patched(module, {"weight": [lambda weight: torch.full_like(weight, step)] * 4}):
        assert torch.equal(module.weight, torch.full((3, 3), 1 + 4 * step, dtype=torch.float16))


def test_blocks_nest():
    module = layer()
    before = module.weight.clone()
    with patched(module, {"weight": [torch.ones_like]}):
        with patched(module, {"weight": [torch.ones_like]}):
            assert torch.equal(module.weight, before + 1 + 1)
        assert torch.equal(module.weight, before + 1)
    assert torch.equal(module.weight, before)


def test_a_full_device_keeps_the_copy_elsewhere(monkeypatch):
    module = layer()
    before = bits(module)

    def full(_: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(torch.Tensor, "clone", full)
    with patched(module, {"weight": [torch.ones_like]}):
        pass
    assert bits(module) == before


def test_packed_weights_are_changed_and_come_back_as_they_were():
    module = nn.Sequential(nn.Linear(3, 3), nn.Conv2d(64, 64, 3)).requires_grad_(False)
    before = {name: one.clone() for name, one in module.named_parameters()}
    for name, one in pack_layers(module).items():
        one.weight = nn.Parameter(one.packed(before[name]), requires_grad=False)
    given = torch.ones(1, 3)
    plain = module[0](given)
    with patched(module, {"0.weight": [torch.ones_like], "0.bias": [torch.ones_like], "1.weight": [lambda weight: weight]}):
        assert torch.allclose(module[0](given), plain + 3 + 1)
        assert torch.equal(plain_weight(module[1].weight), before["1.weight"] * 2)
        with patched(module, {"0.weight": [torch.ones_like]}):
            assert torch.allclose(module[0](given), plain + 6 + 1)
    assert all(torch.equal(plain_weight(one), before[name]) for name, one in module.named_parameters())
    assert torch.equal(module[0](given), plain)
