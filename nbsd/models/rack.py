"""Loaded models within a budget: the ones last used stay on their device, older ones wait in the machine's memory, the oldest are let go."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from nbsd.models.memory import budget

if TYPE_CHECKING:
    from nbsd.models.load import Checkpoint

CPU = torch.device("cpu")
Progress = Callable[[int, int], None]       # bytes moved, bytes to move; may raise Stopped


class Rack:
    """Checkpoints by what was asked for. Those that differ only in the VAE or in what they predict share their UNet and text encoders."""

    def __init__(self, ram: int | None = None, vram: int | None = None) -> None:
        """`ram`, `vram`: bytes that models may take in the machine's memory and on a GPU; None: a share of what there is."""
        self._ram, self._vram = ram, vram
        self._held: OrderedDict[Any, tuple[Checkpoint, torch.device]] = OrderedDict()     # the last used one last

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, checkpoint: object) -> bool:
        return any(held is checkpoint for held, _ in self._held.values())

    def __iter__(self) -> Iterator[tuple[Any, Checkpoint]]:
        """The last used one first."""
        return iter([(key, checkpoint) for key, (checkpoint, _) in reversed(self._held.items())])

    @property
    def last(self) -> Checkpoint | None:
        """The one that was used last."""
        return next((checkpoint for _, checkpoint in self), None)

    def get(self, key: Any, on_progress: Progress | None = None) -> Checkpoint | None:
        """The checkpoint that was put there for this request, on its device again; None where it is not held.

        Where moving it fails or is stopped, it stays where it was.
        """
        if key not in self._held:
            return None
        checkpoint, device = self._held[key]
        if missing := _missing(checkpoint, device):
            self.make_room(device, missing, keep=checkpoint)
            move(checkpoint, device, on_progress)
        self._held.move_to_end(key)
        return checkpoint

    def put(self, key: Any, checkpoint: Checkpoint, device: torch.device | str) -> None:
        """Hold a checkpoint that was just loaded onto a device, as the last used one; older ones make room."""
        self._held[key] = (checkpoint, torch.device(device))
        self._held.move_to_end(key)
        self.make_room(torch.device(device), 0, keep=checkpoint)

    def clear(self) -> None:
        """Give all memory back."""
        self._held.clear()
        _release()

    def make_room(self, device: torch.device, wanted: int, keep: Checkpoint | None = None, may_wait: bool = False) -> None:
        """Let go of the oldest ones until `wanted` more bytes are within the budget of a device.

        `keep` is held in any case, with what it shares, and stays on its device unless it `may_wait` in the machine's memory.
        """
        if device.type != "cpu":
            most = self._vram if self._vram is not None else budget(device)
            for checkpoint in self._oldest(None if may_wait else keep):
                if self.taken(device) + wanted <= most:
                    break
                move(checkpoint, CPU)
        most = self._ram if self._ram is not None else budget(CPU)
        for key, (checkpoint, _) in list(self._held.items()):
            if self.taken(CPU) + (wanted if device.type == "cpu" else 0) <= most:
                break
            if checkpoint is not keep and any(place(tensor).type == "cpu" for tensor in _tensors(checkpoint)):
                del self._held[key]
        _release()

    def taken(self, device: torch.device) -> int:
        """Bytes that the held models take on a device, what they share counted once."""
        tensors = {id(tensor): tensor for checkpoint, _ in self._held.values() for tensor in _tensors(checkpoint)}
        return sum(tensor.nbytes for tensor in tensors.values() if _same(place(tensor), device))

    def _oldest(self, keep: Checkpoint | None) -> list[Checkpoint]:
        kept = {id(module) for module in modules(keep)} if keep is not None else set()
        return [checkpoint for checkpoint, _ in self._held.values() if checkpoint is not keep and not kept & {id(one) for one in modules(checkpoint)}]


def modules(checkpoint: Checkpoint) -> list[nn.Module]:
    """The networks that a checkpoint is made of."""
    values = [getattr(checkpoint, field.name) for field in fields(checkpoint)]
    flat = [one for value in values for one in (value if isinstance(value, tuple) else (value,))]
    return [one for one in flat if isinstance(one, nn.Module)]


def carry(tensor: torch.Tensor, device: torch.device) -> None:
    """Move the numbers of a tensor; whoever holds the tensor finds them there."""
    tensor.data = tensor.data.to(device)


def place(tensor: torch.Tensor) -> torch.device:
    """Where a tensor's numbers are."""
    return tensor.device


def move(checkpoint: Checkpoint, device: torch.device, on_progress: Progress | None = None) -> None:
    """Move a checkpoint's networks to a device, tensor by tensor. What has moved goes back where `on_progress` raises or memory ends."""
    there = [tensor for tensor in _tensors(checkpoint) if not _same(place(tensor), device)]
    total, done = sum(tensor.nbytes for tensor in there), 0
    before: list[tuple[torch.Tensor, torch.device]] = []
    try:
        for tensor in there:
            before.append((tensor, place(tensor)))
            carry(tensor, device)
            done += tensor.nbytes
            if on_progress:
                on_progress(done, total)
    except BaseException:
        for tensor, home in reversed(before):
            carry(tensor, home)
        raise


def _tensors(checkpoint: Checkpoint) -> Iterator[torch.Tensor]:
    """Every parameter and buffer, each once."""
    seen: set[int] = set()
    for module in modules(checkpoint):
        for tensor in (*module.parameters(), *module.buffers()):
            if id(tensor) not in seen:
                seen.add(id(tensor))
                yield tensor


def _missing(checkpoint: Checkpoint, device: torch.device) -> int:
    return sum(tensor.nbytes for tensor in _tensors(checkpoint) if not _same(place(tensor), device))


def _same(one: torch.device, other: torch.device) -> bool:
    """cuda and cuda:0 are one where nothing else was chosen."""
    return one.type == other.type and (one.index or 0) == (other.index or 0)


def _release() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
