"""A model file, opened without reading its tensors: which there are, of what shape, and where they lie.

What a file is, is decided by its bytes and never by its name. No torch is needed here; `read.py` reads the tensors.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, NoReturn

from nbsd.errors import ModelError

# Bytes of one element. The names are those of the safetensors format; pickles are translated to them.
ITEM_SIZES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1, "U64": 8, "U32": 4, "U16": 2, "C64": 8,
}  # fmt: skip
FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})

MOST_PACKED = 8             # times its size that a file may claim to unpack to; compressed weights shrink by less than 2
LONGEST_HEADER = 100_000_000    # bytes of a safetensors header; MAX_HEADER_SIZE of the reference implementation
LONGEST_POINTER = 1024      # bytes; a Git LFS pointer file is smaller, by its specification


@dataclass(frozen=True)
class Stored:
    """One tensor of a file, not read yet."""

    dtype: str                              # a name in ITEM_SIZES
    shape: tuple[int, ...]
    start: int                              # bytes from the start of the file, or of `member` once unpacked
    stride: tuple[int, ...] | None = None   # elements; None: packed, the last dimension fastest
    member: str | None = None               # the compressed zip member that holds it; None: it lies in the file as it is
    file: Path | None = None                # the file that holds it where there are several; None: that of its `Weights`

    @property
    def count(self) -> int:
        """Elements of the tensor."""
        return prod(self.shape)

    @property
    def span(self) -> int:
        """Elements from the first to the last that the tensor touches in the file."""
        if self.stride is None:
            return self.count
        return 1 + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True)) if self.count else 0

    @property
    def nbytes(self) -> int:
        """Bytes that have to be read."""
        return self.span * ITEM_SIZES[self.dtype]


@dataclass(frozen=True)
class Weights:
    """A model file whose tensors can be read one at a time."""

    path: Path
    tensors: Mapping[str, Stored]
    metadata: Mapping[str, str] = field(default_factory=dict)   # of a safetensors header
    tree: Any = None                                            # a pickle's plain values, with `Stored` where tensors are

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {key: stored.shape for key, stored in self.tensors.items()}


def open_weights(path: str | Path) -> Weights:
    """Open a model file of either format, safetensors or a torch pickle (zip or legacy), or several by their index.

    Only headers are read. Raises ModelError with the reason for everything that is no such file.
    """
    path = Path(path)
    size = check_file(path)
    if is_index(path):
        from nbsd.models.sharded import open_sharded

        return open_sharded(path)
    with path.open("rb") as file:
        start = file.read(LONGEST_POINTER)
    if not is_safetensors(start):       # first: the length that these files start with may be any two bytes, "PK" too
        refuse_stranger(path, start, size)
    weights = _opener(start)(path)
    claimed = sum(stored.nbytes for stored in weights.tensors.values())
    if claimed > MOST_PACKED * size:
        raise ModelError(
            f"'{path.name}' is damaged: its tensors claim {counted(claimed)} bytes, and the file has {counted(size)}. Download it again."
        )
    return weights


def check_file(path: Path) -> int:
    """Size in bytes of a file that is there and not empty."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ModelError(f"'{path}' is a folder, not a model file: choose a .safetensors or .ckpt file in it.")
        if not stat.S_ISREG(status.st_mode):    # opening a pipe would wait for ever
            raise ModelError(f"'{path}' is no file but a device or a pipe: choose a .safetensors or .ckpt file.")
        with path.open("rb"):
            pass
    except FileNotFoundError:
        raise ModelError(missing(path)) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ModelError(f"'{path.name}' cannot be read ({reason}): check the file's permissions and its name.") from error
    if not status.st_size:
        raise ModelError(f"'{path.name}' is empty (0 bytes): the download did not work; download it again.")
    return status.st_size


def missing(path: Path) -> str:
    """Why a file is not found, with the names in that folder that come nearest."""
    from difflib import get_close_matches

    folder = path.parent
    if not folder.is_dir():
        return f"there is no file '{path}': the folder '{folder}' does not exist. Check the path."
    names = [entry.name for entry in folder.iterdir()]
    near = get_close_matches(path.name, names, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(name) for name in near)}?" if near else " Check the name."
    return f"there is no file '{path.name}' in '{folder.absolute()}'.{hint}"


def is_index(path: Path) -> bool:
    """Whether a file, by its name, lists the files that hold the weights: diffusion_pytorch_model.safetensors.index.json."""
    return path.name.endswith(".json") and ".index." in path.name


def is_safetensors(start: bytes) -> bool:
    """Whether a file starts as safetensors do: with a possible length, and then a table in JSON."""
    return start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= LONGEST_HEADER


def _opener(start: bytes) -> Callable[[Path], Weights]:
    if is_safetensors(start):
        from nbsd.models.safefile import open_safetensors as opener
    elif start.startswith(b"PK"):
        from nbsd.models.torchfile import open_zip as opener
    elif start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        from nbsd.models.torchfile import open_legacy as opener
    else:
        from nbsd.models.safefile import open_safetensors as opener
    return opener


# First bytes, what that is, and what to do about it.
STRANGERS: tuple[tuple[bytes, str, str], ...] = (
    (b"\x1f\x8b", "a gzip archive", "unpack it (nbsd unpack) and choose the model file inside"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it and choose the model file inside"),
    (b"Rar!", "a RAR archive", "unpack it and choose the model file inside"),
    (b"\x89PNG", "a PNG picture", "choose a .safetensors or .ckpt file"),
    (b"\xff\xd8\xff", "a JPEG picture", "choose a .safetensors or .ckpt file"),
    (b"GGUF", "a GGUF file (quantised weights)", "nbsd does not read these; choose the model's .safetensors file"),
    (b"\x89HDF", "an HDF5 file", "nbsd does not read these; choose the model's .safetensors file"),
    (b"ONNX", "an ONNX file", "nbsd does not read these; choose the model's .safetensors file"),
)


def refuse_stranger(path: Path, start: bytes, size: int) -> None:
    """Raise ModelError for the files that are so often saved under a model's name. `start`: the first kilobyte."""

    def refuse(what: str, advice: str) -> NoReturn:
        raise ModelError(f"'{path.name}' is {what}, not a model file: {advice}.")

    if start[257:262] == b"ustar":
        refuse("a tar archive", "unpack it (nbsd unpack) and choose the model file inside")
    for magic, what, advice in STRANGERS:
        if start.startswith(magic):
            refuse(what, advice)
    if start.startswith(b"version https://git-lfs.github.com/spec/"):
        words = start.split()
        real = words[words.index(b"size") + 1] if b"size" in words[:-1] else b"?"
        refuse(
            f"a Git LFS pointer ({size} bytes)",
            f"the real file ({real.decode(errors='replace')} bytes) was not downloaded; run 'git lfs pull' or download it from its page",
        )
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<script")):
        refuse("a web page", "the link led to a page and not to the file; open it in a browser (a login may be needed) and download again")
    if text.startswith((b'{"error', b'{"message', b'{"detail', b"invalid username", b"access to model", b"entry not found", b"unauthorized")):
        refuse(
            "an error message of the site it came from",
            f"it says {start[:120].decode(errors='replace')!r}; sign in or use a token, and download again",
        )


def counted(number: int) -> str:
    """Bytes as a person reads them: '4,265,146,304'."""
    return f"{number:,}"
