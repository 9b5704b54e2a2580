"""The panel's last settings in a small file, so that a restarted kernel starts with them."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nbsd.outputs import write_whole

NAME = ".nbsd-panel.json"
DELAY = 1.0     # seconds after a change; typing a prompt is one change


class Settings:
    """Writes what `values()` gives some time after `changed()` was called."""

    def __init__(self, folder: Path, values: Callable[[], dict[str, Any]]) -> None:
        self.path = folder / NAME
        self._values = values
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def read(self) -> dict[str, Any]:
        """The last settings; empty where there are none, or none that can be read: they are a convenience, not data."""
        try:
            found = json.loads(self.path.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def changed(self) -> None:
        """Something was changed; from any thread."""
        with self._lock:
            if self._timer is None:
                self._timer = threading.Timer(DELAY, self.write)
                self._timer.daemon = True
                self._timer.start()

    def write(self) -> None:
        """Write now, where the folder allows it."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = None
        with contextlib.suppress(OSError):      # a full disk or a read-only folder is told when a picture is to be saved there
            write_whole(self.path, json.dumps(self._values(), ensure_ascii=False, indent=1).encode("utf-8", "replace"))
