"""How long the change to a model takes that was used before and is kept in memory.

    python bench/swap.py FIRST SECOND [--device cpu] [--dtype float16]

Loads both checkpoints once, then changes between them five times, as a job of the panel does before its first step.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

from nbsd import Recipe
from nbsd.pipeline.model import Shelf


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    options.add_argument("first")
    options.add_argument("second")
    options.add_argument("--device", default="cpu")
    options.add_argument("--dtype", default="float16")
    given = options.parse_args()
    shelf = Shelf([], device=given.device, dtype=given.dtype)
    warm = []
    for turn in range(6):
        for path in (given.first, given.second):
            began = time.perf_counter()
            shelf.model(Recipe(model=path))
            took = time.perf_counter() - began
            if turn:
                warm.append(took)
            else:
                print(f"loaded {path}: {took:.2f} s")
    print(f"warm change: median {median(warm):.4f} s, worst {max(warm):.4f} s")


if __name__ == "__main__":
    main()
