"""Every cell of every notebook, and every block of the README, is run."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from hosts_for_tests import Played, clone, frozen, outside, play
from nbclient import NotebookClient
from PIL import Image

import nbsd
from nbsd import cli
from nbsd.outputs import Outputs
from nbsd.picture import Picture

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
SMALL = "a cat\nSteps: 2, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 64x64"
PATIENCE = 600      # seconds for a cell

# The same cells with less work in them.
QUICKER = ((r"Steps: 28", "Steps: 2"), (r"steps=28", "steps=2"), (r"--steps 28", "--steps 2 --width 64 --height 64"), (r"512x512", "64x64"),
           (r"width=512, height=512", "width=64, height=64"))


def quicker(text: str) -> str:
    for slow, quick in QUICKER:
        text = re.sub(slow, quick, text)
    return text


def read(path: Path) -> nbformat.NotebookNode:
    book = nbformat.read(path, as_version=4)
    for cell in book.cells:
        cell.source = quicker(cell.source)
    return book


def run(book: nbformat.NotebookNode, folder: Path, monkeypatch, python: Path = Path(sys.executable), variables: dict[str, str] | None = None) -> str:
    """Run all cells in a kernel of this Python, in this folder; what they printed."""
    spec = folder / "jupyter" / "kernels" / "played"
    spec.mkdir(parents=True)
    environment = outside({"XDG_CACHE_HOME": str(folder / "cache"), "IPYTHONDIR": str(folder / "ipython"), **(variables or {})})
    environment |= {"PYTHONPATH": environment.get("PYTHONPATH", str(ROOT))}
    argv = ["env", "-i", *(f"{name}={value}" for name, value in environment.items()), str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "played", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(folder / "jupyter"))
    book.metadata.pop("kernelspec", None)
    NotebookClient(book, timeout=PATIENCE, kernel_name="played", resources={"metadata": {"path": str(folder)}}).execute()
    shown = (output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs)
    return "\n".join(output.get("text", "") or " ".join(str(one) for name, one in output.get("data", {}).items() if name.startswith("text/"))
                     for output in shown)


def code(text: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_code_cell(text)


# --- what the notebooks are

def test_all_notebooks_are_there():
    assert {path.name for path in NOTEBOOKS} >= {"colab.ipynb", "kaggle.ipynb", "quickstart.ipynb", "scripting.ipynb", "verify.ipynb"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_short_two_languages_and_empty_of_results(path):
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    to_the_panel = next((index for index, cell in enumerate(cells, 1) if ".show()" in cell.source), 0)
    assert to_the_panel <= 3
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells)
    texts = [cell.source for cell in book.cells if cell.cell_type == "markdown"]
    assert all(re.search(r"[\u4e00-\u9fff]", text) and re.search(r"[A-Za-z]{4}", text) for text in texts)
    whole = path.read_text("utf-8").lower()
    assert "stable-diffusion-" + "webui" not in whole and "gradio" not in whole and "share=true" not in whole


# --- anywhere

@pytest.mark.slow
@pytest.mark.parametrize("name", ["quickstart", "scripting", "verify"])
def test_notebooks_run_on_any_machine(name, tmp_path, tiny_model, monkeypatch):
    (tmp_path / "models").mkdir()
    shutil.copy(tiny_model, tmp_path / "models" / "model.safetensors")
    book = read(ROOT / "examples" / f"{name}.ipynb")
    said = run(book, tmp_path, monkeypatch)
    if name == "scripting":
        assert len(list((tmp_path / "pictures").glob("*.png"))) == 4 and "Steps: 2, Sampler: Euler a" in said
        assert list((tmp_path / "outputs").rglob("*.png"))      # of %%sd
    if name == "verify":
        assert "settings honoured: Steps, Sampler" in said and "Clip skip" in said and "<picture 64x64, seed 2870305590>" in said
    if name == "quickstart":
        assert "nbsd" in said.lower() or "VBox" in said


# --- Kaggle and Colab, from an environment without nbsd to a picture, by the notebook alone

def installed_beside(host: Played, folder: Path) -> None:
    there = list(host.python.parent.parent.glob("lib/python*/site-packages/nbsd/__init__.py"))
    assert len(there) == 1, "the install cell put nbsd into the host's environment"


@pytest.mark.slow
def test_kaggle_in_a_saved_run(tmp_path, tiny_model, monkeypatch):
    host = play("kaggle", tmp_path, batch=True)
    (host.root / "input" / "anime" / "v1").mkdir(parents=True)
    shutil.copy(tiny_model, host.root / "input" / "anime" / "v1" / "model.safetensors")
    working = host.root / "working"
    clone(working)
    book = read(ROOT / "examples" / "kaggle.ipynb")
    recipe = next(cell for cell in book.cells if "RECIPE" in cell.source and cell.cell_type == "code")
    recipe.source = recipe.source.replace('RECIPE = """\n', f'RECIPE = """\n{SMALL}, Model: model\n')
    book.cells.append(code("import nbsd, ipywidgets\nprint(nbsd.__file__, ipywidgets.__version__, [str(one) for one in studio.folders])"))
    was = frozen(host.python, host.variables)
    said = run(book, working, monkeypatch, host.python, host.variables)
    assert frozen(host.python, host.variables) == was
    installed_beside(host, tmp_path)
    assert str(host.python.parent.parent) in said and "8.1.5" in said and str(host.root / "temp" / "models") in said
    (png,) = (working / "outputs").rglob("*.png")
    assert Image.open(png).info["parameters"].startswith("a cat\nSteps: 2, Sampler: Euler")
    assert "<picture 64x64, seed 1" in said


@pytest.mark.slow
def test_colab_with_a_drive(tmp_path, tiny_model, monkeypatch):
    host = play("colab", tmp_path)
    (host.root / "models").mkdir()
    shutil.copy(tiny_model, host.root / "models" / "model.safetensors")
    clone(host.root)
    book = read(ROOT / "examples" / "colab.ipynb")
    book.cells.append(code(
        "import sys, ipywidgets\nfrom google.colab import output\nfrom nbsd import Recipe\n"
        f"(picture,) = Studio().generate(Recipe.from_infotext({SMALL!r} + ', Model: model'))\n"
        "print(picture.path, ipywidgets.__version__, 'managed', len(output.managed))"))
    was = frozen(host.python, host.variables)
    said = run(book, host.root, monkeypatch, host.python, host.variables)
    assert frozen(host.python, host.variables) == was
    installed_beside(host, tmp_path)
    (png,) = (host.root / "drive" / "MyDrive" / "nbsd" / "outputs").rglob("*.png")
    assert f"{png} 7.7.1 managed 0" in said and "Mounted at /content/drive" in said


# --- the README

BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
# Commands that make environments: CI itself is `tools/start.py test`, and the others are for other programs.
NOT_HERE = ("python3 tools/start.py", "conda env create", "python tools/fidelity.py")


def kind_of(language: str, text: str) -> str:
    """"cell", "command" or "elsewhere"."""
    first = text.lstrip().splitlines()[0]
    if language == "python" or first.startswith("%"):
        return "cell"
    return "elsewhere" if first.startswith(NOT_HERE) else "command"


def saved(folder: Path, place: Path) -> None:
    """A picture that carries its recipe, at this place."""
    made = Outputs(folder / "made").save(Picture(Image.new("RGB", (64, 64)), nbsd.Recipe.from_infotext(SMALL)))
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(made.path, place)


@pytest.mark.slow
def test_the_readmes_cells_run(tmp_path, tiny_model, monkeypatch):
    (tmp_path / "models").mkdir()
    for place in (tmp_path, tmp_path / "models"):
        shutil.copy(tiny_model, place / "model.safetensors")
    saved(tmp_path, tmp_path / "picture.png")
    cells = [quicker(text) for language, text in BLOCKS if kind_of(language, text) == "cell" and not text.startswith("%pip")]
    assert len(cells) >= 3
    book = nbformat.v4.new_notebook(cells=[code(text) for text in cells])
    run(book, tmp_path, monkeypatch)
    assert list(tmp_path.glob("[0-9]*.png")) and list((tmp_path / "outputs").rglob("*.png"))


def test_the_readmes_commands_run(tmp_path, tiny_model, monkeypatch, capsys):
    from test_cli import GreyModel

    grey = GreyModel()
    monkeypatch.setitem(vars(nbsd), "load", grey.load)
    monkeypatch.setitem(vars(nbsd), "reproduce", lambda *_, **__: SimpleNamespace(recipe=nbsd.Recipe(), close=True))
    monkeypatch.setattr(cli, "_here", lambda source, *_: source)
    monkeypatch.setattr(cli.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=0))      # JupyterLab
    monkeypatch.chdir(tmp_path)
    Path("recipe.txt").write_text(SMALL)
    with tarfile.open("full_modules.tar", "w") as archive:
        archive.add(tiny_model.parent / "tiny-hyper.pt", "modules/old.pt")
    commands = [line for language, text in BLOCKS if kind_of(language, text) == "command" for line in text.splitlines() if line.strip()]
    assert commands and all(line.startswith("nbsd ") for line in commands), commands
    for line in commands:
        words = shlex.split(line)[1:]
        for picture in (word for word in words if word.endswith(".png")):
            saved(tmp_path, Path(picture))
        assert cli.main(words) == 0, f"{line}\n{capsys.readouterr().err[-500:]}"
        capsys.readouterr()
