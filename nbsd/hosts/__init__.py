"""Where the notebook runs, as rows of a table. Nothing else in the package asks; nothing is looked at on import."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nbsd.hosts import colab, kaggle, local, paperspace, studiolab


@dataclass(frozen=True)
class Host:
    """What differs between the places where a notebook runs."""

    name: str
    here: Callable[[], bool]
    models: Callable[[], tuple[Path, ...]]  # folders with model files; the first is where new ones go. They need not exist
    outputs: Callable[[], Path]             # where pictures are kept
    notes: Callable[[], Iterator[str]] = local.notes    # sentences that its user should read; may take seconds
    door: str = "thread"                    # how events reach the screen: a row of ui.dispatch.DOORS
    headless: Callable[[], bool] = lambda: False        # a run that nobody looks at: no button will ever be pressed
    elsewhere: Callable[[], list[Path]] = list          # more folders with model files, looked for; takes seconds
    third_party: Callable[[], None] = lambda: None      # to be called before a widget that is none of ipywidgets' own is shown


HOSTS: tuple[Host, ...] = (     # the first that is here wins; the last always is
    Host("Colab", colab.here, colab.models, colab.outputs, colab.notes, door="colab", elsewhere=colab.elsewhere, third_party=colab.third_party),
    Host("Kaggle", kaggle.here, kaggle.models, kaggle.outputs, kaggle.notes, headless=kaggle.headless),
    Host("Paperspace", paperspace.here, paperspace.models, paperspace.outputs),
    Host("SageMaker Studio Lab", studiolab.here, studiolab.models, studiolab.outputs),
    # JupyterHub and VS Code are machines like any other: the notebook's folder and the user's home are kept.
    Host("JupyterHub", local.in_jupyterhub, local.models, local.outputs),
    Host("VS Code", local.in_vscode, local.models, local.outputs),
    Host("local", lambda: True, local.models, local.outputs),
)


def this_host() -> Host:
    """The host that this kernel runs on."""
    return next(host for host in HOSTS if host.here())
