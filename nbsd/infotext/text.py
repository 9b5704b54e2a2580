"""The web UI's text, read as the web UI reads it (A1111 v1.10.1, modules/infotext_utils.py), with all its oddities.

What nbsd makes of it, and where it reads differently, is in `recipes.py`. No text makes anything here fail, and the cost is linear
in its length.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from packaging.version import InvalidVersion, Version

from nbsd.names import AUTOMATIC, SAMPLER_FACTS, SCHEDULE_NAMES, ScheduleName
from nbsd.prompt.weights import parse_weights

NEGATIVE = "Negative prompt:"
LEAST_PAIRS = 3         # the last line counts as parameters only with this many pairs
FIRST_PASS_AREA = 512 * 512     # pixels of the first pass of the hires fix of 2022, where its size is not given

_KEY_RUN = re.compile(r"[\w \-/]+")
_BLANKS = re.compile(r"\s*")
_QUOTED = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')
_SIZE = re.compile(r"^(\d+)x(\d+)$")
_BUILD = re.compile(r"([^-]+-[^-]+)-")      # v1.5.2-12-gabcdef: twelve commits after 1.5.2

# What the web UI assumes of a key that is absent.
ABSENT: dict[str, Any] = {
    "Clip skip": "1", "Hires resize-1": 0, "Hires resize-2": 0, "Hires sampler": "Use same sampler",
    "Hires schedule type": "Use same scheduler", "Hires checkpoint": "Use same checkpoint", "Hires prompt": "",
    "Hires negative prompt": "", "Mask mode": "Inpaint masked", "Masked content": "original", "Inpaint area": "Whole picture",
    "Masked area padding": 32, "RNG": "GPU", "Schedule type": AUTOMATIC, "Schedule max sigma": 0, "Schedule min sigma": 0,
    "Schedule rho": 0, "VAE Encoder": "Full", "VAE Decoder": "Full", "FP8 weight": "Disable",
    "Refiner switch by sampling steps": False,
}


class Pair(NamedTuple):
    """One `key: value` of the last line."""

    key: str
    value: str      # as the web UI takes it: up to the comma, or the quoted string with its quotes
    raw: str        # all that stands before the next key


class Layout(NamedTuple):
    """The parts of a text."""

    head: str               # all before the line of parameters, as it is
    prompt: str
    negative: str
    pairs: list[Pair]       # of the last line; empty where it is no line of parameters
    line: str               # that last line, as it is


def quote(value: Any) -> Any:
    """A value as it stands in the line of parameters: JSON-quoted where it holds a comma, a colon or a line break."""
    text = str(value)
    return json.dumps(value, ensure_ascii=False) if "," in text or "\n" in text or ":" in text else value


def unquote(text: str) -> str:
    """The inverse of `quote`; what is no JSON string is taken as it is."""
    if len(text) < 2 or text[0] != '"' or text[-1] != '"':
        return text
    try:
        return str(json.loads(text))
    except ValueError:
        return text


def layout(text: str, whole_json: Callable[[str], bool] | None = None) -> Layout:
    """Prompt, negative prompt and parameters, cut as the web UI cuts them.

    `whole_json`: for which keys a value that is a JSON object or array stays whole. The web UI ends it at its first comma and may find
    keys in it.
    """
    head, _, last = text.strip().rpartition("\n")
    pairs = list(_pairs(last))
    if len(pairs) < LEAST_PAIRS:
        head, pairs, last = text.strip(), [], ""
    elif whole_json and ("{" in last or "[" in last):
        pairs = list(_pairs(last, JsonEnds(last, whole_json)))
    prompt: list[str] = []
    negative: list[str] = []
    lines = prompt
    for line in head.split("\n"):
        line = line.strip()
        if line.startswith(NEGATIVE):
            lines = negative
            line = line[len(NEGATIVE):].strip()
        lines.append(line)
    return Layout(head, _joined(prompt), _joined(negative), pairs, last)


def parse(text: str, backcompat: bool = True) -> dict[str, Any]:
    """Every key and value that the web UI's own reader finds or assumes.

    `backcompat` turns on the old behaviours that the text's Version stands for, as the web UI's setting does.
    """
    _, prompt, negative, pairs, _ = layout(text)
    found: dict[str, Any] = {}
    for key, value, _ in pairs:
        if size := _SIZE.match(unquote(value)):
            found[f"{key}-1"], found[f"{key}-2"] = size.groups()
        elif value:
            found[key] = unquote(value)
    found["Prompt"], found["Negative prompt"] = prompt + hypernetwork_tag(found), negative
    found = {**ABSENT, **found}
    _restore_first_pass(found)
    if found["FP8 weight"] != "Disable":
        found.setdefault("Cache FP16 weight for LoRA", False)
    spans = parse_weights(prompt) + parse_weights(negative)
    if any(span.weight != 1.0 and span.text != "BREAK" for span in spans):
        found.setdefault("Emphasis", "Original")
    if backcompat:
        _restore_behaviours(found)
    return found


def split_sampler_name(name: str | None, schedule: str | None, paste: bool = True) -> tuple[str, str]:
    """Sampler and schedule of a sampler's name that may end in a schedule's, as the web UI splits it.

    Unknown names are the first sampler and "Automatic". With `paste`, the sampler's default schedule is called "Automatic".

    >>> split_sampler_name("DPM++ 2M SDE Karras", None)
    ('DPM++ 2M SDE', 'Karras')
    """
    default, *_ = SAMPLER_FACTS
    found = next((row.label for row in SCHEDULE_NAMES.values() if schedule in (row.label, row.name)), AUTOMATIC)
    name = name or default
    for row in SCHEDULE_NAMES.values():
        ending = next((ending for ending in endings(row) if name.endswith(ending)), None)
        if ending:
            found, name = row.label, name[:-len(ending)]
    facts = SAMPLER_FACTS.get(name, SAMPLER_FACTS[default])
    return facts.name, AUTOMATIC if paste and facts.schedule == found else found


def endings(schedule: ScheduleName) -> tuple[str, ...]:
    """How a sampler's name of before 1.9 ends when it runs this schedule."""
    return tuple(f" {name}" for name in (schedule.label, schedule.name, *schedule.aliases))


def version_of(text: Any) -> Version | None:
    """A version of the web UI as something that can be compared; None for what is none."""
    build = _BUILD.match(str(text))
    try:
        return Version(build[1] if build else str(text))
    except InvalidVersion:
        return None


def hypernetwork_tag(pairs: dict[str, Any]) -> str:
    """What the web UI adds to the prompt for the hypernetwork that texts of 2022 name in a key."""
    name = pairs.get("Hypernet")
    return "" if name is None else f"<hypernet:{name}:{pairs.get('Hypernet strength', '1.0')}>"


def first_pass_size(width: int, height: int) -> tuple[int, int]:
    """The size at which the hires fix of 2022 began: about 512 x 512 pixels, in steps of 64."""
    scale = math.sqrt(FIRST_PASS_AREA / (width * height))
    return math.ceil(scale * width / 64) * 64, math.ceil(scale * height / 64) * 64


def _joined(lines: list[str]) -> str:
    """Empty lines at the beginning are lost."""
    first = next((i for i, line in enumerate(lines) if line), len(lines))
    return "\n".join(lines[first:])


class JsonEnds:
    """Tells where a JSON object or array in a line ends. The cost of all questions about a line is linear in its length."""

    def __init__(self, line: str, of_key: Callable[[str], bool]) -> None:
        self._of_key = of_key
        self._line, self._decode = line, json.JSONDecoder().raw_decode
        self._left = 4 * len(line) + 100_000    # characters that may still be looked at in vain

    def of(self, key: str, begin: int) -> int | None:
        """The end of the value of a key that begins here, where a comma or nothing follows; None where there is no such value."""
        if self._line[begin:begin + 1] not in ("{", "[") or self._left <= 0 or not self._of_key(key):
            return None
        try:
            _, end = self._decode(self._line, begin)
        except json.JSONDecodeError as error:
            self._left -= error.pos     # making the error counts the lines from the beginning
            return None
        except (RecursionError, ValueError):        # too deep; a number of too many digits
            self._left = 0
            return None
        if self._line[end:end + 1] in ("", ","):
            return end
        self._left -= end - begin
        return None


def _pairs(line: str, json_ends: JsonEnds | None = None) -> Iterator[Pair]:
    """The pairs of a line. Where a key stands: letters, digits, `-`, `/` and blanks, at least two of them, before a colon."""
    ended: tuple[str, str, int] | None = None       # key and value of the last pair, and where what it says begins
    at = 0
    while run := _KEY_RUN.search(line, at):
        key = run[0].lstrip(" -/")
        at = run.end()
        if not line.startswith(":", at):
            continue
        at += 1
        if len(key) < 2:
            continue
        if ended:
            yield Pair(*ended[:2], _trimmed(line[ended[2]:run.end() - len(key)]))
        blanks = _BLANKS.match(line, at)
        begin = blanks.end() if blanks else at
        end = (json_ends.of(key, begin) if json_ends else None) or _value_end(line, begin)
        ended = (key, line[begin:end], begin)
        at = end + 1
    if ended:
        yield Pair(*ended[:2], _trimmed(line[ended[2]:]).rstrip())


def _value_end(line: str, begin: int) -> int:
    quoted = _QUOTED.match(line, begin)
    if quoted and len(quoted[0]) > 2 and line[quoted.end():quoted.end() + 1] in ("", ","):
        return quoted.end()
    comma = line.find(",", begin)
    return comma if comma >= 0 else len(line)


def _trimmed(raw: str) -> str:
    """Without the comma that ends a pair."""
    bare = raw.rstrip()
    return bare[:-1] if bare.endswith(",") else raw


def _restore_first_pass(found: dict[str, Any]) -> None:
    """Until the end of 2022, `Size` was the size of the second pass."""
    try:
        first = int(found["First pass size-1"]), int(found["First pass size-2"])
        second = int(found.get("Size-1", 512)), int(found.get("Size-2", 512))
        if 0 in first:
            first = first_pass_size(*second)
    except (KeyError, ValueError, ArithmeticError):     # no such key, or no sizes
        return
    found["Size-1"], found["Size-2"] = first
    found["Hires resize-1"], found["Hires resize-2"] = second


def _restore_behaviours(found: dict[str, Any]) -> None:
    """modules/infotext_versions.py"""
    version = version_of(found.get("Version"))
    if version is None:
        return
    if version < Version("1.6.0"):
        if "[" in found["Prompt"]:
            found["Old prompt editing timelines"] = True
        if found.get("Sampler") in ("DDIM", "PLMS"):
            found["Pad conds v0"] = True
    if version < Version("1.7.0-225"):
        found["Downcast alphas_cumprod"] = True
    if version < Version("1.8.0") and found.get("Refiner"):
        found["Refiner switch by sampling steps"] = True
