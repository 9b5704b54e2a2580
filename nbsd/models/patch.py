"""Weights changed for the length of a block. They come back bit for bit: they are kept and put back, not subtracted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nbsd.models.packed import Packed, plain_weight

Change = Callable[[Tensor], Tensor]     # (the weight as it is by now, at least float32) -> what is added to it, of the same shape


@contextmanager
def patched(module: nn.Module, changes: Mapping[str, Sequence[Change]]) -> Iterator[None]:
    """Add up the changes of the named parameters, one after another, for the length of the block.

    The sum is made in float32 and rounded once: the web UI adds in the weights' own type, which is the same in float32 and
    loses the small changes in float16. Raises KeyError for a name that the module has not; nothing is changed then.
    """
    parameters = dict(module.named_parameters())
    weights = {name: parameters[name] for name in changes}
    kept: dict[str, Tensor] = {}
    try:
        with torch.no_grad():
            for name, weight in weights.items():
                wide = plain_weight(weight).to(torch.promote_types(weight.dtype, torch.float32), copy=True)
                for change in changes[name]:
                    wide += change(wide)
                kept[name] = _kept(weight)
                _put(module, name, wide)
        yield
    finally:
        with torch.no_grad():
            for name, before in kept.items():
                _put(module, name, before)


def _put(module: nn.Module, name: str, value: Tensor) -> None:
    """Give a parameter another value: in its own memory, or where it is packed as another tensor."""
    owner = module.get_submodule(name.rpartition(".")[0])
    weight = module.get_parameter(name)
    if isinstance(owner, Packed) and owner.weight is weight:
        owner.weight = nn.Parameter(value if value.is_mkldnn else owner.packed(value), requires_grad=False)
    else:
        weight.copy_(value)


def _kept(weight: Tensor) -> Tensor:
    """A copy beside the weight, or in the machine's memory where the device has no room for it; of a packed one itself."""
    if weight.is_mkldnn:
        return weight
    try:
        return weight.detach().clone()
    except torch.OutOfMemoryError:
        return weight.detach().to("cpu", copy=True)
