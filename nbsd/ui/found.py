"""The files that were found, as the pickers and the catalog show them, and what choosing one does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from nbsd.ui.catalog import Catalog, Row, in_prompt
from nbsd.ui.form import Form
from nbsd.ui.pickers import File

# Kinds of files, as `models.detect` names them.
CHECKPOINT, VAE, UPSCALER, TEXT_ENCODER, UNKNOWN = "checkpoint", "vae", "upscaler", "text encoder", "unknown"


BUILT_IN = "first"      # the small model that comes with nbsd, whose narrow text encoder fits no other
# Folders of A1111 and ComfyUI in which no models of pictures lie, in small letters: what nbsd does not know there is none.
ELSEWHERE = frozenset({
    "adetailer", "animatediff_models", "animatediff_motion_lora", "audio_encoders", "blip", "clip", "clip_vision", "codeformer", "controlnet",
    "dat", "deepbooru", "embeddings", "esrgan", "facerestore_models", "gfpgan", "gligen", "hat", "hypernetworks", "insightface", "ipadapter",
    "karlo", "ldsr", "lora", "loras", "lycoris", "model_patches", "photomaker", "realesrgan", "sams", "scunet", "style_models", "swinir",
    "text_encoders", "torch_deepdanbooru", "ultralytics", "upscale_models", "vae", "vae-approx", "vae_approx",
})  # fmt: skip


class Entry(Protocol):
    """A file that was found, as `models.scan` lists it."""

    @property
    def title(self) -> str: ...

    @property
    def path(self) -> Path: ...

    @property
    def kind(self) -> str:
        """CHECKPOINT, VAE, UNKNOWN or another."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def family(self) -> str: ...

    @property
    def digest(self) -> str: ...

    @property
    def problem(self) -> str: ...

    @property
    def lacks(self) -> str:
        """What a model has to take from other files: "text encoder", "VAE" or both."""


Found = Sequence[tuple[Entry, str]]     # a file, and what a recipe calls it: its title, or its path where the title is not enough


class Chooser:
    """Shows what was found in the form's pickers and in the catalog."""

    def __init__(self, form: Form, catalog: Catalog) -> None:
        self._form, self._catalog = form, catalog
        catalog.use_row = self.use

    def show(self, found: Found) -> bool:
        """Show these files; False where no model is among them."""
        # What cannot be read is shown too: who looks for a file wants to know why it is not there, and Generate says it.
        strangers = [(entry, value) for entry, value in found if not ELSEWHERE.intersection(part.lower() for part in entry.path.parent.parts)]
        models = [*_files(found, CHECKPOINT), *_files(strangers, UNKNOWN, " (not readable)")]
        self._form.model.set_files(models)
        self._form.vae.set_files(_files(found, VAE))
        bare = {value: entry.family for entry, value in found if entry.kind == CHECKPOINT and TEXT_ENCODER in entry.lacks}
        whole = [file for file in _files(found, CHECKPOINT) if file.value not in (*bare, BUILT_IN)]
        self._form.borrowed.set_files(bare, [*whole, *_files(found, TEXT_ENCODER)])
        self._form.modes.set_files([file.value for file in _files(found, CHECKPOINT)], [file.value for file in _files(found, UPSCALER)])
        self._catalog.set_rows([
            Row(entry.kind, entry.title, value, entry.size, entry.family, entry.digest, str(entry.path), entry.problem, entry.lacks)
            for entry, value in found])
        return bool(models)

    def use(self, row: Row) -> None:
        """Choose a model or a VAE, or put a network or an embedding into the prompt."""
        if row.kind == CHECKPOINT:
            self._form.model.value = row.value
        elif row.kind == VAE:
            self._form.vae.value = row.value
        else:
            self._form["prompt"].value = in_prompt(row, self._form["prompt"].value)

    def came(self, path: Path) -> None:
        """Choose a file that has just come; a model is then the one that is used."""
        row = self._catalog.choose(str(path))
        if row is not None and row.kind == CHECKPOINT:
            self.use(row)


def _files(found: Found, kind: str, more: str = "") -> list[File]:
    return [File(entry.title + more, value, entry.size, entry.family, entry.digest, entry.lacks) for entry, value in found if entry.kind == kind]
