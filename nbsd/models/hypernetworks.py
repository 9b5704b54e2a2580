"""Hypernetworks: small networks that change what the UNet's attention makes its keys and values of.

A file has, for each width, one network for the keys and one for the values. They act in every attention of the UNet whose
context has that width; in self-attention the context is the picture itself. Each adds `strength` times its answer to its input.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from nbsd.errors import ModelError
from nbsd.models.small import read_small

KEYS, VALUES = 0, 1             # the two networks of a width, in the order of the file
_NUMBERED = re.compile(r"linear\.(\d+)\.(weight|bias)")
# October 2022: two layers under fixed names, nothing between them.
OLD_NAMES = {"linear1": 0, "linear2": 1}
# The web UI takes every activation of torch by its name in small letters, and one under another name.
NO_ACTIVATION = (None, "linear")
OTHER_NAMES = {"swish": nn.Hardswish}
UNUSABLE = ("glu", "multiheadattention", "threshold")       # change the width, or want arguments
ACTIVATIONS: dict[str, type[nn.Module]] = {
    **{name.lower(): getattr(nn, name) for name in nn.modules.activation.__all__ if name.lower() not in UNUSABLE}, **OTHER_NAMES,
}  # fmt: skip


@dataclass(frozen=True)
class Hypernetwork:
    """A hypernetwork's file, read."""

    path: Path
    networks: Mapping[int, tuple[nn.Sequential, nn.Sequential]]     # width of the context -> networks for keys and for values

    @property
    def name(self) -> str:
        return self.path.stem


def read_hypernetwork(path: Path) -> Hypernetwork:
    """Read a hypernetwork of the web UI, of today or of October 2022. Raises ModelError for a file that is none, or a broken one."""
    tree = read_small(path)
    pairs = {width: pair for width, pair in tree.items() if type(width) is int}
    if not pairs or not all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in pairs.values()):
        raise ModelError(f"'{path.name}' is no hypernetwork: it has no networks for the widths of an attention")
    try:
        return Hypernetwork(path, {width: (_network(pair[KEYS], width, tree), _network(pair[VALUES], width, tree))
                                   for width, pair in pairs.items()})
    except ModelError as error:
        raise type(error)(f"the hypernetwork '{path.name}' cannot be used: {error}") from error


def _network(stored: Any, width: int, about: Mapping[Any, Any]) -> nn.Sequential:
    """One of the two networks of a width, from its tensors by name. Dropout has no effect on a finished network and is left out."""
    slots = _slots(stored)
    activation = about.get("activation_func")
    # The web UI (Hypernetwork.load) takes it that the last layer is activated where a file does not say.
    activate_output = about.get("activate_output", True)
    linear = [at for at, slot in slots.items() if slot["weight"].ndim == 2]
    if not linear:
        raise ModelError("it has no layers")
    parts: list[nn.Module] = []
    wide = width
    for at, slot in sorted(slots.items()):
        if slot["weight"].ndim == 2:
            wide = _append_linear(parts, slot, wide)
            # An activation has a place of its own in the numbering: where the next tensor follows at once, there is none.
            if activation not in NO_ACTIVATION and at + 1 not in slots and (at != linear[-1] or activate_output):
                parts.append(_activation(activation))
        elif slot["weight"].shape == (wide,) and "bias" in slot:
            parts.append(_filled(nn.LayerNorm(wide, device="meta"), slot))
        elif slot["weight"].shape == (1,) and activation == "prelu":
            parts.append(_filled(nn.PReLU(device="meta"), slot))
        else:
            raise ModelError(f"the tensor linear.{at}.weight of shape {list(slot['weight'].shape)} has no place behind {wide} numbers")
    if wide != width:
        raise ModelError(f"its network for {width} numbers gives {wide}")
    return nn.Sequential(*parts).eval().requires_grad_(False)


def _slots(stored: Any) -> dict[int, dict[str, Tensor]]:
    """Place in the network -> weight and bias."""
    slots: dict[int, dict[str, Tensor]] = {}
    for key, tensor in stored.items() if isinstance(stored, Mapping) else ():
        name, _, kind = str(key).partition(".")
        found = _NUMBERED.fullmatch(str(key))
        if found:
            name, kind = found[1], found[2]
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or (not found and name not in OLD_NAMES):
            raise ModelError(f"it has a part that is not known: {str(key)[:60]}")
        slots.setdefault(int(OLD_NAMES.get(name, name)), {})[kind] = tensor
    if lacking := [at for at, slot in slots.items() if "weight" not in slot]:
        raise ModelError(f"its layer {lacking[0]} has no weight")
    return dict(sorted(slots.items()))


def _append_linear(parts: list[nn.Module], slot: Mapping[str, Tensor], wide: int) -> int:
    """Append a layer for `wide` numbers; returns how many it gives."""
    outputs, inputs = slot["weight"].shape
    if inputs != wide:
        raise ModelError(f"a layer for {inputs} numbers stands where {wide} come in")
    parts.append(_filled(nn.Linear(inputs, outputs, bias="bias" in slot, device="meta"), slot))
    return outputs


def _filled(module: nn.Module, slot: Mapping[str, Tensor]) -> nn.Module:
    try:
        module.load_state_dict({name: tensor.float() for name, tensor in slot.items()}, assign=True)
    except RuntimeError as error:
        raise ModelError(f"a layer's tensors do not go together: {str(error).splitlines()[-1].strip()}") from error
    return module


def _activation(name: Any) -> nn.Module:
    kind = ACTIVATIONS.get(str(name).lower())
    if kind is None:
        raise ModelError(f"its activation {str(name)[:40]!r} is not known")
    return kind()


@contextmanager
def acting(unet: nn.Module, wanted: Sequence[tuple[Hypernetwork, float]]) -> Iterator[None]:
    """Let hypernetworks act on a UNet of diffusers for the length of the block, one after another, each with its strength."""
    with ExitStack() as hooks:
        for layer, _, chain in _chains(unet, wanted):
            device, dtype = layer.weight.device, layer.weight.dtype
            for network, _ in chain:
                network.to(device, dtype)
            hooks.callback(layer.register_forward_pre_hook(_changed(chain)).remove)
        yield


def acts_on(unet: nn.Module, hypernetwork: Hypernetwork) -> int:
    """How many attentions of the UNet it changes."""
    return len(_chains(unet, [(hypernetwork, 1.0)])) // 2


_Chain = list[tuple[nn.Sequential, float]]


def _chains(unet: nn.Module, wanted: Sequence[tuple[Hypernetwork, float]]) -> list[tuple[nn.Linear, int, _Chain]]:
    """Layers that make keys or values, and the networks that what goes into them passes first."""
    found = []
    for module in unet.modules():
        for side, name in ((KEYS, "to_k"), (VALUES, "to_v")):
            layer = getattr(module, name, None)
            if isinstance(layer, nn.Linear):
                chain = [(one.networks[layer.in_features][side], strength) for one, strength in wanted if layer.in_features in one.networks]
                if chain:
                    found.append((layer, side, chain))
    return found


def _changed(chain: _Chain) -> Any:
    def change(_layer: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        context = args[0]       # [B, n, width]
        for network, strength in chain:
            context = context + network(context) * strength
        return (context, *args[1:])

    return change
