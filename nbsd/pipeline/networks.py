"""The networks that a prompt asks for (<lora:name:0.8>, <hypernet:name:1>): found, read once, and at work for the length of a block."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nbsd.errors import ModelError, RecipeError, WrongFamilyError
from nbsd.events import Event, Note
from nbsd.match import hypernetwork_hash, network_hashes
from nbsd.models import hashes
from nbsd.models.detect import HYPERNETWORK, LORA
from nbsd.models.hypernetworks import Hypernetwork, acting, acts_on, read_hypernetwork
from nbsd.models.lora import (
    Layer,
    Lora,
    Place,
    fit,
    left_family,
    places,
    read_lora,
)
from nbsd.models.patch import Change, patched
from nbsd.models.store import Entry, Store
from nbsd.models.weights import open_weights
from nbsd.pipeline.asked import Asked, asked_for
from nbsd.pipeline.texts import UNSAID
from nbsd.recipe import Recipe

if TYPE_CHECKING:
    from nbsd.models.load import Checkpoint

REMEMBERED = 8          # files kept in memory
WORDS = {LORA: "LoRA", HYPERNETWORK: "hypernetwork"}
NO_NAME = "None"        # ss_output_name of files whose training had no name for them


class Fitted(NamedTuple):
    """A LoRA and how strongly it works."""

    layers: Sequence[tuple[Place, Layer]]
    asked: Asked


@dataclass
class Prepared:
    """The networks of one recipe, ready to work on one model."""

    checkpoint: Checkpoint
    loras: list[Fitted] = field(default_factory=list)
    hypernetworks: list[tuple[Hypernetwork, float]] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)    # name in the prompt -> first 12 digits, of LoRAs
    hypernetwork_hash: str = ""                             # of the one whose hash the recipe says, in as many digits
    text_key: tuple[object, ...] = ()                       # equal where texts are encoded alike

    @property
    def signature(self) -> str:
        """What "Lora hashes" says of them in an infotext."""
        return ", ".join(f"{name.translate(UNSAID)}: {digest}" for name, digest in self.hashes.items())

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """The model with these networks for the length of the block; without them again after it, bit for bit."""
        unet = self.checkpoint.unet
        with ExitStack() as stack:
            stack.enter_context(patched(unet, self._changes("unet")))
            for number, encoder in enumerate(self.checkpoint.text_encoders):
                stack.enter_context(patched(encoder, self._changes(f"te{number}")))
            stack.enter_context(acting(unet, self.hypernetworks))
            yield

    def _changes(self, part: str) -> dict[str, list[Change]]:
        """The changes of each weight of a part, in the order of the prompt."""
        changes: dict[str, list[Change]] = {}
        for layers, asked in self.loras:
            strength = asked.unet if part == "unet" else asked.strength
            if not strength:
                continue
            for place, layer in layers:
                if place.part != part:
                    continue
                if layer.kind is not None:
                    change = partial(layer.change, strength=strength, ranks=asked.ranks)
                    changes.setdefault(f"{place.name}.weight", []).append(change)
                if "bias" in layer.given:
                    changes.setdefault(f"{place.name}.bias", []).append(partial(layer.bias_change, strength=strength))
        return changes


class Networks:
    """The files of LoRAs and hypernetworks in some folders."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._read: OrderedDict[tuple[str, Path, int, int], Any] = OrderedDict()

    @property
    def folders(self) -> list[Path]:
        return self._store.folders

    def prepare(self, checkpoint: Checkpoint, recipe: Recipe, report: Callable[[Event], None]) -> Prepared:
        """Find and read what the recipe's prompt asks for, and tell what fits only in part.

        Raises RecipeError where there is no such file, ModelError for a bad file, WrongFamilyError for one of another family.
        """
        prepared = Prepared(checkpoint)
        asked = asked_for(recipe.prompt)
        loras, said = [one for one in asked if one.kind == LORA], network_hashes(recipe)
        known = _places(checkpoint) if loras else {}
        key = []
        for one in loras:
            # Why: the web UI has one object for a name, so of two strengths for it the last one counts, each time.
            one = next(other for other in reversed(loras) if other.name == one.name)
            path = self._find(one, said.get(one.name, ""))
            lora = self._kept(LORA, path, read_lora)
            first = one.name not in prepared.hashes
            prepared.loras.append(Fitted(self._fitted(lora, one, known, checkpoint, report if first else _quiet), one))
            prepared.hashes[one.name] = _digest(path)
            key.append((_version(path), one.strength, one.ranks))
        said = hypernetwork_hash(recipe)
        for one in asked:
            if one.kind == HYPERNETWORK:
                digest = said.get(one.name, "")
                path = self._find(one, digest)
                hypernetwork = self._kept(HYPERNETWORK, path, read_hypernetwork)
                if not acts_on(checkpoint.unet, hypernetwork):
                    raise WrongFamilyError(f"the hypernetwork '{one.name}' fits no attention of {checkpoint.name}: take {one.tag} out")
                prepared.hypernetworks.append((hypernetwork, one.strength))
                if digest:      # today's web UI writes none; a text of 2022 that has one says that of the file which was used
                    prepared.hypernetwork_hash = hashes.old_hash(path) if len(digest) == hashes.OLD else hashes.sha256(path)[: len(digest)]
        prepared.text_key = tuple(key)
        return prepared

    def _fitted(
        self, lora: Lora, asked: Asked, known: dict[str, Place], checkpoint: Checkpoint, report: Callable[[Event], None]
    ) -> list[tuple[Place, Layer]]:
        family = checkpoint.family.name
        matched, left = fit(lora, known)
        if (lora.family and lora.family != family) or not matched:
            whose = f"is for {lora.family}" if lora.family and lora.family != family else f"fits no layer of {checkpoint.name}"
            raise WrongFamilyError(
                f"LoRA '{asked.name}' {whose}, the model is {family}: pick a model that it was made for or remove {asked.tag}"
            )
        if left:
            report(Note(
                f"LoRA '{asked.name}': applied {len(matched)} of {len(lora.layers)} layers, the rest {_whose(lora, left, checkpoint)} "
                f"(e.g. {', '.join(sorted(left)[:2])})."
            ))
        return matched

    def _kept(self, kind: str, path: Path, read: Callable[[Path], Any]) -> Any:
        """A file's contents, read once."""
        key = (kind, *_version(path))
        if key not in self._read:
            self._read[key] = read(path)
            while len(self._read) > REMEMBERED:
                self._read.popitem(last=False)
        self._read.move_to_end(key)
        return self._read[key]

    def _find(self, asked: Asked, digest: str = "") -> Path:
        """The file of a name: its own, with or without ending and folder, or for a LoRA the one that its trainer gave it. Where there is
        none of that name, the file whose hash the recipe says."""
        entries = [entry for entry in self._store.scan() if entry.kind == asked.kind]
        wanted = asked.name.replace("\\", "/")
        named = [entry for entry in entries if _is_called(entry, wanted)] or [
            entry for entry in entries if _is_called(entry, wanted, fold=True)
        ]
        if not named and asked.kind == LORA:
            named = [entry for entry in entries if _trained_as(entry.path) == asked.name]
        if named:
            return min(named, key=lambda entry: entry.path.suffix != ".safetensors").path
        if digest:
            with suppress(ModelError):
                return self._store.find(digest, asked.kind)
        word = WORDS[asked.kind]
        where = " or ".join(f"'{folder}'" for folder in self._store.folders) or "any folder (none was given)"
        near = get_close_matches(asked.name, [entry.path.stem for entry in entries], n=3, cutoff=0.4)
        hint = f" (there is {' and '.join(repr(name) for name in near)})" if near else ""
        raise RecipeError(f"no {word} called '{asked.name}' is in {where}{hint}: put it there or take {asked.tag} out")


def _places(checkpoint: Checkpoint) -> dict[str, Place]:
    names = [part.loras for part in checkpoint.text_parts]
    return places(checkpoint.unet, checkpoint.text_encoders, int(checkpoint.unet.config.layers_per_block), names)


def _whose(lora: Lora, left: list[str], checkpoint: Checkpoint) -> str:
    """Of what family the layers are that found no place, or that they have none."""
    family = left_family(lora, left)
    return f"are for {family}" if family and family != checkpoint.family.name else f"have no place in {checkpoint.name}"


def _is_called(entry: Entry, name: str, fold: bool = False) -> bool:
    path = entry.path
    names = {entry.title, path.name, path.stem, f"{path.parent.name}/{path.name}", f"{path.parent.name}/{path.stem}"}
    return name.lower() in {one.lower() for one in names} if fold else name in names


def _trained_as(path: Path) -> str:
    try:
        name = open_weights(path).metadata.get("ss_output_name", "")
    except ModelError:
        return ""
    return "" if name == NO_NAME else name


def _digest(path: Path) -> str:
    """As "Lora hashes" has it."""
    return hashes.network_hash(path, open_weights(path).metadata)


def _version(path: Path) -> tuple[Path, int, int]:
    """What changes when a file does."""
    stat = path.stat()
    return path, stat.st_size, stat.st_mtime_ns


def _quiet(_: Event) -> None: ...
