"""Any other machine: one's own JupyterLab, a lab's JupyterHub, VS Code."""

from __future__ import annotations

from pathlib import Path


def models() -> tuple[Path, ...]:
    """`models` beside the notebook, and one folder that all notebooks of the user share."""
    return (Path.cwd() / "models", Path.home() / "nbsd" / "models")


def outputs() -> Path:
    """`outputs` beside the notebook."""
    return Path.cwd() / "outputs"
