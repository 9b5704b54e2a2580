"""Renders the training pictures once: `pictures.npy` (uint8 [n, 128, 128, 3]) and `tags.json` (n tag records) in a folder.

Picture i is drawn from seed i, so any later seed range is held out. Run: python -m tools.first_model.dataset FOLDER --count 16000
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
from dataclasses import asdict
from pathlib import Path

import numpy as np

from .tags import Tags, draw_tags

HELD_OUT = 10_000_000   # seeds from here on are never trained on


def tags_of(seed: int, quality: str | None = None) -> Tags:
    """The tags of the picture that is drawn from this seed."""
    return draw_tags(random.Random(seed), quality)


def picture_of(seed: int) -> np.ndarray:
    """uint8 [128, 128, 3]"""
    from .draw import draw  # here, so that training on pictures that are there needs no skia

    return draw(tags_of(seed), seed)


def render(folder: Path, count: int, processes: int = 2) -> None:
    """Draws `count` pictures into the folder; does nothing when they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "tags.json").exists() and len(json.loads((folder / "tags.json").read_text())) == count:
        return
    pictures = np.lib.format.open_memmap(folder / "pictures.npy", mode="w+", dtype=np.uint8, shape=(count, *picture_of(0).shape))
    with multiprocessing.Pool(processes) as pool:
        for i, picture in enumerate(pool.imap(picture_of, range(count), chunksize=64)):
            pictures[i] = picture
    pictures.flush()
    (folder / "tags.json").write_text(json.dumps([asdict(tags_of(i)) for i in range(count)]))


def read(folder: Path) -> tuple[np.ndarray, list[Tags]]:
    """The rendered pictures (mapped, not read) and their tags."""
    return np.load(folder / "pictures.npy", mmap_mode="r"), [Tags(**row) for row in json.loads((folder / "tags.json").read_text())]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=16000)
    chosen = parser.parse_args()
    render(chosen.folder, chosen.count)
