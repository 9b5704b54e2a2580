"""Will this recipe give the picture it came from? A report on a pasted recipe, before anything is made. Standard library only.

What the web UI never wrote: the settings of A1111 v1.10.1 that change a picture and have no infotext key (`UNWRITTEN`).
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from nbsd.infotext import KEYS, rules, unquote
from nbsd.infotext.rules import Leftovers
from nbsd.names import AUTOMATIC, IMAGE_UPSCALERS, LATENT_UPSCALERS, SAMPLER_FACTS, UPSCALER_FILES
from nbsd.prompt.networks import split_networks, strip_comments
from nbsd.prompt.schedule import and_parts, prompt_schedule
from nbsd.prompt.weights import DIALECTS
from nbsd.recipe import OF_2022, Recipe, split_title

# Kinds of files, as `models.detect` names them, with the words of a sentence.
CHECKPOINT, VAE, LORA, HYPERNETWORK, EMBEDDING, UPSCALER = "checkpoint", "vae", "lora", "hypernetwork", "embedding", "upscaler"
WORDS = {CHECKPOINT: "model", VAE: "VAE", LORA: "LoRA", HYPERNETWORK: "hypernetwork", EMBEDDING: "embedding", UPSCALER: "upscaler"}
TAGS = {"lora": LORA, "lyco": LORA, "hypernet": HYPERNETWORK}       # what stands before the colon in <lora:name:1>
ALWAYS_THERE = frozenset({"none", "automatic", "auto"})             # names of a VAE that are none
OLD = 8                     # digits of a model's hash before 2023
CHUNK = 75                  # tokens of a prompt that the text encoder reads at once
TOKENS_A_WORD = 1.5         # of CLIP's vocabulary in usual prompts; rough
# Keys without a field that do not change the picture, or whose meaning is in the recipe in another way.
SILENT = frozenset({
    "Lora hashes", "TI hashes", "Hypernet", "Hypernet strength", "Hypernet hash", "Batch size", "Batch pos", "First pass size",
    "Init image hash", "User", "NovelAI source", "Max tokens", "Model VAE", "Model hypernetwork",
})  # fmt: skip
NUMBERS = ("The web UI ran with a precision and an attention routine of its own (xformers, half, upcast): details may differ a little.")

_PIECE = re.compile(r"\w+|[^\w\s]")
_HASHED = re.compile(r"\s*([^:,]+):\s*([0-9a-fA-F]+)")      # name: hash, as "Lora hashes" and "TI hashes" list them


class Files(Protocol):
    """The user's files."""

    def find_by_title(self, title: str, kind: str) -> Path | None:
        """The file of a name, a hash or "name [hash]"; None where there is none. `kind`: a key of WORDS."""


@dataclass(frozen=True)
class Row:
    """A file that is here."""

    kind: str                       # a key of WORDS
    path: Path
    digests: tuple[str, ...] = ()   # those of its hashes that are known: 64 digits of SHA-256, the 8 of before 2023
    body: str = ""                  # SHA-256 of what lies behind its header, which names LoRAs; empty where it is not known

    def says(self, digest: str) -> bool | None:
        """Whether it has this hash; None where that kind was never computed."""
        known = [one for one in self.digests if one and (len(one) == OLD) == (len(digest) == OLD)]
        if any(one.startswith(digest) for one in (*known, self.body) if one):
            return True
        bare = self.kind == LORA and self.path.suffix.lower() == ".safetensors" and len(digest) != OLD
        return False if (self.body if bare else known) else None


class Listed:
    """Files in a list, found without reading any: `Files` for a panel that must not wait for hashes."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = list(rows)

    def find_by_title(self, title: str, kind: str) -> Path | None:
        """By name, where a known hash does not speak against it, else by a known hash."""
        name, digest = split_title(title)
        rows = [row for row in self._rows if row.kind == kind]
        named = [row for row in rows if name and name.casefold() in (row.path.name.casefold(), row.path.stem.casefold())]
        hashed = [row for row in rows if digest and row.says(digest)]
        fits = [row for row in named if not digest or row.says(digest) is not False]
        return next((row.path for row in (*fits, *hashed)), None)


@dataclass(frozen=True)
class File:
    """A file that a recipe names."""

    kind: str                       # a key of WORDS
    title: str                      # as the recipe names it
    path: Path | None = None        # where it is; None: not here
    namesake: Path | None = None    # a file of that name with another hash; the same as `path` where it is used all the same


@dataclass(frozen=True)
class Match:
    """What will be as in the original picture, and what will not."""

    honoured: tuple[str, ...]           # keys that are understood and used
    unknown: tuple[str, ...]            # keys that are kept without effect though they may change the picture
    files: tuple[File, ...]             # every file that is named
    problems: tuple[str, ...]           # what nbsd cannot do, a sentence each
    old: tuple[str, ...]                # behaviours of an older version that are switched on
    unwritten: tuple[str, ...]          # what the web UI never wrote and could differ, a sentence each

    @property
    def missing(self) -> tuple[File, ...]:
        """The files that are not here."""
        return tuple(file for file in self.files if file.path is None)

    @property
    def complete(self) -> bool:
        """Whether everything that the text says can be done here. What it does not say (`unwritten`) may still differ."""
        return not (self.unknown or self.missing or self.problems or any(file.namesake for file in self.files))

    @property
    def text(self) -> str:
        """Short plain sentences, a line each."""
        return "\n".join(_sentences(self))

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return "<br>".join(html.escape(line) for line in _sentences(self))


def report(recipe: Recipe, files: Files | None = None, problems: Sequence[str] = (), done: Container[str] = ()) -> Match:
    """Compare what a recipe asks for with what is here.

    `files`: without it, no file is looked for and none is called missing. `problems`: what `pipeline.check.problems` says of it.
    `done`: keys that stand for no field of a recipe and yet have their effect where it is made.
    """
    keys = written(recipe)
    unknown = [key for key, _ in recipe.unknown]
    honoured = [key for key in keys if key not in unknown] if keys is not None else _changed_keys(recipe)
    return Match(
        honoured=tuple(dict.fromkeys(honoured)),
        unknown=tuple(dict.fromkeys(key for key in unknown if key not in SILENT and key not in done and not key.startswith("AddNet "))),
        files=tuple(_located(file, files) for file in named_files(recipe)) if files else (),
        problems=tuple(problems),
        old=tuple(_old(recipe)),
        unwritten=(*(row.sentence for row in UNWRITTEN if row.matters(recipe) and not (keys and row.key in keys)), NUMBERS),
    )


# What a recipe says and uses; `pipeline.reproduce` asks the same


def written(recipe: Recipe) -> tuple[str, ...] | None:
    """The keys of the text that a recipe was read from; None where it was read from none."""
    return tuple(pair.key for pair in recipe.unknown.written) if isinstance(recipe.unknown, Leftovers) else None


def draws_noise(recipe: Recipe) -> bool:
    """Whether a sampler draws noise after the start from the generators that ENSD seeds anew."""
    return any(map(_draws_noise, rules.passes(recipe)))


def _draws_noise(recipe: Recipe) -> bool:
    if recipe.steps < 2:
        return False
    row = rules.facts(recipe)
    if recipe.sampler in ("Restart", "LCM"):
        return True
    if "s_churn" in row.sigma_options:
        return recipe.s_churn > 0
    return bool(row.uses_eta) and not row.brownian and getattr(recipe, row.uses_eta) > 0


def uses_emphasis(recipe: Recipe) -> bool:
    """Whether a word of a prompt has a weight of its own."""
    parse = DIALECTS.get(recipe.dialect, DIALECTS["webui"])
    return any(span.weight != 1.0 and span.text != "BREAK" for text in encoded_texts(recipe) for span in parse(text))


def runs_karras(recipe: Recipe) -> bool:
    """Whether the noise levels are Karras', in one of the passes."""
    return any(not rules.facts(one).timesteps and rules.label(one.sampler, one.schedule) == "Karras" for one in rules.passes(recipe))


def timelines_differ(recipe: Recipe) -> bool:
    """Whether the prompts change at other steps under the rules of before 1.6."""
    calls = _calls(recipe)
    return recipe.dialect == "webui" and any(
        prompt_schedule(text, calls) != prompt_schedule(text, calls, old_timelines=True) for text in _texts(recipe))


def encoded_texts(recipe: Recipe) -> Iterator[str]:
    """Every text that the text encoder reads for the two prompts."""
    if recipe.dialect != "webui":
        yield from _texts(recipe)
        return
    prompt, negative = _texts(recipe)
    for text in (*(part.text for part in and_parts(prompt)), negative):
        yield from (one for _, one in prompt_schedule(text, _calls(recipe), old_timelines=recipe.old_prompt_timelines))


def _texts(recipe: Recipe) -> tuple[str, str]:
    return split_networks(strip_comments(recipe.prompt))[0], strip_comments(recipe.negative_prompt)


def _calls(recipe: Recipe) -> int:
    twice = rules.facts(recipe).second_order and recipe.rules != OF_2022
    return recipe.steps * (2 if twice else 1)


# What the web UI never wrote


@dataclass(frozen=True)
class Unwritten:
    """A setting that changes pictures and has no key."""

    key: str                                # nbsd's own key for it, "" where it has none
    sentence: str
    matters: Callable[[Recipe], bool]       # to this recipe's picture


def _long(recipe: Recipe) -> bool:
    texts = [text for text in encoded_texts(recipe) if "," in text]
    return any(len(_PIECE.findall(text)) * TOKENS_A_WORD > CHUNK for text in texts)


def _ensd_unsaid(recipe: Recipe) -> bool:
    """Before 1.6 it was written for every sampler, since then only for some of those that use it."""
    return draws_noise(recipe) and not rules.says_ensd(replace(recipe, ensd=1)) and not rules.is_before(recipe.version, "1.6.0")


def _between_steps(recipe: Recipe) -> bool:
    """Whether the noise levels lie between the model's own, so that rounding to them changes something."""
    return any(
        not rules.facts(one).timesteps and rules.label(one.sampler, one.schedule) not in ("Simple", "DDIM") and one.sampler != "LCM"
        for one in rules.passes(recipe))


def _has(kind: str) -> Callable[[Recipe], bool]:
    return lambda recipe: any(TAGS.get(network.kind) == kind for network in split_networks(recipe.prompt)[1])


def _has_key(key: str) -> Callable[[Recipe], bool]:
    return lambda recipe: any(known == key for known, _ in recipe.unknown)


UNWRITTEN: tuple[Unwritten, ...] = (
    Unwritten("ENSD", "ENSD (eta noise seed delta) is not written for this sampler though it uses it: 0 is assumed, 31337 is common.",
              _ensd_unsaid),
    Unwritten("Old Karras sigmas", "Karras sigmas may have been the old ones, from 0.1 to 10 (until October 2022).",
              lambda recipe: runs_karras(recipe) and not recipe.old_karras),
    Unwritten("Old emphasis", "The old emphasis implementation may have been switched on.", uses_emphasis),
    Unwritten("Quantize timesteps", "Quantization in K samplers may have been switched on.", _between_steps),
    Unwritten("Prompt wrap limit", "A prompt may be longer than 75 tokens: where it is cut depends on the word wrap limit, taken as 20.",
              _long),
    Unwritten("", "Comments in the prompt may have been switched off, so that # was text.",
              lambda recipe: "#" in recipe.prompt + recipe.negative_prompt),
    Unwritten("UniPC order", "UniPC's options are not written: variant bh1, order 3 are assumed.",
              lambda recipe: any(one.sampler == "UniPC" for one in rules.passes(recipe))),
    Unwritten("", "In a batch of the web UI an SDE sampler could draw one noise for all pictures.",
              lambda recipe: any(rules.facts(one).brownian for one in rules.passes(recipe))),
    Unwritten("", "LoRAs may have been added by the old method (lora_functional).", _has(LORA)),
    Unwritten("Color correction", "Colour correction after img2img may have been on.", lambda recipe: recipe.img2img is not None),
    Unwritten("Exact steps", "img2img may have made exactly the steps given.", lambda recipe: recipe.img2img is not None),
    Unwritten("Resize mode", "How the given picture was resized is not written.", lambda recipe: recipe.img2img is not None),
    Unwritten("Overlay original", "The original may not have been laid over the result of inpainting.",
              lambda recipe: recipe.inpaint is not None),
    Unwritten("", "The second pass may have run with the first pass's prompts, or in the old size.",
              lambda recipe: recipe.hires is not None),
    Unwritten("", "Which model restored faces, and how strongly, is not written in full.", _has_key("Face restoration")),
)  # fmt: skip


# Files


def network_hashes(recipe: Recipe) -> dict[str, str]:
    """Name in the prompt -> hash, as "Lora hashes" says."""
    said = {key: unquote(raw) for key, raw in recipe.unknown}.get("Lora hashes", "")
    return {name.strip(): digest.lower() for name, digest in _HASHED.findall(said)}


def hypernetwork_hash(recipe: Recipe) -> dict[str, str]:
    """Name in the prompt -> hash of the one hypernetwork that texts of 2022 name in keys; empty where they say no hash."""
    said = {key: unquote(raw) for key, raw in recipe.unknown}
    name, digest = said.get("Hypernet", "").strip(), said.get("Hypernet hash", "").strip().lower()
    return {name: digest} if name and digest and not set(digest) - set("0123456789abcdef") else {}


def named_files(recipe: Recipe) -> list[File]:
    """Every file that a recipe names: its models, the networks and embeddings of its prompts, the upscaler of its hires fix."""
    keys = {key: unquote(raw) for key, raw in recipe.unknown}
    found = [File(CHECKPOINT, title) for title in (
        recipe.model, recipe.text_encoder, recipe.hires and recipe.hires.model, keys.get("Refiner")) if title]
    if recipe.vae and recipe.vae.casefold() not in ALWAYS_THERE:
        found.append(File(VAE, recipe.vae))
    hashes = network_hashes(recipe), hypernetwork_hash(recipe)
    second = recipe.hires.prompt if recipe.hires else ""
    for network in (*split_networks(recipe.prompt)[1], *split_networks(second)[1]):
        if network.kind in TAGS and network.args and network.args[0].strip():
            name, kind = network.args[0].strip(), TAGS[network.kind]
            digest = hashes[kind == HYPERNETWORK].get(name)
            found.append(File(kind, f"{name} [{digest}]" if digest else name))
    found += [File(EMBEDDING, f"{name.strip()} [{digest}]") for name, digest in _HASHED.findall(keys.get("TI hashes", ""))]
    if recipe.hires and recipe.hires.upscaler not in ("", *LATENT_UPSCALERS, *IMAGE_UPSCALERS):
        found.append(File(UPSCALER, recipe.hires.upscaler))
    return list(dict.fromkeys(found))


def _located(file: File, files: Files) -> File:
    """Of networks and embeddings the name is enough where their hash was not computed yet."""
    name, _ = split_title(file.title)
    stems = UPSCALER_FILES[file.title].stems if file.kind == UPSCALER and file.title in UPSCALER_FILES else ()
    if path := next(filter(None, (files.find_by_title(title, file.kind) for title in (*stems, file.title))), None):
        return File(file.kind, file.title, path)
    namesake = files.find_by_title(name, file.kind) if name and name != file.title else None
    if namesake and file.kind in (LORA, HYPERNETWORK, EMBEDDING):     # the web UI goes by the name
        return File(file.kind, file.title, namesake, namesake)
    return File(file.kind, file.title, None, namesake)


# Sentences


def _sentences(match: Match) -> Iterator[str]:
    count = len(match.honoured)     # without a text, the fields that differ from a new recipe
    yield f"{count} setting{'' if count == 1 else 's'} honoured{': ' + ', '.join(match.honoured) if count else ''}."
    if match.unknown:
        yield f"Without effect: {', '.join(match.unknown)}."
    for file in match.files:
        if sentence := _file_sentence(file):
            yield sentence
    if match.problems:
        yield f"This cannot be made yet: {'; '.join(match.problems)}."
    if match.old:
        yield f"The text is from an older version, so this is as it was then: {', '.join(match.old)}."
    yield from match.unwritten


def _file_sentence(file: File) -> str:
    """Nothing to say of a file that is here under its own name."""
    what, (name, _) = f"{WORDS[file.kind]} {file.title}", split_title(file.title)
    if file.path is None:
        other = f"; {file.namesake.name} has that name and another hash" if file.namesake else ""
        if file.kind == UPSCALER and (known := UPSCALER_FILES.get(file.title)):
            other = f", the file {known.stems[-1]}.pth" + f" of {known.link}" * bool(known.link)
        return f"Missing here: {what}{other}."
    if file.namesake:
        return f"The {WORDS[file.kind]} {file.path.name} here has another hash than the recipe's: it is used, and the picture may differ."
    same = {file.path.name.casefold(), file.path.stem.casefold(), str(file.path).casefold()}
    return "" if name.casefold() in same else f"The {what} is {file.path.name} here."


OLD_WORDS = {
    "old_prompt_timelines": "old prompt editing timelines", "pad_conds": "prompts padded as before 1.6",
    "downcast_alphas": "noise schedule rounded to float16", "rules": "sampling as in October 2022",
    "old_karras": "Karras sigmas from 0.1 to 10",
}  # fmt: skip


def _old(recipe: Recipe) -> Iterator[str]:
    for field, value in rules.implied(recipe).items():
        if getattr(recipe, field, None) == value and (field != "old_prompt_timelines" or timelines_differ(recipe)):
            yield OLD_WORDS.get(field, field)
    row = SAMPLER_FACTS.get(recipe.sampler)
    if rules.is_before(recipe.version, rules.SEPARATE_SCHEDULE) and row and row.schedule != AUTOMATIC and recipe.schedule == rules.UNIFORM:
        yield f"{recipe.sampler} on the model's own sigmas"


def _changed_keys(recipe: Recipe) -> list[str]:
    """The keys of the fields that differ from a new recipe's, for one that was not read from a text."""
    usual = Recipe()
    return [row.key for row in KEYS if row.paths and row.get(recipe) not in (None, row.get(usual))]
