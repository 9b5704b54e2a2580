"""The sizes of the modules, read from the shapes of a checkpoint's tensors. Only numbers of heads cannot be read so."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from nbsd.errors import ModelError
from nbsd.models.families import Family
from nbsd.models.keys import TEXT, UNET

Shapes = Mapping[str, tuple[int, ...]]      # key -> shape

NORM_GROUPS = 32        # of every group norm in UNet and VAE; ldm's Normalize and GroupNorm32
HEAD_WIDTH = 64         # of CLIP's text model: 768 wide, 12 heads
FEW_HEADS = 4           # of text models that are too narrow for heads of 64


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
    """Arguments of diffusers' UNet2DConditionModel for a UNet of SD 1's layout, of any width and depth."""
    widths, crossed, layers = [], [], set()
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
        level_layers += 1
    layers.add(level_layers)
    if len(layers) != 1 or not level_layers or any(width % NORM_GROUPS for width in widths):
        raise ModelError(f"its UNet has levels of {sorted(layers)} blocks and widths {widths}, which no SD 1 model has")
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
        "transformer_layers_per_block": _count(shapes, re.escape(first) + r"transformer_blocks\.(\d+)\."),
        "use_linear_projection": len(shapes.get(f"{first}proj_in.weight", ())) == 2,
        "attention_head_dim": family.unet_heads,    # diffusers' name for the number of heads
        "norm_num_groups": NORM_GROUPS,
    }


def vae_config(shapes: Shapes, prefix: str, family: Family) -> dict[str, Any]:
    """Arguments of diffusers' AutoencoderKL; `prefix` is what stands before `encoder.` in the keys."""
    levels = _count(shapes, re.escape(prefix) + r"encoder\.down\.(\d+)\.")
    widths = [_size(shapes, f"{prefix}encoder.down.{level}.block.0.conv1.weight", 0, 4) for level in range(levels)]
    if not widths or any(width % NORM_GROUPS for width in widths):
        raise ModelError(f"its VAE has the widths {widths}, which no VAE of Stable Diffusion has")
    return {
        "in_channels": _size(shapes, f"{prefix}encoder.conv_in.weight", 1, 4),
        "out_channels": _size(shapes, f"{prefix}decoder.conv_out.weight", 0, 4),
        "latent_channels": _size(shapes, f"{prefix}decoder.conv_in.weight", 1, 4),
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "block_out_channels": tuple(widths),
        "layers_per_block": _count(shapes, re.escape(prefix) + r"encoder\.down\.0\.block\.(\d+)\."),
        "norm_num_groups": NORM_GROUPS,
        "sample_size": 512,
        "scaling_factor": family.latent_scale,
    }


def text_config(shapes: Shapes) -> dict[str, Any]:
    """Arguments of transformers' CLIPTextConfig.

    Heads are as wide as CLIP's (64) where that divides the width; narrower models, which are made for tests, have four.
    """
    prefix = TEXT + ("text_model." if any(key.startswith(f"{TEXT}text_model.") for key in shapes) else "")
    width = _size(shapes, f"{prefix}embeddings.token_embedding.weight", 1, 2)
    heads = width // HEAD_WIDTH if width % HEAD_WIDTH == 0 else FEW_HEADS
    if width % heads:
        raise ModelError(f"its text encoder is {width} wide, which does not divide into {heads} heads")
    return {
        "vocab_size": _size(shapes, f"{prefix}embeddings.token_embedding.weight", 0, 2),
        "hidden_size": width,
        "intermediate_size": _size(shapes, f"{prefix}encoder.layers.0.mlp.fc1.weight", 0, 2),
        "projection_dim": width,
        "num_hidden_layers": _count(shapes, re.escape(prefix) + r"encoder\.layers\.(\d+)\."),
        "num_attention_heads": heads,
        "max_position_embeddings": _size(shapes, f"{prefix}embeddings.position_embedding.weight", 0, 2),
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    }
