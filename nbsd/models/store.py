"""The user's model files: which there are, which one a recipe means, and the one that is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbsd.errors import ModelError
from nbsd.models import hashes
from nbsd.models.beside import BAKED, chosen_vae, is_word
from nbsd.models.detect import (
    CHECKPOINT,
    UNKNOWN,
    VAE,
    WORDS,
)
from nbsd.models.folder import is_model_folder
from nbsd.models.scan import Entry as Entry
from nbsd.models.scan import files, scan, stem
from nbsd.models.weights import check_file
from nbsd.recipe import split_title

if TYPE_CHECKING:
    import torch

    from nbsd.models.load import Checkpoint

Progress = Callable[[int, int], None]       # bytes done, bytes in all; may raise Stopped


class Store:
    """Model files in some folders and below, and the last loaded checkpoint."""

    def __init__(self, folders: Iterable[str | Path] = ()) -> None:
        self.folders = [Path(folder) for folder in folders]
        self._loaded: Checkpoint | None = None
        self._key: tuple[Any, ...] = ()

    def files(self) -> list[Path]:
        """Every model in the folders, by name; a folder that is not there has none."""
        return files(self.folders)

    def scan(self) -> list[Entry]:
        """The files with what they are."""
        return scan(self.files())

    def find(self, title: str | Path, kind: str = CHECKPOINT, on_progress: Progress | None = None) -> Path:
        """The file that a recipe means by a path, a name, "name [hash]" or a hash (old 8 digits, 10, 12 or 64 of the SHA-256).

        A hash is looked for among what is known first; then files are read, which takes seconds for each. Raises ModelError.
        """
        if path := _as_path(title):
            return path
        files = self.files()
        name, digest = split_title(str(title))
        named = [file for file in files if name and _is_called(file, name, self.folders)]
        if not digest:
            if named:
                return self._best(named, kind)
            # A name may look like a hash, and a hash like a name: 'deadbeef.safetensors'.
            raise ModelError(self._nothing(str(title), kind, files))
        if not name:
            named = [file for file in files if _is_called(file, digest, self.folders)]
        if found := _with_hash(named, digest, on_progress) or _with_hash(self._of_kind(files, kind), digest, on_progress):
            return found
        if named and not name:
            return self._best(named, kind)
        if named:
            raise ModelError(
                f"'{title}' was asked for, and the file '{named[0].name}' here has another hash ({hashes.short_hash(named[0])}): "
                "choose it by hand to use it all the same."
            )
        raise ModelError(self._nothing(str(title), kind, files))

    def checkpoint(
        self,
        title: str | Path | None,
        vae_title: str | Path | None = None,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        vae_dtype: torch.dtype | None = None,
        prediction: str | None = None,
        on_progress: Progress | None = None,
    ) -> Checkpoint:
        """The checkpoint of a title, with another VAE where one is named. The last one is kept, and only what changed is loaded.

        `title`: as for `find`; None is the one at hand. `dtype` and `vae_dtype`: None is float32. The same request gives the very
        same object. Where loading fails or is stopped, what was loaded before stays.
        """
        import torch

        from nbsd.models import load

        path = self.find(title) if title else self._at_hand()
        vae = self._vae(path, vae_title)
        dtype, vae_dtype = dtype or torch.float32, vae_dtype or torch.float32
        where = (_version(path), str(device), dtype, vae_dtype)
        key = (where, _version(vae) if vae else None, prediction)
        if self._loaded is not None and key == self._key:
            return self._loaded
        if self._loaded is None or self._key[0] != where:
            loaded = load.load_checkpoint(
                path, vae=vae or BAKED, device=device, dtype=dtype, vae_dtype=vae_dtype, prediction=prediction, on_progress=on_progress
            )
        else:
            load.check_prediction(prediction)
            loaded = replace(self._loaded, path=path, prediction=prediction or self._loaded.own_prediction, vae_path=vae)
            if self._key[1] != key[1]:
                loaded.vae = load.load_vae(vae or path, loaded.family, device, vae_dtype, on_progress)
        self._loaded, self._key = loaded, key
        return loaded

    def _vae(self, checkpoint: Path, title: str | Path | None) -> Path | None:
        """The file of the VAE that a title means; None: the checkpoint's own."""
        if title is None or is_word(title):
            return chosen_vae(checkpoint, title)
        return self.find(title, VAE)

    def _at_hand(self) -> Path:
        """The model that is loaded, or the only one there is."""
        if self._loaded is not None:
            return self._loaded.path
        files = self._of_kind(self.files(), CHECKPOINT)
        if len(files) == 1:
            return files[0]
        where = " or ".join(f"'{folder}'" for folder in self.folders) or "any folder (none was given)"
        raise ModelError(
            f"no model was chosen, and there are {len(files)} in {where}: choose one by its name."
            if files else f"there is no model in {where}: put a .safetensors or .ckpt file of an SD 1 model there."
        )

    def forget(self) -> None:
        """Give the loaded model's memory back."""
        self._loaded, self._key = None, ()

    def _of_kind(self, files: list[Path], kind: str) -> list[Path]:
        kinds = {entry.path: entry.kind for entry in self.scan()}
        return [file for file in files if kinds.get(file, UNKNOWN) == kind]

    def _best(self, named: list[Path], kind: str) -> Path:
        """Of several files of one name the first that is of the kind asked for, and .safetensors before others."""
        right = self._of_kind(named, kind) if len(named) > 1 else []
        return min(right or named, key=lambda file: file.suffix != ".safetensors")

    def _nothing(self, title: str, kind: str, files: list[Path]) -> str:
        where = " or ".join(f"'{folder}'" for folder in self.folders) or "any folder (none was given)"
        names = [file.stem for file in self._of_kind(files, kind)]
        near = get_close_matches(split_title(title)[0] or title, names, n=3, cutoff=0.4) or names[:3]
        word = WORDS.get(kind, kind)
        hint = f"Did you mean {' or '.join(repr(name) for name in near)}?" if near else f"There is no {word} there at all: put one there."
        return f"no {word} called '{title}' is in {where}. {hint}"


def _as_path(title: str | Path) -> Path | None:
    """The file that a path leads to; None where a title is no path. A path to nowhere is a ModelError that says so."""
    try:
        path = Path(title).expanduser()
        if path.is_file() or is_model_folder(path):
            return path
    except (OSError, RuntimeError, ValueError):     # too long for a name, no such home, a null byte
        return None
    if path.is_absolute():
        check_file(path)
    return None


def _is_called(file: Path, name: str, folders: list[Path]) -> bool:
    wanted = name.replace("\\", "/").lower()
    names = {file.name, file.stem, stem(file), f"{file.parent.name}/{file.name}", f"{file.parent.name}/{file.stem}"}
    for folder in folders:
        if file.is_relative_to(folder):
            inside = file.relative_to(folder)
            names |= {inside.as_posix(), inside.with_suffix("").as_posix()}
    return wanted in {candidate.lower() for candidate in names}


def _with_hash(files: list[Path], digest: str, on_progress: Progress | None) -> Path | None:
    """The file of a hash: known ones first, then the old hash, which is quick, then one file after the other.

    12 digits are either of the whole file or of what lies behind its header (Civitai's AutoV3).
    """
    files = [file for file in files if file.is_file()]
    known = hashes.known_digests(files)
    for file, one in known.items():
        if any(full.startswith(digest) for full in (one.sha256, one.addnet)) or one.old == digest:
            return file
    if len(digest) == hashes.OLD:
        return next((file for file in files if hashes.old_hash(file) == digest), None)
    for file in files:
        if not known[file].sha256 and hashes.sha256(file, on_progress).startswith(digest):
            return file
    if len(digest) != hashes.NETWORK:
        return None
    bodies = [file for file in files if file.suffix.lower() == ".safetensors" and not known[file].addnet]
    return next((file for file in bodies if hashes.addnet_hash(file, on_progress).startswith(digest)), None)


def _version(path: Path) -> tuple[str, int, int]:
    """What changes when a file does."""
    stat = path.stat()
    return str(path.resolve()), stat.st_size, stat.st_mtime_ns
