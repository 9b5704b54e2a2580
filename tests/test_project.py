"""The shape of the project: what is checked here is promised nowhere else."""

from __future__ import annotations

import ast
import configparser
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import nbsd
from nbsd import cli

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted((ROOT / "nbsd").rglob("*.py"))
SURFACE = ["NbsdError", "Picture", "Recipe", "Studio", "load", "reproduce"]
LONGEST = 420                                       # lines of a module
PLAIN = ("nbsd", "nbsd.recipe", "nbsd.infotext", "nbsd.events", "nbsd.errors", "nbsd.worker", "nbsd.outputs", "nbsd.cli",
         "nbsd.prompt.weights", "nbsd.prompt.schedule", "nbsd.prompt.networks")
HEAVY = ("torch", "ipywidgets", "diffusers", "transformers", "PIL", "IPython")
INSTALLED_AS = {"pillow": "PIL", "pyyaml": "yaml", "huggingface-hub": "huggingface_hub"}      # where a distribution is not called as what it brings
BROUGHT_ALONG = {"tokenizers", "IPython", "ipykernel", "traitlets", "zmq", "google", "kaggle_secrets"}     # by those, or by the host
BY_THE_USER = {"ultralytics"}       # under a licence that is not ours: neither a dependency nor an extra
# What is known to be installed where people use nbsd (the hosts' lists of August 2026); an install of nbsd must be content with it.
THERE = {
    "Colab": {"diffusers": "0.39.0", "ipywidgets": "7.7.1", "numpy": "2.1.3", "pillow": "11.3.0", "torch": "2.11.0",
              "transformers": "5.15.0"},
    "Kaggle": {"diffusers": "0.37.0", "ipywidgets": "8.1.5", "pillow": "11.3.0", "torch": "2.10.0", "transformers": "5.0.0"},
}
FORBIDDEN = ("stable-diffusion" + "-webui", "/work" + "/", "/tmp" + "/env", "find" + "-links", "extra-" + "index-url", "pypi" + ".org")


def settings() -> configparser.ConfigParser:
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg")
    return config


def tracked() -> list[Path]:
    """The repository's files, as git says it."""
    listed = subprocess.run(["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True)
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True, text=True).stdout.strip()


# --- what importing costs ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", PLAIN)
def test_the_plain_half_is_light(name):
    assert python(f"import sys, {name}; print([m for m in {HEAVY} if m in sys.modules])") == "[]"


def test_nothing_is_loaded_with_the_package():
    assert python("import sys, nbsd; print([m for m in sys.modules if m.startswith('nbsd.')])") == "[]"


def test_surface():
    assert sorted(nbsd.__all__) == SURFACE
    for name in SURFACE:
        assert getattr(nbsd, name).__name__ == name
    assert set(SURFACE) <= set(dir(nbsd))
    with pytest.raises(AttributeError, match="no attribute 'studio_of_dreams'"):
        _ = nbsd.studio_of_dreams


# --- how it is laid out -----------------------------------------------------------------------------------------------------------

def test_the_arrows_point_down():
    tool = Path(sys.executable).parent / "lint-imports"
    told = subprocess.run([tool, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert told.returncode == 0, told.stdout + told.stderr


def test_modules_are_short():
    assert {str(file.relative_to(ROOT)): lines for file in MODULES if (lines := len(file.read_text().splitlines())) > LONGEST} == {}


def test_every_package_is_packed():
    """A folder of modules without __init__.py works in the checkout and is missing from the wheel."""
    assert {str(file.parent.relative_to(ROOT)) for file in MODULES if not (file.parent / "__init__.py").exists()} == set()


def test_what_is_imported_is_required():
    extras = settings()["options.extras_require"]
    listed = settings()["options"]["install_requires"] + extras["upscale"] + extras["details"]
    required = {re.split(r"[<>=!~;\[ ]", line)[0] for line in listed.split("\n") if line}
    known = {INSTALLED_AS.get(name, name) for name in required} | BROUGHT_ALONG | BY_THE_USER | sys.stdlib_module_names | {"nbsd"}
    imported: dict[str, str] = {}
    for file in MODULES:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module]
            imported |= {name.split(".")[0]: str(file.relative_to(ROOT)) for name in names}
    assert {name: file for name, file in imported.items() if name not in known} == {}


def test_the_version_is_said_once():
    assert settings()["metadata"]["version"] == "attr: nbsd.__version__"
    for name in ("setup.cfg", "pyproject.toml", "environment.yml", "README.md", "ARCHITECTURE.md"):
        assert nbsd.__version__ not in (ROOT / name).read_text(), name
    assert f"## {nbsd.__version__}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("host", THERE)
def test_an_install_changes_nothing_there(host):
    bounds = [Requirement(line) for line in settings()["options"]["install_requires"].split("\n") if line]
    assert {bound.name for bound in bounds} >= set(THERE[host])
    for bound in bounds:
        assert bound.name not in THERE[host] or bound.specifier.contains(THERE[host][bound.name] + "+cu128"), bound
        assert {part.operator for part in bound.specifier} == {">="}, bound     # lower bounds only


# --- words and commands -----------------------------------------------------------------------------------------------------------

def test_words_that_must_not_stand_here():
    found = []
    for file in tracked():
        text = file.read_bytes()
        found += [f"{file.relative_to(ROOT)}: {word}" for word in FORBIDDEN if word.encode() in text and b"\0" not in text[:1000]]
        found += [f"{file}: {word}" for word in FORBIDDEN if word in str(file.relative_to(ROOT))]
    assert found == []


def test_the_readmes_commands_exist():
    readme = (ROOT / "README.md").read_text()
    commands = re.findall(r"python3 (tools/\S+) (\S+)", readme)
    assert {("tools/start.py", "lab"), ("tools/start.py", "test")} <= set(commands)
    for script, command in commands:
        assert f'"{command}"' in (ROOT / script).read_text()
    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", readme):
        assert (ROOT / picture).exists(), picture


def test_continuous_integration_runs_the_readmes_command():
    assert "python3 tools/start.py test" in (ROOT / ".ci" / "run").read_text()
    assert subprocess.run(["bash", "-n", ROOT / ".ci" / "run"]).returncode == 0


def test_the_quick_start_has_the_cells_that_nbsd_lab_writes():
    ours, written = (json.loads(text) for text in ((ROOT / "examples" / "quickstart.ipynb").read_text(), cli.quickstart()))
    for notebook in (ours, written):
        assert tuple("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code") == cli.QUICKSTART
