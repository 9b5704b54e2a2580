"""Does nbsd compute what the web UI computes? Runs every recorded case of a folder and counts.

    python tools/fidelity.py DIR [--models DIR] [--family NAME ...] [--case ID ...] [--json FILE] [--nudge SHARE]

One thread computes, as in the recorded run: another number of threads rounds otherwise, and one case hangs on that.
Pictures are made through the public surface (`load(...).generate(...)`), everything else by the module that owns the rule.
A case that nbsd cannot run yet counts as failed and is named. The error of a case is given as a share of what is allowed:
1.0 is the tolerance itself; what has to be exact has an error of 0 or of infinity. Exit status 1 when a case fails.
`--nudge 1e-7` shows what rounding alone does to a picture: DPM adaptive's steps, and so its picture, follow it.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fidelity_parts as parts
import fidelity_pictures as pictures
import torch
from fidelity_compare import Bench, Mismatch, NotRun

RUNNERS: dict[str, Callable[[Bench, dict[str, Any]], float]] = {
    "a_prompts": parts.prompt,
    "b_conditioning": parts.conditioning,
    "c_noise": parts.noise,
    "d_sigmas": parts.sigmas,
    "f_infotext": parts.told,
    "g_hashes": parts.hashes,
    "h_rounding": parts.rounding,
}


@dataclass
class Family:
    """What came out for one family of cases."""

    cases: int = 0
    passed: int = 0
    worst: float = 0.0          # share of the allowed error, over the cases that ran
    worst_case: str = ""
    failed: dict[str, str] = field(default_factory=dict)    # case: why

    def add(self, case: str, error: float, why: str = "") -> None:
        self.cases += 1
        if why:
            self.failed[case] = why
        else:
            self.passed += 1
        if error > self.worst or not self.worst_case:
            self.worst, self.worst_case = error, case

    def plain(self) -> dict[str, Any]:
        worst = self.worst if math.isfinite(self.worst) else None      # JSON has no infinity
        return {"cases": self.cases, "passed": self.passed, "worst": worst, "worst_case": self.worst_case, "failed": list(self.failed)}


def run(folder: Path, models: Path, families: list[str], cases: list[str], nudge: float = 0.0) -> dict[str, Family]:
    found: dict[str, Family] = {}
    with Bench(folder, models, nudge) as bench:
        for name, recorded in read(folder):
            if families and not any(name.startswith(wanted) for wanted in families):
                continue
            family = found.setdefault(name, Family())
            began = time.monotonic()
            runner = RUNNERS.get(name, pictures.picture)
            for case in recorded["cases"]:
                if not cases or case["id"] in cases:
                    family.add(case["id"], *judge(runner, bench.about(name, recorded), case))
            show(name, family, time.monotonic() - began)
    return found


def read(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The families of a folder, in the order of their names."""
    for path in sorted(folder.glob("*.json")):
        recorded = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(recorded, dict) and "cases" in recorded and "family" in recorded:
            yield recorded["family"], recorded


def judge(runner: Callable[[Bench, dict[str, Any]], float], bench: Bench, case: dict[str, Any]) -> tuple[float, str]:
    """The error of a case as a share of what is allowed, and why it failed ("" where it passed)."""
    try:
        share = runner(bench, case)
    except Mismatch as found:
        return found.share, str(found)
    except NotRun as error:
        return math.inf, f"not run: {error}"
    except Exception as error:  # a case must never hide the ones after it; what broke is named
        return math.inf, f"broke: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return share, "" if share <= 1 else f"{share:.3g} times the allowed error"


def show(name: str, family: Family, seconds: float) -> None:
    print(f"{name:16} {family.passed:4} of {family.cases:4} passed, worst error {family.worst:.3g} of the allowed "
          f"({family.worst_case}), {seconds:.1f} s", flush=True)
    for case, why in family.failed.items():
        print(f"    {case}: {why}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", type=Path, help="where the model files lie (default: FOLDER/models)")
    parser.add_argument("--family", action="append", default=[], help="only families whose names start so; may be given often")
    parser.add_argument("--case", action="append", default=[], help="only this case; may be given often")
    parser.add_argument("--nudge", type=float, default=0.0, help="change every answer of the UNet at random by this share of it")
    parser.add_argument("--json", type=Path, help="write the result here, too")
    told = parser.parse_args(arguments)
    if not told.folder.is_dir():
        parser.error(f"{told.folder} is no folder")
    torch.set_num_threads(1)
    found = run(told.folder, told.models or told.folder / "models", told.family, told.case, told.nudge)
    cases, passed = sum(one.cases for one in found.values()), sum(one.passed for one in found.values())
    print(f"{'all':16} {passed:4} of {cases:4} passed")
    if told.json:
        told.json.write_text(json.dumps({"families": {name: one.plain() for name, one in found.items()}}, indent=1))
    return 0 if cases and passed == cases else 1


if __name__ == "__main__":
    sys.exit(main())
