"""A model that is named by a link, as a file: fetched where it is not here yet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nbsd.events import Downloading
from nbsd.hosts import this_host
from nbsd.models.get import get, token_for
from nbsd.models.links import Link, read_link
from nbsd.models.transfer import Report


def link_of(source: str | Path) -> Link | None:
    """What a source links to; None where it is a path."""
    if isinstance(source, Path):
        return None
    try:
        if Path(source).expanduser().exists():
            return None
    except (OSError, RuntimeError, ValueError):
        pass
    return read_link(source)


def fetched(source: str | Path, folder: str | Path | None, report: Report) -> str | Path:
    """The source itself where it is a path, else the file that its link leads to, in `folder` or where the host keeps models.

    On Colab, call it from the main thread: tokens come from its page. Raises DownloadError, and what `report` raises.
    """
    link = link_of(source)
    if link is None:
        return source
    return get(link, Path(folder).expanduser() if folder else this_host().models()[0], report, token_for(link))


def here(source: str | Path, folder: str | Path | None = None, on_progress: Callable[[int, int], None] | None = None) -> str | Path:
    """As `fetched`, told in bytes done and in all; without `on_progress` a line shows how far it is, how fast, and for how long."""
    if on_progress is not None:
        tell = on_progress
        return fetched(source, folder, lambda event: tell(event.done, event.total))
    if link_of(source) is None:
        return source
    with Bar() as bar:
        return fetched(source, folder, bar.tell)


class Bar:
    """tqdm's line: in a terminal and in a notebook's cell."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self._bar = tqdm(unit="B", unit_scale=True, mininterval=0.2)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def tell(self, event: Downloading) -> None:
        """Show how far it is."""
        self._bar.set_description(event.what, refresh=False)
        self._bar.total = event.total or None
        self._bar.update(event.done - self._bar.n)
