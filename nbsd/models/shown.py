"""What a list shows of a file besides its name: kind, family in words, what it lacks, and why it cannot be used."""

from __future__ import annotations

from typing import NamedTuple

from nbsd.errors import ModelError, UnknownModelError
from nbsd.models import families
from nbsd.models.detect import (
    AVERAGES,
    CHECKPOINT,
    CONTEXTS,
    CONTROLNET,
    EMBEDDING,
    HYPERNETWORK,
    LORA,
    PART,
    TEXT_ENCODER,
    TEXT_WIDTHS,
    UNET_ONLY,
    UNKNOWN,
    VAE,
    Shapes,
    checkpoint_family,
    family_of,
    kind_of,
    lora_family,
    purpose_of,
)
from nbsd.models.keys import VAE as VAE_PREFIX
from nbsd.models.weights import Stored, Weights

UNUSED = (UNET_ONLY, PART, CONTROLNET, AVERAGES, UNKNOWN)     # kinds that are good for nothing here
LATENTS_OF_OTHERS = 16      # channels that the VAEs of SD 3 and Flux have
TEXTS = (768, 1024, 2048)   # contexts that only one family has, keys of CONTEXTS
T5 = "T5"                   # the text encoder of later families


class Shown(NamedTuple):
    """A file in a list."""

    kind: str
    family: str = ""        # empty where the file does not tell
    lacks: str = ""         # what a checkpoint has to take from other files: "text encoder", "VAE" or both
    problem: str = ""       # why it cannot be used; one sentence


def shown(weights: Weights) -> Shown:
    """What a file is, by its header alone. Raises ModelError for a checkpoint of no known family."""
    kind, shapes = kind_of(weights), weights.shapes
    if kind == CHECKPOINT or (kind == UNET_ONLY and _is_used(shapes)):
        has_text = kind == CHECKPOINT
        lacks = [part for part, there in ((TEXT_ENCODER, has_text), ("VAE", any(key.startswith(VAE_PREFIX) for key in shapes))) if not there]
        return Shown(CHECKPOINT, family_words(shapes), " or ".join(lacks) if _is_used(shapes) else "", _problem(weights))
    return Shown(kind, _family(kind, weights), "", _problem(weights) if kind in UNUSED else "")


def family_words(shapes: Shapes) -> str:
    """The family of a checkpoint and what it is made for: "SD 1", "SDXL inpainting"."""
    family = family_of(shapes)
    return f"{family.name} {purpose_of(shapes)}".strip() if family.supported else family.name


def _is_used(shapes: Shapes) -> bool:
    """Whether these are of a family that nbsd makes pictures with."""
    try:
        return family_of(shapes).supported
    except UnknownModelError:
        return False


def _problem(weights: Weights) -> str:
    try:
        checkpoint_family(weights)
    except ModelError as error:
        return str(error)
    return ""


def _family(kind: str, weights: Weights) -> str:
    """The family of a file that is no checkpoint, by the widths that it has."""
    shapes = weights.shapes
    if kind == LORA:
        return lora_family(shapes)
    if kind == VAE:
        into = next((shape[1] for key, shape in shapes.items() if key.endswith("decoder.conv_in.weight") and len(shape) == 4), 0)
        return f"{families.SD3.name} or {families.FLUX.name}" if into == LATENTS_OF_OTHERS else ""
    if kind == EMBEDDING:
        return families.SDXL.name if "clip_g" in shapes else _named(TEXT_WIDTHS, _vector_width(weights))
    if kind == HYPERNETWORK:
        # It acts on the UNet's own widths too, of which 1280 is also the refiner's context.
        return _named(CONTEXTS, max((width for width in (weights.tree or ()) if width in TEXTS), default=0))
    if kind == TEXT_ENCODER:
        if any(key.startswith("encoder.block.") for key in shapes):
            return T5
        return _named(TEXT_WIDTHS, next((shape[-1] for key, shape in shapes.items() if key.endswith("token_embedding.weight")), 0))
    if kind in (UNET_ONLY, UNKNOWN):
        try:
            return family_of(shapes).name
        except UnknownModelError:
            return ""
    return _named(CONTEXTS, next((shape[1] for key, shape in shapes.items() if key.endswith("attn2.to_k.weight") and len(shape) == 2), 0))


def _vector_width(weights: Weights) -> int:
    """Of an embedding: the last dimension of its vectors."""
    table = weights.tree.get("string_to_param") if isinstance(weights.tree, dict) else None
    found = [*(table.values() if isinstance(table, dict) else ()), *weights.tensors.values()]
    return next((one.shape[-1] for one in found if isinstance(one, Stored) and one.shape), 0)


def _named(table: dict[int, families.Family], width: int) -> str:
    return table[width].name if width in table else ""
