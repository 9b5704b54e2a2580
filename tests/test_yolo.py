"""models/yolo.py: detectors as ultralytics saves them, with that package played. Its own files were compared by hand: see ARCHITECTURE.md."""

from __future__ import annotations

import os
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from nbsd.errors import ModelError, NbsdError, UnsafeFileError
from nbsd.models.yolo import load_yolo

PACKAGE = "ultralytics.nn"


class Conv(nn.Module):
    gain = 1.0      # of the class; a file may say another

    def __init__(self, ins: int, outs: int) -> None:
        super().__init__()
        self.conv, self.bn, self.act = nn.Conv2d(ins, outs, 3, 2, 1, bias=False), nn.BatchNorm2d(outs), nn.SiLU()
        self.register_buffer("shift", torch.full((1,), 0.25))

    def forward(self, x):
        return self.act(self.bn(self.conv(x))) * self.gain + self.shift


class Detect(nn.Module):
    def __init__(self, nc: int, segments: bool = False) -> None:
        super().__init__()
        self.segments = segments
        self.nc, self.stride, self.kinds = nc, torch.tensor([8.0]), (1, [2, {"a": None}])

    def forward(self, x):
        patterns = torch.ones(1, 32, 2 * x.shape[2], 2 * x.shape[3]) * x.mean()        # a quarter of the picture
        return (x.flatten(2) * self.stride, [x], *([patterns] if self.segments else [])), {"boxes": x}


class DetectionModel(nn.Module):
    def __init__(self, outs: int = 40, segments: bool = False) -> None:
        super().__init__()
        self.model = nn.Sequential(Conv(3, 8), Conv(8, outs), nn.MaxPool2d(2), Detect(1, segments))
        self.names, self.args = {0: "face"}, Settings()

    def forward(self, x):
        return self.model(x)


class Settings:
    """No layer: nothing comes of it."""

    def __init__(self) -> None:
        self.box = 7.5


class Evil(nn.Module):
    def forward(self, x):
        return x


class Bomb:
    def __reduce__(self):
        return os.system, ("touch /bomb",)


@pytest.fixture(autouse=True)
def ultralytics(monkeypatch):
    """The package with the classes above, as pickles name them."""
    homes = {"modules.conv": [Conv], "modules.head": [Detect], "modules.block": [Evil], "tasks": [DetectionModel], "utils": [Settings]}
    for name in ("ultralytics", PACKAGE, f"{PACKAGE}.modules", *(f"{PACKAGE}.{home}" for home in homes)):
        module = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        if "." in name:
            parent, _, own = name.rpartition(".")
            setattr(sys.modules[parent], own, module)
    for home, kinds in homes.items():
        for kind in kinds:
            monkeypatch.setattr(kind, "__module__", f"{PACKAGE}.{home}")
            setattr(sys.modules[f"{PACKAGE}.{home}"], kind.__name__, kind)


def network(segments: bool = False) -> DetectionModel:
    torch.manual_seed(0)
    made = DetectionModel(segments=segments)
    made.model[0].gain = 3.0
    made.model[1].bn.running_mean.uniform_(-1, 1)
    made.model[3].detect = Detect.forward       # as Segment did in 2023
    made.model[1].__dict__["forward"] = "x"     # what the file says takes no method away
    return made


@pytest.mark.parametrize("segments", [False, True])
def test_a_network_answers_as_it_did_before_it_was_saved(tmp_path, monkeypatch, segments):
    made, pixels = network(segments), np.random.default_rng(0).random((1, 3, 32, 64), dtype=np.float32)
    torch.save({"epoch": -1, "ema": None, "model": made.half(), "train_args": {"lr": 0.1}, "version": "8.0.100"}, tmp_path / "face.pt")
    del made.model[1].__dict__["forward"]
    with torch.inference_mode():
        (wanted, _, *patterns), _ = made.float().eval()(torch.from_numpy(pixels))
    for kind in (Conv, Detect, DetectionModel, Settings):
        monkeypatch.setattr(kind, "__init__", None)     # nothing is begun anew
    answer, *more = load_yolo(tmp_path / "face.pt")(pixels)
    rows = 37 if segments else 5        # box and class, and the numbers of a mask; the rest is of no use
    assert answer.shape == (1, rows, 32) and np.array_equal(answer, wanted.numpy()[:, :rows])
    assert len(more) == segments and all(np.array_equal(one, other.numpy()) for one, other in zip(more, patterns, strict=True))


@pytest.mark.parametrize(("content", "error", "words"), [
    (lambda: {"model": {"a": torch.zeros(1)}}, ModelError, "no YOLO detector of ultralytics .no network."),
    (lambda: {"model": Conv(3, 8)}, ModelError, "no YOLO detector of ultralytics .ultralytics.nn.modules.conv.Conv"),
    (lambda: {"model": network(), "more": Bomb()}, UnsafeFileError, "asks for .*system, which could run a program: choose another detector"),
    (lambda: {"model": _with(Evil())}, ModelError, "a layer that nbsd does not build .Evil."),
    (lambda: {"model": _with(nn.Dropout())}, ModelError, "a layer that nbsd does not build .Dropout."),
    (lambda: {"model": DetectionModel(outs=3)}, None, ""),
])
def test_what_is_no_such_network_is_refused(tmp_path, content, error, words):
    torch.save(content(), tmp_path / "face.pt")
    if error is None:       # what does not run says so, once it does
        run, error, words = load_yolo(tmp_path / "face.pt"), ModelError, "does not run with this ultralytics"
        with pytest.raises(error, match=words):
            run(np.zeros((1, 4, 32, 32), dtype=np.float32))
        return
    with pytest.raises(error, match=words) as told:
        load_yolo(tmp_path / "face.pt")
    assert "\n" not in str(told.value)


def _with(layer: nn.Module) -> DetectionModel:
    made = network()
    made.model.insert(1, layer)
    return made


def test_without_the_package_it_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ultralytics", None)
    monkeypatch.delitem(sys.modules, PACKAGE)
    with pytest.raises(NbsdError, match=r"ultralytics, which is not installed: pip install ultralytics, or export it once \(yolo export model=face.pt"):
        load_yolo(tmp_path / "face.pt")
