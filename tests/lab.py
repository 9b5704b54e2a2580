"""A real JupyterLab in a real Chromium, for the browser tests.

`start(environment, folder)` starts the server, `Page.open(notebook)` opens a notebook in it, and `Panel` reads and works nbsd's panel.
Nothing here waits for a time: everything waits for a condition, with a timeout that only a hanging program reaches.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import playwright.sync_api as pw

ENVIRONMENTS = {
    "newest": Path(sys.executable),
    "colab": Path(sys.prefix) / "colab" / "bin" / "python",     # made by tools/start.py from tools/colab.txt
}
PATIENCE = 180.0    # seconds; for what takes a moment on an idle machine
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SCREENSHOTS = os.environ.get("NBSD_SCREENSHOTS")    # a folder; where it is not set, no picture is kept
SETTINGS = {
    "notification": {"fetchNews": "false", "checkForUpdates": False},
    "themes": {"theme": "JupyterLab Light"},
}


def notebook(*cells: str) -> str:
    """The text of a notebook file with these code cells."""
    blank = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}
    return json.dumps({
        "cells": [{**blank, "id": f"cell-{i}", "source": source} for i, source in enumerate(cells)],
        "metadata": {"kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}},
        "nbformat": 4, "nbformat_minor": 5,
    })


# --- the server -------------------------------------------------------------------------------------------------------------------

@contextmanager
def start(python: Path, folder: Path, more: dict[str, str] | None = None) -> Iterator[str]:
    """JupyterLab of this environment on a free port, with `folder` as its files and `more` variables; yields its address."""
    if not python.exists():
        raise RuntimeError(f"there is no {python}: run 'python3 tools/start.py test' once, which makes both environments")
    private = folder / ".jupyter"       # settings and history of whoever runs the tests stay out of it, and theirs stay whole
    for name, values in SETTINGS.items():
        file = private / "settings" / "@jupyterlab" / "apputils-extension" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "PYTHON", "IPYTHON"))},
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(Path(__file__).parent.parent),     # the nbsd beside these tests, wherever another one is installed
        "JUPYTER_CONFIG_DIR": str(private / "config"), "JUPYTER_DATA_DIR": str(private / "data"),
        "JUPYTER_RUNTIME_DIR": str(private / "runtime"), "IPYTHONDIR": str(private / "ipython"),
        "JUPYTERLAB_SETTINGS_DIR": str(private / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(private / "workspaces"),
        **(more or {}),
    }
    command = [python, "-m", "jupyterlab", "--no-browser", "--allow-root", "--expose-app-in-browser", "--ServerApp.ip=127.0.0.1",
               f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder}", "--IdentityProvider.token="]
    log = private / "server.log"
    with log.open("w") as out, subprocess.Popen(map(str, command), env=variables, stdout=out, stderr=out, cwd=folder) as server:
        try:
            _answers(f"http://127.0.0.1:{port}/api", server, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()      # JupyterLab ends its kernels on SIGTERM
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()


def _answers(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10).close()
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")


# --- the browser ------------------------------------------------------------------------------------------------------------------

def find_browser() -> str | None:
    """The Chromium to use; None: the one that playwright has downloaded."""
    return os.environ.get("NBSD_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)


@contextmanager
def chromium() -> Iterator[pw.Browser]:
    with pw.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=find_browser(), args=list(FLAGS))
        yield browser
        browser.close()


class Page:
    """A notebook that is open in JupyterLab."""

    def __init__(self, browser: pw.Browser, url: str, width: int = 1280, height: int = 1100) -> None:
        self.url = url
        self.page = browser.new_page(viewport={"width": width, "height": height})
        self.page.set_default_timeout(PATIENCE * 1000)
        self.page.on("dialog", lambda dialog: dialog.accept())
        self.errors: list[str] = []     # what the page threw
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def open(self, name: str) -> None:
        """Open a notebook and wait for its kernel."""
        self.page.goto(f"{self.url}/lab/tree/{name}?reset")
        self.ready()
        self.js("app.shell.collapseLeft()")

    def ready(self) -> None:
        self.wait("window.jupyterapp?.shell?.currentWidget?.content?.widgets?.length > 0")
        self.wait("window.jupyterapp.shell.currentWidget.sessionContext?.session?.kernel?.status === 'idle'")
        self.wait("!document.getElementById('jupyterlab-splash')")
        self._listen()

    def _listen(self) -> None:
        """Keep the widget messages that the kernel has not answered; see `quiet`."""
        self.js("""(() => {
            window.unanswered = new Set();
            app.shell.currentWidget.sessionContext.session.kernel.anyMessage.connect((_, {msg, direction}) => {
                if (direction === 'send' && msg.header.msg_type === 'comm_msg') window.unanswered.add(msg.header.msg_id);
                if (msg.header.msg_type === 'status' && msg.content.execution_state === 'idle')
                    window.unanswered.delete(msg.parent_header.msg_id);
            });
        })()""")

    def quiet(self) -> None:
        """Wait until the kernel has answered every widget message. A page holds a widget's next value back until the last one is
        answered, but not a click: without this a click may overtake what was entered before it."""
        self.wait("window.unanswered.size === 0")

    def reload(self) -> None:
        """Save, as the user's autosave does, and load the page anew."""
        self.js("app.commands.execute('docmanager:save')")
        self.page.reload()
        self.wait("window.jupyterapp?.shell?.currentWidget?.content?.widgets?.length > 0")
        self.wait("window.jupyterapp.shell.currentWidget.sessionContext?.session?.kernel")
        self._listen()

    def js(self, expression: str) -> Any:
        """The value of a JavaScript expression, where `app` is JupyterLab and `notebook` the open one; a promise is awaited."""
        known = "const app = window.jupyterapp; const notebook = app.shell.currentWidget?.content;"
        return self.page.evaluate(f"async () => {{ {known} return await ({expression}); }}")

    def wait(self, condition: str, seconds: float = PATIENCE) -> None:
        """Wait until a JavaScript expression is true."""
        try:
            self.page.wait_for_function(f"() => {{ try {{ return Boolean({condition}) }} catch {{ return false }} }}", timeout=seconds * 1000)
        except pw.TimeoutError:
            stands = self.js("document.querySelector('.nbsd-run')?.innerText ?? notebook?.node.innerText ?? document.body.innerText")
            raise AssertionError(f"this did not become true in {seconds:.0f} s: {condition}\nOn the page stands:\n{stands}") from None

    def run(self, cell: int, wait: bool = True) -> None:
        """Run a cell; unless told otherwise wait until it has ended."""
        self.page.evaluate("""(index) => {
            const app = window.jupyterapp; const notebook = app.shell.currentWidget.content;
            notebook.activeCellIndex = index; notebook.deselectAll();
            window.ran = window.ran || {}; window.ran[index] = false;
            app.commands.execute('notebook:run-cell').then(() => { window.ran[index] = true; });
        }""", cell)
        if wait:
            self.wait(f"window.ran[{cell}]")

    def output(self, cell: int) -> str:
        """The text that stands under a cell."""
        return str(self.js(f"notebook.widgets[{cell}].outputArea.node.innerText"))

    def theme(self, name: str) -> None:
        """"Light" or "Dark"."""
        self.js(f"app.commands.execute('apputils:change-theme', {{theme: 'JupyterLab {name}'}})")
        self.wait(f"document.body.dataset.jpThemeName === 'JupyterLab {name}' && !document.getElementById('jupyterlab-splash')")

    def screenshot(self, name: str, selector: str | None = None) -> None:
        """Keep a picture of the page, or of one element, where NBSD_SCREENSHOTS says so."""
        if SCREENSHOTS:
            place = Path(SCREENSHOTS) / f"{name}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            (self.page.locator(selector) if selector else self.page).screenshot(path=place)

    def close(self) -> None:
        self.page.close()


# --- the panel --------------------------------------------------------------------------------------------------------------------

class Panel:
    """nbsd's panel on a page, as its user sees it. Names are those of its CSS classes without "nbsd-"."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def shown(self) -> None:
        """Wait until the panel is there and can be worked."""
        self.page.wait("document.querySelector('.nbsd button.nbsd-generate')?.offsetParent")

    def click(self, name: str) -> None:
        self.page.page.locator(f".nbsd button.nbsd-{name}").first.click()

    def enabled(self, name: str) -> None:
        """Wait until a button can be pressed."""
        self.page.wait(f"document.querySelector('.nbsd button.nbsd-{name}').disabled === false")

    def fill(self, name: str, value: object) -> None:
        """Put something into a text or number box at once, and leave it."""
        box = self.page.page.locator(f".nbsd .nbsd-{name} :is(input, textarea)").first
        box.fill(str(value))
        box.press("Tab")
        self.page.quiet()

    def choose(self, name: str, text: str) -> None:
        """Choose the row of a drop-down that holds this text, once it is there."""
        select = f".nbsd .nbsd-{name} select"
        self.page.wait(f"[...document.querySelector({select!r}).options].some(row => row.text.includes({json.dumps(text)}))")
        label = self.page.js(
            f"[...document.querySelector({select!r}).options].find(row => row.text.includes({json.dumps(text)})).text")
        self.page.page.locator(select).first.select_option(label=label)
        self.page.quiet()

    def holds(self, name: str, value: object) -> None:
        """Wait until a box holds this: what the kernel sets comes one control at a time."""
        self.page.wait(f"document.querySelector('.nbsd .nbsd-{name} :is(input, textarea, select)').value === {json.dumps(str(value))}")

    def value(self, name: str) -> str:
        """What a box or drop-down holds."""
        return str(self.page.js(f"document.querySelector('.nbsd .nbsd-{name} :is(input, textarea, select)').value"))

    def text(self, name: str) -> str:
        """What stands in a part of the panel."""
        return str(self.page.js(f"document.querySelector('.nbsd .nbsd-{name}')?.innerText ?? ''")).strip()

    def says(self, name: str, words: str, seconds: float = PATIENCE) -> str:
        """Wait until a part of the panel holds these words; its text. An error that the panel shows instead ends the wait."""
        there = f"document.querySelector('.nbsd .nbsd-{name}')?.innerText.includes({json.dumps(words)})"
        self.page.wait(f"{there} || document.querySelector('.nbsd .nbsd-error').innerText.trim()", seconds)
        if not self.page.js(there):
            raise AssertionError(f"the panel says: {self.text('error')}")
        return self.text(name)

    def watch_progress(self) -> None:
        """From now on keep each position of the progress bar that the page showed; `progress_seen` returns them."""
        self.page.js("""(() => {
            const bar = document.querySelector('.nbsd .nbsd-progress .progress-bar');
            window.seen = [];
            new MutationObserver(() => { if (window.seen.at(-1) !== bar.style.width) window.seen.push(bar.style.width); })
                .observe(bar, {attributes: true, attributeFilter: ['style']});
        })()""")

    def progress_seen(self) -> list[float]:
        """Positions of the progress bar, 0 to 100, in order."""
        return [float(width.rstrip("%")) for width in self.page.js("window.seen") if width.endswith("%")]

    def picture(self) -> tuple[int, int] | None:
        """Width and height of the large picture as the browser has decoded it; None while there is none."""
        size = self.page.js("(() => { const i = document.querySelector('.nbsd .nbsd-preview img');"
                            " return i && i.complete && i.naturalWidth ? [i.naturalWidth, i.naturalHeight] : null })()")
        return (size[0], size[1]) if size else None

    def thumbnails(self) -> int:
        return int(self.page.js("document.querySelectorAll('.nbsd .nbsd-gallery img').length"))

    def mode(self, name: str) -> None:
        """txt2img, img2img, inpaint or extras."""
        self.page.page.locator(f".nbsd .nbsd-mode button:text-is('{name}')").click()
        self.page.quiet()

    def stroke(self, *points: tuple[float, float], finger: bool = False) -> None:
        """Paint on the canvas with the mouse or a finger; points are shares of its width and height."""
        page, canvas = self.page.page, self.page.page.locator(".nbsd .nbsd-pad-mask")
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        assert box is not None
        places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
        if finger:
            session = page.context.new_cdp_session(page)
            for kind, (x, y) in zip(("touchStart", *["touchMove"] * (len(places) - 1)), places, strict=True):
                session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
            session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
            session.detach()
        else:
            page.mouse.move(*places[0])
            page.mouse.down()
            for place in places[1:]:
                page.mouse.move(*place, steps=5)
            page.mouse.up()
        self.page.quiet()

    def inked(self, x: float, y: float) -> bool:
        """Whether the canvas shows the mask at a place, given as shares of its width and height."""
        return bool(self.page.js(f"""(() => {{ const c = document.querySelector('.nbsd .nbsd-pad-mask');
            return c.getContext('2d').getImageData(Math.floor({x} * c.width), Math.floor({y} * c.height), 1, 1).data[3] > 0; }})()"""))

    def sticking_out(self) -> list[str]:
        """Parts that are wider than the panel, as their classes; those in a box that scrolls sideways do not count."""
        found: list[str] = self.page.js("""(() => {
            const panel = document.querySelector('.nbsd'), edge = panel.getBoundingClientRect().right + 0.5, out = [];
            if (panel.scrollWidth > panel.clientWidth) out.push('.nbsd scrolls');
            for (const part of panel.querySelectorAll('*')) {
                const box = part.getBoundingClientRect();
                if (box.width && part.checkVisibility() && box.right > edge) out.push(part.tagName + '.' + part.className);
            }
            return out;
        })()""")
        return found

    def narrow(self, width: int) -> None:
        """Make the window so narrow that the panel is `width` pixels wide."""
        page = self.page.page
        for _ in range(5):
            now = self._settled_width()
            if abs(now - width) <= 1:
                return
            size = page.viewport_size or {"width": 1280, "height": 1000}
            page.set_viewport_size({"width": round(size["width"] + width - now), "height": size["height"]})
        raise RuntimeError(f"the panel does not become {width} pixels wide, but {now}")

    def _settled_width(self) -> float:
        """The panel's width once it has been the same for twenty frames: JupyterLab lays itself out in steps."""
        return float(self.page.js("""new Promise(done => {
            let last = -1, same = 0;
            const look = () => {
                const now = document.querySelector('.nbsd').getBoundingClientRect().width;
                same = now === last ? same + 1 : 0; last = now;
                same >= 20 ? done(now) : requestAnimationFrame(look);
            };
            look();
        })"""))
