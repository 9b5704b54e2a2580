from __future__ import annotations

import contextvars
import signal
import subprocess
import sys
import threading
import time

import pytest

from nbsd.errors import ModelError, Skipped, Stopped
from nbsd.events import Ended, Event, Made, Note, Started
from nbsd.picture import Picture
from nbsd.recipe import Recipe
from nbsd.worker import Control, Job, Report, Worker

SOON = 5.0      # seconds; everything here takes milliseconds


class Told:
    """A worker and what it emitted."""

    def __init__(self) -> None:
        self.events: list[tuple[Job, Event]] = []
        self.worker = Worker(lambda job, event: self.events.append((job, event)))

    def run(self, job: Job) -> list[Event]:
        self.worker.submit(job)
        assert job.wait(SOON)
        return self.of(job)

    def of(self, job: Job) -> list[Event]:
        return [event for told, event in self.events if told is job]


@pytest.fixture
def told() -> Told:
    return Told()


def until_stopped(started: threading.Event | None = None):
    def run(report: Report, control: Control) -> None:
        if started:
            started.set()
        while True:
            control.check()
            time.sleep(0.002)
    return run


def fails(error: BaseException):
    def run(report: Report, control: Control) -> None:
        raise error
    return run


def fine(report: Report, control: Control) -> None:
    report(Note("fine"))


def picture() -> Picture:
    return Picture(image=None, recipe=Recipe())     # type: ignore[arg-type]


def test_a_job_tells_started_then_its_own_events_then_ended(told: Told) -> None:
    assert told.run(Job(fine)) == [Started(), Note("fine"), Ended()]


@pytest.mark.parametrize("error", [ModelError("no"), ValueError("a slip"), SystemExit(3), KeyboardInterrupt(), MemoryError()])
def test_a_failed_job_ends_once_and_leaves_the_next_one_unharmed(told: Told, error: BaseException) -> None:
    bad, good = told.worker.submit(Job(fails(error))), told.worker.submit(Job(fine))
    assert bad.wait(SOON) and good.wait(SOON)
    assert told.of(bad) == [Started(), Ended(error=error)] and bad.error is error
    assert told.of(good) == [Started(), Note("fine"), Ended()] and good.error is None


def test_stop_ends_a_running_job_and_no_other(told: Told) -> None:
    running = threading.Event()
    job, after = told.worker.submit(Job(until_stopped(running))), told.worker.submit(Job(fine))
    assert running.wait(SOON) and not job.done
    job.stop()
    assert job.wait(SOON) and job.stopped and job.error is None
    assert told.of(job) == [Started(), Ended(stopped=True)]
    job.stop()      # a late click
    assert after.wait(SOON) and told.of(after)[-1] == Ended() and not after.stopped


def test_a_job_stopped_in_the_queue_does_nothing(told: Told) -> None:
    running, did = threading.Event(), []
    first = told.worker.submit(Job(until_stopped(running)))
    queued = told.worker.submit(Job(lambda report, control: did.append(1)))
    queued.stop()
    first.stop()
    assert queued.wait(SOON) and did == [] and told.of(queued) == [Started(), Ended(stopped=True)]


def test_skip_is_heard_once() -> None:
    control = Control()
    control.check()
    control.skip()
    with pytest.raises(Skipped):
        control.check()
    control.check()
    control.stop()
    control.skip()
    for _ in range(2):
        with pytest.raises(Stopped) as caught:
            control.check()
        assert not isinstance(caught.value, Skipped)


def test_pictures_are_kept_in_order_also_when_the_job_fails(told: Told) -> None:
    one, two = picture(), picture()

    def run(report: Report, control: Control) -> None:
        report(Made(one))
        report(Made(two))
        raise ModelError("then it broke")

    job = Job(run)
    told.run(job)
    assert job.pictures == [one, two] and isinstance(job.error, ModelError)


def test_wait_gives_up_after_its_time(told: Told) -> None:
    job, looks = told.worker.submit(Job(until_stopped())), []
    began = time.monotonic()
    assert not job.wait(0.2, between=lambda: looks.append(1)) and time.monotonic() - began < 1
    assert len(looks) >= 2 and not job.done
    job.stop()
    assert job.wait(SOON)


def test_the_stop_button_of_the_notebook_stops_the_job_and_waits_for_its_end(told: Told) -> None:
    running = threading.Event()
    job = told.worker.submit(Job(until_stopped(running)))
    assert running.wait(SOON)
    threading.Timer(0.1, lambda: signal.raise_signal(signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        job.wait()
    assert job.done and job.stopped
    assert told.run(Job(fine))[-1] == Ended()


def test_a_second_press_does_not_wait_for_the_step(told: Told) -> None:
    go_on = threading.Event()
    job = told.worker.submit(Job(lambda report, control: go_on.wait(SOON)))     # type: ignore[arg-type, return-value]
    presses = 0

    def press() -> None:
        nonlocal presses
        presses += 1
        if presses in (1, 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job.wait(between=press)
    assert not job.done and job.control.stopping
    go_on.set()
    assert job.wait(SOON)


def test_a_job_runs_in_the_context_it_was_made_in(told: Told) -> None:
    """ipykernel 7.0 looks up the cell that a widget's message belongs to in a context variable."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    seen = []
    for name in ("first cell", "second cell"):
        variable.set(name)
        told.run(Job(lambda report, control: seen.append(variable.get())))
    assert seen == ["first cell", "second cell"]


def test_one_thread_runs_all_jobs(told: Told) -> None:
    threads = set()
    for _ in range(3):
        told.run(Job(lambda report, control: threads.add(threading.get_ident())))
    assert len(threads) == 1 and threading.get_ident() not in threads


def test_the_worker_is_plain() -> None:
    code = "import sys, nbsd.worker, nbsd.outputs, nbsd.hosts; print([m for m in ('torch', 'ipywidgets', 'PIL', 'IPython') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
