"""YOLO detectors as the package ultralytics saves them (.pt): pickles of the whole network, as an object.

The pickle is read by `pickles.py`, so nothing of it is run. What it describes is then put together from the layers of torch and of ultralytics
that stand on the lists below, with the file's own settings; those of today's layers may be others. ultralytics is the user's: nbsd neither
brings it nor needs it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nbsd.errors import ModelError, NbsdError, UnsafeFileError
from nbsd.models.pickles import Kept, Placeholder
from nbsd.models.read import Reader
from nbsd.models.torchfile import open_zip
from nbsd.models.weights import Stored, check_file

Array = np.ndarray[Any, np.dtype[Any]]

NETWORKS = frozenset({"DetectionModel", "SegmentationModel"})
# Layers of YOLO 8 to 26, whose `forward` computes and does nothing else.
LAYERS = frozenset({
    "A2C2f", "AAttn", "ABlock", "AConv", "ADown", "Attention", "Bottleneck", "C2PSA", "C2f", "C2fCIB", "C3", "C3k", "C3k2", "CIB", "Concat",
    "Conv", "DFL", "DWConv", "Detect", "ELAN1", "PSA", "PSABlock", "Proto", "RepBottleneck", "RepCSP", "RepConv", "RepNCSPELAN4", "RepVGGDW",
    "SCDown", "SPPELAN", "SPPF", "Segment", "v10Detect",
})  # fmt: skip
HOMES = ("block", "conv", "head")       # the modules of ultralytics.nn.modules that have them
OF_TORCH = frozenset({
    "BatchNorm2d", "Conv2d", "ConvTranspose2d", "GELU", "Hardswish", "Identity", "LeakyReLU", "MaxPool2d", "ModuleList", "ReLU", "Sequential",
    "SiLU", "Upsample",
})  # fmt: skip
METHODS = frozenset({("__builtin__", "getattr"), ("builtins", "getattr")})      # Segment of 2023 keeps a method of Detect
TAKEN = "ema", "model"      # where a file has its network; training goes on with the other
PATTERNS = 32               # that a segmenting network makes, each a quarter as high and wide as the picture; a mask is a sum of them
ONCE = 6                    # numbers of a box, from networks that give each object once; with PATTERNS of a mask behind
# What running a network can raise whose settings belong to another version of ultralytics.
ODD = (RuntimeError, AttributeError, TypeError, ValueError, LookupError)


def load_yolo(path: Path) -> Callable[[Array], list[Array]]:
    """A network that answers to pixels [1, 3, h, w], float32, 0 to 1, sides multiples of 32, as `pipeline.boxes` reads it; on the CPU.

    Raises NbsdError where ultralytics is not installed, UnsafeFileError or ModelError for a file that is no such network.
    """
    export = f"or export it once (yolo export model={path.name} format=onnx) and use the .onnx file"
    try:
        from ultralytics.nn import modules, tasks
    except ImportError as error:
        name = error.name or str(error)
        missing = "is not installed" if name.split(".")[0] == "ultralytics" else f"cannot be used here ({name} is missing)"
        raise NbsdError(f"{path.name} is a pickle of the package ultralytics, which {missing}: pip install ultralytics, {export}") from None
    check_file(path)
    try:
        weights = open_zip(path, _is_kept)
    except UnsafeFileError as error:
        raise UnsafeFileError(f"{str(error).rpartition('. ')[0]}: choose another detector") from None
    tree = weights.tree if isinstance(weights.tree, dict) else {}
    found = next((tree[name] for name in TAKEN if isinstance(tree.get(name), Kept)), None)
    if found is None or found.name.rpartition(".")[2] not in NETWORKS:
        raise ModelError(f"{path.name} is no YOLO detector of ultralytics ({found.name if found else 'no network'}): choose another file")
    with closing(Reader(weights)) as reader:
        network = _Builder(path.name, modules, tasks, reader).built(found).float().eval()

    @torch.inference_mode()
    def answers(pixels: Array) -> list[Array]:
        try:
            found = [*_tensors(network(torch.from_numpy(pixels)))]      # boxes come first, then what segments, and what training needs
            classes = int(network.model[-1].nc)
        except ODD as error:
            raise ModelError(f"{path.name} does not run with this ultralytics ({str(error)[:80]}): install the one it was made with, {export}"
                             ) from error
        boxes, quarter = found[0].float().numpy(), (PATTERNS, pixels.shape[2] // 4, pixels.shape[3] // 4)
        patterns = [one.float().numpy() for one in found[1:] if tuple(one.shape[1:]) == quarter][:1]
        if boxes.shape[2] not in (ONCE, ONCE + PATTERNS):
            boxes = boxes[:, : 4 + classes + PATTERNS * len(patterns)]
        return [boxes, *patterns]

    return answers


def _tensors(answer: Any) -> Iterator[torch.Tensor]:
    """The tensors of an answer, in their order."""
    if isinstance(answer, torch.Tensor):
        yield answer
    elif isinstance(answer, (list, tuple, dict)):
        for one in answer.values() if isinstance(answer, dict) else answer:
            yield from _tensors(one)


def _is_kept(module: str, name: str) -> bool:
    """Objects of which classes are read: of the two packages, and no function but the one by which a method is written, of which nothing comes."""
    if (module, name) in METHODS:
        return True
    ours = module.split(".")[0] == "ultralytics" or module.startswith("torch.nn.modules.")
    return ours and name.isidentifier() and (name[:1].isupper() or name in LAYERS)


class _Builder:
    """Makes layers of what a pickle says of them."""

    def __init__(self, what: str, modules: Any, tasks: Any, reader: Reader) -> None:
        self._what, self._modules, self._tasks, self._reader = what, modules, tasks, reader
        self._done: dict[int, nn.Module] = {}

    def built(self, kept: Kept) -> Any:
        """The layer with its own ones. Raises ModelError for one that is on no list."""
        if id(kept) in self._done:
            return self._done[id(kept)]
        kind = self._kind(kept.name)
        layer: Any = kind.__new__(kind)
        nn.Module.__init__(layer)
        self._done[id(kept)] = layer
        for name, value in kept.state.items():
            if not name.startswith("_") and name != "training" and not inspect.isfunction(getattr(kind, name, None)):
                layer.__dict__[name] = self._plain(value)
        for table, put in (("_parameters", self._parameter), ("_buffers", self._tensor), ("_modules", self._child)):
            inner = kept.state.get(table)
            getattr(layer, table).update({str(name): put(value) for name, value in inner.items()} if isinstance(inner, dict) else {})
        if isinstance(layer, nn.Upsample):
            layer.__dict__.setdefault("recompute_scale_factor", None)      # older than torch 1.11
        return layer

    def _kind(self, name: str) -> Any:
        module, _, last = name.rpartition(".")
        of_torch = module.startswith("torch.nn.modules.")
        homes = [nn] if of_torch else [self._tasks, *(getattr(self._modules, home, None) for home in HOMES)]
        known = OF_TORCH if of_torch else NETWORKS | LAYERS
        kind = next((getattr(home, last) for home in homes if hasattr(home, last)), None) if last in known else None
        if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
            raise ModelError(f"{self._what} has a layer that nbsd does not build ({last}): export it to ONNX (yolo export model={self._what} "
                             "format=onnx) and use that file")
        return kind

    def _plain(self, value: Any) -> Any:
        """A setting: plain values and tensors; None for anything else."""
        if isinstance(value, Stored):
            return self._reader.read(value).float()
        if isinstance(value, (list, tuple)):
            return type(value)(self._plain(one) for one in value)
        if isinstance(value, dict):
            return {key: self._plain(one) for key, one in value.items()}
        return None if isinstance(value, Placeholder) else value

    def _tensor(self, value: Any) -> Any:
        return self._reader.read(value) if isinstance(value, Stored) else None

    def _parameter(self, value: Any) -> Any:
        tensor = self._tensor(value)
        return None if tensor is None else nn.Parameter(tensor, requires_grad=False)

    def _child(self, value: Any) -> Any:
        return self.built(value) if isinstance(value, Kept) else None
