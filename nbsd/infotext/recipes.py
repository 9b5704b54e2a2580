"""A text in the web UI's format becomes a recipe, and a recipe such a text.

`parse` says what the web UI reads. Here is what nbsd makes of it; where the two differ, this table says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from nbsd.infotext import rules
from nbsd.infotext.keys import ALIASES, DETAILS, KEYS, LAST_FIXED, LAST_OF_A_PASS, Draft, Key, joined_title
from nbsd.infotext.rules import Leftovers, Written
from nbsd.infotext.text import NEGATIVE, Layout, Pair, first_pass_size, hypernetwork_tag, layout, quote, unquote
from nbsd.names import AUTOMATIC, LANCZOS
from nbsd.recipe import Hires, Img2Img, Inpaint, Recipe, Soft

# What the web UI (v1.10.1) gets wrong when it reads its own texts, and what `read` does instead.
DIFFERENCES: tuple[tuple[str, str], ...] = (
    ("a sampler without `Schedule type` in a text of before 1.9 gets its present default (DPM++ 2M: Karras)",
     "it gets what the name meant then: the model's own sigmas, `Uniform`"),
    ("`Beta schedule alpha` and `beta` are written, `Beta scheduler ...` is read", "both are read"),
    ("UniPC's options are read but never written", "`write(recipe, complete=True)` writes them"),
    ("ENSD is written only for some of the samplers that use it", "`write(recipe, complete=True)` writes it for all"),
    ("a hires fix of before 1.6 by PLMS or UniPC has a second pass by the same sampler", "it has one by DDIM, as then"),
    ("a text without `Version` gets none of the old behaviours", "it is older than all of them (`rules.BEHAVIOURS`)"),
    ("names that it does not know become the first sampler and `Automatic`", "they are kept; other names of a sampler are understood"),
    ("`Model`, `VAE hash` and everything that it has no control for are dropped", "they are kept, in `Recipe.unknown` if nowhere else"),
    ("settings without a key (old emphasis, resize mode, ...) are lost", "`write(recipe, complete=True)` has keys for them"),
    ("a value that is JSON (`Hashes`, `Civitai resources`) ends at its first comma, and what looks like a key in it is one",
     "it stays whole"),
    ("NovelAI's braces stay as literal text", "`Dialect: novelai` says how the prompts are spelled"),
)

_ROWS = {**{row.key: row for row in KEYS}, **{alias: row for row in KEYS for alias, key in ALIASES.items() if row.key == key}}
_PARTS = ("hires", "inpaint", "img2img")
_SAME = ("Use same sampler", "Use same scheduler", "Use same checkpoint")
_OTHERS = ""        # the place of keys that have none


def read(text: str) -> Recipe:
    """The recipe that a text describes. Any text is understood: what is no parameter is prompt, what is unknown is kept."""
    parts = layout(text, whole_json=_is_strange)
    draft, unknown = _drafted(parts)
    recipe = _built(draft, parts, {pair.key: unquote(pair.value) for pair in parts.pairs})
    kept = Leftovers(unknown, parts.head, parts.line, (Written(pair.key, pair.raw) for pair in parts.pairs))
    recipe = replace(recipe, unknown=kept)
    kept.prompts = recipe.prompt, recipe.negative_prompt
    kept.meant = {row.key: row.get(recipe) for row in KEYS}
    return recipe


def write(recipe: Recipe, complete: bool = False) -> str:
    """The text for a recipe: exactly the one that the web UI of its version writes.

    A recipe that was read gives the same text again, but for what has been changed since. `complete` adds what the web UI leaves
    out: with it, `read` gives the same picture's recipe back.
    """
    kept = recipe.unknown
    pairs = list(_changed(recipe, kept) if isinstance(kept, Leftovers) else _fresh(recipe, complete))
    tags = _tags({key: unquote(raw) for key, raw in kept})
    if isinstance(kept, Leftovers) and kept.prompts == (recipe.prompt, recipe.negative_prompt):
        head = kept.head
    else:
        if not recipe.prompt.endswith(tags):        # the network was taken out of the prompt: nor does its key hold any more
            pairs = [(key, value) for key, value in pairs if not key.startswith(("Hypernet", "AddNet "))]
            tags = ""
        negative = f"\n{NEGATIVE} {recipe.negative_prompt}" if recipe.negative_prompt else ""
        head = recipe.prompt.removesuffix(tags) + negative
    line = kept.line if isinstance(kept, Leftovers) and pairs == list(kept.written) else ""
    return f"{head}\n{line or ', '.join(f'{key}: {value}' for key, value in pairs)}".strip()


# Reading


def _drafted(parts: Layout) -> tuple[Draft, list[tuple[str, str]]]:
    """The fields that the pairs stand for, and the pairs that stand for none."""
    draft: Draft = {}
    unknown: list[tuple[str, str]] = []
    second_pass = any(pair.key.startswith("Hires ") for pair in parts.pairs)
    for pair in parts.pairs:
        row = _ROWS.get(pair.key)
        value = unquote(pair.value)
        try:
            if row is None or not row.paths or (second_pass and row.paths[0].startswith("img2img.")):
                raise ValueError(pair.key)
            row.put(draft, "" if value in _SAME else value)
        except ValueError:
            unknown.append((pair.key, pair.raw))
    return draft, unknown


def _is_strange(key: str) -> bool:
    """Whether a key stands for no field of a recipe."""
    return key not in _ROWS or not _ROWS[key].paths


def _built(draft: Draft, parts: Layout, pairs: dict[str, str]) -> Recipe:
    for path in ("model", "vae"):
        joined_title(draft, path)
    hires = {path for path in draft if path.startswith("hires.")}
    shared: dict[str, Any] = {name: draft.pop(name) for name in ("denoising_strength", "extra_noise") if name in draft}
    if not hires and "First pass size" not in pairs:
        draft.update({f"img2img.{name}": found for name, found in shared.items()})
    version = draft.get("version", "")
    if "sampler" in draft:
        draft["sampler"], draft["schedule"] = rules.sampler_and_schedule(draft["sampler"], draft.get("schedule"), version)
    elif "schedule" in draft:
        draft["schedule"] = rules.find_schedule(draft["schedule"]) or draft["schedule"]
    if draft.get("hires.sampler"):
        draft["hires.sampler"], ending = rules.split_name(draft["hires.sampler"])
        draft["hires.schedule"] = draft.get("hires.schedule") or ending or ""
    pads = {mode: draft.pop(f"pad_conds.{mode}") for mode in ("on", "v0") if f"pad_conds.{mode}" in draft}
    plain = {path: value for path, value in draft.items() if "." not in path}
    recipe = Recipe(**{**plain, "version": version, "prompt": parts.prompt + _tags(pairs), "negative_prompt": parts.negative})
    implied = rules.implied(recipe)
    recipe = replace(recipe, **{field: value for field, value in implied.items() if field not in plain})
    recipe = replace(recipe, pad_conds=_pad_conds(pads, recipe.pad_conds))
    made: dict[str, Any] = {
        "hires": Hires(**_part(draft, "hires."), **shared) if hires else None,
        "inpaint": _inpaint(draft),
        "img2img": Img2Img(**_part(draft, "img2img.")) if any(path.startswith(("img2img.", "inpaint")) for path in draft) else None,
    }
    recipe = replace(recipe, **made)
    if recipe.hires and rules.goes_on_with_ddim(recipe) and not recipe.hires.sampler:
        recipe = replace(recipe, hires=replace(recipe.hires, sampler="DDIM"))
    if recipe.hires and not recipe.hires.schedule and rules.hires_inherits_default(recipe):
        recipe = replace(recipe, hires=replace(recipe.hires, schedule=AUTOMATIC))
    return _with_first_pass(recipe, pairs, shared)


def _part(draft: Draft, prefix: str) -> dict[str, Any]:
    return {path.removeprefix(prefix): value for path, value in draft.items() if path.startswith(prefix) and "." not in path[len(prefix):]}


def _inpaint(draft: Draft) -> Inpaint | None:
    plain = _part(draft, "inpaint.")
    soft = plain.pop("soft", None)
    details = _part(draft, "inpaint.soft.")
    if not plain and not details and soft is None:
        return None
    if {"invert", "fill", "only_masked", "padding"}.intersection(plain):    # then a blur is said, too, unless there is none
        plain.setdefault("mask_blur", 0)
    return Inpaint(**plain, soft=Soft(**details) if soft or details else None)


def _pad_conds(pads: dict[str, bool], implied: str) -> str:
    if pads.get("on"):
        return "on"
    return "v0" if pads.get("v0", implied == "v0") else "off"


def _with_first_pass(recipe: Recipe, pairs: dict[str, str], shared: dict[str, Any]) -> Recipe:
    """Until the end of 2022, `Size` was the size of the second pass, `First pass size` that of the first (0x0: found by the web UI)."""
    first, cross, second = pairs.get("First pass size", "").partition("x")
    if not (cross and first.isascii() and second.isascii() and first.isdigit() and second.isdigit() and len(first + second) < 18):
        return recipe
    width, height = int(first), int(second)
    if not (width and height):
        if not (recipe.width and recipe.height):
            return recipe
        width, height = first_pass_size(recipe.width, recipe.height)
    # The setting that enlarged the latents was off by default: pictures were, by Lanczos
    hires = replace(recipe.hires or Hires(upscaler=LANCZOS, **shared), width=recipe.width, height=recipe.height)
    return replace(recipe, hires=hires, width=width, height=height)


def _tags(pairs: dict[str, str]) -> str:
    """The networks that old texts name in keys, as the tags that stand for them in a prompt."""
    tags = hypernetwork_tag(pairs)
    added = []
    for key, name in pairs.items():
        number = key.removeprefix("AddNet Model ")
        if number != key and pairs.get(f"AddNet Module {number}") == "LoRA":
            added.append(f"<lora:{split_hash(name)}:{pairs.get(f'AddNet Weight A {number}', '1.0')}>")
    return tags + ("\n" + "".join(added) if added else "")


def split_hash(name: str) -> str:
    """A name as the Additional Networks extension writes it, without the hash in brackets behind it.

    >>> split_hash("ink(0123456789ab)")
    'ink'
    """
    bare, bracket, digest = name.rpartition("(")
    is_hash = digest.endswith(")") and len(digest) > 1 and not digest[:-1].strip("0123456789abcdefABCDEF")
    return bare.rstrip() if bracket and is_hash else name


# Writing


def _bare(recipe: Recipe) -> Recipe:
    """The recipe that a text means which says nothing but what this one's is."""
    inpaint = recipe.inpaint and Inpaint(soft=recipe.inpaint.soft and Soft())
    parts: dict[str, Any] = {"hires": recipe.hires and Hires(), "img2img": recipe.img2img and Img2Img(), "inpaint": inpaint}
    return Recipe(version=recipe.version, **rules.implied(recipe), **parts)


def _fresh(recipe: Recipe, complete: bool) -> Iterator[tuple[str, str]]:
    """The pairs of a recipe that was not read from a text."""
    bare = _bare(recipe)
    unknown: dict[str, str] = {}
    for key, raw in recipe.unknown:
        unknown[key] = _readable(key, raw)
    fixed = {row.key for row in KEYS[: KEYS.index(_ROWS[LAST_FIXED]) + 1]}
    details = [key for key in unknown if key.startswith(DETAILS)]
    others = [key for key in unknown if key not in details and (key not in _ROWS or (_ROWS[key].paths and key not in fixed))]
    for row in _in_order(recipe):
        now, usual = row.get(recipe), row.get(bare)
        if row.key == _OTHERS:
            yield from ((key, unknown[key]) for key in others)
        elif row.key == DETAILS:
            yield from ((key, unknown[key]) for key in details)
        elif row.key in unknown and now == usual:
            if row.key not in others:
                yield row.key, unknown[row.key]
        elif now is not None and (row.said(recipe) or (complete and now != usual)):
            yield row.key, str(quote(now))


def _in_order(recipe: Recipe) -> list[Key]:
    """The rows in the order in which they are written; Eta has moved since 2022."""
    late = [row for row in KEYS if recipe.hires and row.late(recipe)]
    rows = [row for row in KEYS if row not in late]
    end = rows.index(_ROWS[LAST_OF_A_PASS]) + 1
    rows[end:end] = late
    if not recipe.version:
        rows.remove(_ROWS["Eta"])
        rows.insert(rows.index(_ROWS["Clip skip"]), _ROWS["Eta"])
    return rows


def _changed(recipe: Recipe, known: Leftovers) -> Iterator[tuple[str, str]]:
    """The pairs of a recipe that was read: as they were, but for what has changed; new ones after those that they follow in KEYS."""
    bare = _bare(recipe)
    now = {row.key: row.get(recipe) for row in KEYS}
    there = {_ROWS[pair.key].key for pair in known.written if pair.key in _ROWS}
    new: dict[str, list[str]] = {}
    before = ""
    for row in KEYS:
        if row.key in there:
            before = row.key
        elif now[row.key] is not None and _is_news(row, recipe, bare, known) and _matters(row, recipe, bare, known):
            new.setdefault(before, []).append(row.key)

    def added(after: str) -> Iterator[tuple[str, str]]:
        return ((key, str(quote(now[key]))) for key in new.pop(after, ()))

    yield from added("")
    for pair in known.written:
        key = _ROWS[pair.key].key if pair.key in _ROWS else pair.key
        if key not in now or _same(now[key], known.meant[key]):
            yield pair.key, pair.raw
        elif now[key] is not None and (_ROWS[key].said(recipe) or now[key] != _ROWS[key].get(bare)):
            yield pair.key, str(quote(now[key]))
        yield from added(key)


def _is_news(row: Key, recipe: Recipe, bare: Recipe, known: Leftovers) -> bool:
    """Whether a value is another than the text meant, or than it would mean by now: another model's hash can tell another age."""
    implied = bool(rules.IMPLIED.intersection(row.paths))
    return row.get(recipe) != (row.get(bare) if implied else known.meant.get(row.key))


def _matters(row: Key, recipe: Recipe, bare: Recipe, known: Leftovers) -> bool:
    """Whether a value has to be said that the text did not say: not the defaults of a part that is new."""
    return row.said(recipe) or known.meant[row.key] is not None or row.get(recipe) != row.get(bare)


def _same(now: str | None, before: str | None) -> bool:
    """Whether a value is unchanged. 12 is 12.0: a control of the panel may have made one of the other."""
    if now is None or before is None or now == before:
        return now == before
    try:
        return float(now) == float(before)
    except ValueError:
        return False


def _readable(key: str, raw: str) -> str:
    """The text of an unknown key as it has to be written: quoted, unless it is so already or is JSON that reads back as itself."""
    if unquote(raw) != raw:
        return raw
    pairs = layout(f"\naa: 0, bb: 0, {key}: {raw}", whole_json=_is_strange).pairs if raw[:1] in ("[", "{") else []
    return raw if pairs[2:] and pairs[2:] == [Pair(key, pairs[2].value, raw)] else str(quote(raw))
