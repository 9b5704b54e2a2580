"""What a borrowed machine has, found out without torch: its GPUs, its way to the internet, its age."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

PATIENCE = 3.0          # seconds for an answer from outside
SERVER = ("huggingface.co", 443)


def gpus() -> list[str]:
    """Names of the GPUs, such as "Tesla T4"; empty where there is none."""
    if shutil.which("nvidia-smi") is None:
        return []
    with suppress(OSError, subprocess.SubprocessError):
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        said = subprocess.run(command, capture_output=True, text=True, timeout=10)
        if said.returncode == 0:
            return [line.strip() for line in said.stdout.splitlines() if line.strip()]
    return []


def online() -> bool:
    """Whether the internet can be reached."""
    try:
        socket.create_connection(SERVER, PATIENCE).close()
        return True
    except OSError:
        return False


def minutes_up(first: Path = Path("/proc/1")) -> float:
    """Minutes since the machine, or the container, was started."""
    try:
        ticks = int((first / "stat").read_text().rpartition(")")[2].split()[19])     # field 22 of proc(5): start after boot
        booted = time.time() - float((first.parent / "uptime").read_text().split()[0])
        return (time.time() - booted - ticks / os.sysconf("SC_CLK_TCK")) / 60
    except (OSError, ValueError, IndexError):
        return 0.0
