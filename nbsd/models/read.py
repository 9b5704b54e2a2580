"""Reading the tensors of a model file into memory: one at a time, converted on the way, without a second full copy."""

from __future__ import annotations

import os
import threading
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from nbsd.errors import ModelError
from nbsd.models.weights import ITEM_SIZES, Stored, Weights

# Elements that are read and converted at once. Below torch's grain of 32,768, so that a conversion stays on the thread that read:
# spread over torch's own threads it took up to ten times as long on a busy machine.
CHUNK = 32_000
THREADS = 4     # at most; they read and convert side by side

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
    "C64": torch.complex64, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip

Progress = Callable[[int, int], None]       # bytes read so far, bytes to read; may raise Stopped


class Reader:
    """Reads tensors of a model file, or of several. Not for two threads at once: it has one place in a file and one buffer."""

    def __init__(self, weights: Weights) -> None:
        self._name = weights.path.name
        self._path = weights.path
        self._files: dict[Path, BinaryIO] = {}
        self._buffer: Tensor | None = None

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def _file(self, stored: Stored) -> BinaryIO:
        path = stored.file or self._path
        if path not in self._files:
            self._files[path] = path.open("rb", buffering=0)
        return self._files[path]

    def read(self, stored: Stored, dtype: torch.dtype | None = None) -> Tensor:
        """The tensor in new memory, contiguous; `dtype`: converted to this, None: as it is stored."""
        if stored.dtype not in DTYPES:
            raise ModelError(f"'{self._name}' holds numbers of type {stored.dtype}, which nbsd does not read.")
        source = DTYPES[stored.dtype]
        flat = torch.empty(stored.span, dtype=dtype or source)
        if stored.member is not None:
            flat.copy_(self._unpacked(stored).view(source))
        elif flat.dtype == source:
            self._fill(flat, stored, stored.start)
        else:
            self._convert(flat, source, stored)
        if stored.stride is None:
            return flat.view(stored.shape)
        return flat.as_strided(stored.shape, stored.stride).contiguous()

    def _convert(self, flat: Tensor, source: torch.dtype, stored: Stored) -> None:
        if self._buffer is None:
            self._buffer = torch.empty(CHUNK * max(ITEM_SIZES.values()), dtype=torch.uint8)
        size = ITEM_SIZES[stored.dtype]
        for first in range(0, stored.span, CHUNK):
            part = flat[first: first + CHUNK]
            raw = self._buffer[: part.numel() * size].view(source)
            self._fill(raw, stored, stored.start + first * size)
            part.copy_(raw)

    def _fill(self, flat: Tensor, stored: Stored, start: int) -> None:
        """Read the bytes from `start` on, in the file of a tensor, into a contiguous one."""
        if not flat.numel():
            return
        view, file = flat.view(torch.uint8).numpy().data, self._file(stored)
        file.seek(start)
        done = 0
        while done < len(view):
            got = file.readinto(view[done:])  # type: ignore[attr-defined]
            if not got:
                raise ModelError(f"'{self._name}' ended while it was read: it was changed or is cut off. Download it again.")
            done += got

    def _unpacked(self, stored: Stored) -> Tensor:
        try:
            with zipfile.ZipFile(stored.file or self._path) as archive, archive.open(stored.member or "") as member:
                member.read(stored.start)
                raw = bytearray(member.read(stored.nbytes))
        except (zipfile.BadZipFile, EOFError, RuntimeError, ValueError, zlib.error) as error:
            raise ModelError(f"'{self._name}' is damaged: {error}. Download it again.") from error
        if len(raw) != stored.nbytes:
            raise ModelError(f"'{self._name}' is damaged: {stored.member} is shorter than it says. Download it again.")
        return torch.frombuffer(raw, dtype=torch.uint8) if raw else torch.empty(0, dtype=torch.uint8)


def read_many(
    weights: Weights,
    wanted: Mapping[str, Stored],
    convert: Callable[[str, Reader, Stored], Tensor],
    on_progress: Progress | None = None,
) -> dict[str, Tensor]:
    """Read tensors with a few threads. `wanted`: new name -> place; `convert(name, reader, stored)` makes the tensor.

    `on_progress` is called on the calling thread; what it raises ends the reading. Errors of the file are ModelErrors.
    """
    total = sum(stored.nbytes for stored in wanted.values())
    readers: list[Reader] = []
    own = threading.local()

    def work(name: str, stored: Stored) -> Tensor:
        if not hasattr(own, "reader"):
            own.reader = Reader(weights)
            readers.append(own.reader)
        return convert(name, own.reader, stored)

    made: dict[str, Tensor] = {}
    done = 0
    threads = max(1, min(THREADS, os.cpu_count() or 1))
    pool = ThreadPoolExecutor(threads, thread_name_prefix="nbsd-read")
    try:
        # In the order of the file, which is the fastest way over a disk.
        for name, future in _ahead(pool, work, sorted(wanted.items(), key=_place), 4 * threads):
            made[name] = future.result()
            done += wanted[name].nbytes
            if on_progress:
                on_progress(done, total)
    except OSError as error:
        raise ModelError(f"'{weights.path.name}' could not be read to its end ({error.strerror or error}): try again.") from error
    finally:
        pool.shutdown(cancel_futures=True)
        for reader in readers:
            reader.close()
    return made


def _place(item: tuple[str, Stored]) -> tuple[str, int]:
    return str(item[1].file or ""), item[1].start


def _ahead(
    pool: ThreadPoolExecutor, work: Callable[[str, Stored], Tensor], items: list[tuple[str, Stored]], most: int
) -> Iterator[tuple[str, Future[Tensor]]]:
    """Hand out work, at most so many tensors ahead, and give it back in order."""
    waiting: deque[tuple[str, Future[Tensor]]] = deque()
    for name, stored in items:
        waiting.append((name, pool.submit(work, name, stored)))
        if len(waiting) >= most:
            yield waiting.popleft()
    yield from waiting
