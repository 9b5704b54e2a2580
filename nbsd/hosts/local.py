"""Any other machine: one's own JupyterLab, a lab's JupyterHub, VS Code."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def in_jupyterhub() -> bool:
    """True in a single-user server of a JupyterHub."""
    return "JUPYTERHUB_USER" in os.environ


def in_vscode() -> bool:
    """True in a kernel that VS Code has started."""
    return "VSCODE_PID" in os.environ or "VSCODE_CWD" in os.environ


def models() -> tuple[Path, ...]:
    """`models` beside the notebook, one folder that all notebooks of the user share, and what the Hugging Face libraries have fetched."""
    return (Path.cwd() / "models", Path.home() / "nbsd" / "models", hub_cache())


def outputs() -> Path:
    """`outputs` beside the notebook."""
    return Path.cwd() / "outputs"


def notes() -> Iterator[str]:
    """Nothing to say: the user knows the machine."""
    return iter(())


def hub_cache() -> Path:
    """Where `huggingface_hub` keeps files: its own rule, without its import."""
    if named := os.environ.get("HF_HUB_CACHE"):
        return Path(named).expanduser()
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    return Path(home).expanduser() / "hub"
