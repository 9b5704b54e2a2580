"""The user's model files: which there are, which one a recipe means, and the one that is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbsd.errors import ModelError
from nbsd.models import first, hashes
from nbsd.models.beside import BAKED, chosen_vae, is_word
from nbsd.models.detect import (
    CHECKPOINT,
    UNKNOWN,
    VAE,
    WORDS,
)
from nbsd.models.folder import hashed_file, is_model_folder
from nbsd.models.scan import Entry as Entry
from nbsd.models.scan import files, scan, stem
from nbsd.models.weights import check_file
from nbsd.recipe import split_title

if TYPE_CHECKING:
    import torch

    from nbsd.models.load import Checkpoint
    from nbsd.models.rack import Rack

# A request: (file's version, device, precision, the VAE's, version of the text encoder's file), version of the VAE's file, prediction; a
# version is None where that part is the model's own
Key = tuple[tuple[Any, str, Any, Any, Any], Any, "str | None"]
Progress = Callable[[int, int], None]       # bytes done, bytes in all; may raise Stopped


class Store:
    """Model files in some folders and below, and the checkpoints that are loaded."""

    def __init__(self, folders: Iterable[str | Path] = ()) -> None:
        self.folders = [Path(folder) for folder in folders]

    @cached_property
    def rack(self) -> Rack:
        """What is loaded."""
        from nbsd.models.rack import Rack  # with torch, which a list of files does without

        return Rack()

    def files(self) -> list[Path]:
        """Every model in the folders, by name; a folder that is not there has none."""
        return files(self.folders)

    def scan(self) -> list[Entry]:
        """The files with what they are."""
        return scan(self.files())

    def find(self, title: str | Path, kind: str = CHECKPOINT, on_progress: Progress | None = None) -> Path:
        """The file that a recipe means by a path, a name, "name [hash]" or a hash (old 8 digits, 10, 12 or 64 of the SHA-256).

        A hash is looked for among what is known first; then files are read, which takes seconds for each. The built-in model is found
        where no file of the user's is. Raises ModelError.
        """
        if path := _as_path(title):
            return path
        files = self.files()
        name, digest = split_title(str(title))
        built_in = first.file() if kind == CHECKPOINT else None
        if built_in and first.is_first(name) and not any(_is_called(file, name, self.folders) for file in files):
            files = [*files, built_in]
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
                f"'{title}' was asked for, and the file '{named[0].name}' here has another hash ({hashes.short_hash(hashed_file(named[0]))}): "
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
        text_title: str | Path | None = None,
        on_progress: Progress | None = None,
    ) -> Checkpoint:
        """The checkpoint of a title, with another VAE where one is named. Those used last are kept, and only what is missing is loaded.

        `title`: as for `find`; None is the one at hand.
        `text_title`: a model, or a text encoder alone, that the text encoder comes from; None is the model's own.
        `dtype` and `vae_dtype`: None is float32. The same request gives the very same object. Where loading fails or is stopped, what was
        loaded before stays.
        """
        import torch

        path = self.find(title) if title else self._at_hand()
        vae = self._vae(path, vae_title)
        dtype, vae_dtype = dtype or torch.float32, vae_dtype or torch.float32
        text = self.find(text_title) if text_title else None
        where = (_version(path), str(device), dtype, vae_dtype, _version(text) if text else None)
        key = (where, _version(vae) if vae else None, prediction)
        loaded = self.rack.get(key, on_progress)
        if loaded is None:
            loaded = self._load(path, vae, text, key, torch.device(device), on_progress)
            self.rack.put(key, loaded, device)
        return loaded

    def _load(
        self, path: Path, vae: Path | None, text: Path | None, key: Key, device: torch.device, on_progress: Progress | None
    ) -> Checkpoint:
        """Load what is asked for: whole, or only what differs from one that is held."""
        from nbsd.models import load

        (where, version, prediction), (_, _, dtype, vae_dtype, _) = key, key[0]
        told = self._making_room(device, on_progress)
        twin = next((other for other, _ in self.rack if other[0] == where), None)
        if twin is None:
            return load.load_checkpoint(
                path, vae=vae or BAKED, text_encoder=text, device=device, dtype=dtype, vae_dtype=vae_dtype, prediction=prediction, on_progress=told
            )
        load.check_prediction(prediction)
        held = self.rack.get(twin, on_progress)
        assert held is not None
        loaded = replace(held, path=path, prediction=prediction or held.own_prediction, vae_path=vae)
        if twin[1] != version:
            same = next((one.vae for other, one in self.rack if other[:2] == (where, version)), None)
            loaded.vae = same if same is not None else load.load_vae(vae or path, loaded.family, device, vae_dtype, told)
        return loaded

    def _making_room(self, device: torch.device, on_progress: Progress | None) -> Progress:
        """A report that makes room once reading begins: by then the file is known to be good. The last model stays, if only in memory."""
        first = True

        def told(done: int, total: int) -> None:
            nonlocal first
            if first:
                first = False
                self.rack.make_room(device, total, keep=self.rack.last, may_wait=True)
            if on_progress:
                on_progress(done, total)

        return told

    def _vae(self, checkpoint: Path, title: str | Path | None) -> Path | None:
        """The file of the VAE that a title means; None: the checkpoint's own."""
        if title is None or is_word(title):
            return chosen_vae(checkpoint, title)
        return self.find(title, VAE)

    def _at_hand(self) -> Path:
        """The model that is loaded, or the only one there is; with none, the built-in one."""
        if self.rack.last is not None:
            return self.rack.last.path
        files = self._of_kind(self.files(), CHECKPOINT)
        if len(files) == 1:
            return files[0]
        if not files and (built_in := first.file()):
            return built_in
        where = " or ".join(f"'{folder}'" for folder in self.folders) or "any folder (none was given)"
        raise ModelError(
            f"no model was chosen, and there are {len(files)} in {where}: choose one by its name."
            if files else f"there is no model in {where}: put a .safetensors or .ckpt file there."
        )

    def forget(self) -> None:
        """Give the memory of all loaded models back."""
        self.rack.clear()

    def _of_kind(self, files: list[Path], kind: str) -> list[Path]:
        kinds = {entry.path: entry.kind for entry in self.scan()}
        return [file for file in files if kinds.get(file, UNKNOWN) == kind]

    def _best(self, named: list[Path], kind: str) -> Path:
        """Of several files of one name the first that is of the kind asked for, and .safetensors before others."""
        right = self._of_kind(named, kind) if len(named) > 1 else []
        return min(right or named, key=lambda file: file.suffix != ".safetensors")

    def _nothing(self, title: str, kind: str, files: list[Path]) -> str:
        where = " or ".join(f"'{folder}'" for folder in self.folders) or "any folder (none was given)"
        names = [stem(file) for file in self._of_kind(files, kind)]
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
    models = {}
    for path in files:
        with suppress(ModelError):      # a folder without weights
            models[hashed_file(path)] = path
    found = _hashed([file for file in models if file.is_file()], digest, on_progress)
    return models[found] if found else None


def _hashed(files: list[Path], digest: str, on_progress: Progress | None) -> Path | None:
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
