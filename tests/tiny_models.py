"""Tiny random models of each family, in the layout of its single-file checkpoints, and the same in diffusers' own modules.

The modules here are built from configs that are written down here and filled by diffusers' own converters, so that what nbsd makes of a
file can be compared with what they make of it.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders import single_file_utils as theirs
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from nbsd.models.packed import pack_layers

ROOT = Path(__file__).parent.parent


def maker() -> Any:
    """bench/make_checkpoint.py"""
    if "make_checkpoint" not in sys.modules:
        spec = importlib.util.spec_from_file_location("make_checkpoint", ROOT / "bench" / "make_checkpoint.py")
        sys.modules["make_checkpoint"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["make_checkpoint"])
    return sys.modules["make_checkpoint"]


def sizes(family: str) -> Any:
    make = maker()
    clip_g = make.TextSizes("conditioner.embedders.1.model", 64, 3, True, 48)
    return {
        "sd1": make.Sizes((make.TextSizes("cond_stage_model.transformer.text_model", 48, 3),), (32, 64, 64, 64), (1, 1, 1, 0), 1, 48, linear=False,
                          vae=(32, 32, 64, 64)),
        "sd2": make.Sizes((make.TextSizes("cond_stage_model.model", 64, 4, True, 64),), (32, 64, 64, 64), (1, 1, 1, 0), 1, 64, vae=(32, 32, 64, 64)),
        "sdxl": make.Sizes((make.TextSizes("conditioner.embedders.0.transformer.text_model", 32, 3), clip_g), (32, 64, 64), (0, 1, 2), 2, 96,
                           vector=48 + 6 * 8, schedule=False, vae=(32, 32, 64, 64)),
        "refiner": make.Sizes((replace(clip_g, prefix="conditioner.embedders.0.model"),), (32, 64, 64, 64), (0, 2, 2, 0), 2, 64,
                              vector=48 + 5 * 8, schedule=False, vae=(32, 32, 64, 64)),
    }[family]


def short(family: str) -> Any:
    """The sizes with a vocabulary of 60 words: quick to write, of no use for prompts."""
    return tuple(replace(one, words=60) for one in sizes(family).texts)


def write(path: Path, family: str, dtype: torch.dtype = torch.float32, **changes: Any) -> Path:
    """A tiny model of a family as a safetensors file."""
    own = replace(sizes(family), **changes)
    maker().write(path, maker().own_rows(own), dtype, own)
    return path


def changed(path: Path, change: Any) -> Path:
    """The file with its tensors changed by a function of their table."""
    save_file({key: tensor.contiguous() for key, tensor in change(load_file(path)).items()}, path)
    return path


UNETS: dict[str, dict[str, Any]] = {
    "sd1": {"attention_head_dim": 8, "cross_attention_dim": 48},
    "sd2": {"attention_head_dim": [1, 1, 1, 1], "cross_attention_dim": 64, "use_linear_projection": True},
    "sdxl": {
        "attention_head_dim": [1, 1, 1], "cross_attention_dim": 96, "use_linear_projection": True, "transformer_layers_per_block": [1, 1, 2],
        "addition_embed_type": "text_time", "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 96,
        "block_out_channels": [32, 64, 64], "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    },
    "refiner": {
        "attention_head_dim": [1, 1, 1, 1], "cross_attention_dim": 64, "use_linear_projection": True, "transformer_layers_per_block": 2,
        "addition_embed_type": "text_time", "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 88,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    },
}  # fmt: skip


def packed(module: torch.nn.Module) -> Any:
    """The module with its weights packed as nbsd packs them on a CPU, so that sums are made in the same order."""
    plain = dict(module.requires_grad_(False).named_parameters())
    for name, layer in pack_layers(module).items():
        layer.weight = torch.nn.Parameter(layer.packed(plain[name]), requires_grad=False)
    return module


def their_unet(family: str, tensors: dict[str, torch.Tensor], channels: int = 4) -> UNet2DConditionModel:
    config = {"block_out_channels": [32, 64, 64, 64], "layers_per_block": 2, "in_channels": channels, **UNETS[family]}
    unet = UNet2DConditionModel(**config).eval()
    unet.load_state_dict(theirs.convert_ldm_unet_checkpoint(tensors, dict(unet.config)), strict=True)
    return packed(unet)


def their_vae(tensors: dict[str, torch.Tensor]) -> AutoencoderKL:
    vae = AutoencoderKL(
        block_out_channels=[32, 32, 64, 64], down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
        layers_per_block=2, latent_channels=4, norm_num_groups=32,
    ).eval()
    vae.load_state_dict(theirs.convert_ldm_vae_checkpoint(tensors, dict(vae.config)), strict=True)
    return packed(vae)


def their_texts(family: str, tensors: dict[str, torch.Tensor], words: int = 0) -> list[torch.nn.Module]:
    """transformers' text encoders, in the order of the family."""
    found = []
    for one in sizes(family).texts:
        config = CLIPTextConfig(
            hidden_size=one.width, intermediate_size=4 * one.width, num_hidden_layers=one.layers, projection_dim=one.projection or one.width,
            num_attention_heads=1 if one.width == 64 else 4, hidden_act="gelu" if one.open_clip else "quick_gelu",
            vocab_size=words or one.words, bos_token_id=49406, eos_token_id=49407,
        )
        model = (CLIPTextModelWithProjection if one.open_clip and family != "sd2" else CLIPTextModel)(config).eval()
        if one.open_clip:
            state = theirs.convert_open_clip_checkpoint(model, tensors, prefix=f"{one.prefix}.")
        else:
            state = theirs.convert_ldm_clip_checkpoint(tensors)
        wanted = model.state_dict()
        # transformers 5 has no text_model around the parts of a CLIPTextModel
        state = {key if key in wanted else key.removeprefix("text_model."): tensor for key, tensor in state.items()}
        missing, strange = model.load_state_dict(state, strict=False)
        assert not [key for key in missing if not key.endswith("position_ids")]
        assert set(strange) <= {"text_projection.weight", "embeddings.position_ids", "text_model.embeddings.position_ids"}
        found.append(packed(model))
    return found
