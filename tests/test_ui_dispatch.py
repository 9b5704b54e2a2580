from __future__ import annotations

import contextvars
import json
import queue
import sys
import threading
import time
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from nbsd.events import Ended, Event, Loading, Made, Note, Progress, Started
from nbsd.ui import dispatch
from nbsd.ui.dispatch import DOORS, Screen, pump
from nbsd.worker import Job


class Seen:
    """A screen and what it has shown."""

    def __init__(self, door: str = "thread") -> None:
        self.events: list[Event] = []
        self.threads: set[int] = set()
        self.errors: list[Exception] = []
        self.held = 0
        self.screen = Screen(self.show, self.tick, self.errors.append, door)

    def show(self, job: Job, event: Event) -> None:
        self.threads.add(threading.get_ident())
        self.events.append(event)

    def tick(self) -> bool:
        self.held = max(0, self.held - 1)
        return self.held > 0

    def until(self, condition: Any) -> None:
        end = time.monotonic() + 5
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.005)


def progress(step: int, preview: bytes | None = None, picture: int = 0) -> Progress:
    return Progress(picture, 2, step, 10, seed=1, preview=preview)


@pytest.fixture
def job() -> Job:
    return Job(lambda report, control: None)


def test_a_thread_of_its_own_shows_everything_in_order_and_in_one_thread(job: Job) -> None:
    seen = Seen()
    events = [Started(), Loading("m", 1, 2), progress(1), Note("a"), progress(2), Made(None), Ended()]     # type: ignore[arg-type]
    for event in events:
        seen.screen.tell(job, event)
    seen.until(lambda: len(seen.events) == len(events))
    assert seen.events == events and len(seen.threads) == 1 and threading.get_ident() not in seen.threads


def test_only_the_newest_progress_waits_and_an_unshown_preview_goes_along(job: Job) -> None:
    seen = Seen("colab")
    for step in range(100):
        seen.screen.tell(job, Loading("m", step, 100))
    for event in (progress(1), progress(2, b"jpeg"), progress(3), Note("a"), progress(4, b"of the first"), progress(0, picture=1)):
        seen.screen.tell(job, event)
    other = Job(lambda report, control: None)
    seen.screen.tell(other, progress(9))
    seen.screen.flush()
    assert seen.events == [Loading("m", 99, 100), progress(3, b"jpeg"), Note("a"), progress(0, picture=1), progress(9)]


def test_at_most_ten_updates_a_second(job: Job) -> None:
    seen = Seen()
    end = time.monotonic() + 0.6
    sent = 0
    while time.monotonic() < end:
        seen.screen.tell(job, progress(sent))
        sent += 1
        time.sleep(0.002)
    assert 3 <= len(seen.events) <= 8 < sent


def test_what_was_held_back_is_shown_without_further_events(job: Job) -> None:
    seen = Seen()
    seen.held = 4
    seen.screen.tell(job, Started())
    seen.until(lambda: seen.held == 0)


def test_where_threads_may_not_write_nothing_is_shown_until_the_caller_does_it(job: Job) -> None:
    seen = Seen("colab")
    assert seen.screen.callers_wait and not Seen().screen.callers_wait
    worker = threading.Thread(target=lambda: [seen.screen.tell(job, event) for event in (Started(), Ended())])
    worker.start()
    worker.join()
    time.sleep(0.25)
    assert seen.events == []
    seen.screen.between()
    assert seen.events == [Started(), Ended()] and seen.threads == {threading.get_ident()}


def test_a_call_runs_at_once_where_the_caller_shows(job: Job) -> None:
    seen, called = Seen("colab"), []
    seen.screen.tell(job, Started())
    seen.screen.post(lambda: called.append(list(seen.events)))
    assert called == [[Started()]]


def test_a_call_that_posts_is_no_knot() -> None:
    seen, called = Seen("colab"), []
    seen.screen.post(lambda: (seen.screen.post(lambda: called.append("inner")), called.append("outer")))    # type: ignore[func-returns-value]
    assert called == ["outer", "inner"]


def test_a_slip_in_showing_is_told_and_the_next_is_shown(job: Job) -> None:
    seen = Seen("colab")
    error = ValueError("a slip")

    def slip() -> None:
        raise error

    seen.screen.post(slip)
    seen.screen.tell(job, Started())
    seen.screen.flush()
    assert seen.errors == [error] and seen.events == [Started()]


@pytest.mark.parametrize("door", DOORS)
def test_things_are_shown_in_the_context_they_were_posted_in(door: str) -> None:
    """ipykernel 7.0 raises LookupError where a widget is written in a thread that knows no cell."""
    seen, found = Seen(door), []
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    for name in ("first cell", "second cell"):
        variable.set(name)
        seen.screen.post(lambda: found.append(variable.get("unknown")))
    seen.until(lambda: len(found) == 2)
    assert found == ["first cell", "second cell"]


def test_many_threads_post_and_nothing_is_lost(job: Job) -> None:
    seen = Seen()
    threads = [threading.Thread(target=lambda k=k: [seen.screen.tell(job, Note(f"{k} {n}")) for n in range(200)]) for k in range(4)]
    for thread in threads:
        thread.start()
    seen.screen.flush()
    for thread in threads:
        thread.join()
    seen.screen.flush()
    seen.until(lambda: len(seen.events) == 800)
    for k in range(4):
        assert [e.text for e in seen.events if e.text.startswith(f"{k} ")] == [f"{k} {n}" for n in range(200)]


# --- pump, with a stand-in for ipykernel 6

class Messages(queue.Queue):
    """ipykernel's queue of (number, handler, arguments)."""


class Kernel:
    """As much of ipykernel 6 as pump touches."""

    def __init__(self) -> None:
        self.msg_queue = Messages()
        self.shell_stream = SimpleNamespace(flush=lambda _: None)
        self.session = self
        self._parent_ident = {"shell": [b"me"]}
        self.parent: Any = {"header": "the cell's"}
        self.handled: list[str] = []

    def feed_identities(self, message: Any, copy: bool) -> Any:
        return [], [None, SimpleNamespace(buffer=json.dumps(message).encode())]

    def unpack(self, data: bytes) -> Any:
        return json.loads(data)

    def get_parent(self) -> Any:
        return self.parent

    def set_parent(self, identity: Any, parent: Any) -> None:
        assert identity == [b"me"]
        self.parent = parent

    def click(self, kind: str, name: str, act: Any = None) -> None:
        async def handle(message: Any) -> None:
            self.parent = {"header": "the message's"}
            self.handled.append(name)
            if act:
                act()
        self.msg_queue.put_nowait((0, handle, ({"msg_type": kind},)))

    def waiting(self) -> int:
        return self.msg_queue.qsize()


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel, fake, zmq = Kernel(), ModuleType("IPython"), ModuleType("zmq")
    fake.get_ipython = lambda: SimpleNamespace(kernel=kernel)   # type: ignore[attr-defined]
    zmq.POLLIN = 1      # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", fake)
    monkeypatch.setitem(sys.modules, "zmq", zmq)
    return kernel


def test_pump_lets_clicks_through_and_leaves_cells_waiting_in_order(kernel: Kernel) -> None:
    for kind, name in (("execute_request", "cell 1"), ("comm_msg", "click 1"), ("execute_request", "cell 2"), ("comm_open", "click 2")):
        kernel.click(kind, name)
    pump()
    assert kernel.handled == ["click 1", "click 2"] and kernel.waiting() == 2
    assert kernel.parent == {"header": "the cell's"}
    while kernel.waiting():
        _, handle, arguments = kernel.msg_queue.get_nowait()
        dispatch._run_to_end(handle(*arguments))
    assert kernel.handled[2:] == ["cell 1", "cell 2"]


def test_a_callback_that_pumps_itself_finds_the_click_behind_it(kernel: Kernel) -> None:
    """Generate and Interrupt were both clicked while a cell was busy: Generate's callback waits for its job and has to hear Interrupt."""
    kernel.click("comm_msg", "generate", act=pump)
    kernel.click("execute_request", "cell")
    kernel.click("comm_msg", "interrupt")
    pump()
    assert kernel.handled == ["generate", "interrupt"] and kernel.waiting() == 1


def test_pump_restores_the_cell_when_a_handler_fails(kernel: Kernel) -> None:
    def fail() -> None:
        raise ValueError("a slip")

    kernel.click("comm_msg", "bad", act=fail)
    with pytest.raises(ValueError):
        pump()
    assert kernel.parent == {"header": "the cell's"}


def test_pump_does_nothing_in_another_thread_or_with_another_kernel(kernel: Kernel) -> None:
    kernel.click("comm_msg", "click")
    thread = threading.Thread(target=pump)
    thread.start()
    thread.join()
    del kernel.shell_stream
    pump()
    assert kernel.handled == [] and kernel.waiting() == 1


def test_pump_does_nothing_without_a_kernel() -> None:
    pump()


def test_routes_are_forgotten_where_there_are_any() -> None:
    def widget(*children: Any, **names: Any) -> Any:
        return SimpleNamespace(comm=SimpleNamespace(**names), children=children)

    routed, unrouted = widget(_reply_subshell_id=None), widget()
    dispatch.route_freely(widget(routed, widget(unrouted, SimpleNamespace(comm=None)), _reply_subshell_ids={}))
    assert not hasattr(routed.comm, "_reply_subshell_id")
    dispatch.route_freely(SimpleNamespace(comm=None))       # no kernel
    dispatch.route_freely(widget(SimpleNamespace()))        # another kernel
