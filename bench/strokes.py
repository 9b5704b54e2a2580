"""How long a stroke on the mask's canvas takes from the hand to the screen, in a real JupyterLab and a real Chromium.

Run in the environment of tools/start.py test: python bench/strokes.py [--moves 100]

Each movement of the pressed mouse goes to the kernel, which tells the canvas what to draw; the page draws the same ink at once (nbsd/ui/page.py).
Measured in the page: from the browser's time of the event to the first frame in which the canvas has ink at that place, with the page's
ink, without it (what the kernel alone takes), and with it while the kernel makes a picture.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import lab

MODEL = Path(__file__).parent.parent / "tests" / "data" / "fidelity" / "models" / "tiny-sd1.safetensors"
CELLS = ("from nbsd import Studio", "Studio(models='models', outputs='outputs').show()")
WATCH = """(() => {
    const canvas = document.querySelector('.nbsd .nbsd-pad-mask'), context = canvas.getContext('2d', {willReadFrequently: true});
    window.took = [];
    if (window.watched) return;
    window.watched = true;
    canvas.addEventListener('mousemove', event => {
        const began = event.timeStamp;
        const x = event.offsetX * canvas.width / canvas.clientWidth, y = event.offsetY * canvas.height / canvas.clientHeight;
        const look = () => {
            if (context.getImageData(x, y, 1, 1).data[3] > 0) window.took.push(performance.now() - began);
            else if (performance.now() - began < 2000) requestAnimationFrame(look);
        };
        requestAnimationFrame(look);
    }, true);
})()"""
# The page's ink hears of the pressed mouse at the document, in the capturing phase; window comes before it.
ALONE = """window.addEventListener('pointerdown', event => {
    if (window.alone && event.target.matches('.nbsd-pad-mask')) event.stopPropagation();
}, true)"""


def measure(moves: int) -> dict[str, list[float]]:
    """Milliseconds of each movement, of each way."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "models").mkdir()
        shutil.copy(MODEL, folder / "models")
        (folder / "test.ipynb").write_text(lab.notebook(*CELLS))
        with lab.start(Path(sys.executable), folder) as url, lab.chromium() as browser:
            page = lab.Page(browser, url)
            page.open("test.ipynb")
            page.run(0)
            page.run(1)
            panel = lab.Panel(page)
            panel.shown()
            panel.choose("model", "tiny-sd1")
            panel.fill("field-steps", 2)
            panel.click("generate")
            panel.says("status", "done")
            panel.click("send-inpaint")
            page.wait("document.querySelector('.nbsd .nbsd-pad-mask')?.offsetParent")
            page.js(ALONE)
            found = {"with the page's ink": painted(page, moves)}
            panel.click("clear")
            page.quiet()
            page.js("window.alone = true")
            found["by the kernel alone"] = painted(page, moves)
            page.js("window.alone = false")
            panel.fill("field-steps", 150)
            panel.fill("field-width", 512)
            panel.fill("field-height", 512)
            panel.click("generate")
            panel.says("status", "step")
            panel.click("clear")
            page.quiet()
            found["with the page's ink, while a picture is made"] = painted(page, moves)
            return found


def painted(page: lab.Page, moves: int) -> list[float]:
    """Ten rows of movements over the canvas."""
    page.js("document.querySelector('.nbsd .nbsd-pad-mask').scrollIntoView({block: 'center'})")
    page.js(WATCH)
    box = page.page.locator(".nbsd .nbsd-pad-mask").bounding_box()
    assert box is not None
    mouse, rows = page.page.mouse, 10
    for row in range(rows):
        y = box["y"] + box["height"] * (row + 0.5) / rows
        mouse.move(box["x"] + 4, y)
        mouse.down()
        for step in range(moves // rows):
            mouse.move(box["x"] + 4 + (box["width"] - 8) * (step + 1) / (moves // rows), y)
            page.page.wait_for_timeout(30)      # a hand sends a movement each 16 to 30 ms
        mouse.up()
    page.page.wait_for_timeout(1000)
    return [float(one) for one in page.js("window.took")]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moves", type=int, default=100)
    for way, times in measure(parser.parse_args().moves).items():
        took = sorted(times)
        print(f"{way}: {len(took)} movements, median {statistics.median(took):.0f} ms, nine of ten within {took[int(0.9 * (len(took) - 1))]:.0f} ms")
