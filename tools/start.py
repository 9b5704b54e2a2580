"""Make an environment and start nbsd in it. Needs Python 3.10 or newer and pip, nothing else.

    python3 tools/start.py lab  [options of jupyter lab]    JupyterLab on examples/quickstart.ipynb
    python3 tools/start.py test [options of pytest]         every check and every test

The environment is the folder .venv beside this one. A second run installs nothing, unless setup.cfg or a list in tools/ has changed.
`test` also makes .venv/colab and .venv/kaggle, with the versions of ipywidgets and IPython that those hosts have, and brings a browser by
apt-get where it may.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
HOSTS = ("colab", "kaggle")     # .venv/NAME has the versions of tools/NAME.txt
BIN, EXE = ("Scripts", ".exe") if os.name == "nt" else ("bin", "")
OLDEST = (3, 10)
WORKERS = 4                 # test processes at most
DISK_GB = 8                 # torch with its CUDA libraries and the rest, with room for pip's temporary files
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PLAYWRIGHTS_OWN = "from playwright.sync_api import sync_playwright as p\nwith p() as q: print(q.chromium.executable_path)"
BROWSER_PACKAGES = ("chromium", "fonts-dejavu-core", "libatomic1")      # the last one is for playwright's driver, which does not bring it

NETWORK_SIGNS = ("name resolution", "Name or service not known", "establish a new connection", "Max retries", "ConnectTimeout",
                 "Network is unreachable", "timed out", "ProxyError", "Connection refused", "Connection reset")
NO_BROWSER = ("No Chromium was found and it could not be installed ({why}), so the browser tests will fail. Install one as root with "
              "'apt-get install chromium libatomic1', or run the rest with: python3 tools/start.py test -m 'not browser'")


class Problem(Exception):
    """One sentence for the reader; ends the run with exit status 1."""


def say(text: str) -> None:
    print(f"nbsd: {text}", flush=True)


def run(*command: object, **options: object) -> int:
    """Run a command with its output on the screen; its exit status."""
    return subprocess.run([str(part) for part in command], cwd=ROOT, **options).returncode      # type: ignore[call-overload, no-any-return]


# --- environments -----------------------------------------------------------------------------------------------------------------

def digest(*files: Path) -> str:
    """Changes when one of the files does, or the Python that runs this, or the place of the checkout."""
    seen = hashlib.sha256(f"{sys.version} {ROOT}".encode())
    for file in files:
        seen.update(file.read_bytes())
    return seen.hexdigest()


def installed(venv: Path, state: str) -> set[str]:
    """What `note_installed` noted for this environment in this state; empty where something has changed since."""
    try:
        noted = json.loads((venv / "nbsd.json").read_text())
    except (OSError, ValueError):
        return set()
    return set(noted["extras"]) if noted.get("state") == state else set()


def note_installed(venv: Path, state: str, extras: set[str]) -> None:
    (venv / "nbsd.json").write_text(json.dumps({"state": state, "extras": sorted(extras)}))


def site_packages(venv: Path) -> Path:
    return venv / "Lib" / "site-packages" if os.name == "nt" else venv / "lib" / "python{}.{}".format(*sys.version_info) / "site-packages"


def make_venv(venv: Path) -> Path:
    """An environment with pip in it; its Python. Debian's Python has no ensurepip, so there pip is installed by the pip outside."""
    python = venv / BIN / f"python{EXE}"
    if python.exists() and run(python, "-m", "pip", "--version", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0:
        return python
    say(f"making the environment {venv.relative_to(ROOT)} (Python {sys.version.split()[0]})")
    whole = importlib.util.find_spec("ensurepip") is not None
    if run(sys.executable, "-m", "venv", "--clear", *([] if whole else ["--without-pip"]), venv) == 0:
        if whole:
            return python
        if importlib.util.find_spec("pip") is None:
            raise Problem("this Python has no pip: install it with 'apt-get install python3-pip' as root and run this again.")
        pip(Path(sys.executable), "--target", site_packages(venv), "pip")
        return python
    raise Problem(f"the environment {venv} could not be made; what Python said about it stands above.")


def pip(python: Path, *arguments: object) -> None:
    """`pip install`; what it prints is on the screen, and a failure ends in one sentence."""
    command = [str(python), "-m", "pip", "install", "--no-input", "--disable-pip-version-check", *map(str, arguments)]
    environment = {**os.environ, "PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"}
    errors: list[str] = []
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, errors="replace") as process:
        assert process.stderr is not None
        reader = threading.Thread(target=_copy, args=(process.stderr, errors))
        reader.start()
        status = process.wait()
        reader.join()
    if status == 0:
        return
    said = "".join(errors)
    if "No space left" in said or shutil.disk_usage(ROOT).free < 100e6:
        raise Problem(f"the disk of {ROOT} is full: about {DISK_GB} GB are needed. Make room and run this again.")
    if any(sign in said for sign in NETWORK_SIGNS):
        raise Problem("pip could not reach the package index: look at the network (or pip's proxy settings) and run this again.")
    raise Problem("pip could not install what is needed; its own words stand above. Run this again when that is mended.")


def _copy(source: object, kept: list[str]) -> None:
    for line in source:         # type: ignore[attr-defined]
        sys.stderr.write(line)
        kept.append(line)


def main_environment(*extras: str) -> Path:
    """.venv with nbsd in it, editable, and the extras; its Python."""
    constraints = ROOT / "tools" / "constraints.txt"
    state = digest(ROOT / "setup.cfg", ROOT / "pyproject.toml", constraints)
    python, there = VENV / BIN / f"python{EXE}", installed(VENV, state)
    if python.exists() and there >= set(extras):
        return python
    python = make_venv(VENV)
    free = shutil.disk_usage(ROOT).free / 1e9
    if not (site_packages(VENV) / "torch").exists() and free < DISK_GB:
        raise Problem(f"{free:.1f} GB are free on the disk of {ROOT}, about {DISK_GB} are needed. Make room and run this again.")
    wanted = there | set(extras)
    say(f"installing nbsd with {', '.join(sorted(wanted))} (torch is large: this takes minutes the first time)")
    pip(python, "--constraint", constraints, "--editable", f".[{','.join(sorted(wanted))}]")
    note_installed(VENV, state, wanted)
    return python


def host_environment(name: str) -> Path:
    """.venv/NAME: the host's versions in front, and behind them everything that .venv has (torch, JupyterLab, nbsd); its Python."""
    versions, place = ROOT / "tools" / f"{name}.txt", VENV / name
    state = digest(versions, ROOT / "setup.cfg")
    python = place / BIN / f"python{EXE}"
    if python.exists() and name in installed(place, state):
        return python
    python = make_venv(place)
    behind = site_packages(place) / "zz_behind.pth"     # "zz": after any other .pth
    behind.unlink(missing_ok=True)                      # pip must not count what lies behind as installed
    say(f"installing the versions of ipywidgets and IPython that {name.capitalize()} has")
    pip(python, "--requirement", versions)
    behind.write_text(f"import site; site.addsitedir({str(site_packages(VENV))!r})\n")
    note_installed(place, state, {name})
    return python


# --- the browser ------------------------------------------------------------------------------------------------------------------

def find_browser(python: Path) -> str | None:
    """A Chromium that starts: the system's, else the one that playwright has downloaded. None where playwright itself does not start."""
    named = os.environ.get("NBSD_BROWSER")
    own = subprocess.run([str(python), "-c", PLAYWRIGHTS_OWN], capture_output=True, text=True)
    if own.returncode:
        return None
    for path in [named] if named else [*map(shutil.which, BROWSERS), own.stdout.strip()]:
        # Ubuntu's chromium-browser is a script that asks for a snap: what cannot say its version is no browser.
        if path and Path(path).exists() and subprocess.run([path, "--version"], capture_output=True).returncode == 0:
            return path
    return None


def bring_browser(python: Path) -> str | None:
    """A browser for the tests, installed where it is missing and may be installed; None, and a sentence, where there is none."""
    if found := find_browser(python):
        return found
    why = "there is no apt-get here"
    if shutil.which("apt-get"):
        rights = [] if os.geteuid() == 0 else ["sudo", "-n"]
        if rights and (not shutil.which("sudo") or subprocess.run([*rights, "true"], capture_output=True).returncode):
            why = "apt-get needs root and sudo asks for a password"
        else:
            say(f"installing {', '.join(BROWSER_PACKAGES)} with apt-get")
            quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            run(*rights, "apt-get", "update", "-qq", env=quiet)
            run(*rights, "apt-get", "install", "-yqq", "--no-install-recommends", *BROWSER_PACKAGES, env=quiet, stdout=subprocess.DEVNULL)
            why = "apt-get failed; its words stand above"
    if not (found := find_browser(python)):
        say("asking playwright for its own Chromium")
        run(python, "-m", "playwright", "install", "chromium")
        found = find_browser(python)
    if not found:
        say(NO_BROWSER.format(why=why))
    return found


# --- the two commands -------------------------------------------------------------------------------------------------------------

def lab(options: list[str]) -> int:
    python = main_environment("lab")
    root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []     # JupyterLab refuses root otherwise
    say("starting JupyterLab on examples/quickstart.ipynb; Ctrl-C ends it")
    try:
        return run(python, "-m", "jupyterlab", ROOT / "examples" / "quickstart.ipynb", *root, *options)
    except KeyboardInterrupt:
        return 0


def test(options: list[str]) -> int:
    python = main_environment("lab", "test")
    for name in HOSTS:
        host_environment(name)
    browser = bring_browser(python)
    folder = python.parent
    cores = os.cpu_count() or 1
    workers = min(cores, WORKERS)
    checks = (
        ("ruff", (folder / "ruff", "check", "--config", "tools/ruff.toml", ".")),
        ("mypy", (python, "-m", "mypy")),
        ("import-linter", (folder / "lint-imports",)),
        # A file's tests stay together, and the files in their order: the browser's come early, for they take longest.
        ("pytest", (python, "-m", "pytest", "-n", workers, "--dist", "loadfile", "--no-loadscope-reorder", *options)),
    )
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    environment.setdefault("OMP_NUM_THREADS", str(max(cores // workers, 1)))
    if browser:
        environment["NBSD_BROWSER"] = browser
    failed = []
    for name, command in checks:
        say(name)
        if run(*command, env=environment):
            failed.append(name)
    say(f"failed: {', '.join(failed)}" if failed else "all checks passed")
    return 1 if failed else 0


def main(arguments: list[str]) -> int:
    commands = {"lab": lab, "test": test}
    if not arguments or arguments[0] not in commands:
        print(__doc__)
        return 2
    try:
        if sys.version_info < OLDEST:
            raise Problem("nbsd needs Python {}.{} or newer; this is {}. Run it with a newer one, e.g. python3.11 tools/start.py {}".format(
                *OLDEST, sys.version.split()[0], arguments[0]))
        return commands[arguments[0]](arguments[1:])
    except Problem as problem:
        print(f"nbsd: {problem}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"nbsd: {error.strerror or error}: {error.filename or ROOT}. Mend that and run this again.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
