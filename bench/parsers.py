"""Cost of reading prompts and infotexts from 1 kB to 1 MB: seconds of the processor, and by which power of the length they grow.

    python bench/parsers.py [--depth 10000]

Linear cost gives a growth near 1.0 (the exponent of the length, over the two largest sizes); 2.0 would be quadratic. At the end
brackets that are nested so many times deep.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable

from nbsd import infotext
from nbsd.prompt import networks, schedule, weights

SIZES = (1_000, 10_000, 100_000, 1_000_000)
DEPTH = 10_000
PROMPTS = ("a, ", "(", "(a ", "[", "((a:1.1)", ") ", "[a:b:3] ", "[a|b]", "[a:", " AND ", "\\(", "a BREAK ", "<lora:a:1>", "<a:", "# a\n")
NOVELAI = ("{", "{a} ", "[", "1.5::a:: ", "::", "1.", "a::", "{[", "(\\(")
NESTED = (("(", ")"), ("[", "]"), ("(a:", ":1.1)"), ("[a:", ":0.5]"), ("[a|", "]"), ("([", ")]"), ("{", "}"), ("1.1::", "::"), ("<lora:", ">"))
TEXTS = ("a", "key: value, ", "ab:", 'ab: "', 'ab: "\\"', " ", "\n", "Negative prompt:\n", "Steps: 1, ", "ab: [{")


def read_prompt(text: str) -> None:
    bare, _ = networks.split_networks(networks.strip_comments(text))
    for part in schedule.and_parts(bare):
        schedule.prompt_schedule(part.text, 20)
    weights.parse_weights(bare)


def read_novelai(text: str) -> None:
    weights.to_novelai(weights.from_novelai(text))


def read_both(text: str) -> None:
    read_prompt(text)
    weights.parse_novelai(text)
    weights.from_novelai(text)


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
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--depth", type=int, default=DEPTH)
    depth = options.parse_args().depth
    print(f"{'piece':20} " + " ".join(f"{size / 1000:>8.0f} kB" for size in SIZES) + "   growth")
    worst = 0.0
    for work, pieces in ((read_prompt, PROMPTS), (read_novelai, NOVELAI), (read_infotext, TEXTS)):
        for piece in pieces:
            took = [seconds(work, (piece * size)[:size]) for size in SIZES]
            growth = math.log(took[-1] / max(took[-2], 1e-6)) / math.log(SIZES[-1] / SIZES[-2])
            worst = max(worst, growth)
            print(f"{piece!r:20} " + " ".join(f"{one:>11.4f}" for one in took) + f"   {growth:.2f}", flush=True)
    print(f"worst growth {worst:.2f}")
    print(f"\n{'nested':20} {depth // 10:>11} {depth:>11}   growth")
    for opening, closing in NESTED:
        took = [seconds(read_both, opening * many + "a" + closing * many) for many in (depth // 10, depth)]
        figures = " ".join(f"{one:>11.4f}" for one in took)
        print(f"{opening + chr(8230) + closing!r:20} {figures}   {math.log10(took[1] / took[0]):.2f}", flush=True)


if __name__ == "__main__":
    main()
