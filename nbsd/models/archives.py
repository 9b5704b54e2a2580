"""Archives of model files (tar, also packed, and zip), unpacked without trusting a word of them.

Hypernetworks and embeddings travel as such ("..._modules.tar"). Nothing leaves the folder, nothing is overwritten, no link and no
device is made, nothing grows beyond what was announced, and an archive that tries any of it is refused before the first file is written.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

from nbsd.errors import ModelError, UnsafeFileError
from nbsd.models.links import ENDINGS
from nbsd.models.weights import MOST_PACKED, check_file, counted

WANTED = (*ENDINGS, ".png", ".webp")        # what is unpacked; the rest (readmes, scripts) stays where it is
MOST_FILES = 10_000
LONGEST_NAME = 200                  # letters of one part of a path
MOST_ENDS = 8                       # times that the end of a file is asked for more
COPIED = 1 << 20                    # bytes at once
SPARE = 200_000_000                 # bytes of the disk that stay free
PACKERS: tuple[tuple[bytes, Callable[[Any], Any]], ...] = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\x00", lzma.open))
BROKEN = (tarfile.TarError, zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError,
          RuntimeError, LookupError)  # fmt: skip

Progress = Callable[[int, int], None]       # bytes done, bytes in all; may raise Stopped


class Member(NamedTuple):
    """A file in an archive."""

    name: str           # as the archive says it
    size: int           # bytes, as the archive says it
    kind: str           # "" for a plain file, else what it is, in words


def unpack(archive: Path, into: Path, on_progress: Progress | None = None) -> list[Path]:
    """Unpack the model files of an archive into a folder, with the folders they are in; the paths that were written.

    Raises ModelError for what is no archive, a broken one, one that reaches out of the folder or that grows too much, and where a
    file is there already. What was written of an archive that turns out broken is removed again.
    """
    archive, size = Path(archive), check_file(Path(archive))
    try:
        members = list(_members(archive, size))
        places = {member.name: into / place for member in members if (place := checked(archive, member)) is not None}
        wanted = {member.name: member for member in members if member.name in places}
        if not wanted:
            raise ModelError(f"'{archive.name}' holds no model files ({len(members)} others): choose another archive.")
        _check(archive, list(wanted.values()), places, size, into)
        return _write(archive, size, wanted, places, on_progress)
    except BROKEN as error:
        raise ModelError(f"'{archive.name}' is damaged, or no tar or zip archive ({str(error)[:80]}): download it again.") from error


def checked(archive: Path, member: Member) -> Path | None:
    """Where a member belongs below the folder; None where it is not wanted. Raises UnsafeFileError for what reaches out of it."""
    name = member.name.replace("\\", "/")
    parts = [part for part in PurePosixPath(name).parts if part != "."]
    if name.startswith("/") or ":" in name or ".." in parts or any(not part.isprintable() or len(part) > LONGEST_NAME for part in parts):
        raise UnsafeFileError(f"'{archive.name}' was not unpacked: it would write to {name[:100]!r}, outside of the folder. Do not use it.")
    if member.kind:
        raise UnsafeFileError(f"'{archive.name}' was not unpacked: it holds {member.kind} ({name[:100]!r}) among its files. Do not use it.")
    return Path(*parts) if parts and name.lower().endswith(WANTED) else None


def _check(archive: Path, members: list[Member], places: dict[str, Path], size: int, into: Path) -> None:
    total = sum(member.size for member in members)
    if total > MOST_PACKED * size or len(members) > MOST_FILES:
        raise UnsafeFileError(f"'{archive.name}' was not unpacked: its {size:,} bytes claim to be {counted(total)} in {len(members)} files.")
    if len({str(places[member.name]).lower() for member in members}) < len(members):
        raise ModelError(f"'{archive.name}' was not unpacked: two of its files have one name.")
    if there := [place for place in places.values() if place.exists()]:
        raise ModelError(f"'{archive.name}' was not unpacked: '{there[0]}' is there already. Choose another folder, or move it away.")
    existing = next(folder for folder in (into.absolute(), *into.absolute().parents) if folder.exists())
    if shutil.disk_usage(existing).free < total + SPARE:
        raise ModelError(f"'{archive.name}' needs {counted(total)} bytes, and the disk has less: make room or choose another folder.")


def _write(archive: Path, size: int, wanted: dict[str, Member], places: dict[str, Path], on_progress: Progress | None) -> list[Path]:
    total, done, written = sum(member.size for member in wanted.values()), 0, list[Path]()
    try:
        for name, source in _contents(archive, size):
            if name not in wanted or places[name] in written:
                continue
            place = places[name]
            place.parent.mkdir(parents=True, exist_ok=True)
            part = place.with_name(place.name + ".part")
            written.append(part)
            left = wanted[name].size
            with part.open("xb") as file:
                while block := source.read(min(COPIED, left)):
                    file.write(block)
                    left -= len(block)
                    done += len(block)
                    if on_progress:
                        on_progress(done, total)
            if left:
                raise EOFError(f"{name[:60]!r} is shorter than it says")
            os.replace(part, place)
            written[-1] = place
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    return written


def _members(archive: Path, size: int) -> Iterator[Member]:
    """Every member but folders."""
    if _is_zip(archive):
        with zipfile.ZipFile(archive) as packed:
            for info in packed.infolist():
                if not info.is_dir():
                    link = (info.external_attr >> 16) & 0o170000 == 0o120000      # a symbolic link, as Unix' zip notes it
                    yield Member(info.filename, info.file_size, "a link" if link else "a locked file" if info.flag_bits & 1 else "")
        return
    with _opened_tar(archive, size) as packed_tar:
        for number, one in enumerate(packed_tar):
            if number > MOST_FILES:
                raise UnsafeFileError(f"'{archive.name}' was not unpacked: it holds more than {MOST_FILES} files.")
            if not one.isdir():
                kind = "" if one.isreg() and not one.issparse() else "a link" if one.islnk() or one.issym() else "a device or something like it"
                yield Member(one.name, one.size, kind)


def _contents(archive: Path, size: int) -> Iterator[tuple[str, BinaryIO]]:
    """The plain files, each open for reading until the next."""
    if _is_zip(archive):
        with zipfile.ZipFile(archive) as packed:
            for info in packed.infolist():
                if not info.is_dir():
                    with packed.open(info) as source:
                        yield info.filename, source     # type: ignore[misc]
        return
    with _opened_tar(archive, size) as packed_tar:
        for one in packed_tar:
            if one.isreg() and (inside := packed_tar.extractfile(one)) is not None:
                yield one.name, inside      # type: ignore[misc]


@contextmanager
def _opened_tar(archive: Path, size: int) -> Iterator[tarfile.TarFile]:
    """A tar read from its start to its end, and no more of it than a packed archive can honestly hold."""
    with archive.open("rb") as file:
        start = file.read(8)
        file.seek(0)
        opener = next((opener for magic, opener in PACKERS if start.startswith(magic)), None)
        limited = _Limited(opener(file) if opener else file, (MOST_PACKED + 1) * size + COPIED, archive.name)
        with io.BufferedReader(limited) as source, tarfile.open(fileobj=source, mode="r|") as found:
            yield found


class _Limited(io.RawIOBase):
    """A file of which only so much can be read."""

    def __init__(self, source: BinaryIO, most: int, name: str) -> None:
        self._source, self._left, self._name, self._ends = source, most, name, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        block = self._source.read(len(buffer))
        self._left -= len(block)
        self._ends += not block
        if self._ends > MOST_ENDS:      # tarfile would skip the rest of a terabyte that is not there, block by block
            raise EOFError("it is cut off")
        if self._left < 0:
            raise UnsafeFileError(f"'{self._name}' was not unpacked: it grows to many times its size. Do not use it.")
        buffer[: len(block)] = block
        return len(block)


def _is_zip(archive: Path) -> bool:
    """By its beginning: torch's files are zips too, so a tar that ends with one looks like a zip from its end."""
    with archive.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
