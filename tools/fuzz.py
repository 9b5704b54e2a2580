"""Feed every parser of nbsd with odd input for some minutes, and say what breaks.

    python tools/fuzz.py [--minutes 10] [--seed N] [NAME ...]

Texts are put together from pieces that mean something, files are recorded ones with a few bytes changed; "made" makes any recipe, and then
again what its picture says (tools/made.py). A parser may refuse what it gets with an `NbsdError`; any other exception, and an answer that
contradicts itself, is a find. It is printed with its input, and the exit status is 1. NAME: only these parsers.
"""

from __future__ import annotations

import argparse
import io
import itertools
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from made import Made
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from nbsd import infotext
from nbsd.errors import NbsdError
from nbsd.infotext.keys import KEYS
from nbsd.match import report
from nbsd.models.detect import kind_of
from nbsd.models.small import read_small
from nbsd.models.weights import open_weights
from nbsd.pipeline.check import problems
from nbsd.prompt.networks import split_networks, strip_comments
from nbsd.prompt.schedule import and_parts, prompt_schedule
from nbsd.prompt.weights import from_novelai, parse_novelai, parse_weights, to_novelai

MODELS = Path(__file__).parent.parent / "tests" / "data" / "fidelity" / "models"
FILES = ("tiny-embed.pt", "tiny-neg.safetensors", "tiny-hyper.pt", "tiny-lora.safetensors", "tiny-vae.vae.pt")
MOST = 400_000      # bytes of a file that is changed; larger ones would take all the time
PROMPT = (
    "(", ")", "[", "]", "{", "}", ":", "::", "|", "\\", "\\(", "\\\\", "<", ">", "=", "#", "\n", " ", ",", ".", "-", "+", "1", "0.5", "1e9", "99",
    ":1.3)", ":-.5)", ":0.5]", ":9]", ":1.2.3)", "1.5::", "-2::", " AND ", " BREAK ", "AND", "a", "cat", "é", "猫", "🙂", "\0", "\u2028", "\ud800",
    "<lora:ink:0.8>", "<hypernet:x:", "<lora:a:te=1:unet=:dyn=x>",
)  # fmt: skip
TEXT = (
    "\n", "\r\n", ", ", ",", ": ", ":", '"', "\\", "{", "}", "[", "]", "Negative prompt:", "\nNegative prompt: ", "Steps: 20, ", "a", "ab", "-", "/",
    " ", "\t", "1", "-1", "1e999", "9" * 25, "512x512", "0x0", "True", "False", "Karras", "Euler a", "DPM++ 2M Karras", "v1.10.1", "v1.5.1-12-gabc",
    '"a, b: \\"c\\""', '{"a": [1, "b: c"]}', "LoRA", "925997e9", "\0", "\ud800", "٣", "ink(0123456789ab)", "0.7",
)  # fmt: skip


Parser = Callable[[random.Random], Iterator[object]]     # yields its input, then reads it


def text_of(draw: random.Random, pieces: tuple[str, ...]) -> str:
    return "".join(draw.choices(pieces, k=draw.choice((1, 3, 8, 20, 60))))


def weights(draw: random.Random) -> Iterator[object]:
    yield (text := text_of(draw, PROMPT))
    spans = parse_weights(text)
    assert spans and all(isinstance(span.text, str) for span in spans)
    assert all(one.weight != other.weight or "BREAK" in (one.text, other.text) for one, other in itertools.pairwise(spans))


def novelai(draw: random.Random) -> Iterator[object]:
    yield (text := text_of(draw, PROMPT))
    plain = "".join(span.text for span in parse_novelai(text))
    back = "".join(span.text for span in parse_weights(from_novelai(text)))
    assert back.lower() == plain.lower(), (plain, back)
    try:
        there = to_novelai(text)
    except NbsdError:
        return
    parse_novelai(there)


def schedule(draw: random.Random) -> Iterator[object]:
    text, steps, hires, old = text_of(draw, PROMPT), draw.choice((1, 2, 3, 20, 150)), draw.choice((None, 1, 9)), draw.random() < 0.3
    yield text, steps, hires, old
    for part in and_parts(text):
        timed = prompt_schedule(part.text, steps, hires, old)
        ends = [end for end, _ in timed]
        assert ends == sorted(set(ends)) and ends[-1] == (steps if hires is None or old else hires)


def networks(draw: random.Random) -> Iterator[object]:
    yield (text := text_of(draw, PROMPT))
    bare, found = split_networks(text)
    assert len(bare) + sum(len(f"<{one.kind}:{':'.join(one.items)}>") for one in found) == len(text)
    strip_comments(text)


def recipes(draw: random.Random) -> Iterator[object]:
    pairs = ", ".join(f"{draw.choice(KEYS).key or 'Foo'}: {text_of(draw, TEXT) if draw.random() < 0.3 else draw.choice(TEXT)}"
                      for _ in range(draw.choice((0, 3, 6, 12))))
    text = text_of(draw, TEXT if draw.random() < 0.5 else PROMPT) + draw.choice(("\n", "", "\r\n")) + pairs
    yield text
    infotext.parse(text)
    recipe = infotext.read(text)
    written = infotext.write(recipe)
    assert infotext.read(written) == recipe
    assert infotext.write(infotext.read(written)) == written
    complete = infotext.write(recipe, complete=True)
    assert infotext.write(infotext.read(complete), complete=True) == complete
    problems(recipe)
    report(recipe)


def pictures(draw: random.Random) -> Iterator[object]:
    text, out = text_of(draw, TEXT).encode("utf-8", "replace").decode(), io.BytesIO()
    kind = draw.choice(("PNG", "JPEG", "WEBP", "GIF", "hidden"))
    if kind == "PNG":
        texts = PngInfo()
        texts.add_itxt(draw.choice(("parameters", "Comment", "Description", "workflow")), draw.choice((text, f'{{"steps": {text}}}')))
        Image.new("RGB", (8, 8)).save(out, "PNG", pnginfo=texts)
    elif kind == "hidden":
        mark = draw.choice((b"stealth_pnginfo", b"stealth_pngcomp"))
        data = mark + draw.choice((len(text) * 8, 0, 2**32 - 1, draw.randrange(2**32))).to_bytes(4, "big") + text.encode()
        bits = "".join(f"{byte:08b}" for byte in data).ljust(64 * 64, "0")[: 64 * 64]
        alpha = Image.frombytes("L", (64, 64), bytes(254 + int(bit) for bit in bits)).transpose(Image.Transpose.TRANSPOSE)
        image = Image.new("RGBA", (64, 64))
        image.putalpha(alpha)
        image.save(out, "PNG")
    else:
        tags = Image.Exif()
        tags.get_ifd(0x8769)[0x9286] = draw.choice((b"UNICODE\0", b"ASCII\0\0\0", b"")) + text.encode(draw.choice(("utf-16-be", "utf-8")), "replace")
        more = {} if kind == "GIF" else {"exif": tags.tobytes()}
        Image.new("RGB", (8, 8)).save(out, kind, comment=text.encode("utf-8", "replace"), **more)
    data = changed(out.getvalue(), draw)
    yield data
    infotext.from_image(data)


def changed(data: bytes, draw: random.Random) -> bytes:
    """Some bytes are others, gone, or there twice; often at the beginning, where headers are."""
    out = bytearray(data)
    for _ in range(draw.choice((0, 1, 1, 2, 5))):
        at = draw.randrange(min(len(out), draw.choice((64, 1024, 2**30)))) if out else 0
        what = draw.random()
        if what < 0.6 and out:
            out[at] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)))
        elif what < 0.8:
            del out[at : at + draw.choice((1, 4, 100, 2**30))]
        else:
            out[at:at] = out[at : at + draw.choice((1, 8, 64))]
    return bytes(out)


class Files:
    """Recorded model files with changes, written to a temporary folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sources = [path for path in (MODELS / name for name in FILES) if path.stat().st_size <= MOST]

    def __call__(self, draw: random.Random) -> Iterator[object]:
        source = draw.choice(self._sources)
        data = changed(source.read_bytes(), draw)
        path = self._folder / f"fuzzed{source.suffix}"
        path.write_bytes(data)
        yield source.name, data
        kind_of(open_weights(path))
        read_small(path)


def tried(parser: Parser, seed: str) -> str:
    """One input through one parser: what it broke, or ""."""
    steps = parser(random.Random(seed))
    given: object = None
    try:
        given = next(steps)
        next(steps, None)
    except NbsdError:
        return ""
    except Exception:  # whatever it is, it is a find
        return f"seed {seed}\n{given!r:.2000}\n{traceback.format_exc()}"
    return ""


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("names", nargs="*", metavar="NAME")
    options.add_argument("--minutes", type=float, default=10)
    options.add_argument("--seed", default=str(int(time.time())))
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        parsers: dict[str, Parser] = {
            "weights": weights, "novelai": novelai, "schedule": schedule, "networks": networks, "recipes": recipes, "pictures": pictures,
            "files": Files(Path(folder)), "made": Made(MODELS / "tiny-sd1.safetensors"),
        }
        chosen = {name: parsers[name] for name in given.names or parsers}
        counts, finds = dict.fromkeys(chosen, 0), list[str]()
        end = time.monotonic() + given.minutes * 60
        for turn in itertools.count():
            if time.monotonic() >= end or len(finds) >= 10:
                break
            for name, parser in chosen.items():
                counts[name] += 1
                if found := tried(parser, f"{given.seed}-{name}-{turn}"):
                    finds.append(found)
                    print(f"--- {name}\n{found}", flush=True)
    print(", ".join(f"{name}: {count}" for name, count in counts.items()), f"inputs, {len(finds)} finds (seed {given.seed})")
    return 1 if finds else 0


if __name__ == "__main__":
    sys.exit(main())
