"""The three networks of the first model, in the SD 1 layout with small widths. Nothing here knows how they are trained."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

UNET_WIDTHS = (64, 64, 64, 64)
VAE_WIDTHS = (32, 32, 64, 64)
TEXT_WIDTH, TEXT_LAYERS, TEXT_HEADS = 40, 6, 4      # 40 is no UNet width: a hypernetwork of size 40 can only mean the text
LATENT_SCALE = 0.18215                              # SD 1's constant: latents times this have unit deviation
VOCABULARY = 49408


def make_vae() -> AutoencoderKL:
    """f = 8, four latent channels: 128 x 128 pixels become [4, 16, 16]."""
    return AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, sample_size=128, block_out_channels=VAE_WIDTHS, layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, norm_num_groups=32,
        scaling_factor=LATENT_SCALE,
    )


def make_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, block_out_channels=UNET_WIDTHS, layers_per_block=2, cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=8, norm_num_groups=32,      # "attention_head_dim" is the number of heads in SD 1 configs
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",), up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    )


def make_text_encoder() -> CLIPTextModel:
    return CLIPTextModel(CLIPTextConfig(
        vocab_size=VOCABULARY, hidden_size=TEXT_WIDTH, intermediate_size=4 * TEXT_WIDTH, num_hidden_layers=TEXT_LAYERS,
        num_attention_heads=TEXT_HEADS, max_position_embeddings=77, hidden_act="quick_gelu", projection_dim=TEXT_WIDTH,
        bos_token_id=49406, eos_token_id=49407, pad_token_id=49407,
    ))


def alphas_cumprod() -> torch.Tensor:
    """SD 1's noise table, float64 [1000]: betas are the squares of an even ramp from sqrt(0.00085) to sqrt(0.012)."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0)
