"""Cost of reading prompts and infotexts from 1 kB to 1 MB: seconds, and how often the time doubles when the length does.

    python bench/parsers.py

Linear cost gives a growth near 1.0 (the exponent of the length, over the two largest sizes); 2.0 would be quadratic.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from nbsd import infotext
from nbsd.prompt import networks, schedule, weights

SIZES = (1_000, 10_000, 100_000, 1_000_000)
PROMPTS = ("a, ", "(", "(a ", "[", "((a:1.1)", ") ", "[a:b:3] ", "[a|b]", "[a:", " AND ", "\\(", "a BREAK ", "<lora:a:1>", "<a:", "# a\n")
TEXTS = ("a", "key: value, ", "ab:", 'ab: "', 'ab: "\\"', " ", "\n", "Negative prompt:\n", "Steps: 1, ", "ab: [{")


def read_prompt(text: str) -> None:
    bare, _ = networks.split_networks(networks.strip_comments(text))
    for part in schedule.and_parts(bare):
        schedule.prompt_schedule(part.text, 20)
    weights.parse_weights(bare)


def read_infotext(text: str) -> None:
    infotext.write(infotext.read("p\n" + text))


def seconds(work: Callable[[str], None], text: str) -> float:
    """The least of three runs, or the only one where it takes long."""
    times: list[float] = []
    while len(times) < 3 and sum(times) < 2:
        began = time.process_time()
        work(text)
        times.append(time.process_time() - began)
    return min(times)


def main() -> None:
    print(f"{'piece':20} " + " ".join(f"{size / 1000:>8.0f} kB" for size in SIZES) + "   growth")
    worst = 0.0
    for work, pieces in ((read_prompt, PROMPTS), (read_infotext, TEXTS)):
        for piece in pieces:
            took = [seconds(work, (piece * size)[:size]) for size in SIZES]
            growth = math.log(took[-1] / max(took[-2], 1e-6)) / math.log(SIZES[-1] / SIZES[-2])
            worst = max(worst, growth)
            print(f"{piece!r:20} " + " ".join(f"{one:>11.4f}" for one in took) + f"   {growth:.2f}")
    print(f"worst growth {worst:.2f}")


if __name__ == "__main__":
    main()
