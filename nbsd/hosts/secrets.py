"""Tokens for places that ask for one: from the environment, Colab's secrets or Kaggle's. They are held so that nothing prints them."""

from __future__ import annotations

import os
import sys
import threading

# Where each place's token is looked for, in this order. The first name is the one that messages tell.
NAMES: dict[str, tuple[str, ...]] = {
    "hub": ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
    "civitai": ("CIVITAI_TOKEN", "CIVITAI_API_TOKEN", "CIVITAI_API_KEY"),
}


class Secret:
    """A token. Its text is given out by `reveal` alone, so that no log, message or saved widget gets it by accident."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The token itself, for the header of a request."""
        return self._text

    def __repr__(self) -> str:
        return "<a token>"

    def __reduce__(self) -> str:
        raise TypeError("a token is not written anywhere")


def secret(place: str) -> Secret | None:
    """The token for a place (a key of NAMES), or None.

    On Colab, call it from the main thread: its secrets are asked for through the page, which no other thread can do.
    """
    for look in (os.environ.get, _colab, _kaggle):
        for name in NAMES[place]:
            if text := (look(name) or "").strip():
                return Secret(text)
    return None


def _colab(name: str) -> str | None:
    """One of Colab's secrets; None where there is none of that name, or this notebook may not read it."""
    if "google.colab" not in sys.modules or threading.current_thread() is not threading.main_thread():
        return None
    try:
        from google.colab import userdata

        return str(userdata.get(name))
    except Exception:       # its errors are not those of one family, and some come as ImportErrors of a kernel without the page
        return None


def _kaggle(name: str) -> str | None:
    """One of Kaggle's secrets that is attached to this notebook; None otherwise, and without internet."""
    if "KAGGLE_KERNEL_RUN_TYPE" not in os.environ:
        return None
    try:
        from kaggle_secrets import UserSecretsClient

        return str(UserSecretsClient().get_secret(name))
    except Exception:       # BackendError, ConnectionError, and what the service says next year
        return None
