"""Where and how precisely to compute. Decided once; nothing below asks CUDA."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from nbsd.errors import NbsdError, OutOfMemory
from nbsd.models.memory import is_short

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
SHORTER = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "half": "float16"}


@dataclass(frozen=True)
class Compute:
    """One choice of device and precisions, passed down."""

    device: torch.device
    weights: torch.dtype                        # of UNet and text encoder
    vae: torch.dtype = torch.float32
    latents: torch.dtype = torch.float32        # samplers step in float32 on every device

    @property
    def words(self) -> str:
        """For the status line, such as "Tesla T4, float16"."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        return f"{name}, {str(self.weights).removeprefix('torch.')}"


def choose(device: str | None = None, dtype: str | torch.dtype | None = None) -> Compute:
    """The given device and precision, or the best there is: float16 on CUDA, float32 on a CPU.

    Raises NbsdError for a device that is not there or that this PyTorch has no kernels for.
    """
    try:
        wanted = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        raise NbsdError(f"no device is called {device!r}: use 'cpu' or 'cuda'") from None
    if wanted.type not in ("cpu", "cuda"):
        raise NbsdError(f"the device {device!r} is not supported: use 'cpu' or 'cuda'")
    if wanted.type == "cuda":
        _require_kernels(wanted)
    weights = _dtype(dtype) or (torch.float16 if wanted.type == "cuda" else torch.float32)
    return Compute(wanted, weights, vae=weights)


def _require_kernels(device: torch.device) -> None:
    """Some GPUs say they are there and then fail at the first kernel (Kaggle's P100 with today's PyTorch)."""
    if not torch.cuda.is_available():
        raise NbsdError("there is no CUDA device here: choose a runtime with a GPU, or device='cpu'")
    if device.index is not None and device.index >= torch.cuda.device_count():
        raise NbsdError(f"there is no {device}: this machine has {torch.cuda.device_count()} CUDA device(s), counted from cuda:0")
    major, minor = torch.cuda.get_device_capability(device)
    built_for = [name.removeprefix("sm_") for name in torch.cuda.get_arch_list() if name.startswith("sm_")]
    oldest = min((int(number) for number in built_for if number.isdigit()), default=0)
    if major * 10 + minor < oldest:
        raise NbsdError(
            f"this PyTorch has no code for {torch.cuda.get_device_name(device)} (compute capability {major}.{minor}, "
            f"at least {oldest // 10}.{oldest % 10} is needed): on Kaggle choose the accelerator 'GPU T4 x2'"
        )


def _dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    if dtype is None or isinstance(dtype, torch.dtype):
        return dtype
    name = SHORTER.get(dtype, dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise NbsdError(f"no precision is called {dtype!r}: use one of {', '.join(DTYPES)}")
    return DTYPES[name]


@contextmanager
def memory_errors(what: str) -> Iterator[None]:
    """Turn the device's "out of memory" into a sentence that says what to lower."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise OutOfMemory(f"the GPU's memory is full while {what}: lower the batch size or the picture's size") from error
    except (MemoryError, RuntimeError) as error:
        if not is_short(error):
            raise
        raise OutOfMemory(f"the machine's memory is full while {what}: lower the batch size or the picture's size") from error
