"""How much memory there is: the machine's, within the limits of a container, and a GPU's."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import torch

# Share of all memory that loaded models may take; the rest is for pictures in work, for torch and for what else runs there.
RAM_SHARE, VRAM_SHARE = 0.5, 0.6
SOME = 8 << 30      # bytes, where the system does not tell
CGROUPS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def budget(device: torch.device) -> int:
    """Bytes that models may take there."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory * VRAM_SHARE)
    return int(machine() * RAM_SHARE)


def machine(cgroups: tuple[Path, ...] = CGROUPS, meminfo: Path = Path("/proc/meminfo")) -> int:
    """Bytes of memory that this process may have in all: a lab's JupyterHub and Kaggle give a part of the machine."""
    limits = []
    with suppress(OSError, ValueError, IndexError):
        limits.append(int(meminfo.read_text().split("MemTotal:")[1].split()[0]) * 1024)
    for file in cgroups:
        with suppress(OSError, ValueError):     # "max" is no limit
            limits.append(int(file.read_text()))
    return min(limits, default=SOME)


def is_short(error: BaseException) -> bool:
    """Whether an error says that memory is full, a GPU's or the machine's."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in ("can't allocate memory", "not enough memory"))
