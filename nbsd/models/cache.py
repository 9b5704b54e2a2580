"""What was once found out about a file, kept in the user's cache folder. A file that changed is a new file."""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

FILE = "files.json"


def folder() -> Path:
    """Where the cache lies: $XDG_CACHE_HOME/nbsd, or ~/.cache/nbsd."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "nbsd"


class FileCache:
    """Facts about files by path, size and time of change. Where the folder cannot be used it forgets, and does not complain."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path

    @property
    def path(self) -> Path | None:
        if self._path is not None:
            return self._path
        with suppress(RuntimeError, OSError):   # no home folder
            return folder() / FILE
        return None

    def get(self, file: Path) -> dict[str, Any]:
        """What is known about a file as it is now; empty where nothing is."""
        return _facts(self._read().get(_name(file)), file)

    def get_all(self, files: list[Path]) -> dict[Path, dict[str, Any]]:
        """The same for many files, with one look at the disk."""
        table = self._read()
        return {file: _facts(table.get(_name(file)), file) for file in files}

    def put(self, facts: dict[Path, dict[str, Any]]) -> None:
        """Add facts about files."""
        table = self._read()
        for file, new in facts.items():
            with suppress(OSError):
                stat = file.stat()
                known = _facts(table.get(_name(file)), file)
                table[_name(file)] = {"size": stat.st_size, "time": stat.st_mtime_ns, "facts": {**known, **new}}
        self._write(table)

    def _read(self) -> dict[str, Any]:
        path = self.path
        if path is None:
            return {}
        try:
            table = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return table if isinstance(table, dict) else {}

    def _write(self, table: dict[str, Any]) -> None:
        """Write it whole under another name and then rename, so that nobody reads half a file."""
        path = self.path
        if path is None:
            return
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=FILE)
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump(table, file)
                os.replace(name, path)
            except OSError:
                with suppress(OSError):
                    os.unlink(name)
                raise


def _name(file: Path) -> str:
    return os.path.abspath(file)


def _facts(entry: Any, file: Path) -> dict[str, Any]:
    """What an entry says of a file, if it is still that file."""
    try:
        stat = file.stat()
    except (OSError, ValueError):
        return {}
    if not isinstance(entry, dict) or (entry.get("size"), entry.get("time")) != (stat.st_size, stat.st_mtime_ns):
        return {}
    facts = entry.get("facts")
    return dict(facts) if isinstance(facts, dict) else {}


CACHE = FileCache()
