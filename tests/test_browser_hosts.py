"""The notebooks of Kaggle and Colab in a real browser, with those hosts' versions, variables and packages: the panel appears and works."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hosts_for_tests import play

lab = pytest.importorskip("lab", reason="playwright is not installed: pip install -e .[test]", exc_type=ModuleNotFoundError)

pytestmark = [pytest.mark.slow, pytest.mark.browser]

ROOT = Path(__file__).parent.parent
SHOWS = {"kaggle": 1, "colab": 2}       # the code cell that shows the panel; the first one installs, which test_notebooks.py does


@pytest.mark.parametrize("name", list(SHOWS))
def test_the_hosts_own_notebook_shows_the_panel(name, tmp_path, tiny_model):
    host = play(name, tmp_path, empty=False)
    models = host.root / ("input/anime" if name == "kaggle" else "models")
    models.mkdir(parents=True)
    shutil.copy(tiny_model, models / "anime.safetensors")
    folder = host.root / "working" if name == "kaggle" else host.root
    book = json.loads((ROOT / "examples" / f"{name}.ipynb").read_text("utf-8"))
    book["cells"] = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    (folder / "test.ipynb").write_text(json.dumps(book))
    with lab.chromium() as browser, lab.start(host.python, folder, host.variables) as url:
        page = lab.Page(browser, url)
        page.open("test.ipynb")
        for cell in range(1, SHOWS[name] + 1):
            page.run(cell)
        panel = lab.Panel(page)
        panel.shown()
        panel.choose("model", "anime")
        for field, value in (("field-steps", 4), ("field-width", 64), ("field-height", 64)):
            panel.fill(field, value)
        if shutil.which("nvidia-smi") is None:
            panel.says("notes", "This session has no GPU" if name == "kaggle" else "This runtime has no GPU")
        page.screenshot(f"host-{name}", ".nbsd")
        panel.click("generate")
        panel.says("status", "done")
        assert panel.picture() == (64, 64)
        page.close()
        assert page.errors == []
    kept = host.root / ("working/outputs" if name == "kaggle" else "drive/MyDrive/nbsd/outputs")
    assert len(list(kept.rglob("*.png"))) == 1
