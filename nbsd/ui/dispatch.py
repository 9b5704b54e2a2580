"""The one door to the screen.

Whoever has something to show posts it here; it is shown in order, by one thread at a time, at most ten times a second. Only progress
may be dropped: one unsent Progress (or Loading) a job is kept and replaced by the next.

Who shows it is the host's choice. Most front ends show what a background thread writes into widgets. Colab does not while the kernel
is idle (googlecolab/colabtools#3373): there the callback or cell that started a job waits for it on the main thread and shows what was
posted meanwhile, and `pump` lets the clicks through that queue up behind it.
"""

from __future__ import annotations

import contextlib
import contextvars
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from nbsd.events import Downloading, Event, Loading, Progress
from nbsd.worker import Control, Job

PACE = 0.1      # seconds between two updates of the screen

# May a thread of its own write to the screen? A host's `door` names a row.
DOORS: dict[str, bool] = {"thread": True, "colab": False}


class _Post(NamedTuple):
    context: contextvars.Context    # ipykernel 7.0 looks up who a widget's message belongs to in here
    job: Job | None
    event: Event | None
    call: Callable[[], None] | None


class Screen:
    """Shows what is posted: events through `show(job, event)`, anything else by calling it. `failed` is told of errors in that.

    `tick()` shows what was held back and is due; it returns True while there is more of that.
    """

    def __init__(
        self, show: Callable[[Job, Event], None], tick: Callable[[], bool], failed: Callable[[Exception], None], door: str = "thread",
    ) -> None:
        self._show, self._tick, self._failed = show, tick, failed
        self._own_thread = DOORS[door]
        self._posts: deque[_Post] = deque()
        self._news = threading.Condition()      # guards _posts and _thread
        self._turn = threading.Lock()           # held by whoever shows
        self._shower: int | None = None         # the thread that holds it
        self._thread: threading.Thread | None = None
        self._context = contextvars.copy_context()
        self._held = False                      # is there something that tick() will show later?
        self._shown = 0.0                       # when the screen was last updated, seconds of time.monotonic

    @property
    def callers_wait(self) -> bool:
        """True where a callback that starts a job has to wait for it and show its progress itself."""
        return not self._own_thread

    def tell(self, job: Job, event: Event) -> None:
        """Show an event. From any thread; returns at once."""
        with self._news:
            last = self._posts[-1] if self._posts else None
            if last and last.job is job and type(last.event) is type(event) and isinstance(event, (Progress, Loading, Downloading)):
                self._posts.pop()
                event = _newer(last.event, event)
            self._add(_Post(contextvars.copy_context(), job, event, None))

    def post(self, call: Callable[[], None]) -> None:
        """Run something that writes to the screen. From any thread; where there is no thread for it, it runs before this returns."""
        with self._news:
            self._add(_Post(contextvars.copy_context(), None, None, call))
        if not self._own_thread:
            self.flush()

    def flush(self) -> None:
        """Show all that is posted, now, in this thread."""
        if self._shower == threading.get_ident():
            return      # called by something that is being shown: the loop below goes on with what it has posted
        with self._turn:
            self._shower = threading.get_ident()
            try:
                self._show_all()
            finally:
                self._shower = None

    def _show_all(self) -> None:
        while True:
            with self._news:
                if not self._posts:
                    break
                post = self._posts.popleft()
            self._context = post.context
            post.context.run(self._one, post)
        self._held = self._context.run(self._guard, self._tick) is True
        self._shown = time.monotonic()

    def between(self) -> None:
        """What a caller that waits for a job does between two looks: let clicks through, and show, where nobody else does."""
        pump()
        if not self._own_thread and time.monotonic() - self._shown >= PACE:
            self.flush()

    def _add(self, post: _Post) -> None:
        self._posts.append(post)
        if self._own_thread and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(target=self._loop, name="nbsd-screen", daemon=True)
            self._thread.start()
        self._news.notify()

    def _loop(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: bool(self._posts), timeout=PACE if self._held else None)
            self.flush()
            time.sleep(PACE)

    def _one(self, post: _Post) -> None:
        if post.call:
            self._guard(post.call)
        elif post.job and post.event:
            job, event = post.job, post.event
            self._guard(lambda: self._show(job, event))

    def _guard(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:
            self._failed(error)
            return None


def _newer(old: Any, new: Any) -> Event:
    """The newer of two events of a kind; a preview that was not shown yet goes along."""
    if isinstance(new, Progress) and new.preview is None and old.picture == new.picture:
        return replace(new, preview=old.preview)
    return new


def pump() -> None:
    """Let widget messages through that queue behind a busy cell or callback; all others stay, in order.

    Needed and possible only with ipykernel 6 on the kernel's main thread (7 has its own way, or none); anywhere else this does nothing.
    """
    if threading.current_thread() is not threading.main_thread() or "IPython" not in sys.modules:
        return
    from IPython import get_ipython

    kernel = getattr(get_ipython(), "kernel", None)
    messages, stream = getattr(kernel, "msg_queue", None), getattr(kernel, "shell_stream", None)
    if kernel is None or messages is None or stream is None:
        return
    import zmq

    while (item := _next_comm_message(kernel, messages, lambda: stream.flush(zmq.POLLIN))) is not None:
        identity = getattr(kernel, "_parent_ident", None)
        identity = identity.get("shell") if isinstance(identity, dict) else identity
        parent = kernel.get_parent()
        _, dispatch, args = item
        try:
            _run_to_end(dispatch(*args))
        finally:
            kernel.set_parent(identity, parent)


def route_freely(root: Any) -> None:
    """Let what the user does to a widget, or to those in it, reach its callback while a cell is busy.

    ipykernel 7.4 gives a widget's message to the loop that wrote the widget last, so to the main one, which waits for the cell. Without
    that memory the message goes to the thread that JupyterLab has asked for, as in 7.1 to 7.3. All widgets of the panel at a time: were
    only some freed, a click on Generate could overtake the prompt. This touches private names of ipykernel; where they are not there,
    nothing happens.
    """
    if not hasattr(root.comm, "_reply_subshell_ids"):
        return
    waiting = [root]
    while waiting:
        widget = waiting.pop()
        waiting.extend(getattr(widget, "children", ()))
        with contextlib.suppress(AttributeError):
            del widget.comm._reply_subshell_id


def _next_comm_message(kernel: Any, messages: Any, fetch: Callable[[], None]) -> Any:
    """Take the oldest widget message out of the kernel's queue. The rest is put back before that message is handled: its callback may
    wait for a job itself, and an Interrupt click behind it has to be found then."""
    fetch()
    waiting = []
    while not messages.empty():
        waiting.append(messages.get_nowait())
    found = next((item for item in waiting if _kind(kernel, item[2]).startswith("comm_")), None)
    for item in waiting:
        if item is not found:
            messages.put_nowait(item)
    return found


def _kind(kernel: Any, args: Any) -> str:
    """The type of a message in the kernel's queue; empty where it cannot be read."""
    try:
        _, frames = kernel.session.feed_identities(args[0], copy=False)
        return str(kernel.session.unpack(bytes(frames[1].buffer))["msg_type"])
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return ""


def _run_to_end(steps: Any) -> None:
    """Run a coroutine that awaits nothing (as ipykernel 6 handles widget messages)."""
    try:
        while True:
            steps.send(None)
    except StopIteration:
        pass


class ScreenJob(Job):
    """A job that makes pictures and tells a screen about it."""

    def __init__(
        self, run: Callable[[Callable[[Event], None], Control], None], screen: Screen, batch_size: int = 1, width: int = 512,
    ) -> None:
        super().__init__(run)
        self.screen = screen
        self.batch_size = batch_size    # pictures made at the same time
        self.width = width              # pixels; previews are smaller and are shown as wide
