"""The sizes of the modules, read from the shapes of a checkpoint's tensors. Only numbers of heads cannot be read so."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from nbsd.errors import ModelError
from nbsd.models.families import HEAD_WIDTH as UNET_HEAD_WIDTH
from nbsd.models.families import NARROW_HEAD, TOKEN_END, TOKEN_NONE, Family, TextPart
from nbsd.models.keys import UNET

Shapes = Mapping[str, tuple[int, ...]]      # key -> shape

NORM_GROUPS = 32        # of every group norm in UNet and VAE; ldm's Normalize and GroupNorm32
HEAD_WIDTH = 64         # of CLIP's text model: 768 wide, 12 heads
FEW_HEADS = 4           # of text models that are too narrow for heads of 64
NUMBER_WIDTH = 256      # of the sine embedding of one number; ConcatTimestepEmbedderND, outdim, in sd_xl_base.yaml


def _size(shapes: Shapes, key: str, dim: int, rank: int) -> int:
    """One dimension of a tensor that must be there."""
    shape = shapes.get(key)
    if shape is None:
        raise ModelError(f"{key} is missing")
    if len(shape) != rank or not all(shape):
        raise ModelError(f"{key} has the shape {list(shape)}")
    return shape[dim]


def _count(shapes: Shapes, pattern: str) -> int:
    """How many numbers from 0 on stand, without a gap, where the pattern has its group."""
    numbers = {int(found[1]) for key in shapes if (found := re.match(pattern, key))}
    return next(number for number in range(len(numbers) + 1) if number not in numbers)


def unet_config(shapes: Shapes, family: Family) -> dict[str, Any]:
    """Arguments of diffusers' UNet2DConditionModel for a UNet of ldm's layout, of any width and depth."""
    widths, crossed, layers, depths = [], [], set(), []
    level_layers = 0
    for block in range(1, _count(shapes, re.escape(UNET) + r"input_blocks\.(\d+)\.")):
        start = f"{UNET}input_blocks.{block}."
        if f"{start}0.op.weight" in shapes:
            layers.add(level_layers)
            level_layers = 0
            continue
        if not level_layers:
            widths.append(_size(shapes, f"{start}0.out_layers.3.weight", 0, 4))
            crossed.append(f"{start}1.norm.weight" in shapes)
            depths.append(_depth(shapes, f"{start}1."))
        level_layers += 1
    layers.add(level_layers)
    if len(layers) != 1 or not level_layers or any(width % NORM_GROUPS for width in widths):
        raise ModelError(f"its UNet has levels of {sorted(layers)} blocks and widths {widths}, which no model of {family.name} has")
    middle = _depth(shapes, f"{UNET}middle_block.1.")
    first = next((f"{UNET}input_blocks.{1 + level * (level_layers + 1)}.1." for level, with_text in enumerate(crossed) if with_text), "")
    return {
        "sample_size": 64,
        "in_channels": _size(shapes, f"{UNET}input_blocks.0.0.weight", 1, 4),
        "out_channels": _size(shapes, f"{UNET}out.2.weight", 0, 4),
        "down_block_types": tuple("CrossAttnDownBlock2D" if with_text else "DownBlock2D" for with_text in crossed),
        "up_block_types": tuple("CrossAttnUpBlock2D" if with_text else "UpBlock2D" for with_text in reversed(crossed)),
        "block_out_channels": tuple(widths),
        "layers_per_block": level_layers,
        "cross_attention_dim": _size(shapes, f"{first}transformer_blocks.0.attn2.to_k.weight", 1, 2),
        # A level without attention has none of these; diffusers takes the last level's number for the middle block too.
        "transformer_layers_per_block": tuple(depth or middle for depth in depths),
        "use_linear_projection": len(shapes.get(f"{first}proj_in.weight", ())) == 2,
        "attention_head_dim": family.unet_heads or tuple(map(unet_heads, widths)),    # diffusers' name for the number of heads
        "norm_num_groups": NORM_GROUPS,
        **(_vector_config(shapes, family) if family.numbers else {}),
    }


def unet_heads(width: int) -> int:
    """Attention heads of a level of the UNet, in families whose heads are of one width on every level."""
    return width // (NARROW_HEAD if width % UNET_HEAD_WIDTH else UNET_HEAD_WIDTH)


def _depth(shapes: Shapes, start: str) -> int:
    return _count(shapes, re.escape(start) + r"transformer_blocks\.(\d+)\.")


def _vector_config(shapes: Shapes, family: Family) -> dict[str, Any]:
    """What the UNet of SDXL and of its refiner is told besides the text: the pooled text and some numbers, each so many wide."""
    into = _size(shapes, f"{UNET}label_emb.0.0.weight", 1, 2)
    projection = next((f"{part.prefix}text_projection" for part in family.text if part.pooled), "")
    # OpenCLIP multiplies from the left. Without a text encoder in the file, numbers are as wide as in the real models.
    wide = (into - _size(shapes, projection, 1, 2)) // len(family.numbers) if projection in shapes else NUMBER_WIDTH
    if wide <= 0 or wide % 2:
        raise ModelError(f"its UNet takes a vector of {into} numbers, which its text encoder leaves no room in")
    return {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": wide,
        "projection_class_embeddings_input_dim": into,
    }


# Where a VAE's levels and their blocks stand: in single files, and in diffusers' own layout.
VAE_LEVELS, NAMED_VAE_LEVELS = ("encoder.down.", ".block."), ("encoder.down_blocks.", ".resnets.")


def vae_config(shapes: Shapes, prefix: str, family: Family, named: bool = False) -> dict[str, Any]:
    """Arguments of diffusers' AutoencoderKL; `prefix` is what stands before `encoder.` in the keys; `named`: as diffusers names them."""
    level, block = NAMED_VAE_LEVELS if named else VAE_LEVELS
    levels = _count(shapes, re.escape(prefix + level) + r"(\d+)\.")
    widths = [_size(shapes, f"{prefix}{level}{number}{block}0.conv1.weight", 0, 4) for number in range(levels)]
    if not widths or any(width % NORM_GROUPS for width in widths):
        raise ModelError(f"its VAE has the widths {widths}, which no VAE of Stable Diffusion has")
    latent = _size(shapes, f"{prefix}decoder.conv_in.weight", 1, 4)
    if latent != family.latent_channels:
        raise ModelError(f"its VAE has latents of {latent} channels, and those of {family.name} have {family.latent_channels}")
    return {
        "in_channels": _size(shapes, f"{prefix}encoder.conv_in.weight", 1, 4),
        "out_channels": _size(shapes, f"{prefix}decoder.conv_out.weight", 0, 4),
        "latent_channels": latent,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "block_out_channels": tuple(widths),
        "layers_per_block": _count(shapes, re.escape(f"{prefix}{level}0{block}") + r"(\d+)\."),
        "norm_num_groups": NORM_GROUPS,
        "sample_size": 512,
        "scaling_factor": family.latent_scale,
    }


def text_config(shapes: Shapes, part: TextPart) -> dict[str, Any]:
    """Arguments of transformers' CLIPTextConfig, for CLIP's own layout and OpenCLIP's (as `keys.parted` gives it).

    Heads are as wide as CLIP's (64) where that divides the width; narrower models, which are made for tests, have four.
    """
    layers, words, places, wide, projection = OPEN_CLIP_TEXT if part.open_clip else CLIP_TEXT
    prefix = part.prefix
    if not part.open_clip and any(key.startswith(f"{prefix}text_model.") for key in shapes):
        prefix += "text_model."
    width = _size(shapes, prefix + words, 1, 2)
    heads = width // HEAD_WIDTH if width % HEAD_WIDTH == 0 else FEW_HEADS
    if width % heads:
        raise ModelError(f"its text encoder is {width} wide, which does not divide into {heads} heads")
    return {
        "vocab_size": _size(shapes, prefix + words, 0, 2),
        "hidden_size": width,
        "intermediate_size": _size(shapes, prefix + wide, 0, 2),
        "projection_dim": _size(shapes, part.prefix + projection, 0, 2) if part.pooled else width,
        "num_hidden_layers": _count(shapes, re.escape(prefix + layers) + r"(\d+)\."),
        "num_attention_heads": heads,
        "max_position_embeddings": _size(shapes, prefix + places, 0, 2),
        "hidden_act": "gelu" if part.open_clip else "quick_gelu",
        "layer_norm_eps": 1e-5,
        "bos_token_id": TOKEN_END - 1,
        "eos_token_id": TOKEN_END,
        "pad_token_id": TOKEN_NONE if part.open_clip else TOKEN_END,
    }


# Where the sizes of a text encoder are read from: its layers, its words, its places, the wider one of a layer's two linear ones,
# what makes the pooled vector of its last state.
CLIP_TEXT = (
    "encoder.layers.", "embeddings.token_embedding.weight", "embeddings.position_embedding.weight", "encoder.layers.0.mlp.fc1.weight",
    "text_projection.weight",
)  # fmt: skip
OPEN_CLIP_TEXT = (
    "transformer.resblocks.", "token_embedding.weight", "positional_embedding", "transformer.resblocks.0.mlp.c_fc.weight", "text_projection",
)  # fmt: skip
