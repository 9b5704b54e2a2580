"""Colab and Kaggle, played: their variables, their folders below a temporary one, their Python packages, and an environment that is empty
but for what they have installed."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
# A kernel of Colab has loaded its package before the first cell.
COLAB = {
    "sitecustomize.py": "import google.colab\n",
    "google/colab/__init__.py": "",
    "google/colab/drive.py": "import os\ndef mount(place):\n    os.makedirs(os.environ['NBSD_COLAB_ROOT'] + '/drive/MyDrive', exist_ok=True)\n    print('Mounted at', place)\n",
    "google/colab/userdata.py": "def get(name):\n    raise KeyError(name)\n",
    "google/colab/output.py": "managed = []\ndef enable_custom_widget_manager():\n    managed.append(1)\n",
}
KAGGLE = {"kaggle_secrets.py": "class UserSecretsClient:\n    def get_secret(self, name):\n        raise ValueError('no such secret')\n"}


@dataclass(frozen=True)
class Played:
    """A host in a folder."""

    python: Path
    root: Path                      # what is /content or /kaggle there
    variables: dict[str, str]       # for kernels


def play(name: str, folder: Path, batch: bool = False, empty: bool = True) -> Played:
    """Colab or Kaggle below `folder`. `empty`: nbsd is not installed there."""
    packages, root = folder / "packages", folder / name
    for file, text in (COLAB if name == "colab" else KAGGLE).items():
        (packages / file).parent.mkdir(parents=True, exist_ok=True)
        (packages / file).write_text(text)
    variables = {"PYTHONPATH": str(packages), "XDG_CACHE_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    if name == "colab":
        root.mkdir()
        variables["NBSD_COLAB_ROOT"] = str(root)
    else:
        for place in ("input", "working", "temp"):
            (root / place).mkdir(parents=True)
        variables |= {"NBSD_KAGGLE_ROOT": str(root), "KAGGLE_KERNEL_RUN_TYPE": "Batch" if batch else "Interactive"}
    return Played(environment(name, folder / "python") if empty else host_python(name), root, variables)


def host_python(name: str) -> Path:
    """The Python of a host's versions, with everything else behind them, nbsd too."""
    python = Path(sys.prefix) / name / "bin" / "python"
    if not python.exists():
        raise RuntimeError(f"there is no {python}: run 'python3 tools/start.py test' once, which makes it")
    return python


def environment(name: str, place: Path) -> Path:
    """An environment in which nothing is installed but what the host has, which stands behind it; its Python."""
    there = host_python(name).parent.parent
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    inside = Path(sysconfig.get_path("purelib", vars={"base": str(place)}))
    behind = Path(sysconfig.get_path("purelib", vars={"base": str(there)}))
    inside.mkdir(parents=True, exist_ok=True)
    (inside / "zz_behind.pth").write_text(f"import site; site.addsitedir({str(behind)!r})\n")
    return place / "bin" / "python"


def clone(folder: Path) -> None:
    """The repository as it is, in a folder beside the notebook."""
    (folder / "nbsd").mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "nbsd"):
        (folder / "nbsd" / name).symlink_to(ROOT / name)


def outside(variables: dict[str, str]) -> dict[str, str]:
    """Variables for a process of such a host: those of the tests, but without their Python."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "JUPYTER", "IPYTHON", "KAGGLE", "COLAB"))}
    return {**kept, "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1", **variables}


LIST = "from importlib.metadata import distributions as d; print(*{f'{one.name}=={one.version}' for one in d()}, sep='\\n')"


def frozen(python: Path, variables: dict[str, str]) -> set[str]:
    """What is installed, as `pip freeze` finds it, but for nbsd."""
    said = subprocess.run([str(python), "-c", LIST], env=outside(variables), capture_output=True, text=True, check=True)
    return {line for line in said.stdout.splitlines() if not line.startswith("nbsd==")}
