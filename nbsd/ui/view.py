"""Shows what jobs tell. Written to through the screen only, so by one thread at a time; reads no control."""

from __future__ import annotations

import html
import io
import time
from collections.abc import Callable

import ipywidgets as w

from nbsd.errors import NbsdError
from nbsd.events import Downloading, Ended, Event, Loading, Made, Note, Progress, Started
from nbsd.picture import Picture
from nbsd.ui.controls import set_tip
from nbsd.ui.dispatch import ScreenJob
from nbsd.ui.gallery import Gallery
from nbsd.ui.parts import Parts
from nbsd.ui.phase import Phase, move
from nbsd.words import download_words, duration
from nbsd.worker import Job

LOADING_SHARE = 0.1         # of the bar, in a job that loads a model: one bar that never goes back
STATUS_PACE = 1.0           # seconds between two updates of the status line, which screen readers read out
UNFINISHED = "in the making"    # where a finished picture has its path
PREVIEW_PACE = 0.2          # seconds between two previews: there is no back-pressure in ipywidgets
LARGEST_PNG = 3_000_000     # bytes; a larger file is shown as JPEG, quality 92. The PNG is on disk in any case


class View:
    """Buttons that follow the phase, progress, errors, the large picture and the gallery."""

    def __init__(self, parts: Parts, on_pick: Callable[[Picture], None]) -> None:
        self.phase = Phase.IDLE
        self.job: Job | None = None             # the job that is shown
        self.picture: Picture | None = None     # the picture that is shown large
        self._began = 0.0                       # when the job was taken, seconds of time.monotonic
        self._made = 0
        self._loaded = 0.0                      # share of the bar that loading took
        self._pinned = False                    # the user looks at a picture: no previews over it
        self._preview_shown = 0.0
        self._said_at = 0.0
        self._unsaid: str | None = None         # a status line that waits for its turn
        self._make_widgets(parts)
        self.gallery = Gallery(parts, on_pick)
        self._enable()
        self.say("ready")

    def _make_widgets(self, parts: Parts) -> None:
        self.generate = parts.button("Generate", "nbsd-generate", "Make pictures from these settings")
        self.interrupt = parts.button("Interrupt", "nbsd-interrupt", "Stop after this step; what is finished is kept")
        self.skip = parts.button("Skip", "nbsd-skip", "Leave this picture and go on with the next")
        self.bar = parts.make(w.FloatProgress, "nbsd-progress", min=0.0, max=1.0)
        self.status = parts.html("nbsd-status")
        self.error = parts.html("nbsd-error")
        self.notes = parts.html("nbsd-notes")
        self.image = parts.make(w.Image, format="png")
        self.frame = parts.make(w.Box, "nbsd-preview", children=[parts.html("nbsd-empty", "The picture appears here.")])
        self.path = parts.html("nbsd-path")
        self.infotext = parts.make(w.Textarea, "nbsd-infotext", "nbsd-control", description="Infotext", rows=5)
        set_tip(self.infotext, "Select all and copy: other programs understand it")
        self.reuse = parts.button("Reuse this recipe", "nbsd-reuse", "Fill every control with what made this picture")
        self.reuse.disabled = True      # until there is a picture

    # --- what the studio and the callbacks tell

    def queued(self, job: Job, why: str) -> None:
        """A job waits for the worker."""
        if self.phase is Phase.IDLE:
            self._begin(job)
            self.say(f"waiting for {why}", at_once=True)

    def stopping(self, job: Job) -> None:
        """Someone asked the job to stop."""
        if job is self.job and not job.done and self.phase in (Phase.LOADING, Phase.RUNNING):
            self._go(Phase.STOPPING)
            self.say("stopping after this step", at_once=True)

    def pick(self, picture: Picture) -> None:
        """Show a picture large, until the next one is finished."""
        self._pinned = True
        self._enlarge(picture)

    def fail(self, error: BaseException) -> None:
        """Show why something could not be done, in one sentence."""
        self.error.value = f'<div role="alert">{html.escape(sentence(error))}</div>'

    def note(self, text: str) -> None:
        """Show a sentence that is no error."""
        self.notes.value += f"<div>{html.escape(text)}</div>"

    def clear_error(self) -> None:
        """What was asked for has worked."""
        self.error.value = ""

    def clear(self) -> None:
        """Forget errors and notes."""
        self.error.value = self.notes.value = ""

    # --- what jobs tell

    def show(self, job: Job, event: Event) -> None:
        """Show one event."""
        match event:
            case Started():
                self._started(job)
            case Loading():
                self._loading(event)
            case Downloading():
                self.say(f"fetching {event.what} · {download_words(event)}")
            case Progress():
                self._progress(job, event)
            case Made():
                self._made += 1
                self._pinned = False
                self.gallery.add(event.picture)
                self._enlarge(event.picture)
            case Note():
                self.note(event.text)
            case Ended():
                self._ended(event)
            case _:
                raise TypeError(f"no way to show {event!r}")

    def tick(self) -> bool:
        """Say what was held back, once it is due; True while something is still held back."""
        if self._unsaid is not None and time.monotonic() - self._said_at >= STATUS_PACE:
            self.say(self._unsaid, at_once=True)
        return self._unsaid is not None

    def _begin(self, job: Job) -> None:
        self.job = job
        self._go(Phase.LOADING)
        self.clear()
        self._began, self._made, self._loaded, self._pinned = time.monotonic(), 0, 0.0, False
        self.bar.value = 0.0
        self.bar.bar_style = ""

    def _started(self, job: Job) -> None:
        if self.job is not job or self.phase is Phase.IDLE:
            self._begin(job)
        self._began = time.monotonic()
        self.say("starting", at_once=True)

    def _loading(self, event: Loading) -> None:
        if self.phase is Phase.RUNNING:
            self._go(Phase.LOADING)
        share = min(event.done / event.total, 1.0) if event.total else 0.0
        if not self._made:
            self._loaded = LOADING_SHARE
            self.bar.value = max(self.bar.value, LOADING_SHARE * share)
        if self.phase is Phase.LOADING:
            self.say(f"loading {event.what}" + (f" · {share:.0%}" if event.total else ""))

    def _progress(self, job: Job, event: Progress) -> None:
        if self.phase is Phase.LOADING:
            self._go(Phase.RUNNING)
        batch = min(job.batch_size if isinstance(job, ScreenJob) else 1, event.pictures - event.picture)
        done = event.picture + batch * min(event.step / max(event.steps, 1), 1.0)
        share = self._loaded + (1.0 - self._loaded) * done / max(event.pictures, 1)
        self.bar.value = max(self.bar.value, share)     # a face that nobody knew of makes the job longer, but the bar does not go back
        if self.phase is Phase.RUNNING:
            self.say(progress_words(event, batch))
        now = time.monotonic()
        if event.preview and not self._pinned and now - self._preview_shown >= PREVIEW_PACE:
            self._preview_shown = now
            self.path.value = UNFINISHED
            self._put_image(event.preview, "jpeg", job.width if isinstance(job, ScreenJob) else None)

    def _ended(self, event: Ended) -> None:
        self._go(Phase.IDLE)
        self._pinned = False
        made = f"{self._made} picture{'' if self._made == 1 else 's'}"
        took = duration(time.monotonic() - self._began)
        if event.error is not None:
            self.fail(event.error)
            self.bar.bar_style = "danger"
            self.say(f"failed after {made}" if self._made else "failed", at_once=True)
        elif event.stopped:
            self.say(f"stopped; {made} finished, {took}", at_once=True)
        else:
            self.bar.value = 1.0
            self.say(f"done: {made} in {took}" if self._made else f"done in {took}", at_once=True)
        if self.picture is not None:
            self._enlarge(self.picture)     # not a half-made preview
        else:
            self.path.value = ""

    def _go(self, to: Phase) -> None:
        self.phase = move(self.phase, to)
        self._enable()

    def _enable(self) -> None:
        working = self.phase in (Phase.LOADING, Phase.RUNNING)
        self.generate.disabled = self.phase is not Phase.IDLE
        self.interrupt.disabled = not working
        self.skip.disabled = self.phase is not Phase.RUNNING

    def say(self, text: str, at_once: bool = False) -> None:
        """Put a line below the bar, at most one in STATUS_PACE seconds."""
        now = time.monotonic()
        if not at_once and now - self._said_at < STATUS_PACE:
            self._unsaid = text
            return
        self._unsaid, self._said_at = None, now
        self.status.value = f'<div role="status" aria-live="polite">{html.escape(text)}</div>'

    def _enlarge(self, picture: Picture) -> None:
        self.picture = picture
        self.path.value = f"<code>{html.escape(str(picture.path))}</code>" if picture.path else "not saved"
        self._put_image(*large(picture), width=picture.image.width)     # after its path, which page.py makes its words of
        self.infotext.value = picture.infotext
        self.reuse.disabled = False

    def _put_image(self, data: bytes, form: str, width: int | None = None) -> None:
        with self.image.hold_sync():
            self.image.format = form
            self.image.value = data
            if width:
                self.image.width = str(width)
        if self.frame.children != (self.image,):
            self.frame.children = (self.image,)


def sentence(error: BaseException) -> str:
    """What the user reads. What nbsd raises on purpose says it itself; anything else is a bug."""
    if isinstance(error, NbsdError):
        return str(error)
    if isinstance(error, MemoryError):
        return "the memory is full: choose a smaller width and height or a smaller batch, or close other notebooks"
    return f"a bug in nbsd: {type(error).__name__}: {error}; please report it with these words and the settings you used"


def progress_words(event: Progress, batch: int = 1) -> str:
    """The status line of a running job.

    >>> progress_words(Progress(picture=0, pictures=3, step=20, steps=24, seed=7, rate=7.5, seconds_left=65.0))
    'image 1/3 · step 20/24 · 7.5 it/s · 1:05 left · seed 7'
    """
    first = event.picture + 1
    which = f"image {first}" if batch <= 1 else f"images {first}-{event.picture + batch}"
    parts = [f"{which}/{event.pictures}", f"step {event.step}/{event.steps}"]
    if event.rate:
        parts.append(f"{event.rate:.1f} it/s" if event.rate >= 1 else f"{1 / event.rate:.1f} s/it")
    if event.seconds_left is not None:
        parts.append(f"{duration(event.seconds_left)} left")
    return " · ".join([*parts, f"seed {event.seed}"])


def large(picture: Picture) -> tuple[bytes, str]:
    """The picture for the screen and its format: the very file on disk, so that saving it from the page keeps the recipe."""
    if picture.path is not None:
        try:
            data = picture.path.read_bytes()
        except OSError:
            data = b""      # moved away since: the picture itself is still at hand
        if 0 < len(data) <= LARGEST_PNG:
            return data, "png"
    out = io.BytesIO()
    picture.image.convert("RGB").save(out, "JPEG", quality=92)
    return out.getvalue(), "jpeg"
