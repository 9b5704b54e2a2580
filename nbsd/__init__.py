"""Stable Diffusion in a notebook: `from nbsd import Studio; Studio().show()`.

The public names are loaded when they are first used: `import nbsd` brings neither torch nor ipywidgets.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from nbsd.errors import NbsdError as NbsdError
    from nbsd.picture import Picture as Picture
    from nbsd.pipeline.model import load as load
    from nbsd.pipeline.reproduce import reproduce as reproduce
    from nbsd.recipe import Recipe as Recipe
    from nbsd.studio import Studio as Studio

_HOMES = {
    "Studio": "nbsd.studio",
    "Recipe": "nbsd.recipe",
    "Picture": "nbsd.picture",
    "load": "nbsd.pipeline.model",
    "reproduce": "nbsd.pipeline.reproduce",
    "NbsdError": "nbsd.errors",
    "load_ipython_extension": "nbsd.magic",     # what %load_ext nbsd calls; no part of the surface
}
__all__ = ["NbsdError", "Picture", "Recipe", "Studio", "load", "reproduce"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nbsd' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
