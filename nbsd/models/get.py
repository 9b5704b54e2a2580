"""From `owner/repo`, a hub link, a Civitai link or an address to a file on this disk."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from nbsd.errors import DownloadError, ModelError
from nbsd.events import Downloading
from nbsd.hosts.secrets import Secret, secret
from nbsd.models import civitai, hashes, hub
from nbsd.models.cache import CACHE
from nbsd.models.links import ENDINGS, Civitai, Hub, Link, Web, safe_name
from nbsd.models.stream import Cut, Stream
from nbsd.models.transfer import Offer, Report, download, forget
from nbsd.models.weights import open_weights

PLACES: dict[type[Link], str] = {Hub: "hub", Civitai: "civitai"}        # whose token a link needs, a key of hosts.secrets.NAMES


def token_for(link: Link) -> Secret | None:
    """The token to fetch it with: one that stood in the link, or the user's. On Colab, call this from the main thread."""
    own = getattr(link, "token", None)
    if own is not None or isinstance(link, Web):
        return own
    return secret(PLACES[type(link)])


def get(link: Link, folder: Path, report: Report, token: Secret | None = None) -> Path:
    """The file that a link means, fetched into `folder` where it is not there yet; a folder for a model in diffusers' layout.

    `token`: see `token_for`. `report` is told several times a second how far it is and may raise Stopped: what came so far is kept, and
    the next call goes on from there. Raises DownloadError; a file is under its own name only when it is whole and checked.
    """
    report(Downloading(_asked(link)))
    if isinstance(link, Web):
        return fetch(Offer(link.url, _name_of(link.url), token=token), folder, report)
    if isinstance(link, Civitai):
        return fetch(civitai.offer(link, token), folder, report)
    found = hub.find(link, token)
    if found.path is not None:      # in the hub's own cache
        return found.path
    if not found.folder:
        return fetch(found.offers[0], folder, report)
    return _fetch_all(found.offers, folder / found.folder, report)


def fetch(offer: Offer, folder: Path, report: Report) -> Path:
    """Fetch one file into a folder; what is there under its name stays, and is taken where it is the very same."""
    if not offer.name.lower().endswith((*ENDINGS, ".json", ".txt")):
        raise DownloadError(f"'{offer.name}' is no model file: give the link of a file that ends in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DownloadError(f"the folder {folder} cannot be made ({error.strerror or error}): choose another one") from error
    target, there = _place(offer, folder)
    if there:
        return target
    part = target.with_name(target.name + ".part")
    with _alone(target):
        digest = download(offer, part, report)
        _check(part, offer)
        os.replace(part, target)
        forget(part)
    CACHE.put({target: {"sha256": digest, "source": offer.source}})
    return target


def _fetch_all(offers: Sequence[Offer], folder: Path, report: Report) -> Path:
    """Several files, told as one."""
    total, before = sum(offer.size or 0 for offer in offers), 0
    free = shutil.disk_usage(_nearest(folder)).free
    if free < total:
        raise DownloadError(f"'{folder.name}' needs {total / 1e9:.2f} GB and {free / 1e9:.2f} GB are free in {_nearest(folder)}: make room there")
    for offer in offers:
        inner, _, name = offer.name.rpartition("/")

        def told(event: Downloading, before: int = before) -> None:
            left = (total - before - event.done) / event.rate if event.rate else None
            report(replace(event, what=folder.name, done=before + event.done, total=total, seconds_left=left))

        fetch(replace(offer, name=name), folder / inner, told)
        before += offer.size or 0
    return folder


def _place(offer: Offer, folder: Path) -> tuple[Path, bool]:
    """Where a file goes, and whether it is there already. Another file of its name stays: this one gets a number."""
    first = folder / offer.name
    for number in range(1, 1000):
        target = first if number == 1 else first.with_stem(f"{first.stem}-{number}")
        if not target.exists():
            return target, False
        if _is_same(offer, target):
            return target, True
    raise DownloadError(f"there are too many files called '{offer.name}' in {folder}: take some away")


def _is_same(offer: Offer, file: Path) -> bool:
    size = file.stat().st_size
    if offer.size is not None and offer.size != size:
        return False
    if offer.sha256:
        return hashes.sha256(file) == offer.sha256.lower()
    if CACHE.get(file).get("source") == offer.source:
        return True
    return (offer.size if offer.size is not None else _announced(offer)) == size


def _announced(offer: Offer) -> int | None:
    """The size that the server tells."""
    stream = Stream(offer.url, offer.token)
    try:
        head = stream.head(lambda: None)
        length = head["content-length"]
        return int(length) if head.status == 200 and length.isdigit() else None
    except (Cut, DownloadError):
        return None
    finally:
        stream.close()


def _check(part: Path, offer: Offer) -> None:
    """Raise, and throw the file away, where it is no whole model file: its tensors must lie in it, and its pickle must be harmless."""
    if not offer.name.lower().endswith(ENDINGS):
        return
    try:
        open_weights(part)
    except ModelError as error:
        forget(part)
        reason = str(error).replace(part.name, offer.name)
        raise DownloadError(f"what arrived is not kept: {reason}") from error


class _alone:
    """Nobody else on this machine fetches to the same place for the length of the block."""

    def __init__(self, target: Path) -> None:
        from filelock import FileLock

        name = hashlib.sha256(str(target.absolute()).encode()).hexdigest()[:20]
        self._target, self._lock = target, FileLock(Path(tempfile.gettempdir(), f"nbsd-{name}.lock"), timeout=0)

    def __enter__(self) -> None:
        from filelock import Timeout

        try:
            self._lock.acquire()
        except Timeout:
            raise DownloadError(f"'{self._target.name}' is being fetched already, here or in another notebook: wait for that") from None
        except (OSError, NotImplementedError):
            pass        # a machine without locks: as good as it gets

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _name_of(url: str) -> str:
    name = safe_name(url.split("?")[0].split("#")[0])
    if not name:
        raise DownloadError("this address names no file: give the link of the file itself, as its Download button has it")
    return name


def _asked(link: Link) -> str:
    if isinstance(link, Hub):
        return link.file.rsplit("/", 1)[-1] or link.repo
    return "Civitai" if isinstance(link, Civitai) else _name_of(link.url)


def _nearest(folder: Path) -> Path:
    return next(place for place in (folder, *folder.parents) if place.exists())


def by_bytes(tell: Callable[[int, int], None]) -> Report:
    """A report for whoever counts bytes only."""
    return lambda event: tell(event.done, event.total)
