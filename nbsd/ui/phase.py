"""The panel's life."""

from __future__ import annotations

from enum import Enum


class Phase(Enum):
    """What the panel is doing; the buttons follow from it."""

    IDLE = "ready"
    LOADING = "loading a model"
    RUNNING = "making images"
    STOPPING = "stopping"


ALLOWED = {
    Phase.IDLE: {Phase.LOADING},
    Phase.LOADING: {Phase.IDLE, Phase.RUNNING, Phase.STOPPING},
    Phase.RUNNING: {Phase.IDLE, Phase.LOADING, Phase.STOPPING},     # a second model may be needed half-way
    Phase.STOPPING: {Phase.IDLE},
}


def move(now: Phase, to: Phase) -> Phase:
    """The next phase; RuntimeError where the panel cannot go there, which is a bug."""
    if to not in ALLOWED[now]:
        raise RuntimeError(f"the panel is {now.value}; it cannot go to {to.value!r} from there")
    return to
