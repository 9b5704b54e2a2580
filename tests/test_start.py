"""tools/start.py, the README's first two commands. `start.py test` is what runs these tests."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 180.0        # seconds until JupyterLab answers


@pytest.mark.slow
@pytest.mark.skipif(Path(sys.prefix).resolve() != ROOT / ".venv", reason="outside the environment of start.py it would install one")
def test_lab_serves_the_quickstart_notebook(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, ROOT / "tools" / "start.py", "lab", "--no-browser", f"--ServerApp.port={port}", "--ServerApp.port_retries=0",
               "--ServerApp.ip=127.0.0.1", "--IdentityProvider.token="]
    private = {f"JUPYTER_{name}_DIR": str(tmp_path / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    log = tmp_path / "log"
    with log.open("w") as out, subprocess.Popen(
        command, env={**os.environ, **private}, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
    ) as running:
        try:
            book = json.loads(answer(f"http://127.0.0.1:{port}/api/contents/quickstart.ipynb", running, log))
            opened = "".join(page.read_text() for page in (tmp_path / "RUNTIME").glob("*-open.html"))    # what a browser would have shown
            assert "/lab/tree/quickstart.ipynb" in opened
        finally:
            os.killpg(running.pid, signal.SIGTERM)
    assert "Studio().show()" in "".join(cell["source"] for cell in book["content"]["cells"])
    assert "installing" not in log.read_text()


def answer(url: str, running: subprocess.Popen[bytes], log: Path) -> str:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and running.poll() is None:
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10) as found:
                return str(found.read().decode())
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    raise AssertionError(f"JupyterLab did not answer:\n{log.read_text()[-2000:]}")


def test_conda_installs_what_the_lab_command_does():
    lines = [line.strip(" -") for line in (ROOT / "environment.yml").read_text().splitlines()]
    assert "constraint tools/constraints.txt" in lines and (ROOT / "tools" / "constraints.txt").is_file()
    assert "editable .[lab,test]" in lines
