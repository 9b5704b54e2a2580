"""The three networks of the first model, in the SD 1 layout with small widths. Nothing here knows how they are trained."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

UNET_WIDTHS, UNET_LAYERS = (64, 96, 96, 64), 1
VAE_WIDTHS, VAE_LAYERS = (64, 32, 64, 64), 1
HALF_VAE_WIDTHS = (32, 32, 64, 64)                  # what is trained first, see half.py
TEXT_WIDTH, TEXT_LAYERS, TEXT_HEADS = 48, 6, 4      # 48 is no UNet width: a hypernetwork of size 48 can only mean the text
LATENT_SCALE = 0.18215                              # SD 1's constant: latents times this have unit deviation
TEXT_INNER = 160          # not four times the width, so that the file stays under 16 MB
VOCABULARY = 49408


def make_vae(widths: tuple[int, ...] = VAE_WIDTHS) -> AutoencoderKL:
    """f = 8, four latent channels: 128 x 128 pixels become [4, 16, 16]."""
    return AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, sample_size=128, block_out_channels=widths, layers_per_block=VAE_LAYERS,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, norm_num_groups=32,
        scaling_factor=LATENT_SCALE,
    )


def make_unet() -> UNet2DConditionModel:
    """SD 1's layout with one block a level, and text at 8 x 8 and 4 x 4 only: attention at 16 x 16 would cost twice all the rest."""
    return UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, block_out_channels=UNET_WIDTHS, layers_per_block=UNET_LAYERS,
        cross_attention_dim=TEXT_WIDTH, norm_num_groups=32,
        attention_head_dim=8,       # the number of heads, in spite of its name
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    )


def make_text_encoder() -> CLIPTextModel:
    return CLIPTextModel(CLIPTextConfig(
        vocab_size=VOCABULARY, hidden_size=TEXT_WIDTH, intermediate_size=TEXT_INNER, num_hidden_layers=TEXT_LAYERS,
        num_attention_heads=TEXT_HEADS, max_position_embeddings=77, hidden_act="quick_gelu", projection_dim=TEXT_WIDTH,
        bos_token_id=49406, eos_token_id=49407, pad_token_id=49407,
    ))


@torch.no_grad()
def start_unet(unet: UNet2DConditionModel) -> None:
    """Initial weights with which the answer is the input, at unit size: at much noise, where the prompt decides the picture, that is
    nearly right already.

    conv_in carries the latents in its first four channels; its skip connection reaches the last block, whose shortcut makes each a pair of
    opposites. The last norm's groups are such pairs, so that only their size is lost, and silu(z) - silu(-z) = z leads them out.
    """
    last: Any = unet.up_blocks[-1].resnets[-1]
    carried = last.conv_shortcut.in_channels - UNET_WIDTHS[0]
    unet.conv_in.weight[:4], unet.conv_in.bias[:4] = 0, 0
    last.conv2.weight[:8], last.conv2.bias[:8] = 0, 0
    last.conv_shortcut.weight[:8], last.conv_shortcut.bias[:8] = 0, 0
    unet.conv_out.weight *= 0.2
    unet.conv_out.bias.zero_()
    unet.conv_out.weight[:, :8] = 0
    for c in range(4):
        unet.conv_in.weight[c, c, 1, 1] = 1
        for sign in (1, -1):
            row = 2 * c + (sign < 0)
            last.conv_shortcut.weight[row, carried + c] = sign
            unet.conv_out.weight[c, row, 1, 1] = sign


@torch.no_grad()
def start_text_encoder(text: CLIPTextModel, used: list[int]) -> torch.Tensor:
    """Initial weights, and the mask [vocabulary, 1] of the tokens that captions use; rows of the others are zero and must stay so.

    The last twelve of the 48 dimensions hold the position as six turning pointers, the others the token. The first two heads of the
    first layer look at the token before and the one before that, so that "blue" and "hair" meet from the first step on.
    The final norm starts with a bias well above zero: emphasis divides by the mean of all vectors, which must stay away from zero.
    """
    inner = getattr(text, "text_model", text)
    embeddings, first = inner.embeddings, inner.encoder.layers[0].self_attn
    head = TEXT_WIDTH // TEXT_HEADS
    speeds = torch.tensor([1.9, 1.1, 0.63, 0.29, 0.13, 0.05])    # no two places up to 77 apart look alike
    angles = torch.arange(77)[:, None] * speeds
    mask = torch.zeros(VOCABULARY, 1)
    mask[used] = 1
    embeddings.token_embedding.weight.copy_(torch.randn(VOCABULARY, TEXT_WIDTH) * 0.6 * mask)
    embeddings.token_embedding.weight[:, -head:] = 0
    embeddings.position_embedding.weight.normal_(std=0.02)
    embeddings.position_embedding.weight[:, -head:] = torch.stack([angles.sin(), angles.cos()], 2).flatten(1) * 0.8
    for back in (1, 2):
        rows = slice((back - 1) * head, back * head)
        first.q_proj.weight[rows] = 0
        first.k_proj.weight[rows] = 0
        for i, speed in enumerate(speeds):
            turn = torch.tensor([[torch.cos(back * speed), -torch.sin(back * speed)], [torch.sin(back * speed), torch.cos(back * speed)]])
            at = slice((back - 1) * head + 2 * i, (back - 1) * head + 2 * i + 2)
            seen = slice(TEXT_WIDTH - head + 2 * i, TEXT_WIDTH - head + 2 * i + 2)
            first.q_proj.weight[at, seen] = 2.6 * turn
            first.k_proj.weight[at, seen] = 2.6 * torch.eye(2)
        nn.init.orthogonal_(first.v_proj.weight[rows])
    nn.init.orthogonal_(first.out_proj.weight)
    inner.final_layer_norm.bias.fill_(0.3)
    return mask


def alphas_cumprod() -> torch.Tensor:
    """SD 1's noise table, float64 [1000]: betas are the squares of an even ramp from sqrt(0.00085) to sqrt(0.012)."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0)
