"""Where the notebook runs, as rows of a table. Nothing else in the package asks; nothing is looked at on import."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nbsd.hosts import colab, kaggle, local


@dataclass(frozen=True)
class Host:
    """What differs between the places where a notebook runs."""

    name: str
    here: Callable[[], bool]
    models: Callable[[], tuple[Path, ...]]  # folders with model files; the first is where new ones go. They need not exist
    outputs: Callable[[], Path]             # where pictures are kept
    door: str = "thread"                    # how events reach the screen: a row of ui.dispatch.DOORS


HOSTS: tuple[Host, ...] = (     # the first that is here wins; the last always is
    Host("Colab", colab.here, colab.models, colab.outputs, door="colab"),
    Host("Kaggle", kaggle.here, kaggle.models, kaggle.outputs),
    Host("local", lambda: True, local.models, local.outputs),
)


def this_host() -> Host:
    """The host that this kernel runs on."""
    return next(host for host in HOSTS if host.here())
