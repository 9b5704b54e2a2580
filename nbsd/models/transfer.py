"""Fetching one file over the network: resumed after a cut, checked, and under its own name only once it is whole.

What is there so far lies beside it as NAME.part; NAME.part.json says of which version of the file it is, so that a restarted kernel
goes on where the last one ended.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from nbsd.errors import DownloadError
from nbsd.events import Downloading
from nbsd.hosts.secrets import Secret
from nbsd.models.stream import Cut, Head, Stream

TRIES = 6                           # requests in a row that bring no new byte
PAUSES = (0.5, 1.0, 2.0, 5.0, 10.0)     # seconds before each of the next ones; a server that says when is heard
LONGEST_PAUSE = 60.0
SPARE = 200_000_000                 # bytes of the disk that stay free for pictures and notebooks
PACE = 0.1                          # seconds between two reports
MEMORY = 5.0                        # seconds that the speed is averaged over
REREAD = 1 << 20                    # bytes at once where a part is read again

Report = Callable[[Downloading], None]      # may raise Stopped; it is called several times a second, during a stall too


@dataclass(frozen=True)
class Offer:
    """A file that is to be had."""

    url: str
    name: str                       # the file's own name
    size: int | None = None         # bytes, where its home tells
    sha256: str | None = None       # 64 digits, where its home tells
    token: Secret | None = None     # goes to the host of `url`, and to no other
    denied: str = ""                # what to do where the server wants a token, in words

    @property
    def source(self) -> str:
        """Names the address without repeating it: addresses may be signed."""
        return hashlib.sha256(self.url.encode()).hexdigest()


def download(offer: Offer, part: Path, report: Report) -> str:
    """Fetch a file into `part`, going on with what is there of it. The SHA-256 of the whole; raises DownloadError, and what `report` raises."""
    transfer = _Transfer(offer, part, report)
    transfer.run()
    digest = transfer.digest.hexdigest()
    if offer.sha256 and digest != offer.sha256.lower():
        forget(part)
        raise DownloadError(
            f"'{offer.name}' did not arrive as it was announced (SHA-256 {digest[:10]} where {offer.sha256[:10].lower()} was promised), so it "
            "is thrown away: download it again"
        )
    return digest


def forget(part: Path) -> None:
    """Remove what is there of a file."""
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


class Meter:
    """Turns bytes into reports with speed and time left, at most ten a second."""

    def __init__(self, what: str, report: Report) -> None:
        self._what, self._report = what, report
        self._marks: list[tuple[float, int]] = []       # (seconds, bytes), not older than MEMORY
        self._told = 0.0

    def tell(self, done: int, total: int | None, at_once: bool = False) -> None:
        now = time.monotonic()
        if not at_once and now - self._told < PACE:
            return
        self._told = now
        if self._marks and done < self._marks[-1][1]:       # it had to begin again
            self._marks.clear()
        self._marks = [mark for mark in self._marks if now - mark[0] <= MEMORY] + [(now, done)]
        then, before = self._marks[0]
        took = now - then
        rate = (done - before) / took if took > 0.5 else None
        left = (total - done) / rate if rate and total else None
        self._report(Downloading(self._what, done, total or 0, rate, left))


class _Transfer:
    """One file on its way. `done` bytes of it are on disk, and `digest` has seen just those."""

    def __init__(self, offer: Offer, part: Path, report: Report) -> None:
        self.offer, self.part = offer, part
        self.done, self.total = 0, offer.size
        self.digest = hashlib.sha256()
        self._validator = ""        # ETag or date of the version that the part is of
        self._meter = Meter(offer.name, report)

    def run(self) -> None:
        self._take_up()
        best, tries = self.done, 0
        while True:
            try:
                self._once()
                self._meter.tell(self.done, self.total, at_once=True)
                return
            except Cut as cut:
                tries = 0 if self.done > best else tries + 1
                best = max(best, self.done)
                if tries >= TRIES:
                    raise DownloadError(self._gave_up(cut)) from None
                self._pause(cut.wait or PAUSES[min(tries, len(PAUSES) - 1)])

    def _take_up(self) -> None:
        """Go on with a part of an earlier run, where it is of the same file."""
        try:
            note = json.loads(_note(self.part).read_text("utf-8"))
            fits = note["source"] == self.offer.source and (bool(note["validator"]) or self.offer.sha256 is not None)
            if not fits or self.part.stat().st_size > (self.offer.size or note["total"] or 1 << 62):
                raise ValueError
            with self.part.open("rb") as file:
                while piece := file.read(REREAD):
                    self.digest.update(piece)
                    self.done += len(piece)
                    self._meter.tell(self.done, self.total)
            self._validator, self.total = str(note["validator"]), self.total or note["total"]
        except (OSError, ValueError, KeyError, TypeError):
            forget(self.part)
            self._restart()

    def _restart(self) -> None:
        self.done, self._validator, self.total = 0, "", self.offer.size
        self.digest = hashlib.sha256()

    def _once(self) -> None:
        """One request, to its end or to a Cut."""
        if self.done and not (self._validator or self.offer.sha256):
            self._restart()         # nobody could say whether the rest belongs to this beginning
        if self.total is not None and self.done == self.total:
            return
        stream = Stream(self.offer.url, self.offer.token, self.done, self._validator)
        try:
            if self._begin(stream.head(self._look)):
                with self.part.open("r+b" if self.part.exists() else "wb") as file:
                    file.seek(self.done)
                    file.truncate()
                    self._write(file, stream)
        except OSError as error:
            raise DownloadError(_disk_words(error, self.part)) from error
        finally:
            stream.close()
        if self.total is not None and self.done < self.total:
            raise Cut("the connection ended early")

    def _write(self, file: BinaryIO, stream: Stream) -> None:
        for piece in stream.pieces(self._look):
            if self.total is not None and self.done + len(piece) > self.total:
                raise DownloadError(f"{self._host} sends more than the {self.total:,} bytes of '{self.offer.name}': it is not what was announced")
            file.write(piece)
            self.digest.update(piece)
            self.done += len(piece)
            self._look()

    def _look(self) -> None:
        self._meter.tell(self.done, self.total)

    def _begin(self, head: Head) -> bool:
        """Look at what the server answers; False where all is there already."""
        if head.status == 416:
            if (found := re.fullmatch(r"bytes \*/(\d+)", head["content-range"])) and int(found[1]) == self.done:
                return False
            self._restart()
            raise Cut("the server does not go on with this file")
        if head.status not in (200, 206):
            raise self._refused(head)
        if head.status == 206:
            self._go_on(head)
        elif self.done:
            self._restart()         # the file has changed, or the server knows no ranges
        if head.status == 200:
            self._from_the_start(head)
        self._room()
        return True

    def _go_on(self, head: Head) -> None:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", head["content-range"])
        total = int(found[2]) if found and found[2] != "*" else self.total
        if not found or int(found[1]) != self.done or (self.total is not None and total != self.total):
            self._restart()
            raise Cut("the server went on in another place than it was asked for")
        self.total = total

    def _from_the_start(self, head: Head) -> None:
        if head["content-type"].startswith("text/html"):
            hint = self.offer.denied or "open the link in a browser and look for the address of the file itself"
            raise DownloadError(f"{self._host} answers with a web page, not with '{self.offer.name}': {hint}")
        length = head["content-length"]
        announced = int(length) if length.isdigit() and not head["content-encoding"] else None
        if self.total is not None and announced is not None and announced != self.total:
            raise DownloadError(
                f"{self._host} sends {announced:,} bytes where {self.total:,} were announced for '{self.offer.name}': the file was changed; "
                "look at its page"
            )
        self.total = announced if announced is not None else self.total
        etag = head["etag"]
        self._validator = etag if etag.startswith('"') else head["last-modified"]
        note = {"source": self.offer.source, "validator": self._validator, "total": self.total}
        _note(self.part).write_text(json.dumps(note), "utf-8")

    def _room(self) -> None:
        """Raise where the disk cannot take the rest."""
        if self.total is None:
            return
        free, wanted = shutil.disk_usage(self.part.parent).free, self.total - self.done
        if free < wanted + SPARE:
            raise DownloadError(
                f"'{self.offer.name}' needs {wanted / 1e9:.2f} GB more and {free / 1e9:.2f} GB are free in {self.part.parent}: make room there, "
                "or choose another folder"
            )

    def _refused(self, head: Head) -> Exception:
        name, where = self.offer.name, self._host
        if head.status in (401, 403):
            sent = " with the token that it was given" if self.offer.token else ""
            return DownloadError(f"{where} does not give '{name}'{sent} ({head.status}): {self.offer.denied or 'it is not for everybody'}")
        if head.status in (404, 410):
            return DownloadError(f"{where} has no '{name}' any more ({head.status}): look at the link")
        if head.status == 429 or head.status >= 500:
            wait = head["retry-after"]
            return Cut(f"the server answers {head.status}", min(float(wait), LONGEST_PAUSE) if wait.isdigit() else 0.0)
        return DownloadError(f"{where} answers {head.status} when asked for '{name}': look at the link")

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(min(PACE, seconds))
            self._look()

    def _gave_up(self, cut: Cut) -> str:
        there = f"{self.done / 1e6:,.0f} MB" + (f" of {self.total / 1e6:,.0f}" if self.total else "") + " are kept"
        kept = f"; {there}: get it again and it goes on from there" if self.done and self._validator else ": try again later"
        return f"'{self.offer.name}' could not be fetched from {self._host} ({cut}){kept}"

    @property
    def _host(self) -> str:
        return urlsplit(self.offer.url).hostname or "the server"


def _note(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _disk_words(error: OSError, part: Path) -> str:
    with suppress(OSError):
        if shutil.disk_usage(part.parent).free < 1_000_000:
            return f"the disk is full while fetching into {part.parent}: make room and get it again, it goes on from there"
    return f"{part.parent} cannot be written to ({error.strerror or error}): choose another folder"
