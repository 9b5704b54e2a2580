from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from nbsd.hosts import HOSTS, colab, this_host
from nbsd.ui.dispatch import DOORS


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    monkeypatch.chdir(tmp_path)


def test_local_wins_where_nothing_else_is(tmp_path: Path) -> None:
    host = this_host()
    assert host.name == "local" and host.door == "thread"
    assert host.models()[0] == tmp_path / "models" and host.outputs() == tmp_path / "outputs"
    assert Path.home() / "nbsd" / "models" in host.models()


def test_colab(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    monkeypatch.setattr(colab, "DRIVE", tmp_path / "drive")
    host = this_host()
    assert host.name == "Colab" and host.door == "colab"
    assert host.models() == (Path("/content/models"),) and host.outputs() == Path("/content/outputs")


def test_colab_keeps_pictures_on_a_mounted_drive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    monkeypatch.setattr(colab, "DRIVE", tmp_path)
    host = this_host()
    assert host.outputs() == tmp_path / "nbsd" / "outputs"
    assert host.models() == (Path("/content/models"), tmp_path / "nbsd" / "models")


@pytest.mark.parametrize("run", ["Interactive", "Batch"])
def test_kaggle(monkeypatch: pytest.MonkeyPatch, run: str) -> None:
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", run)
    host = this_host()
    assert host.name == "Kaggle" and host.door == "thread"
    assert host.outputs() == Path("/kaggle/working/outputs") and Path("/kaggle/input") in host.models()


def test_every_door_is_a_row_of_the_doors_table() -> None:
    assert {host.door for host in HOSTS} <= set(DOORS) and HOSTS[-1].here()
