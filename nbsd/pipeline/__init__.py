"""From a recipe and a model to pictures."""

from __future__ import annotations


def warm_up() -> None:
    """Import what the first picture needs (seconds); call it in a thread once the panel is on screen."""
    import nbsd.pipeline.model  # noqa: F401
