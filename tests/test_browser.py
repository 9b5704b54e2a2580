"""The panel as its user meets it: a real JupyterLab, a real Chromium, a small model.

Each test runs in the newest ipywidgets and ipykernel, and in those of Colab; some also through the door that Colab needs.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

lab = pytest.importorskip("lab", reason="playwright is not installed: pip install -e .[test]", exc_type=ModuleNotFoundError)

pytestmark = [pytest.mark.slow, pytest.mark.browser]

START = "from nbsd import Studio\nstudio = Studio(models='models', outputs='outputs')"
SHOW = "studio.show()"
# What a Colab kernel has loaded before the first cell; it makes nbsd choose Colab's door to the screen.
AS_COLAB = "import sys, types\nsys.modules['google.colab'] = types.ModuleType('google.colab')\n"
VERSIONS = "import ipykernel, ipywidgets, IPython\nprint(ipywidgets.__version__, ipykernel.__version__, IPython.__version__)"
UNTIL_GO = "import pathlib, time\nwhile not pathlib.Path('go').exists(): time.sleep(0.05)\nprint('gone')"


@dataclass(frozen=True)
class Place:
    """A running JupyterLab."""

    name: str
    url: str
    folder: Path

    @property
    def canvas(self) -> bool:
        """Whether its pages have the widgets of ipycanvas; a page without them says so, at any time, and gets rectangles."""
        return self.name != "colab"


@pytest.fixture(scope="module")
def browser():
    with lab.chromium() as browser:
        yield browser


@pytest.fixture(scope="module", params=list(lab.ENVIRONMENTS))
def place(request, tmp_path_factory, tiny_model) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "models").mkdir()
    shutil.copy(tiny_model, folder / "models")
    (folder / "models" / "broken.safetensors").write_bytes(tiny_model.read_bytes()[:1_000_000])     # a download that was cut off
    with lab.start(lab.ENVIRONMENTS[request.param], folder) as url:
        yield Place(request.param, url, folder)


@pytest.fixture
def page(place, browser, request) -> Iterator[lab.Page]:
    """An open notebook of its own, with its own kernel; the cells are those of the test's `cells` mark."""
    shutil.rmtree(place.folder / "outputs", ignore_errors=True)
    (place.folder / "go").unlink(missing_ok=True)
    mark = request.node.get_closest_marker("cells")
    (place.folder / "test.ipynb").write_text(lab.notebook(*(mark.args if mark else (START, SHOW))))
    page = lab.Page(browser, place.url)
    page.open("test.ipynb")
    yield page
    page.screenshot(f"last-{request.node.name}")
    page.js("app.shell.currentWidget.sessionContext.shutdown()")
    page.close()
    assert [error for error in page.errors if place.canvas or "Module ipycanvas" not in error] == []


@pytest.fixture
def panel(page) -> lab.Panel:
    """The panel, with the small model chosen."""
    page.run(0)
    page.run(1)
    panel = lab.Panel(page)
    panel.shown()
    panel.choose("model", "tiny-sd1")
    for name, value in (("field-steps", 12), ("field-width", 256), ("field-height", 256)):
        panel.fill(name, value)
    panel.fill("prompt", "a (red:1.2) cat")
    return panel


def pngs(place: Place) -> list[Path]:
    return sorted((place.folder / "outputs").rglob("*.png"))


@pytest.mark.cells(VERSIONS, "import ipywidgets\nipywidgets.IntSlider(description='slide')")
def test_the_environment_is_the_one_that_is_meant(page, place):
    page.run(0)
    versions = page.output(0).split()
    if place.name == "colab":
        assert versions == ["7.7.1", "6.17.1", "7.34.0"]
    else:
        assert int(versions[0].split(".")[0]) >= 8
    page.run(1)
    page.wait("document.querySelector('.widget-slider')?.offsetParent")


PLAY_A_DETECTOR = """from nbsd.pipeline import boxes
boxes.KINDS['.box'] = lambda path: lambda image, least: [boxes.Found((64, 64, 160, 160), 0.9)]
open('models/face.box', 'w').close()"""


@pytest.mark.cells(START, SHOW, PLAY_A_DETECTOR)
def test_generate(panel, page, place):
    panel.watch_progress()
    panel.click("generate")
    panel.says("status", "done")
    seen = panel.progress_seen()
    assert len({width for width in seen if 0 < width < 100}) >= 3, seen       # it moved
    assert panel.picture() == (256, 256)
    assert panel.thumbnails() == 1
    assert panel.text("error") == ""
    [file] = pngs(place)
    text = Image.open(file).info["parameters"]
    assert text.startswith("a (red:1.2) cat\nSteps: 12, Sampler: DPM++ 2M,")
    assert "Size: 256x256, Model hash: " in text
    panel.holds("infotext", text)
    assert str(file) in panel.text("path")
    panel.click("generate")
    page.wait("document.querySelectorAll('.nbsd .nbsd-gallery img').length === 2")
    assert len(pngs(place)) == 2
    page.run(2)
    panel.choose("field-script-kind", "details")
    panel.fill("field-script-detector", "face.box")
    panel.fill("seed", 5)
    panel.enabled("generate")
    panel.watch_progress()
    panel.click("generate")
    page.wait("document.querySelector('.nbsd .nbsd-infotext textarea').value.includes('ADetailer model: face.box, ADetailer confidence: 0.3, ')")
    panel.says("status", "done: 1 picture")
    assert (seen := panel.progress_seen()) == sorted(seen) and "Denoising strength" not in panel.value("infotext").replace("ADetailer denoising", "")


def test_control_and_enter_in_a_prompt_generates_and_the_picture_has_words(panel, page, place):
    ran = page.js("notebook.widgets[1].model.executionCount")
    box = page.page.locator(".nbsd .nbsd-prompt textarea")
    box.fill("typed right before")
    box.press("Control+Enter")
    panel.says("status", "done")
    assert page.js("notebook.widgets[1].model.executionCount") == ran and box.input_value() == "typed right before"
    [file] = pngs(place)
    assert Image.open(file).info["parameters"].startswith("typed right before\n")
    page.wait(f"document.querySelector('.nbsd .nbsd-preview img').alt.includes({file.name!r})")
    assert page.page.get_by_role("img", name=file.name).count() == 1


def test_presets_and_spellings(panel, page, place):
    panel.fill("prompt", "(hat:1.05)")
    panel.choose("preset", "NovelAI")
    panel.click("apply-preset")
    panel.says("filled", "ENSD 31337")
    for name, value in (("ensd", 31337), ("clip_skip", 2), ("steps", 28)):
        panel.holds(f"field-{name}", value)
    panel.click("convert")
    panel.says("spellings", "masterpiece, best quality, {hat}")
    page.screenshot(f"spellings-{place.name}", ".nbsd")
    assert panel.sticking_out() == []
    panel.click("use-spelling")
    panel.holds("prompt", "masterpiece, best quality, {hat}")
    panel.click("undo-fill")
    panel.holds("prompt", "masterpiece, best quality, (hat:1.05)")
    panel.click("undo-fill")
    for name, value in (("prompt", "(hat:1.05)"), ("field-ensd", 0), ("field-steps", 12)):
        panel.holds(name, value)


def test_reproduce(panel, page, place):
    """A picture is opened whose text says neither RNG nor clip skip; what made it is found, and used."""
    for name, value in (("field-width", 64), ("field-height", 64), ("field-clip_skip", 2), ("prompt", "a cat")):
        panel.fill(name, value)
    panel.choose("field-rng", "CPU")
    panel.choose("field-sampler", "LMS")        # draws no noise on its way, so ENSD is no question
    panel.click("generate")
    panel.says("status", "done")
    [file] = pngs(place)
    with Image.open(file) as picture:
        texts = PngImagePlugin.PngInfo()
        texts.add_text("parameters", picture.info["parameters"].replace("Clip skip: 2, ", "").replace("RNG: CPU, ", ""))
        picture.save(place.folder / "bare.png", pnginfo=texts)
    page.page.get_by_role("tab", name="Paste a recipe").click()
    with page.page.expect_file_chooser() as chooser:
        page.page.locator(".nbsd .nbsd-upload").click()
    chooser.value.set_files(place.folder / "bare.png")
    panel.enabled("reproduce")
    panel.holds("field-clip_skip", 1)
    panel.watch_progress()
    panel.click("reproduce")
    said = panel.says("found", "The picture matches")
    assert said == "The picture matches with RNG CPU, clip skip 2; the recipe did not say RNG and clip skip."
    panel.says("status", "done in")
    assert len([width for width in panel.progress_seen() if 0 < width < 100]) >= 3
    page.screenshot(f"reproduce-{place.name}", ".nbsd")
    assert panel.sticking_out() == []
    panel.enabled("use-found")
    panel.click("use-found")
    panel.holds("field-clip_skip", 2)


@pytest.mark.parametrize("door", [
    pytest.param("the host's", marks=pytest.mark.cells(START, SHOW)),
    pytest.param("Colab's", marks=pytest.mark.cells(AS_COLAB + START, SHOW)),
])
def test_interrupt_in_the_middle_and_generate_again(panel, page, place, door):
    if door == "Colab's" and place.name != "colab":
        pytest.skip("Colab's door is for Colab's kernel: newer ones let no click through to a waiting callback")
    panel.fill("field-steps", 150)
    panel.fill("field-count", 30)
    panel.click("generate")
    panel.says("status", "image 1/30 · step ")
    panel.watch_progress()
    page.wait("window.seen.length >= 3")
    panel.enabled("interrupt")
    panel.click("interrupt")
    panel.says("status", "stopped")
    assert panel.text("error") == ""
    made = len(pngs(place))
    assert made < 30
    panel.fill("field-steps", 4)
    panel.fill("field-count", 1)
    panel.enabled("generate")
    panel.click("generate")
    panel.says("status", "done: 1 picture")
    assert panel.picture() == (256, 256)
    assert len(pngs(place)) == made + 1


def test_a_broken_model_is_one_sentence(panel, page, place):
    panel.choose("model", "broken")
    panel.click("generate")
    told = panel.says("error", "broken.safetensors")
    assert "Traceback" not in told
    assert len(told) < 400
    page.screenshot(f"error-{place.name}", ".nbsd")
    assert pngs(place) == []
    panel.choose("model", "tiny-sd1")
    panel.enabled("generate")
    panel.click("generate")
    page.wait("document.querySelector('.nbsd .nbsd-error').innerText.trim() === ''")
    panel.says("status", "done")
    assert len(pngs(place)) == 1


def test_odd_input(panel, page, place):
    for field, odd, words, well in (("field-width", 100, "100", 256), ("field-steps", 0, "steps", 4)):
        panel.fill(field, odd)
        panel.click("generate")
        page.wait(f"document.querySelector('.nbsd .nbsd-error').innerText.includes({words!r})")     # perhaps after the error before
        assert "Traceback" not in panel.text("error") and pngs(place) == []
        panel.fill(field, well)
    panel.fill("prompt", "((((")
    panel.click("generate")
    page.wait("document.querySelector('.nbsd .nbsd-error').innerText.trim() === ''")
    panel.says("status", "done")
    assert len(pngs(place)) == 1


def test_reload_in_the_middle_of_a_job(panel, page, place):
    panel.fill("field-steps", 15)
    panel.fill("field-count", 100)
    panel.fill("seed", 77)
    panel.click("generate")
    page.wait("document.querySelectorAll('.nbsd .nbsd-gallery img').length >= 1")
    page.reload()
    panel.shown()
    for name, value in (("field-steps", 15), ("seed", 77), ("prompt", "a (red:1.2) cat")):
        panel.holds(name, value)
    before = panel.thumbnails()
    assert before >= 1
    page.wait(f"document.querySelectorAll('.nbsd .nbsd-gallery img').length > {before}")       # the job has gone on, and is shown
    panel.watch_progress()
    page.wait("window.seen.length >= 3")
    panel.enabled("interrupt")
    panel.click("interrupt")
    panel.says("status", "stopped")


@pytest.mark.cells(START, SHOW, UNTIL_GO)
def test_while_another_cell_runs(panel, page, place):
    panel.fill("field-count", 2)
    panel.click("generate")
    page.run(2, wait=False)
    page.wait("document.querySelectorAll('.nbsd .nbsd-gallery img').length === 2")
    panel.says("status", "done")
    assert page.js("window.ran[2]") is False
    (place.folder / "go").touch()
    page.wait("window.ran[2]")
    assert "gone" in page.output(2)


KEEP_MASK = "studio._panel.given.editor.drawing.mask.save('mask.png')"


@pytest.mark.cells(START, SHOW, KEEP_MASK)
def test_only_what_is_masked_changes(panel, page, place):
    """With the canvas in the newest environment; in Colab's, which has no widgets of ipycanvas, with the rectangles that come instead."""
    for name, value in (("steps", 4), ("width", 128), ("height", 128)):
        panel.fill(f"field-{name}", value)
    panel.click("generate")
    panel.says("status", "done")
    panel.click("send-inpaint")
    if place.name == "newest":
        paint_with_mouse_and_finger(panel, page)
    else:
        page.wait("document.querySelector('.nbsd .nbsd-boxes')?.offsetParent")
        assert "does not load" in panel.text("editor .nbsd-hint")
        panel.click("box-add")
        page.quiet()
    page.run(2)
    panel.choose("field-inpaint-only_masked", "Only")
    panel.fill("field-inpaint-mask_blur", 0)
    panel.fill("seed", 5)
    panel.click("generate")
    page.wait("document.querySelectorAll('.nbsd .nbsd-gallery img').length === 2")
    panel.says("status", "done")
    page.screenshot(f"inpaint-{place.name}", ".nbsd")
    before, after = (np.asarray(Image.open(file)) for file in pngs(place))
    mask = np.asarray(Image.open(place.folder / "mask.png")) > 0
    changed = (before != after).any(axis=2)
    assert 0.03 < mask.mean() < 0.6 and not changed[~mask].any()
    assert changed[mask].mean() > 0.9
    page.wait("document.querySelector('.nbsd .nbsd-infotext textarea').value.includes('Inpaint area: Only masked')")
    assert "Denoising strength: 0.75" in panel.value("infotext")


# Whether there is ink under the pressed mouse while its movement is still being told: the kernel cannot have answered.
INK_AT_ONCE = """(() => {
    const canvas = document.querySelector('.nbsd .nbsd-pad-mask'), pen = canvas.getContext('2d');
    window.atOnce = [];
    canvas.addEventListener('mousemove', event => {
        const share = [event.offsetX / canvas.clientWidth, event.offsetY / canvas.clientHeight];
        if (event.buttons) window.atOnce.push(pen.getImageData(share[0] * canvas.width, share[1] * canvas.height, 1, 1).data[3] > 0);
    }, true);
})()"""


def paint_with_mouse_and_finger(panel: lab.Panel, page: lab.Page) -> None:
    page.wait("document.querySelector('.nbsd .nbsd-pad-mask')?.offsetParent")
    page.js(INK_AT_ONCE)
    panel.stroke((0.2, 0.2), (0.7, 0.3))
    assert len(page.js("window.atOnce")) >= 4 and all(page.js("window.atOnce"))
    page.wait("!document.querySelector('.nbsd .nbsd-undo').disabled")
    assert panel.inked(0.45, 0.25) and not panel.inked(0.45, 0.8)
    panel.click("undo")
    page.wait("document.querySelector('.nbsd .nbsd-undo').disabled")
    page.quiet()
    assert not panel.inked(0.45, 0.25)
    panel.stroke((0.3, 0.6), (0.7, 0.6), (0.7, 0.8))
    panel.stroke((0.2, 0.3), (0.4, 0.3), finger=True)
    assert panel.inked(0.7, 0.7) and panel.inked(0.3, 0.3)
    page.reload()
    panel.shown()
    page.wait("document.querySelector('.nbsd .nbsd-pad-mask')?.offsetParent")
    page.quiet()
    ink = "(() => { const c = document.querySelector('.nbsd .nbsd-pad-mask'); return c.getContext('2d')"
    page.wait(f"{ink}.getImageData(Math.floor(0.7 * c.width), Math.floor(0.7 * c.height), 1, 1).data[3] > 0 }})()")
    assert panel.inked(0.3, 0.3) and not panel.inked(0.45, 0.25)


def test_narrow_and_wide(panel, page, place):
    panel.click("generate")
    panel.says("status", "done")
    page.screenshot(f"wide-{place.name}-light", ".nbsd")
    assert panel.sticking_out() == []
    page.theme("Dark")
    page.screenshot(f"wide-{place.name}-dark", ".nbsd")
    panel.narrow(400)
    tabs = page.page.locator(".nbsd :is(.lm-TabBar-tab, .p-TabBar-tab)")
    for tab in range(tabs.count()):
        tabs.nth(tab).click()
        looks_well(panel, f"narrow-{place.name}-{tab}")
    panel.choose("field-script-kind", "details")
    page.wait("document.querySelector('.nbsd .nbsd-field-script-detector').checkVisibility()")
    looks_well(panel, f"narrow-{place.name}-details")
    for mode in ("extras", "img2img", "inpaint"):
        panel.click(f"send-{mode}")
        page.wait(f"document.querySelector('.nbsd.nbsd-in-{mode} .nbsd-given.nbsd-has-picture')")
        page.wait("[...document.querySelectorAll('.nbsd :is(.nbsd-source-picture, .nbsd-pad, .nbsd-boxes)')].some(part => part.checkVisibility())")
        looks_well(panel, f"narrow-{place.name}-{mode}")
    page.theme("Light")
    looks_well(panel, f"narrow-{place.name}-light")


def looks_well(panel: lab.Panel, name: str) -> None:
    assert panel.sticking_out() == []
    assert contrast(panel.page) == []
    panel.page.screenshot(name, ".nbsd")


def contrast(page: lab.Page) -> list[str]:
    """Texts of the panel that are hard to read: less than 3 to 1 between the colours of text and ground (WCAG 2.1 for large text)."""
    found: list[str] = page.js("""(() => {
        const rgb = colour => { const c = document.createElement('canvas').getContext('2d'); c.fillStyle = colour; c.fillRect(0, 0, 1, 1);
            return c.getImageData(0, 0, 1, 1).data; };
        const light = ([r, g, b]) => { const f = v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
            return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b); };
        const ground = part => { for (let p = part; p; p = p.parentElement) { const c = rgb(getComputedStyle(p).backgroundColor);
            if (c[3] === 255) return c; } return [255, 255, 255]; };
        const out = [];
        for (const part of document.querySelectorAll('.nbsd :is(input, select, textarea, button, label, [role=status], code, td)')) {
            if (!part.checkVisibility() || part.disabled || part.closest('.nbsd-thumb')) continue;
            const [a, b] = [light(rgb(getComputedStyle(part).color)), light(ground(part))].sort((x, y) => y - x);
            if ((a + 0.05) / (b + 0.05) < 3) out.push(part.tagName + ' ' + (part.innerText || part.className).slice(0, 30));
        }
        return out;
    })()""")
    return found


@pytest.mark.cells("from nbsd import Studio", "Studio(models='none-yet', outputs='outputs').show()")
def test_a_newcomer_without_a_model_presses_generate(page, place):
    page.run(0)
    page.run(1)
    panel = lab.Panel(page)
    panel.shown()
    panel.holds("field-width", 128)
    panel.says("hint", "For a real model put a file")
    assert panel.value("model").startswith("first (small built-in model)") and "blue hair" in panel.value("prompt")
    panel.fill("field-count", 4)
    panel.click("generate")
    panel.says("status", "done: 4 pictures")
    assert panel.picture() == (128, 128)
    assert panel.text("error") == ""
    assert "Model: first," in Image.open(pngs(place)[0]).info["parameters"]
    page.page.mouse.move(0, 0)
    page.js("document.querySelector('.nbsd').scrollIntoView()")
    page.screenshot(f"panel-{place.name}")
