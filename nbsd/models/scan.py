"""The user's model files: found as they lie, and what each is, by its header. What was found out is remembered until a file changes."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbsd.errors import ModelError
from nbsd.models import hashes
from nbsd.models.cache import CACHE
from nbsd.models.comfy import extra_folders
from nbsd.models.detect import CHECKPOINT, TEXT_ENCODER, UNKNOWN
from nbsd.models.folder import CONFIG, folder_family, hashed_file, size_of
from nbsd.models.links import ENDINGS
from nbsd.models.shown import shown
from nbsd.models.weights import open_weights

RULES = 8       # raised when detection changes, so that what was remembered is found out anew
INDEX = "model_index.json"      # a folder with this file is one model, in diffusers' layout
HUB_REPO = "models--"           # what a folder of the hub's cache begins with
QUICK = 2_000_000               # bytes that are hashed at once
BARE = (".bin",)                # endings of so many other things that only what is known is shown

# Where programs keep models below their own folder: A1111 and its kin, ComfyUI. The rest of such a folder (its Python, its pictures)
# is not looked at.
MODELS, EMBEDDINGS = "models", "embeddings"
PROGRAMS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("models/Stable-diffusion", (MODELS, EMBEDDINGS)),
    ("models/checkpoints", (MODELS, EMBEDDINGS, "custom_nodes/models")),
)
# What diffusers and peft call every file of a kind.
NAMELESS = frozenset({"adapter_model", "pytorch_lora_weights", "learned_embeds"})
NEVER = frozenset({".git", "__pycache__", "node_modules", "site-packages", "venv", ".venv", "blobs", ".locks", ".ipynb_checkpoints", ".Trash-0"})


@dataclass(frozen=True)
class Entry:
    """A file of the user's, or a folder that is one model."""

    path: Path
    title: str          # unique within the scan: the file's name without its ending, or more of the path where two are alike
    kind: str           # "checkpoint", "vae", "lora", "embedding", "hypernetwork", "upscaler", ..., "unknown"
    family: str         # "SD 1", ...; empty where the file does not tell
    size: int           # bytes
    problem: str = ""   # why it cannot be used; one sentence
    lacks: str = ""     # what a checkpoint has to take from other files: "text encoder", "VAE" or both
    digest: str = ""    # the hash it is known by: 10 digits of SHA-256, or the 8 of before 2023 while that was not computed; "" for a folder


def files(folders: Iterable[Path]) -> list[Path]:
    """Every model in the folders and below, by name; a folder that is not there has none."""
    found = {path for folder in folders for place in places(folder) for path in _below(place)}
    return sorted(found, key=lambda path: (path.name.lower(), str(path)))


def places(folder: Path) -> list[Path]:
    """Where to look for a folder's models: in a program's own one only where it keeps them, and wherever else it says that it does."""
    for sign, inner in PROGRAMS:
        if (folder / sign).is_dir():
            return [*(folder / name for name in inner), *(place for more in extra_folders(folder) for place in places(more))]
        if folder.name == MODELS and (folder.parent / sign).is_dir():
            return [folder, folder.parent / EMBEDDINGS]
    return [folder]


def scan(found: list[Path]) -> list[Entry]:
    """What the files are."""
    known = CACHE.get_all(found)
    fresh = {path: _look(path) for path, facts in known.items() if not _is_seen(facts.get("seen"))}
    if fresh:
        CACHE.put(fresh)
    names = _names(found)
    entries = []
    for path in found:
        facts = {**known[path], **fresh.get(path, {})}
        seen = facts["seen"]
        kind, family, problem, lacks = (str(seen.get(fact, "")) for fact in ("kind", "family", "problem", "lacks"))
        if kind == UNKNOWN and (path.suffix.lower() in BARE or any(part.startswith(HUB_REPO) for part in path.parts)):
            continue
        try:
            size = seen["size"] if path.suffix.lower() not in ENDINGS else path.stat().st_size
        except (OSError, KeyError):     # it went away in the meantime
            continue
        digest = str(facts.get("sha256", ""))[: hashes.SHORT] or str(facts.get("old", ""))
        entries.append(Entry(path, names[path], kind or UNKNOWN, family, size, problem, lacks, digest))
    return sorted(entries, key=lambda entry: entry.title.lower())


def _is_seen(seen: Any) -> bool:
    return isinstance(seen, dict) and seen.get("rules") == RULES


def _below(folder: Path) -> Iterator[Path]:
    """Models in a folder and below, through links too; a folder that links lead to twice is looked at once."""
    seen: set[str] = set()
    for root, inner, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(root)) in seen:
            inner.clear()
            continue
        seen.add(real)
        if INDEX in names or ("unet" in inner and os.path.isfile(os.path.join(root, "unet", CONFIG))):
            inner.clear()
            yield Path(root)
            continue
        if MODELS in inner and any(os.path.isdir(os.path.join(root, sign)) for sign, _ in PROGRAMS):
            inner[:] = [name for name in inner if name in (MODELS, EMBEDDINGS)]
        inner[:] = [name for name in inner if name not in NEVER]
        for name in names:
            if name.lower().endswith(ENDINGS) and os.path.isfile(path := os.path.join(root, name)):
                yield Path(path)


def _look(path: Path) -> dict[str, Any]:
    """What a file is, by its header; and its quick hash."""
    seen: dict[str, Any] = {"rules": RULES, "kind": UNKNOWN, "family": "", "problem": ""}
    try:
        if path.is_dir():
            return {"seen": seen | _look_at_folder(path), **_quick_hash(hashed_file(path))}
        return {"seen": seen | shown(open_weights(path))._asdict(), **_quick_hash(path)}
    except (ModelError, OSError) as error:
        return {"seen": seen | {"kind": UNKNOWN, "problem": str(error)}}


def _quick_hash(path: Path) -> dict[str, str]:
    """The old hash. That of a file which ends before 1 MiB is of nothing; its SHA-256 is as quick."""
    if path.stat().st_size < QUICK:
        return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    return {"old": hashes.old_hash(path)}


def _look_at_folder(path: Path) -> dict[str, Any]:
    family = folder_family(path)
    lacks = "" if (path / family.text[0].folder).is_dir() else TEXT_ENCODER
    return {"kind": CHECKPOINT, "family": family.name, "lacks": lacks, "size": size_of(path)}


def _names(found: list[Path]) -> dict[Path, str]:
    """A name for each file: its own without ending, with the ending where two are alike, else with the folders before it."""
    names: dict[Path, str] = {}
    left = found
    for way in (stem, lambda path: path.name, lambda path: f"{path.parent.name}/{path.name}", str):
        called = [way(file) for file in left]
        times = Counter(called)
        names.update({file: name for file, name in zip(left, called, strict=True) if times[name] == 1})
        left = [file for file in left if file not in names]
    return names


def stem(path: Path) -> str:
    """What a file is called; one that its program calls so in any folder is called like the folder, and what lies in the hub's cache like its
    repository."""
    if path.suffix.lower() in ENDINGS:
        if path.stem not in NAMELESS:
            return path.stem
        path = path.parent
    repo = next((part for part in reversed(path.parts) if part.startswith(HUB_REPO)), "")
    return repo.removeprefix(HUB_REPO).replace("--", "/") or path.name
