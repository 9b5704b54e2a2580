"""What the buttons Get and Cancel do: a download in a thread of its own, so that pictures are made meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from nbsd.errors import DownloadError, Stopped
from nbsd.events import Downloading, Event, Note
from nbsd.ui.catalog import Catalog
from nbsd.ui.dispatch import Screen, ScreenJob
from nbsd.worker import Control, Job, Report, Worker

NO_LINK = "this is no link: give owner/repo, owner/repo/file.safetensors, a link of Hugging Face or Civitai, or an address that starts with https://"


class FetchJob(ScreenJob):
    """A job that brings a file; its events are the catalog's."""


class Fetching:
    """Connects the catalog's buttons to downloads. `came(path)` is called, in the job's thread, for each file that has come."""

    def __init__(self, catalog: Catalog, screen: Screen, folder: Path, came: Callable[[Path], None]) -> None:
        self._catalog, self._screen, self._folder, self._came = catalog, screen, folder, came
        self._worker = Worker(_route)
        self.job: FetchJob | None = None
        catalog.get.on_click(lambda _: self.start())
        catalog.cancel.on_click(lambda _: self.stop())

    def start(self) -> None:
        """Fetch what the box says. In the callback's thread, which on Colab is the one that may ask for secrets."""
        if self.job is not None and not self.job.done:
            return      # a double click
        from nbsd.models.get import token_for
        from nbsd.models.links import read_link, without_token

        text = self._catalog.link.value.strip()
        self._catalog.link.value = without_token(text)      # a notebook keeps what its widgets say
        try:
            link = read_link(text)
            if link is None:
                raise DownloadError(NO_LINK)
            token = token_for(link)
        except DownloadError as error:
            told = error
            self._screen.post(lambda: self._catalog.fail(told))
            return

        def run(report: Report, control: Control) -> None:
            from nbsd.models.get import get

            def tell(event: Downloading) -> None:
                if control.stopping:
                    raise Stopped("stopped while fetching")
                report(event)

            path = get(link, self._folder, tell, token)
            report(Note(f"{path.name} is here, in {path.parent}"))
            self._came(path)

        self._screen.post(self._catalog.queued)
        self.job = FetchJob(run, self._screen)
        self._worker.submit(self.job)
        if self._screen.callers_wait:
            with suppress(KeyboardInterrupt):
                self.job.wait(between=self._screen.between)
            self._screen.flush()

    def stop(self) -> None:
        """Stop fetching; what has come is kept."""
        if self.job is not None:
            self.job.stop()


def _route(job: Job, event: Event) -> None:
    if isinstance(job, ScreenJob):
        job.screen.tell(job, event)
