"""What one detail pass is to do, and the keys by which the extension ADetailer writes that into an infotext. Plain values.

Names, order and defaults are those of its version 25.3.0; `details.py` does what they say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from nbsd.infotext.keys import DETAILS

PREFIX = DETAILS                # of its keys
VERSION_KEY, VERSION = f"{PREFIX}version", "25.3.0"     # whose spelling and defaults a new text has
MOST = 15                       # passes over a picture
AREA, SUREST = "Area", "Confidence"
APART, MERGED, INVERTED = "None", "Merge", "Merge and Invert"
NOT_DONE = ("nbsd's detail pass knows no ControlNet, no face restoration, no classes and no VAE of its own, "
            "so {} has no effect: details may come out otherwise")


@dataclass(frozen=True, kw_only=True)
class Detail:
    """One pass over a picture: what is looked for, and how what is found is painted anew. None, 0 or "": as the recipe says."""

    detector: str = "mediapipe"     # a name or the path of a file, as boxes.py takes it
    prompt: str = ""                # [SEP] stands between those of several boxes, [PROMPT] for the recipe's; [SKIP] leaves a box as it is
    negative_prompt: str = ""
    confidence: float = 0.3         # the least that counts, 0 to 1
    top_by: str = AREA              # which boxes come first where not all do: AREA or SUREST
    top: int = 0                    # how many boxes; 0: all
    min_ratio: float = 0.0          # a box's least and largest share of the picture's area, 0 to 1
    max_ratio: float = 1.0
    x_offset: int = 0               # pixels that the mask is moved to the right
    y_offset: int = 0               # and up
    dilate: int = 4                 # pixels by which the mask becomes wider and higher in all; smaller below 0
    merge: str = APART              # or MERGED, INVERTED: all boxes as one mask
    mask_blur: int = 4              # pixels
    strength: float = 0.4           # denoising strength, 0 to 1
    only_masked: bool = True        # what is around the box is made at the recipe's full size and put back
    padding: int = 32               # pixels around the mask that are looked at then
    width: int = 0                  # pixels
    height: int = 0
    steps: int = 0
    cfg_scale: float | None = None
    checkpoint: str = ""
    sampler: str = ""               # as an infotext spells it
    schedule: str = ""
    noise_multiplier: float | None = None
    clip_skip: int = 0


class Row(NamedTuple):
    """A key of an infotext."""

    name: str                           # behind PREFIX, before the number of the pass
    field: str                          # of Detail; "": a switch, which says that the next keys hold
    parse: Callable[[str], Any]
    said: Callable[[Detail], bool]      # when it is written
    once: str = ""                      # what it was called before

    def text(self, detail: Detail) -> str:
        """What is written; "": nothing."""
        if not self.said(detail):
            return ""
        if self is MODEL:
            return bare(detail.detector)
        return str(getattr(detail, self.field)) if self.field else "True"


def _always(_: Detail) -> bool:
    return True


def _set(field: str) -> Callable[[Detail], bool]:
    return lambda detail: bool(getattr(detail, field) != getattr(Detail(), field))


def _truth(text: str) -> bool:
    return {"true": True, "false": False}[text.strip().lower()]


ROWS: tuple[Row, ...] = (
    Row("model", "detector", str, _always),
    Row("prompt", "prompt", str, _set("prompt")),
    Row("negative prompt", "negative_prompt", str, _set("negative_prompt")),
    Row("confidence", "confidence", float, _always),
    Row("method to decide top k masks", "top_by", str, _set("top")),
    Row("mask only top k", "top", int, _set("top"), "mask only top k largest"),
    Row("mask min ratio", "min_ratio", float, _set("min_ratio")),
    Row("mask max ratio", "max_ratio", float, _set("max_ratio")),
    Row("x offset", "x_offset", int, _set("x_offset")),
    Row("y offset", "y_offset", int, _set("y_offset")),
    Row("dilate erode", "dilate", int, _always, "dilate/erode"),
    Row("mask merge invert", "merge", str, _set("merge")),
    Row("mask blur", "mask_blur", int, _always),
    Row("denoising strength", "strength", float, _always),
    Row("inpaint only masked", "only_masked", _truth, _always),
    Row("inpaint padding", "padding", int, lambda detail: detail.only_masked),
    Row("use inpaint width height", "", _truth, _set("width")),
    Row("inpaint width", "width", int, _set("width")),
    Row("inpaint height", "height", int, _set("width")),
    Row("use separate steps", "", _truth, _set("steps")),
    Row("steps", "steps", int, _set("steps")),
    Row("use separate CFG scale", "", _truth, _set("cfg_scale")),
    Row("CFG scale", "cfg_scale", float, _set("cfg_scale")),
    Row("use separate checkpoint", "", _truth, _set("checkpoint")),
    Row("checkpoint", "checkpoint", str, _set("checkpoint")),
    Row("use separate sampler", "", _truth, _set("sampler")),
    Row("sampler", "sampler", str, _set("sampler")),
    Row("scheduler", "schedule", str, _set("schedule")),
    Row("use separate noise multiplier", "", _truth, _set("noise_multiplier")),
    Row("noise multiplier", "noise_multiplier", float, _set("noise_multiplier")),
    Row("use separate CLIP skip", "", _truth, _set("clip_skip")),
    Row("CLIP skip", "clip_skip", int, _set("clip_skip")),
)
MODEL = ROWS[0]
SHOWN = ("detector", "prompt", "confidence", "strength")        # what the panel has a control for
_PLACE = re.compile(r"\s*\[(\d+)(?:st|nd|rd|th)\]\s*")


def bare(detector: str) -> str:
    """A detector as a text names it: a file's name. Where it lies here is nobody else's concern.

    >>> bare("/home/me/face.onnx"), bare("mediapipe")
    ('face.onnx', 'mediapipe')
    """
    return re.split(r"[\\/]", detector)[-1] or detector


def ordinal(number: int) -> str:
    """What stands behind the keys of a pass, counted from 0.

    >>> ordinal(0), ordinal(1), ordinal(10)
    ('', ' 2nd', ' 11th')
    """
    if not number:
        return ""
    number += 1
    return f" {number}{'th' if 11 <= number <= 13 else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"


def passes_in(pairs: Mapping[str, str]) -> dict[str, Detail]:
    """The passes that an infotext's pairs tell of, by what stands behind their keys. A value that makes no sense counts as not said."""
    found = {}
    for suffix in (ordinal(number) for number in range(MOST)):
        if pairs.get(_key(MODEL, suffix, pairs), "").strip() not in ("", "None"):
            values: dict[str, Any] = {}
            for row in ROWS:
                text = pairs.get(_key(row, suffix, pairs))
                if row.field and text:
                    try:
                        values[row.field] = row.parse(text)
                    except (ValueError, KeyError):
                        continue
            found[suffix] = Detail(**values)
    return found


def _key(row: Row, suffix: str, pairs: Mapping[str, str]) -> str:
    """A row's key for a pass, as the pairs spell it."""
    once = f"{PREFIX}{row.once}{suffix}"
    return once if row.once and once in pairs else f"{PREFIX}{row.name}{suffix}"


def written(details: tuple[Detail, ...], pairs: Mapping[str, str]) -> dict[str, str]:
    """The pairs that say these passes, by key; "" takes a key out. `pairs`: of the text before, which stays as it is where it says the same."""
    before = passes_in(pairs)
    places = [*before, *(suffix for suffix in map(ordinal, range(MOST)) if suffix not in before)]
    said: dict[str, str] = {}
    for suffix, detail in zip(places, details, strict=False):
        old = before.get(suffix)
        for row in ROWS:
            key, text = _key(row, suffix, pairs), row.text(detail)
            said[key] = pairs.get(key, "") if old is not None and text == row.text(old) else text
    gone = [suffix for suffix in before if suffix in places[len(details):]]
    said |= {_key(row, suffix, pairs): "" for suffix in gone for row in ROWS}
    return said | {VERSION_KEY: pairs.get(VERSION_KEY, "" if before else VERSION)}


def chosen(detectors: str, prompt: str, confidence: float, strength: float, pairs: Mapping[str, str]) -> tuple[Detail, ...]:
    """The passes that the panel's four controls and the pairs of the recipe say together.

    `detectors`: names or paths, separated by commas. `prompt`: of the first; that of the second stands behind [2nd], and so on. What has no
    control is as the pairs say; so are confidence and strength from the second pass on.
    """
    known = [*passes_in(pairs).values()]
    prompts = _prompts(prompt)
    found = []
    for number, name in enumerate(names_in(detectors)):
        base = known[number] if number < len(known) else Detail(confidence=confidence, strength=strength)
        if number == 0:
            base = replace(base, confidence=confidence, strength=strength)
        found.append(replace(base, detector=name, prompt=prompts.get(number, "")))
    return tuple(found)


def names_in(detectors: str) -> list[str]:
    """The names or paths of the panel's box."""
    return [name.strip() for name in detectors.split(",") if name.strip()]


def _prompts(text: str) -> dict[int, str]:
    """The prompts of the passes, counted from 0."""
    first, *rest = _PLACE.split(text)
    return {0: first, **{int(number) - 1: prompt for number, prompt in zip(rest[::2], rest[1::2], strict=True)}}


def shown(pairs: Mapping[str, str]) -> dict[str, Any]:
    """What the panel's four controls show of the pairs, by the names that `chosen` has for them; empty where they tell of no pass."""
    passes = [*passes_in(pairs).values()]
    if not passes:
        return {}
    prompts = [f"{f'[{ordinal(number).strip()}] ' if number else ''}{one.prompt}" for number, one in enumerate(passes) if one.prompt]
    return {"detectors": ", ".join(one.detector for one in passes), "prompt": " ".join(prompts),
            "confidence": passes[0].confidence, "strength": passes[0].strength}


def strange(pairs: Mapping[str, str]) -> list[str]:
    """Keys of the extension that say what nbsd does not do."""
    names = {name for row in ROWS for name in (row.name, row.once) if name}
    known = {VERSION_KEY, *(f"{PREFIX}{name}{ordinal(number)}" for name in names for number in range(MOST))}
    return [key for key in pairs if key.startswith(PREFIX) and key not in known]


def unseen(pairs: Mapping[str, str]) -> list[str]:
    """Keys of settings that differ from the usual ones and have no control."""
    found = []
    for number, (suffix, detail) in enumerate(passes_in(pairs).items()):
        for row in ROWS:
            usual = row.field in ("detector", "prompt") or (row.field in SHOWN and not number) or not row.field
            if not usual and getattr(detail, row.field) != getattr(Detail(), row.field):
                found.append(_key(row, suffix, pairs))
    return [*found, *strange(pairs)]
