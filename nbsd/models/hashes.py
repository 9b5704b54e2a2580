"""The hashes by which model files are named in recipes. All are hex digits of a SHA-256; a whole file's are remembered."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

from nbsd.errors import ModelError
from nbsd.models.cache import CACHE
from nbsd.models.weights import check_file

SHORT = 10                  # digits of "Model hash" and "VAE hash", A1111 from 2023-01 on
OLD = 8                     # digits of "Model hash" before
NETWORK = 12                # digits in "Lora hashes"
OLD_START, OLD_LENGTH = 0x100000, 0x10000   # bytes that the old hash is of: 64 KiB from 1 MiB on
BLOCK = 1 << 20

TRAINERS = "sshs_model_hash"    # in a header: the hash as kohya's scripts computed it

Progress = Callable[[int, int], None]       # bytes read, bytes to read; may raise Stopped


class Known(NamedTuple):
    """Hashes of one file; "" where one was not computed yet. The names are those of the facts in the cache."""

    sha256: str = ""    # 64 digits
    old: str = ""       # 8 digits
    addnet: str = ""    # 64 digits


def sha256(path: str | Path, on_progress: Progress | None = None) -> str:
    """SHA-256 of the whole file, 64 digits."""
    return _remembered(Path(path), "sha256", lambda file, size: _digest(file, 0, size, on_progress))


def short_hash(path: str | Path, on_progress: Progress | None = None) -> str:
    """The first 10 digits of it: "Model hash" and "VAE hash" of today."""
    return sha256(path, on_progress)[:SHORT]


def old_hash(path: str | Path) -> str:
    """The 8 digits of before 2023, of 64 KiB from 1 MiB on. A file that is shorter gives the hash of what is there."""
    path = Path(path)
    check_file(path)
    if isinstance(known := CACHE.get(path).get("old"), str):
        return known
    with path.open("rb") as file:
        file.seek(OLD_START)
        return hashlib.sha256(file.read(OLD_LENGTH)).hexdigest()[:OLD]


def addnet_hash(path: str | Path, on_progress: Progress | None = None) -> str:
    """SHA-256 of a .safetensors file without its header, 64 digits; the first 12 stand in "Lora hashes"."""

    def without_header(file: BinaryIO, size: int) -> str:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= size - 8:
            raise ModelError(f"'{Path(path).name}' is no .safetensors file, so it has no hash of this kind.")
        return _digest(file, 8 + length, size, on_progress)

    return _remembered(Path(path), "addnet", without_header)


def network_hash(path: str | Path, metadata: Mapping[str, str], on_progress: Progress | None = None) -> str:
    """The 12 digits by which "Lora hashes" names a network (Civitai's AutoV3).

    What its trainer wrote into the file, or else of a .safetensors file what lies behind the header, of another the whole file:
    modules of A1111 v1.10.1, extensions-builtin/Lora/network.py: NetworkOnDisk.
    """
    written = metadata.get(TRAINERS, "")
    if len(written) >= NETWORK and not set(written.lower()) - set("0123456789abcdef"):
        return written.lower()[:NETWORK]
    whole = addnet_hash if Path(path).suffix.lower() == ".safetensors" else sha256
    return whole(path, on_progress)[:NETWORK]


def known_digests(paths: list[Path]) -> dict[Path, Known]:
    """Those hashes of the files that were computed before; nothing is read for it."""
    return {
        path: Known(*(str(facts.get(fact) or "") for fact in Known._fields)) for path, facts in CACHE.get_all(paths).items()
    }


def known_hashes(paths: list[Path]) -> dict[Path, str]:
    """The SHA-256 of those files for which it is known already."""
    return {path: facts["sha256"] for path, facts in CACHE.get_all(paths).items() if isinstance(facts.get("sha256"), str)}


def _digest(file: BinaryIO, start: int, size: int, on_progress: Progress | None) -> str:
    digest, buffer = hashlib.sha256(), bytearray(BLOCK)
    file.seek(start)
    done = start
    while got := file.readinto(buffer):  # type: ignore[attr-defined]
        digest.update(memoryview(buffer)[:got])
        done += got
        if on_progress:
            on_progress(done, size)
    return digest.hexdigest()


def _remembered(path: Path, fact: str, compute: Callable[[BinaryIO, int], str]) -> str:
    size = check_file(path)
    if isinstance(known := CACHE.get(path).get(fact), str):
        return known
    before = path.stat().st_mtime_ns
    try:
        with path.open("rb") as file:
            digest = compute(file, size)
    except OSError as error:
        raise ModelError(f"'{path.name}' could not be read to its end ({error.strerror or error}): try again.") from error
    if path.stat().st_mtime_ns == before:
        CACHE.put({path: {fact: digest}})
    return digest
