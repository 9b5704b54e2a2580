"""What a model file is, decided by the names and shapes of its tensors. Never by its name, and never by falling through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from nbsd.errors import ModelError, UnknownModelError, WrongFamilyError
from nbsd.models import families
from nbsd.models.families import Family
from nbsd.models.weights import Weights

Shapes = Mapping[str, tuple[int, ...]]      # key -> shape, from the header

UNET = "model.diffusion_model."
CONV_IN = UNET + "input_blocks.0.0.weight"
FIRST_ATTENTION = UNET + "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"


class Fact(NamedTuple):
    """A tensor that must be there, and the size of one of its dimensions where that tells something."""

    key: str                # the whole key, or with "*" at its end the start of one
    dim: int = 0
    size: int | None = None


class Row(NamedTuple):
    family: Family
    facts: tuple[Fact, ...]


CLIP_TEXT = Fact("cond_stage_model.transformer.*")
# First match wins, so the narrow rows stand above the wide ones. Widths are not asked for: small models are models.
ROWS: tuple[Row, ...] = (
    Row(families.VIDEO, (Fact(UNET + "input_blocks.1.0.time_stack.*"),)),
    Row(families.SDXL, (Fact(CONV_IN), Fact("conditioner.embedders.1.*"))),
    Row(families.SDXL_REFINER, (Fact(CONV_IN), Fact("conditioner.embedders.0.*"))),
    Row(families.SD2, (Fact(CONV_IN), Fact("cond_stage_model.model.*"))),
    Row(families.SD1_INPAINTING, (Fact(CONV_IN, 1, 9), CLIP_TEXT)),
    Row(families.SD1_PIX2PIX, (Fact(CONV_IN, 1, 8), CLIP_TEXT)),
    Row(families.SD1, (Fact(CONV_IN, 1, 4), Fact(FIRST_ATTENTION), CLIP_TEXT)),
    Row(families.SD3, (Fact(UNET + "joint_blocks.0.*"),)),
    Row(families.SD3, (Fact("joint_blocks.0.*"),)),
    Row(families.FLUX, (Fact(UNET + "double_blocks.0.*"),)),
    Row(families.FLUX, (Fact("double_blocks.0.*"),)),
    Row(families.CASCADE, (Fact("down_blocks.0.0.channelwise.*"),)),
)

# Width of the text that the UNet of a family attends to; also tells whose LoRA a LoRA is.
CONTEXTS = {768: families.SD1, 1024: families.SD2, 2048: families.SDXL}


class Kind(NamedTuple):
    """A kind of file that is no checkpoint."""

    name: str
    starts: tuple[str, ...] = ()        # any key starts so
    holds: tuple[str, ...] = ()         # or holds this


CHECKPOINT, VAE, LORA, EMBEDDING, HYPERNETWORK, UNKNOWN = "checkpoint", "vae", "lora", "embedding", "hypernetwork", "unknown"
CONTROLNET, UPSCALER, UNET_ONLY, TEXT_ENCODER, PART, AVERAGES = "controlnet", "upscaler", "unet", "text encoder", "part", "averages"
WORDS = {VAE: "VAE", LORA: "LoRA", CONTROLNET: "ControlNet", UNET_ONLY: "UNet", PART: "part of a model", AVERAGES: "running averages"}

KINDS: tuple[Kind, ...] = (
    Kind(CONTROLNET, ("control_model.", "controlnet_", "lllite_"), ("controlnet_cond_embedding", "input_hint_block")),
    Kind(
        LORA,
        ("lora_unet_", "lora_te", "lora_transformer_", "lycoris_", "bundle_emb"),
        (".lora_down.", ".lora_up.", ".lora_A.", ".lora_B.", ".lora.down.", "_lora.down.", ".lora_linear_layer.", ".hada_w1_a",
         ".lokr_w1", ".oft_blocks", ".oft_diag"),
    ),
    Kind(CHECKPOINT, ("cond_stage_model.", "conditioner.embedders.")),
    Kind(UNET_ONLY, (UNET, "joint_blocks.", "double_blocks.")),
    Kind(AVERAGES, ("model_ema.diffusion_model",)),
    Kind(VAE, ("first_stage_model.decoder.", "decoder.up.", "decoder.mid.", "decoder.up_blocks.", "taesd_")),
    Kind(EMBEDDING, ("emb_params", "string_to_param", "clip_g", "clip_l")),
    Kind(PART, ("down_blocks.", "up_blocks.", "mid_block.", "conv_in.", "time_embedding.")),
    Kind(TEXT_ENCODER, ("text_model.", "transformer.resblocks.", "cond_stage_model")),
    Kind(UPSCALER, ("conv_first.", "model.0.", "body.0.", "params_ema", "layers.0.residual_group")),
)


def kind_of(weights: Weights) -> str:
    """The kind of a file: CHECKPOINT, VAE, LORA, EMBEDDING, HYPERNETWORK, ... or UNKNOWN."""
    if (tree := weights.tree) is not None and (found := _kind_of_tree(tree)):
        return found
    keys = list(weights.tensors)
    for kind in KINDS:
        if any(key.startswith(kind.starts) or any(part in key for part in kind.holds) for key in keys):
            if kind.name == CHECKPOINT and not any(key.startswith(UNET) for key in keys):
                continue
            return kind.name
    return UNKNOWN


def _kind_of_tree(tree: Any) -> str | None:
    """Kinds that only a pickle's plain values show."""
    if not isinstance(tree, dict):
        return None
    if "string_to_param" in tree:
        return EMBEDDING
    # A hypernetwork is a table from a width to two modules (A1111, from 2022-10 on).
    pairs = [value for key, value in tree.items() if type(key) is int]
    return HYPERNETWORK if pairs and all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in pairs) else None


def family_of(shapes: Shapes) -> Family:
    """The family of a checkpoint; raises UnknownModelError that says what it lacks of the families that nbsd can use."""
    reasons = []
    for family, facts in ROWS:
        misses = [miss for fact in facts if (miss := why_not(shapes, fact))]
        if not misses:
            return family
        if family.supported:
            reasons.append(f"for {family.name}: {', '.join(misses)}")
    examples = ", ".join(key[:80] for key in list(shapes)[:3]) or "none"
    raise UnknownModelError(f"it is of no known model family; missing {'; '.join(reasons)} (it has {len(shapes)} tensors, e.g. {examples})")


def why_not(shapes: Shapes, fact: Fact) -> str | None:
    """Why a fact does not hold, or None where it does."""
    key, dim, size = fact
    if key.endswith("*"):
        return None if any(name.startswith(key[:-1]) for name in shapes) else key
    if key not in shapes:
        return key
    if size is None:
        return None
    got = shapes[key][dim] if dim < len(shapes[key]) else None
    return None if got == size else f"{key} with {size} where it has {got}"


def lora_family(shapes: Shapes) -> str:
    """The family a LoRA is for, in words; empty where its tensors do not tell."""
    if any(key.startswith(("lora_te1_", "lora_te2_")) for key in shapes):
        return families.SDXL.name
    if any("double_blocks" in key or "single_transformer_blocks" in key for key in shapes):
        return families.FLUX.name
    for key, shape in shapes.items():
        if "attn2" in key and ("to_k" in key or "to_v" in key) and ("down" in key or "lora_A" in key) and len(shape) > 1:
            return CONTEXTS[shape[1]].name if shape[1] in CONTEXTS else ""
    return ""


def checkpoint_family(weights: Weights) -> Family:
    """The family of a file that is to be loaded as a model; raises ModelError with the reason where that cannot be."""
    name, kind = weights.path.name, kind_of(weights)
    if kind not in (CHECKPOINT, UNET_ONLY, PART, UNKNOWN):
        raise WrongFamilyError(f"'{name}' {NOT_A_MODEL[kind].format(stem=weights.path.stem, family=_for(weights))}")
    try:
        family = family_of(weights.shapes)
    except UnknownModelError as error:
        if kind in (UNET_ONLY, PART):
            raise WrongFamilyError(f"'{name}' {NOT_A_MODEL[kind]}") from error
        raise UnknownModelError(f"'{name}' cannot be used as a model: {error}. Choose an SD 1 model.") from None
    if not family.supported:
        raise WrongFamilyError(f"'{name}' is a model of the family {family.name}, which nbsd does not support yet: choose an SD 1 model.")
    return family


def _for(weights: Weights) -> str:
    family = lora_family(weights.shapes)
    return f" for {family}" if family else ""


NOT_A_MODEL: dict[str, str] = {
    LORA: "is a LoRA{family}, not a model: choose a model, and put the LoRA into the prompt as <lora:{stem}:1>.",
    VAE: "is a VAE alone, not a model: choose a model, and pick this file as its VAE.",
    EMBEDDING: "is an embedding, not a model: put it into the embeddings folder and write its name, {stem}, into the prompt.",
    HYPERNETWORK: "is a hypernetwork, not a model: choose a model, and put the hypernetwork into the prompt as <hypernet:{stem}:1>.",
    CONTROLNET: "is a ControlNet, not a model, and nbsd does not support these yet: choose an SD 1 model.",
    UPSCALER: "is an upscaler, not a model: choose a .safetensors or .ckpt file of an SD 1 model.",
    TEXT_ENCODER: "is a text encoder alone, not a model: choose a .safetensors or .ckpt file of a whole SD 1 model.",
    PART: "is one part of a model in diffusers' layout, not a whole model: choose a single-file SD 1 model (.safetensors or .ckpt).",
    AVERAGES: "holds only the running averages of a training (model_ema), which nbsd does not read yet: choose the whole SD 1 model.",
    UNET_ONLY: "holds a UNet but no text encoder: choose a file that holds the whole SD 1 model.",
}


def check_numbers(weights: Weights, keys: list[str]) -> None:
    """Raise ModelError where weights are no floating-point numbers, as in quantised files."""
    from nbsd.models.weights import FLOATS

    if odd := [key for key in keys if weights.tensors[key].dtype not in FLOATS]:
        kinds = ", ".join(sorted({weights.tensors[key].dtype for key in odd}))
        raise ModelError(
            f"'{weights.path.name}' holds weights of type {kinds} ({len(odd)} tensors, e.g. {', '.join(odd[:3])}): quantised models are "
            "not supported; choose a float16 or float32 version."
        )
