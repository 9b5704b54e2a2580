"""Folders that a ComfyUI knows besides its own: those of its `extra_model_paths.yaml`, with which many share an A1111's models."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

NAME = "extra_model_paths.yaml"
LONGEST = 100_000       # bytes; real ones have a few thousand
# Its names for folders of files that nbsd uses (extra_model_paths.yaml.example in ComfyUI).
KINDS = ("checkpoints", "vae", "loras", "embeddings", "hypernetworks", "upscale_models", "diffusion_models", "unet", "text_encoders", "clip",
         "diffusers")  # fmt: skip
BASE = "base_path"


def extra_folders(program: Path) -> list[Path]:
    """The folders that the file in a ComfyUI's own folder names, and that are there; none where there is no such file, or no good one."""
    folders: list[Path] = []
    for section in _sections(program / NAME):
        base = _place(section.get(BASE), program)
        for kind in KINDS:
            # Several folders of a kind stand one in a line.
            said = section.get(kind)
            for line in said.splitlines() if isinstance(said, str) else ():
                if (folder := _place(line, base)) != base:
                    folders.append(folder)
    # A folder that holds the program itself, such as "/", is a slip: looking through it takes minutes.
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir() and not program.absolute().is_relative_to(folder)]


def _sections(path: Path) -> Iterator[Mapping[str, Any]]:
    """One for each program that the file names."""
    with suppress(OSError, ValueError, RecursionError):
        if path.stat().st_size > LONGEST:
            return
        text = path.read_text("utf-8")
        import yaml

        with suppress(yaml.YAMLError):
            table = yaml.safe_load(text)
            yield from (section for section in (table.values() if isinstance(table, dict) else ()) if isinstance(section, dict))


def _place(said: Any, base: Path) -> Path:
    """The folder that a text names from another one on; that one itself where it is no text."""
    if not isinstance(said, str) or not said.strip() or "\0" in said:
        return base
    return Path(os.path.abspath(base / Path(os.path.expandvars(said.strip())).expanduser()))
