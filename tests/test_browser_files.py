"""The page Files in a real browser: find as one types, use by keyboard, fetch by link."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from download_server import Site, model_bytes, serve

lab = pytest.importorskip("lab", reason="playwright is not installed: pip install -e .[test]", exc_type=ModuleNotFoundError)

pytestmark = [pytest.mark.slow, pytest.mark.browser]

START = "from nbsd import Studio\nstudio = Studio(models='models', outputs='outputs')\nstudio.show()"
MODELS = Path(__file__).parent / "data" / "fidelity" / "models"


@pytest.mark.parametrize("environment", list(lab.ENVIRONMENTS))
def test_files_are_found_used_and_fetched(environment, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("tiny-sd1.safetensors", "tiny-vae.vae.pt", "tiny-lora.safetensors", "tiny-hyper.pt", "tiny-embed.pt"):
        (tmp_path / "models").mkdir(exist_ok=True)
        shutil.copy(MODELS / name, tmp_path / "models")
    (tmp_path / "test.ipynb").write_text(lab.notebook(START))
    with lab.chromium() as browser, lab.start(lab.ENVIRONMENTS[environment], tmp_path) as url, serve(Site(model_bytes(), cuts=[90_000, None])) as site:
        page = lab.Page(browser, url)
        page.open("test.ipynb")
        page.run(0)
        panel = lab.Panel(page)
        panel.shown()
        works_as_its_user_meets_it(page, panel, site, tmp_path / "models")
        page.screenshot(f"files-{environment}", ".nbsd")
        panel.narrow(400)
        assert panel.sticking_out() == []
        page.screenshot(f"files-narrow-{environment}", ".nbsd")
        page.theme("Dark")
        page.screenshot(f"files-dark-{environment}", ".nbsd")
        assert page.errors == []
        page.close()


def works_as_its_user_meets_it(page, panel, site, models) -> None:
    page.page.locator(".nbsd :is(.lm-TabBar-tab, .p-TabBar-tab)").filter(has_text="Files").click()
    page.wait("document.querySelector('.nbsd .nbsd-find input')?.offsetParent")
    rows = "[...document.querySelectorAll('.nbsd .nbsd-list option')].map(row => row.text)"
    page.wait(f"{rows}.some(text => text.includes('tiny-lora'))")
    # typing narrows the list while one types, and Enter uses what is left
    page.page.locator(".nbsd .nbsd-find input").press_sequentially("lora")
    page.wait(f"{rows}.length === 2 && {rows}[1].startsWith('tiny-lora')")
    page.quiet()
    panel.enabled("use")
    page.page.keyboard.press("Enter")
    page.wait("document.querySelector('.nbsd .nbsd-prompt textarea').value === '<lora:tiny-lora:1>'")
    panel.fill("find", "")
    # a link: a bar, and then the file is in the list, in spite of a cut
    panel.fill("link", f"{site.url}/fine.safetensors")
    panel.click("get")
    page.wait("document.querySelector('.nbsd .nbsd-fetch-status').innerText.includes('fine.safetensors is here')")
    page.wait(f"{rows}.some(text => text.startsWith('fine'))")
    assert (models / "fine.safetensors").is_file() and len(site.seen) == 2
    panel.holds("link", "")
