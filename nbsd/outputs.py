"""Saves pictures: the whole file or none, with its recipe, and never over another one."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from nbsd.errors import OutputError

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.PngImagePlugin import PngInfo

    from nbsd.picture import Picture

TEXT_KEY = "parameters"             # where the web UI puts the recipe of a PNG (modules/images.py, save_image_with_geninfo)
PART = ".nbsd-part"                 # ending of a file that is being written
STALE = 3600.0                      # seconds after which such a file was left by a kernel that died
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
NO_LINKS = frozenset({errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK, errno.EINVAL})

_NUMBER = re.compile(r"^(\d{5,})-")


class Outputs:
    """A folder of pictures: `FOLDER/YYYY-MM-DD/00001-SEED.png`. Several processes may write into it at once."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder).expanduser().absolute()

    def check(self) -> None:
        """Raise OutputError now if a picture could not be saved: better before the work than after it."""
        day = self._day()
        with _told(day):
            day.mkdir(parents=True, exist_ok=True)
            _sweep(day)
            probe = _part(day)
            try:
                _write(probe, b"nbsd" * 1024)
            finally:
                probe.unlink(missing_ok=True)

    def save(self, picture: Picture) -> Picture:
        """Write the picture as PNG with its infotext and return it with its path.

        The file appears under its name only when it is complete and on disk. Raises OutputError; then nothing is left of it.
        """
        day = self._day()
        with _told(day):
            day.mkdir(parents=True, exist_ok=True)
            part = _part(day)
            try:
                _write(part, png_bytes(picture))
                path = _publish(part, day, picture.recipe.seed)
            finally:
                part.unlink(missing_ok=True)
        return replace(picture, path=path)

    def _day(self) -> Path:
        return self.folder / date.today().isoformat()


def png_bytes(picture: Picture) -> bytes:
    """The picture as a PNG file that carries its infotext as the web UI's does: tEXt where it is latin-1, else iTXt."""
    import io

    out = io.BytesIO()
    picture.image.save(out, "PNG", pnginfo=_info(picture.infotext))
    return out.getvalue()


def save_as(image: Image, folder: Path, name: str, infotext: str = "") -> Path:
    """Write a picture as `folder/name.png`, or with a number behind the name where that is taken; its path. Raises OutputError."""
    import io

    out = io.BytesIO()
    image.save(out, "PNG", pnginfo=_info(infotext) if infotext else None)
    folder = folder.expanduser().absolute()
    with _told(folder):
        folder.mkdir(parents=True, exist_ok=True)
        part = _part(folder)
        try:
            _write(part, out.getvalue())
            number, path = 1, folder / f"{name}.png"
            while not _give_name(part, path):
                number += 1
                path = folder / f"{name}-{number}.png"
        finally:
            part.unlink(missing_ok=True)
    return path


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file's content at once: a reader sees the old one or the new one, never a half. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part(path.parent)
    try:
        _write(part, data)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _info(infotext: str) -> PngInfo:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    # Half an emoji (a lone surrogate) has no UTF-8 form; it must not cost the picture.
    info.add_text(TEXT_KEY, infotext.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    return info


def _part(folder: Path) -> Path:
    return folder / f".{uuid.uuid4().hex}{PART}"


def _write(path: Path, data: bytes) -> None:
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _publish(part: Path, folder: Path, seed: int) -> Path:
    """Give the finished file the next free name, without ever replacing a file that has it."""
    number = _last_number(folder) + 1
    while True:
        path = folder / f"{number:05d}-{seed}.png"
        if _give_name(part, path):
            _sync_folder(folder)
            return path
        number = max(number, _last_number(folder)) + 1


def _give_name(part: Path, path: Path) -> bool:
    """False where another file has the name already."""
    try:
        os.link(part, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return _give_name_without_links(part, path)
    return True


def _give_name_without_links(part: Path, path: Path) -> bool:
    """For file systems without hard links (exFAT, mounted cloud drives): take the name with an empty file, then fill it."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    try:
        os.replace(part, path)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return True


def _last_number(folder: Path) -> int:
    return max((int(found[1]) for name in os.listdir(folder) if (found := _NUMBER.match(name))), default=0)


def _sync_folder(folder: Path) -> None:
    """Put the new name itself on disk, where the system can (Windows cannot open folders)."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _sweep(folder: Path) -> None:
    """Remove half files of kernels that died."""
    for part in folder.glob(f".*{PART}"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > STALE:
                part.unlink()


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Turn the system's errors into one sentence."""
    try:
        yield
    except OSError as error:
        raise OutputError(_sentence(error, folder)) from error


def _sentence(error: OSError, folder: Path) -> str:
    if error.errno in FULL:
        return f"the disk is full, so the picture could not be saved in {folder}: free some space, or choose another folder with Studio(outputs=...)"
    if error.errno in FORBIDDEN:
        return f"pictures may not be written to {folder} ({error.strerror}): choose another folder with Studio(outputs=...)"
    return f"the picture could not be saved in {folder} ({error.strerror or error}): choose another folder with Studio(outputs=...)"
