"""One thread, one queue, events out. Knows no widget, no torch and not what its jobs do."""

from __future__ import annotations

import contextvars
import queue
import threading
import time
from collections.abc import Callable
from functools import partial

from nbsd.errors import Skipped, Stopped
from nbsd.events import Ended, Event, Made, Started
from nbsd.picture import Picture

LOOK = 0.05     # seconds between two looks at a job that is waited for; a click is then answered in about 0.1 s

Report = Callable[[Event], None]


class Control:
    """How a job hears that it is to stop. The flags belong to one job, so a late click cannot end the next one."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._skip = threading.Event()

    @property
    def stopping(self) -> bool:
        """True once the whole job is to end."""
        return self._stop.is_set()

    def stop(self) -> None:
        """End the whole job, at its next look."""
        self._stop.set()

    def skip(self) -> None:
        """Leave the picture in work, at the next look; the job goes on with the next one."""
        self._skip.set()

    def check(self) -> None:
        """Look at the flags; call it at least once a step.

        Raises Stopped when the job is to end, Skipped (once for each skip) when the picture in work is to be left.
        """
        if self._stop.is_set():
            raise Stopped("stopped")
        if self._skip.is_set():
            self._skip.clear()
            raise Skipped("skipped")


class Job:
    """Work for the worker: `run(report, control)` tells what happens and looks at the control between its steps."""

    def __init__(self, run: Callable[[Report, Control], None]) -> None:
        self.run = run
        self.control = Control()
        self.pictures: list[Picture] = []           # what is made so far, in order
        self.error: BaseException | None = None     # why it failed; None while it runs, when it succeeded or was stopped
        self.stopped = False                        # True once it has ended early because someone asked for it
        self._context = contextvars.copy_context()  # ipykernel 7.0 looks up who a widget's message belongs to in here
        self._done = threading.Event()

    @property
    def done(self) -> bool:
        """True once the job has ended, in whatever way."""
        return self._done.is_set()

    def stop(self) -> None:
        """Ask the job to end. Any time, from any thread; a job still in the queue then makes nothing."""
        self.control.stop()

    def skip(self) -> None:
        """Ask the job to leave the picture in work and go on with the next."""
        self.control.skip()

    def wait(self, timeout: float | None = None, between: Callable[[], None] | None = None) -> bool:
        """Wait for the end, at most `timeout` seconds; `between` is called about 20 times a second. Returns `done`.

        The notebook's stop button raises KeyboardInterrupt in here: the job is stopped and its end awaited before that
        goes on to the caller. A second press does not wait.
        """
        until = None if timeout is None else time.monotonic() + timeout
        try:
            while not self._done.wait(LOOK):        # an Event: an interrupted Thread.join marks a live thread as ended
                if between:
                    between()
                if until is not None and time.monotonic() >= until:
                    break
        except KeyboardInterrupt:
            self.stop()
            while not self._done.wait(LOOK):
                if between:
                    between()
            raise
        return self.done

    def _record(self, event: Event) -> None:
        if isinstance(event, Made):
            self.pictures.append(event.picture)
        elif isinstance(event, Ended):
            self.error, self.stopped = event.error, event.stopped


class Interrupted(KeyboardInterrupt):
    """The notebook's stop button was pressed while `generate` waited."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows of it: the sentence, no traceback."""
        return [str(self)]


class Worker:
    """Runs jobs one after the other in one thread. `emit(job, event)` is called in that thread and must not raise."""

    def __init__(self, emit: Callable[[Job, Event], None]) -> None:
        self._emit = emit
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def submit(self, job: Job) -> Job:
        """Put a job at the end of the queue; returns it at once."""
        self._jobs.put(job)
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._loop, name="nbsd-worker", daemon=True)
                self._thread.start()
        return job

    def _loop(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                job._context.run(self._perform, job)
            finally:
                job._done.set()

    def _perform(self, job: Job) -> None:
        report = partial(self._tell, job)
        report(Started())
        end = Ended()
        try:
            if job.control.stopping:
                raise Stopped("stopped before it began")
            job.run(report, job.control)
        except Stopped:
            end = Ended(stopped=True)
        except BaseException as error:
            end = Ended(error=error)
        report(end)

    def _tell(self, job: Job, event: Event) -> None:
        job._record(event)
        self._emit(job, event)
