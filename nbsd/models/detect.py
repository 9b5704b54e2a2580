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
FIRST_PROJECTION = UNET + "input_blocks.1.1.proj_in.weight"
FOURTH_LEVEL = UNET + "input_blocks.11.0.in_layers.0.weight"
WITH_VECTOR = UNET + "label_emb.0.0.weight"
# In every SD 1 model; a small one may leave attention out at the outer levels.
MIDDLE_ATTENTION = UNET + "middle_block.1.transformer_blocks.0.attn2.to_k.weight"
MIDDLE_PROJECTION = UNET + "middle_block.1.proj_in.weight"


class Fact(NamedTuple):
    """A tensor that must be there, and how many dimensions it has where that tells something."""

    key: str                # the whole key, or with "*" at its end the start of one
    rank: int | None = None


class Row(NamedTuple):
    family: Family
    facts: tuple[Fact, ...]
    absent: tuple[str, ...] = ()    # keys that must not be there


# Models that nbsd does not use: a tensor that only they have, with or without the prefix that a whole checkpoint gives it.
# Most names are those that diffusers asks for (loaders/single_file_utils.py, CHECKPOINT_KEY_NAMES).
STRANGERS: tuple[tuple[Family, str], ...] = (
    (families.VIDEO, "input_blocks.1.0.time_stack.*"),
    (families.CHROMA, "distilled_guidance_layer.*"),
    (families.HUNYUAN, "txt_in.individual_token_refiner.*"),
    (families.HUNYUAN, "mlp_t5.*"),
    (families.FLUX, "double_blocks.0.*"),
    (families.FLUX, "single_transformer_blocks.0.*"),
    (families.SD3, "joint_blocks.0.*"),
    (families.AURA, "double_layers.0.*"),
    (families.LUMINA, "cap_embedder.*"),
    (families.WAN, "head.modulation"),
    (families.QWEN, "transformer_blocks.0.img_mlp.*"),
    (families.LTX, "patchify_proj.*"),
    (families.SANA, "blocks.0.cross_attn.q_linear.*"),
    (families.SANA, "blocks.0.mlp.inverted_conv.*"),
    (families.PIXART, "t_block.1.*"),
    (families.PIXART, "adaln_single.linear.*"),
    (families.CASCADE, "down_blocks.0.0.channelwise.*"),
    (families.CASCADE, "clip_txt_mapper.*"),
    (families.KANDINSKY, "encoder_hid_proj.image_embeds.*"),
    (families.KANDINSKY, "clip_to_seq.*"),
)
# First match wins, so strange models stand above the used ones, of which each fits one row only. Widths are not asked for: small
# models are models.
ROWS: tuple[Row, ...] = (
    *(Row(family, (Fact(prefix + key),)) for family, key in STRANGERS for prefix in (UNET, "")),
    Row(families.PLAYGROUND, (Fact("edm_mean"),)),
    Row(families.SD2_DEPTH, (Fact("depth_model.*"),)),
    Row(families.SD2_UNCLIP, (Fact(WITH_VECTOR, 2), Fact(FIRST_ATTENTION))),
    Row(families.SD_UPSCALER, (Fact(UNET + "label_emb.weight"),)),
    Row(families.ALT_DIFFUSION, (Fact("cond_stage_model.roberta.*"),)),
    Row(families.SSD, (Fact(WITH_VECTOR),), absent=(UNET + "middle_block.1.norm.weight",)),
    Row(families.SDXL_REFINER, (Fact(CONV_IN, 4), Fact(WITH_VECTOR, 2), Fact(FOURTH_LEVEL, 1))),
    Row(families.SDXL, (Fact(CONV_IN, 4), Fact(WITH_VECTOR, 2)), absent=(FOURTH_LEVEL,)),
    Row(families.SD2, (Fact(CONV_IN, 4), Fact(FIRST_ATTENTION, 2), Fact(FIRST_PROJECTION, 2))),
    Row(families.SD1, (Fact(CONV_IN, 4), Fact(MIDDLE_ATTENTION, 2), Fact(MIDDLE_PROJECTION, 4))),
)

# Width of the text that the UNet of a family attends to; also tells whose LoRA a LoRA is.
CONTEXTS = {768: families.SD1, 1024: families.SD2, 2048: families.SDXL, 1280: families.SDXL_REFINER}
TEXT_WIDTHS = {768: families.SD1, 1024: families.SD2}
CHOOSE = "choose an SD 1, SD 2 or SDXL model"


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
        ("lora_unet_", "lora_te", "oft_unet_", "lora_transformer_", "lycoris_", "bundle_emb"),
        (".lora_down.", ".lora_up.", ".lora_A.", ".lora_B.", ".lora.down.", "_lora.down.", ".lora_linear_layer.", ".hada_w1_a",
         ".lokr_w1", ".oft_blocks", ".oft_diag", ".oft_R.", ".boft_R"),
    ),
    Kind(CHECKPOINT, ("cond_stage_model.", "conditioner.embedders.")),
    Kind(UNET_ONLY, (UNET, *dict.fromkeys(key.rstrip("*") for _, key in STRANGERS))),
    Kind(AVERAGES, ("model_ema.diffusion_model",)),
    Kind(VAE, ("first_stage_model.decoder.", "decoder.up.", "decoder.mid.", "decoder.up_blocks.", "taesd_")),
    Kind(EMBEDDING, ("emb_params", "string_to_param", "clip_g", "clip_l")),
    Kind(PART, ("down_blocks.", "up_blocks.", "mid_block.", "conv_in.", "time_embedding.")),
    Kind(TEXT_ENCODER, ("text_model.", "transformer.resblocks.", "cond_stage_model", "encoder.block.")),
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
    return EMBEDDING if _is_vectors(weights.shapes) else UNKNOWN


def _is_vectors(shapes: Shapes) -> bool:
    """Whether a file is one table of vectors for a text encoder, under the word that it was trained for: diffusers' embeddings."""
    if len(shapes) != 1:
        return False
    ((key, shape),) = shapes.items()
    return len(shape) in (1, 2) and (shape[-1] in TEXT_WIDTHS or (key.startswith("<") and key.endswith(">")))


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
    for family, facts, absent in ROWS:
        misses = [*(miss for fact in facts if (miss := why_not(shapes, fact))), *(f"a file without {key}" for key in absent if key in shapes)]
        if not misses:
            return family
        if family.supported:
            reasons.append(f"for {family.name}: {', '.join(misses)}")
    examples = ", ".join(key[:80] for key in list(shapes)[:3]) or "none"
    raise UnknownModelError(f"it is of no known model family; missing {'; '.join(reasons)} (it has {len(shapes)} tensors, e.g. {examples})")


def why_not(shapes: Shapes, fact: Fact) -> str | None:
    """Why a fact does not hold, or None where it does."""
    key, rank = fact
    if key.endswith("*"):
        return None if any(name.startswith(key[:-1]) for name in shapes) else key
    if key not in shapes:
        return key
    got = len(shapes[key])
    return None if rank in (None, got) else f"{key} with {rank} dimensions where it has {got}"


def purpose_of(shapes: Shapes) -> str:
    """What the UNet of a checkpoint of a used family is made for: PLAIN, EDITING or INPAINTING, by the channels that it reads."""
    channels = shapes[CONV_IN][1]
    if channels not in families.PURPOSES:
        known = ", ".join(f"{number} ({word or 'text to picture'})" for number, word in families.PURPOSES.items())
        raise UnknownModelError(f"its UNet reads {channels} channels ({CONV_IN}), and nbsd knows models that read {known}")
    return families.PURPOSES[channels]


# Endings of the tensor of a layer that is as wide as what goes into it; that is its second dimension.
AS_WIDE_AS_INPUT = tuple(
    f".{ending}" for ending in ("lora_down.weight", "lora_A.weight", "lora_A.default.weight", "lora.down.weight", "hada_w1_b", "diff",
                                "lora_linear_layer.down.weight", "to_k_lora.down.weight", "to_v_lora.down.weight")
)  # fmt: skip


def lora_family(shapes: Shapes) -> str:
    """The family a LoRA is for, in words; empty where its tensors do not tell.

    The UNet's cross-attention tells best: it is as wide as the texts. A second text encoder is SDXL's; a first one by that
    number ("lora_te1_") stands in LoRAs of SD 1 too.
    """
    if any("double_blocks" in key or "single_transformer_blocks" in key or "single_blocks" in key for key in shapes):
        return families.FLUX.name
    if any("joint_blocks" in key or "joint_transformer_blocks" in key for key in shapes):
        return families.SD3.name
    wide = [(key, shape[1]) for key, shape in shapes.items() if len(shape) > 1 and key.endswith(AS_WIDE_AS_INPUT)]
    for key, width in wide:
        if "attn2" in key and ("to_k" in key or "to_v" in key) and width in CONTEXTS:
            return CONTEXTS[width].name
    if any(key.startswith(("lora_te2_", "text_encoder_2.")) for key in shapes):
        return families.SDXL.name
    for key, width in wide:
        if key.startswith(("lora_te_", "text_encoder.")) and ("q_proj" in key or "fc1" in key) and width in TEXT_WIDTHS:
            return TEXT_WIDTHS[width].name
    return ""


def checkpoint_family(weights: Weights) -> Family:
    """The family of a file that is to be loaded as a model; raises ModelError with the reason where that cannot be."""
    name, kind = weights.path.name, kind_of(weights)
    if kind not in (CHECKPOINT, UNET_ONLY, PART, UNKNOWN):
        raise WrongFamilyError(f"'{name}' {NOT_A_MODEL[kind].format(stem=weights.path.stem, family=_for(weights))}")
    try:
        family = family_of(weights.shapes)
        if family.supported:
            purpose_of(weights.shapes)
    except UnknownModelError as error:
        if kind == PART:
            raise WrongFamilyError(f"'{name}' {NOT_A_MODEL[kind]}") from error
        raise UnknownModelError(f"'{name}' cannot be used as a model: {error}. {CHOOSE[0].upper()}{CHOOSE[1:]}.") from None
    if not family.supported:
        raise WrongFamilyError(f"'{name}' is a model of the family {family.name}, which nbsd does not support: {CHOOSE}.")
    return family


def _for(weights: Weights) -> str:
    family = lora_family(weights.shapes)
    return f" for {family}" if family else ""


NOT_A_MODEL: dict[str, str] = {
    LORA: "is a LoRA{family}, not a model: choose a model, and put the LoRA into the prompt as <lora:{stem}:1>.",
    VAE: "is a VAE alone, not a model: choose a model, and pick this file as its VAE.",
    EMBEDDING: "is an embedding, not a model: put it into the embeddings folder and write its name, {stem}, into the prompt.",
    HYPERNETWORK: "is a hypernetwork, not a model: choose a model, and put the hypernetwork into the prompt as <hypernet:{stem}:1>.",
    CONTROLNET: f"is a ControlNet, not a model, and nbsd does not support these yet: {CHOOSE}.",
    UPSCALER: f"is an upscaler, not a model: {CHOOSE}.",
    TEXT_ENCODER: f"is a text encoder alone, not a model: {CHOOSE}, or give this one to it as its text encoder.",
    PART: f"is one part of a model in diffusers' layout, not a whole model: choose the folder with its model_index.json, or {CHOOSE[7:]}.",
    AVERAGES: f"holds only the running averages of a training (model_ema) and not enough of them: {CHOOSE}.",
    UNET_ONLY: f"holds a UNet, and nothing that nbsd knows: {CHOOSE}.",
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
