"""The two files that torch.save writes: a zip archive (since torch 1.6) and a row of pickles (before). Neither is unpacked.

The pickle is read by `pickles.py`; of the tensors only the places are noted, so that they can be read one at a time.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from nbsd.errors import ModelError
from nbsd.models.pickles import LONGEST_PICKLE, Keeps, Storage, read_pickle, storage_dtype
from nbsd.models.weights import ITEM_SIZES, Stored, Weights, check_file, counted

LOCAL_HEADER = struct.Struct("<4s22xHH")    # of a zip member: signature, lengths of name and extra field
MAGIC = 0x1950A86A20F9469CFC6C              # first pickle of the legacy format, torch/serialization.py MAGIC_NUMBER
WRAPPERS = ("state_dict", "model_state_dict", "module", "params_ema", "params")
AGAIN = "Download it again."
# What reading a broken zip archive can raise.
ZIP_BROKEN = (zipfile.BadZipFile, zipfile.LargeZipFile, RuntimeError, EOFError, struct.error, zlib.error, ValueError, LookupError, OSError)


def open_zip(path: Path, keeps: Keeps = lambda module, name: False) -> Weights:
    """Open a torch zip file. Members that are stored are addressed in the file itself, compressed ones are unpacked when read.

    `keeps`: see `read_pickle`.
    """
    check_file(path)
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as raw:
            members = {info.filename: info for info in archive.infolist()}
            pickles = [name for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise ModelError(
                    f"'{path.name}' is a zip archive and no torch file (it holds {len(members)} files, e.g. "
                    f"{', '.join(repr(name[:60]) for name in list(members)[:3])}): unpack it (nbsd unpack) and choose the model file inside."
                )
            if odd := [name for name, info in members.items() if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)]:
                raise ModelError(f"'{path.name}' is packed in a way that torch does not use ({odd[0][:60]!r}): unpack it and save it again.")
            folder = pickles[0].removesuffix("data.pkl")
            if any(name.startswith(f"{folder}code/") for name in members):
                raise ModelError(f"'{path.name}' is a TorchScript program, not a file of weights: choose a .safetensors or .ckpt file.")
            if members[pickles[0]].file_size > LONGEST_PICKLE:
                raise ModelError(f"'{path.name}' is damaged: its pickle alone has {counted(members[pickles[0]].file_size)} bytes. {AGAIN}")
            if (order := f"{folder}byteorder") in members and archive.read(order)[:6] != b"little":
                raise ModelError(f"'{path.name}' was written on a big-endian machine, which nbsd does not read: choose a .safetensors version.")
            places = _Places(path, raw, members, folder)
            tree = read_pickle(archive.read(pickles[0]), places.find, path.name, keeps)
    except ZIP_BROKEN as error:
        raise ModelError(f"'{path.name}' is cut off or damaged: it starts as a zip archive, but {error}. {AGAIN}") from error
    return Weights(path, state_dict(tree), tree=tree)


class _Places:
    """Where the storages of a torch zip lie."""

    def __init__(self, path: Path, raw: Any, members: Mapping[str, zipfile.ZipInfo], folder: str) -> None:
        self._path, self._raw, self._members, self._folder = path, raw, members, folder
        self._found: dict[tuple[str, str], Storage] = {}

    def find(self, known: tuple[Any, ...]) -> Storage:
        """The storage of a persistent id ('storage', class, key, location, elements)."""
        dtype, key, count = storage_dtype(known), str(known[2]), known[4]
        name = f"{self._folder}data/{key}"
        if (name, dtype) in self._found:
            return self._found[name, dtype]
        info = self._members.get(name)
        if info is None or type(count) is not int or count < 0:
            raise ModelError(f"'{self._path.name}' is damaged: its tensor data {key[:40]!r} is missing. {AGAIN}")
        if info.file_size < count * ITEM_SIZES[dtype]:
            raise ModelError(f"'{self._path.name}' is damaged: tensor data {key[:40]!r} is shorter than its pickle says. {AGAIN}")
        packed = info.compress_type != zipfile.ZIP_STORED
        self._found[name, dtype] = Storage(dtype, count, 0, name) if packed else Storage(dtype, count, self._start(info))
        return self._found[name, dtype]

    def _start(self, info: zipfile.ZipInfo) -> int:
        """First byte of a stored member's data: behind its local header, whose length only that header tells."""
        self._raw.seek(info.header_offset)
        signature, name, extra = LOCAL_HEADER.unpack(self._raw.read(LOCAL_HEADER.size))
        start = info.header_offset + LOCAL_HEADER.size + name + extra
        if signature != b"PK\x03\x04" or start + info.file_size > self._path.stat().st_size or info.flag_bits & 1:
            raise ModelError(f"'{self._path.name}' is damaged: {info.filename[:60]!r} reaches beyond the file or is locked. {AGAIN}")
        return start


def open_legacy(path: Path) -> Weights:
    """Open a file of torch before 1.6: magic number, version and machine as pickles, then the value, then the storages' numbers."""
    size = check_file(path)
    numbered: dict[str, tuple[str, int]] = {}       # storage key -> element type, elements
    places: dict[str, int] = {}                     # storage key -> first byte; known only behind the pickle that names it

    def find(known: tuple[Any, ...]) -> Storage:
        dtype, key, count = storage_dtype(known), known[2], known[4]
        if type(count) is not int or count < 0 or not isinstance(key, str) or (len(known) > 5 and known[5] is not None):
            raise ValueError("a storage of a kind that torch no longer writes")
        if numbered.setdefault(key, (dtype, count)) != (dtype, count):
            raise ValueError("one storage of two sizes")
        return Storage(dtype, count, places.get(key, 0))

    with path.open("rb") as file:
        head = BytesIO(file.read(LONGEST_PICKLE))
        if read_pickle(head, find, path.name) != MAGIC:
            raise ModelError(f"'{path.name}' is a pickle, but no torch file: choose a .safetensors or .ckpt model file.")
        read_pickle(head, find, path.name)
        machine = read_pickle(head, find, path.name)
        if isinstance(machine, dict) and machine.get("little_endian") is False:
            raise ModelError(f"'{path.name}' was written on a big-endian machine, which nbsd does not read: choose a .safetensors version.")
        start = head.tell()
        read_pickle(head, find, path.name)
        at = _legacy_places(path, file, read_pickle(head, find, path.name), head.tell(), numbered, places)
        if at > size or set(numbered) - set(places):
            raise ModelError(f"'{path.name}' is cut off: it should have {counted(at)} bytes and has {counted(size)}. {AGAIN}")
        head.seek(start)
        tree = read_pickle(head, find, path.name)
    return Weights(path, state_dict(tree), tree=tree)


def _legacy_places(
    path: Path, file: BinaryIO, keys: Any, at: int, numbered: Mapping[str, tuple[str, int]], places: dict[str, int]
) -> int:
    """Fill in where each storage lies; each stands as its number of elements (8 bytes) and its numbers. Returns where the last ends."""
    for key in keys if isinstance(keys, list) else ():
        dtype, count = numbered.get(key, ("U8", -1)) if isinstance(key, str) else ("U8", -1)
        file.seek(at)
        if int.from_bytes(file.read(8), "little") != count:
            raise ModelError(f"'{path.name}' is cut off or damaged: the numbers of its tensors are not where they should be. {AGAIN}")
        places[key] = at + 8
        at += 8 + count * ITEM_SIZES[dtype]
    return at


def state_dict(tree: Any) -> dict[str, Stored]:
    """The named tensors of a checkpoint: those of its state_dict, or of the file itself where it has no such wrapper.

    What is no tensor (step counts, settings, callbacks) is not weights and stays in the tree.
    """
    table = tree if isinstance(tree, dict) else {}
    for wrapper in WRAPPERS:
        if isinstance(table.get(wrapper), dict):
            table = table[wrapper]
            break
    return {key: value for key, value in table.items() if isinstance(key, str) and isinstance(value, Stored)}
