"""Textual-inversion embeddings: vectors that stand in a prompt under the name of their file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nbsd.errors import ModelError, WrongFamilyError

SUFFIXES = (".pt", ".bin", ".safetensors")
PICTURES = (".png", ".webp")
PREVIEW = ".preview"            # stands before the ending of a picture that only shows what an embedding does
SDXL_ENCODERS = ("clip_l", "clip_g")    # SDXL's files hold vectors for both of its text encoders


def vectors_from(state: Mapping[str, Any], encoder: str | None = None) -> Tensor:
    """The vectors [n, width], float32, in an embedding's file that was read already.

    Known are the web UI's layout ({"string_to_param": {"*": tensor}}), a single tensor under any key (kohya's "emb_params",
    diffusers' "<token>") and SDXL's ("clip_l" and "clip_g"), where `encoder` says which is meant. Raises ModelError for
    anything else and WrongFamilyError for SDXL's without `encoder`.
    """
    if set(SDXL_ENCODERS) <= set(state):
        if state["clip_l"].shape[:-1] != state["clip_g"].shape[:-1]:
            raise ModelError("this embedding has another number of vectors for each of SDXL's text encoders")
        if encoder not in SDXL_ENCODERS:
            raise WrongFamilyError("this embedding is for SDXL, with vectors for two text encoders: it does not fit this model")
        return _matrix(state[encoder])
    if encoder:
        raise WrongFamilyError("this embedding is for one text encoder, and this model has two: it does not fit")
    inner = state.get("string_to_param", state)
    if isinstance(inner, Mapping):
        tensors = [value for value in inner.values() if isinstance(value, Tensor)]
        if len(tensors) == 1:
            return _matrix(tensors[0])
    keys = ", ".join(sorted(map(str, state))[:3]) or "nothing"
    raise ModelError(f"this is no textual-inversion embedding: one tensor of vectors was expected, got {keys}")


def _matrix(tensor: Tensor) -> Tensor:
    tensor = tensor.detach().to("cpu", torch.float32)
    if tensor.ndim == 1:
        tensor = tensor.unsqueeze(0)
    if tensor.ndim != 2 or 0 in tensor.shape:
        raise ModelError(f"an embedding's vectors are a table of two dimensions, this file's tensor is {list(tensor.shape)}")
    return tensor


def embedding_files(folders: Iterable[Path], name_in: Callable[[Path], str | None] | None = None) -> dict[str, Path]:
    """The files below the folders that may hold an embedding, by their name in a prompt; the first of a name counts.

    `name_in`: tells the name of the embedding in a picture, None where there is none; without it pictures are not looked at.
    """
    found: dict[str, Path] = {}
    pictures: list[Path] = []
    for folder in folders:
        for root, inner, names in os.walk(folder, followlinks=True):
            inner.sort()
            for path in (Path(root, name) for name in sorted(names)):
                if path.suffix.lower() in SUFFIXES:
                    found.setdefault(path.stem, path)
                elif path.suffix.lower() in PICTURES and not path.stem.lower().endswith(PREVIEW):
                    pictures.append(path)
    for path in pictures if name_in else ():
        # A picture beside a file of its name shows what that file does.
        if path.stem not in found and (name := name_in(path)):      # type: ignore[misc]
            found.setdefault(name, path)
    return found


class Embeddings(Mapping[str, Tensor]):
    """The embeddings that fit a model: name -> vectors [n, width], for its first text encoder; `of` gives those for each.

    A file is read when its name first stands in a prompt. One of another width is then left out, and its name is plain text,
    as in the web UI; `left_out` says why.
    """

    def __init__(
        self, files: Mapping[str, Path], read: Callable[[Path], Mapping[str, Any]], width: int | Mapping[str, int]
    ) -> None:
        """`files`: name -> path; `read`: gives a file's contents, safely; `width`: of the text encoder (768 for SD 1), or of each
        by the key that it has in the file ({"clip_l": 768, "clip_g": 1280} for SDXL).
        """
        self._files, self._read = dict(files), read
        self._widths: dict[str, int] = {"": width} if isinstance(width, int) else dict(width)
        self._known: dict[str, dict[str, Tensor]] = {}
        self.left_out: dict[str, str] = {}

    def __getitem__(self, name: str) -> Tensor:
        """The vectors of an embedding. Raises KeyError where there is none of this width, ModelError for a bad file."""
        return self.vectors(name, next(iter(self._widths)))

    def vectors(self, name: str, encoder: str) -> Tensor:
        """Those for one of the text encoders; raises as above."""
        if name not in self._known:
            self._known[name] = self._load(name)
        return self._known[name][encoder]

    def of(self, encoder: str) -> Mapping[str, Tensor]:
        """The embeddings as one of the text encoders reads them."""
        return _Of(self, encoder)

    def __contains__(self, name: object) -> bool:
        """Whether there is such a file; it is not read for this."""
        return name in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def path(self, name: str) -> Path:
        """Where the embedding comes from."""
        return self._files[name]

    def _load(self, name: str) -> dict[str, Tensor]:
        path = self._files[name]
        try:
            state = self._read(path)
            found = {encoder: vectors_from(state, encoder or None) for encoder in self._widths}
            for encoder, width in self._widths.items():
                if found[encoder].shape[1] != width:
                    raise WrongFamilyError(f"its vectors have {found[encoder].shape[1]} numbers, the model's text encoder takes {width}")
        except WrongFamilyError as error:
            self._leave_out(name, str(error))
            raise KeyError(name) from error
        except ModelError as error:
            raise type(error)(f"the embedding {path.name!r} cannot be used: {error}") from error
        return found

    def _leave_out(self, name: str, why: str) -> None:
        self._files = {key: path for key, path in self._files.items() if key != name}
        self.left_out[name] = f"the embedding {name!r} is left out and its name taken as text: {why}"


class _Of(Mapping[str, Tensor]):
    """The embeddings for one of several text encoders."""

    def __init__(self, embeddings: Embeddings, encoder: str) -> None:
        self._all, self._encoder = embeddings, encoder

    def __getitem__(self, name: str) -> Tensor:
        return self._all.vectors(name, self._encoder)

    def __contains__(self, name: object) -> bool:
        return name in self._all

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)
