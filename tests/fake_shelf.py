"""A stand-in for the models: gradients instead of pictures, without torch. `Studio()._shelf = FakeShelf()` puts it in place."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from nbsd.errors import ModelError, Skipped
from nbsd.events import Note, Progress
from nbsd.picture import Picture
from nbsd.recipe import Recipe


@dataclass(frozen=True)
class FakeEntry:
    title: str
    path: Path
    kind: str
    size: int
    family: str = ""
    digest: str = ""
    problem: str = ""
    lacks: str = ""


ENTRIES = (
    FakeEntry("dreamy-v8", Path("models/dreamy-v8.safetensors"), "checkpoint", 2_132_625_894),
    FakeEntry("old-anime", Path("models/old-anime.ckpt"), "checkpoint", 4_265_380_512),
    FakeEntry("broken", Path("models/broken.safetensors"), "unknown", 17),
    FakeEntry("soft-colours", Path("models/soft-colours.vae.pt"), "vae", 334_695_179),
    FakeEntry("ink", Path("models/ink.safetensors"), "lora", 37_861_176),
)


class FakeShelf:
    """`pause` seconds a step; `fail(recipe)` may raise; `asked` lists the recipes, as the worker gives them."""

    def __init__(self, pause: float = 0.0, entries: tuple[FakeEntry, ...] = ENTRIES, fail: Callable[[Recipe], None] | None = None) -> None:
        self.pause, self.entries, self.fail = pause, entries, fail
        self.asked: list[Recipe] = []
        self.given: list[tuple[Image.Image | None, Image.Image | None]] = []     # pictures and masks, as the worker gives them
        self.loads = 0      # how many were finished

    def scan(self) -> list[FakeEntry]:
        return list(self.entries)

    def model(self, recipe: Recipe, on_progress: Callable[[int, int], None]) -> FakeModel:
        self.asked.append(recipe)
        if recipe.model == "broken":
            raise ModelError("broken.safetensors is cut off after 17 bytes: download it again")
        for done in range(0, 11, 2):
            on_progress(done * 10**8, 10**9)
            time.sleep(self.pause / 2)
        self.loads += 1
        return FakeModel(self)


class FakeModel:
    folders: tuple[Path, ...] = ()

    def __init__(self, shelf: FakeShelf) -> None:
        self.shelf = shelf

    def make(
        self, recipe: Recipe, *, count: int = 1, batch_size: int = 1, report: Callable[[Any], None], control: Any, preview: bool,
        image: Image.Image | None = None, mask: Image.Image | None = None,
        after: Callable[[Image.Image, Recipe], Image.Image] = lambda image, recipe: image, **_: Any,
    ) -> Iterator[Picture]:
        self.shelf.given.append((image, mask))
        began = time.monotonic()
        for first in range(0, count, batch_size):
            batch = [recipe.nth(n) for n in range(first, min(first + batch_size, count))]
            try:
                for step in range(recipe.steps + 1):
                    control.check()
                    if self.shelf.fail and step == recipe.steps // 2:
                        self.shelf.fail(recipe)
                    spent = max(time.monotonic() - began, 1e-6)
                    rate = (first // batch_size * recipe.steps + step) / spent or None
                    left = (-(-(count - first) // batch_size) * recipe.steps - step) / rate if rate else None
                    small = jpeg(gradient(batch[0], recipe.width // 8, recipe.height // 8, 1 - step / recipe.steps)) if preview else None
                    report(Progress(first, count, step, recipe.steps, batch[0].seed, rate, left, small))
                    time.sleep(self.shelf.pause)
            except Skipped:
                continue
            if recipe.prompt == "note":
                report(Note("the prompt was cut after 75 tokens"))
            for one in batch:
                yield Picture(after(gradient(one, one.width, one.height), one), replace(one, model=f"{recipe.model} [0123456789]"))


def gradient(recipe: Recipe, width: int, height: int, noise: float = 0.0) -> Image.Image:
    """A picture that differs from seed to seed; `noise` 0 to 1."""
    turn = recipe.seed * 37 % 256
    across, down = Image.linear_gradient("L").rotate(90), Image.linear_gradient("L")
    third = Image.radial_gradient("L")
    bands = [band.resize((width, height)).point([(v + turn * k) % 512 if (v + turn * k) % 512 < 256 else 511 - (v + turn * k) % 512
                                                 for v in range(256)])
             for k, band in enumerate((across, down, third), start=1)]
    picture = Image.merge("RGB", bands)
    if noise > 0:
        rough = Image.merge("RGB", [Image.effect_noise((width, height), 90) for _ in range(3)])
        picture = Image.blend(picture, rough, noise)
    return picture


def jpeg(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=80)
    return out.getvalue()
