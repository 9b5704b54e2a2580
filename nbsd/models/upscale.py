"""Upscaler model files (ESRGAN, Real-ESRGAN, SwinIR, DAT, HAT, ...), read by nbsd's own readers and built by spandrel, which is optional."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nbsd.errors import ModelError, NbsdError
from nbsd.models.detect import UPSCALER
from nbsd.models.small import read_small
from nbsd.models.store import Store
from nbsd.names import UPSCALER_FILES, UpscalerFile

INSTALL = "pip install 'nbsd[upscale]'"
COLORS = 3


class UpscalerModel:
    """An upscaler network on a device."""

    def __init__(self, path: Path, network: Any, device: torch.device) -> None:
        """`network`: spandrel's descriptor of a model that takes and gives RGB."""
        self.path, self.scale, self._device = path, int(network.scale), device
        self.architecture = str(getattr(getattr(network, "architecture", None), "id", ""))     # as spandrel names it
        half = device.type == "cuda" and network.supports_half
        self._dtype = torch.float16 if half else torch.float32
        self._network = network.to(device, self._dtype).eval()

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Pixels [1, 3, h, w], 0 to 1 -> [1, 3, scale h, scale w], float32 on the CPU, 0 to 1."""
        answer: Tensor = self._network(pixels.to(self._device, self._dtype))
        if not answer.isfinite().all() and self._dtype != torch.float32:
            self._dtype = torch.float32     # it overflowed in half precision
            self._network = self._network.to(self._device, self._dtype)
            answer = self._network(pixels.to(self._device))
        return answer.float().cpu().clamp(0, 1)


def load_upscaler(path: str | Path, device: torch.device | str = "cpu") -> UpscalerModel:
    """Load an upscaler file (.pth, .pt, .safetensors) of any architecture that spandrel knows.

    The file is read through nbsd's allow-list, never unpickled. Raises NbsdError where spandrel is not installed, and ModelError for a
    file that is no upscaler of colours.
    """
    path = Path(path)
    spandrel = _spandrel()
    contents = read_small(path)
    try:
        network = spandrel.ModelLoader(device="cpu").load_from_state_dict(contents)
    except (spandrel.UnsupportedModelError, RuntimeError, KeyError, ValueError, TypeError, AssertionError) as error:
        raise ModelError(f"'{path.name}' is no upscaler that spandrel knows ({type(error).__name__}): choose another file.") from error
    if not isinstance(network, spandrel.ImageModelDescriptor) or (network.input_channels, network.output_channels) != (COLORS, COLORS):
        raise ModelError(f"'{path.name}' is no upscaler of colour pictures: choose another file.")
    return UpscalerModel(path, network, torch.device(device))


def _spandrel() -> Any:
    try:
        import spandrel
    except ImportError as error:
        missing = "" if error.name in (None, "spandrel") else f" ({error.name} is missing)"
        raise NbsdError(f"upscaler files need the package spandrel{missing}, which is not installed here: {INSTALL}") from error
    except RuntimeError as error:       # a torchvision that does not belong to this torch
        raise NbsdError(f"spandrel cannot be used here ({str(error).splitlines()[0][:100]}): install the torchvision of this PyTorch") from error
    return spandrel


class UpscalerFiles:
    """The upscaler files of some folders; the last one that was used stays loaded."""

    def __init__(self, folders: Sequence[str | Path], device: torch.device | str = "cpu") -> None:
        self._store, self._device = Store(folders), torch.device(device)
        self._loaded: tuple[tuple[str, int], UpscalerModel] | None = None

    def names(self) -> list[str]:
        """What the files are called, as `find` takes it."""
        return [entry.title for entry in self._store.scan() if entry.kind == UPSCALER]

    def find(self, name: str) -> UpscalerModel:
        """The upscaler of a name (the web UI's too) or path, loaded. Raises ModelError where there is none, or as `load_upscaler` does."""
        path = self._path(name)
        key = str(path.resolve()), path.stat().st_mtime_ns
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = key, load_upscaler(path, self._device)
        return self._loaded[1]

    def _path(self, name: str) -> Path:
        known = UPSCALER_FILES.get(name, UpscalerFile(()))
        for stem in known.stems:
            with suppress(ModelError):
                return self._store.find(stem, UPSCALER)
        try:
            return self._store.find(name, UPSCALER)
        except ModelError as error:
            if not known.stems:
                raise
            get = f": fetch it from {known.link} (on the page Files, or by nbsd get)" if known.link else ": put it into a folder of models"
            raise ModelError(f"'{name}' is the web UI's name of the file {known.stems[-1]}.pth, which is not here{get}.") from error
