"""Where the notebook runs: found by its signs, with folders that are kept and sentences that its user needs."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from nbsd.hosts import HOSTS, colab, kaggle, local, machine, paperspace, studiolab, this_host
from nbsd.ui.dispatch import DOORS

CACHE = Path("/cache/huggingface/hub")


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    for name in ("KAGGLE_KERNEL_RUN_TYPE", "NBSD_KAGGLE_ROOT", "NBSD_COLAB_ROOT", "JUPYTERHUB_USER", "VSCODE_PID", "VSCODE_CWD", "PAPERSPACE_FQDN", "HF_HUB_CACHE", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "gpus", lambda: ["Tesla T4", "Tesla T4"])
    monkeypatch.setattr(machine, "online", lambda: True)
    monkeypatch.setattr(machine, "minutes_up", lambda: 42.5)


def test_local_wins_where_nothing_else_is(tmp_path: Path) -> None:
    host = this_host()
    assert host.name == "local" and host.door == "thread" and not host.headless()
    assert host.models() == (tmp_path / "models", Path.home() / "nbsd" / "models", CACHE) and host.outputs() == tmp_path / "outputs"
    assert list(host.notes()) == []


@pytest.mark.parametrize("variables, place", [
    ({}, CACHE), ({"HF_HOME": "/hf"}, Path("/hf/hub")), ({"HF_HOME": "/hf", "HF_HUB_CACHE": "/here"}, Path("/here")),
])  # fmt: skip
def test_the_hubs_cache_is_where_its_library_has_it(monkeypatch, variables, place):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert local.hub_cache() == place


@pytest.mark.parametrize("variable, name", [("JUPYTERHUB_USER", "JupyterHub"), ("VSCODE_PID", "VS Code"), ("VSCODE_CWD", "VS Code")])
def test_machines_like_any_other_keep_things_beside_the_notebook(monkeypatch, tmp_path, variable, name):
    monkeypatch.setenv(variable, "1")
    host = this_host()
    assert (host.name, host.outputs(), host.models()[0]) == (name, tmp_path / "outputs", tmp_path / "models")


def test_paperspace(monkeypatch):
    monkeypatch.setenv("PAPERSPACE_FQDN", "x.gradient.run")
    host = this_host()
    assert host.name == "Paperspace" and host.outputs() == Path("/notebooks/outputs")
    assert host.models() == (Path("/storage/models"), Path("/notebooks/models"), paperspace.DATASETS, CACHE)


def test_studio_lab(monkeypatch, tmp_path):
    monkeypatch.setattr(Path, "home", lambda: studiolab.HOME)
    host = this_host()
    assert host.name == "SageMaker Studio Lab" and host.models()[0] == studiolab.TEMP and host.outputs() == tmp_path / "outputs"


# --- Colab

@pytest.fixture
def on_colab(monkeypatch, tmp_path) -> Path:
    """The folder that is the Drive once it is mounted."""
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    monkeypatch.setenv("NBSD_COLAB_ROOT", str(tmp_path / "content"))
    return tmp_path / "content" / "drive" / "MyDrive"


def test_colab(on_colab, monkeypatch):
    monkeypatch.delenv("NBSD_COLAB_ROOT")
    host = this_host()
    assert host.name == "Colab" and host.door == "colab"
    assert host.models() == (Path("/content/models"), CACHE) and host.outputs() == Path("/content/outputs")
    (note,) = host.notes()
    assert "gone when the runtime ends" in note and colab.MOUNT in note


def test_colab_keeps_pictures_on_a_mounted_drive(on_colab):
    on_colab.mkdir(parents=True)
    host = this_host()
    assert host.outputs() == on_colab / "nbsd" / "outputs"
    assert host.models() == (on_colab.parents[1] / "models", on_colab / "nbsd" / "models", CACHE)
    assert list(host.notes()) == []


def test_models_of_other_notebooks_on_a_mounted_drive_are_found_by_their_folders_names(on_colab, monkeypatch):
    assert this_host().elsewhere() == [] and HOSTS[-1].elsewhere() == []
    there = ["AI/models", "nbsd/models", "sd/Lora", "sd/ui/embeddings", "sd/ui/models", "sd/ui/extensions/x/deep/models"]
    for name in (*there, "sd/ui/models/Stable-diffusion", "venv/models", ".hidden/models", "photos/2024"):
        (on_colab / name).mkdir(parents=True)
    (on_colab / "models.txt").write_text("no folder")
    assert this_host().elsewhere() == [on_colab / name for name in ("nbsd/models", "AI/models", "sd/Lora", "sd/ui/embeddings", "sd/ui/models")]
    looks = iter(range(100))
    monkeypatch.setattr(colab.time, "monotonic", lambda: 2 * next(looks))       # the third look is too late
    assert this_host().elsewhere() == [on_colab / name for name in ("nbsd/models", "AI/models")]


def test_colab_without_a_gpu_names_the_menu(on_colab, monkeypatch):
    on_colab.mkdir(parents=True)
    monkeypatch.setattr(machine, "gpus", list)
    (note,) = this_host().notes()
    assert "Runtime, Change runtime type, T4 GPU" in note


def test_colabs_widget_manager_is_switched_on_once_and_only_when_asked(on_colab, monkeypatch):
    calls = []
    package = sys.modules["google.colab"]
    package.output = SimpleNamespace(enable_custom_widget_manager=lambda: calls.append(1))      # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "google", SimpleNamespace(colab=package))
    monkeypatch.setattr(colab, "_managed", False)
    host = this_host()
    list(host.notes()), host.models(), host.outputs()
    assert calls == []
    host.third_party(), host.third_party()
    assert calls == [1]


# --- Kaggle

@pytest.fixture(params=["Interactive", "Batch"])
def on_kaggle(request, monkeypatch, tmp_path) -> str:
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", request.param)
    return request.param


def test_kaggle(on_kaggle, monkeypatch, tmp_path):
    host = this_host()
    assert host.name == "Kaggle" and host.door == "thread" and host.headless() == (on_kaggle == "Batch")
    assert host.outputs() == Path("/kaggle/working/outputs")
    assert host.models() == (Path("/kaggle/temp/models"), Path("/kaggle/input"), CACHE)
    monkeypatch.setenv("NBSD_KAGGLE_ROOT", str(tmp_path))
    assert host.outputs() == tmp_path / "working" / "outputs" and tmp_path / "input" in host.models()


def test_kaggle_says_how_much_of_the_session_is_left(on_kaggle):
    said = list(this_host().notes())
    assert said[0].startswith("11:17:30 of this 12-hour session are left.") and "Save Version" in said[0]
    assert len(said) == (2 if on_kaggle == "Batch" else 1)
    assert on_kaggle == "Interactive" or "studio.generate" in said[1]


@pytest.mark.parametrize("gpus, online, words", [
    (["Tesla P100-PCIE-16GB"], True, "choose the accelerator GPU T4 x2"), ([], True, "This session has no GPU"),
    (["Tesla T4"], False, "The internet is off: models come from Add Input"),
])  # fmt: skip
def test_kaggle_says_what_is_wrong_with_the_session(on_kaggle, monkeypatch, gpus, online, words):
    monkeypatch.setattr(machine, "gpus", lambda: gpus)
    monkeypatch.setattr(machine, "online", lambda: online)
    assert words in next(iter(this_host().notes()))


# --- the machine

def test_gpus_are_what_nvidia_smi_lists(monkeypatch, tmp_path):
    monkeypatch.undo()
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'Tesla T4'\necho 'Tesla T4'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert machine.gpus() == ["Tesla T4", "Tesla T4"]
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert machine.gpus() == []
    monkeypatch.setenv("PATH", "/nowhere")
    assert machine.gpus() == []


def test_the_network_is_looked_for(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(machine, "SERVER", ("127.0.0.1", 9))
    assert machine.online() is False


def test_the_age_of_the_machine(monkeypatch, tmp_path):
    monkeypatch.undo()
    (tmp_path / "1").mkdir()
    (tmp_path / "uptime").write_text("7200.5 9000.0\n")
    (tmp_path / "1" / "stat").write_text("1 (a (b) c) " + " ".join(["S", *"0" * 18, "360000", "0"]) + "\n")
    assert machine.minutes_up(tmp_path / "1") == pytest.approx(60, abs=0.1)      # started an hour after the machine, at 100 ticks a second
    assert machine.minutes_up(tmp_path / "none") == 0.0


def test_every_door_is_a_row_of_the_doors_table() -> None:
    assert {host.door for host in HOSTS} <= set(DOORS) and HOSTS[-1].here()
    assert len({host.name for host in HOSTS}) == len(HOSTS) and kaggle.SESSION == 720
