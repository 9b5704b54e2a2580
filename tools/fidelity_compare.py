"""What the fidelity tool's runners share: the folder, its tensors, its models, and how two values are compared."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor


class Mismatch(Exception):
    """nbsd computes something else; `share` is the error in units of what is allowed."""

    def __init__(self, why: str, share: float = math.inf) -> None:
        super().__init__(why)
        self.share = share


class NotRun(Exception):
    """nbsd cannot run this case yet."""


class Bench:
    """A folder of recorded cases and the models they ran on."""

    def __init__(self, folder: Path, models: Path, nudge: float = 0.0) -> None:
        """`nudge`: share by which every answer of a UNet is changed at random."""
        self.folder, self.models, self.nudge = folder, models, nudge
        self.family: str = ""
        self.recorded: dict[str, Any] = {}
        self.kept: dict[Any, Any] = {}          # loaded models and the like, for all cases
        self._open: Any = None

    def __enter__(self) -> Bench:
        self._scratch = tempfile.TemporaryDirectory(prefix="nbsd-fidelity-")
        self.scratch = Path(self._scratch.name)
        return self

    def __exit__(self, *_: object) -> None:
        self.kept.clear()
        self._scratch.cleanup()

    def about(self, family: str, recorded: dict[str, Any]) -> Bench:
        """This bench, turned to a family."""
        if family != self.family:
            path = self.folder / f"{family}.safetensors"
            self.family, self.recorded = family, recorded
            self._open = safe_open(str(path), "pt") if path.is_file() else None
        return self

    def tensor(self, case: dict[str, Any], name: str) -> Tensor:
        if self._open is None:
            raise NotRun(f"there is no {self.family}.safetensors")
        return self._open.get_tensor(f"{case['id']}/{name}")

    def has(self, case: dict[str, Any], name: str) -> bool:
        return name in case.get("tensors", {})


def same(got: Any, want: Any, what: str) -> None:
    """Exactly equal, or a Mismatch that says where."""
    if got == want:
        return
    if isinstance(got, dict) and isinstance(want, dict):
        keys = [key for key in {**want, **got} if got.get(key) != want.get(key) or (key in got) != (key in want)]
        key = keys[0]
        raise Mismatch(f"{what}: {key!r} is {got.get(key)!r}, recorded {want.get(key)!r}")
    if isinstance(got, (list, tuple)) and isinstance(want, (list, tuple)):
        for at, (one, other) in enumerate(zip(got, want, strict=False)):
            if one != other:
                raise Mismatch(f"{what}: item {at} is {one!r}, recorded {other!r}")
        raise Mismatch(f"{what}: {len(got)} items, recorded {len(want)}")
    raise Mismatch(f"{what}: {got!r}, recorded {want!r}")


def near(got: Tensor, want: Tensor, allowed: float, what: str, *, relative: bool = False) -> float:
    """The largest difference as a share of `allowed`; a Mismatch where it is above 1. `relative`: to each recorded value."""
    if tuple(got.shape) != tuple(want.shape):
        raise Mismatch(f"{what}: shape {tuple(got.shape)}, recorded {tuple(want.shape)}")
    got, want = got.detach().to("cpu", torch.float64), want.to(torch.float64)
    same_kind = (got == want) | (got.isnan() & want.isnan())        # infinities and no-numbers, where the web UI computes them too
    gap = (got - want).abs()
    if relative:
        gap = gap / want.abs().where(want != 0, torch.ones(()).double())
    gap = gap.where(~same_kind, torch.zeros(()).double())
    worst = float(gap.max()) if gap.numel() else 0.0
    if math.isnan(worst):
        raise Mismatch(f"{what}: not a number")
    share = worst / allowed if allowed else (math.inf if worst else 0.0)
    if share > 1:
        raise Mismatch(f"{what}: off by {worst:.3g}, allowed {allowed:.3g}", share)
    return share
