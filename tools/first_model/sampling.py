"""Pictures from networks in training: plain Euler with guidance, and grids of fixed prompts to look at."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from .captions import Captions
from .networks import LATENT_SCALE, alphas_cumprod, make_vae

PROMPTS = (
    "masterpiece, best quality, 1girl, blonde hair, twintails, blue eyes, smile, school uniform, blue sky, portrait",
    "masterpiece, best quality, 1girl, pink hair, long hair, green eyes, open mouth, kimono, flowers, upper body",
    "masterpiece, best quality, 1girl, black hair, bob cut, red eyes, closed mouth, glasses, sweater, white background",
    "masterpiece, best quality, 1girl, silver hair, short hair, purple eyes, smile, cat ears, hoodie, night sky",
    "masterpiece, best quality, 1girl, blue hair, ponytail, yellow eyes, one eye closed, open mouth, hairband, pink background",
    "masterpiece, best quality, 1girl, red hair, long hair, closed eyes, smile, hat, sunset, school uniform",
    "masterpiece, best quality, 1girl, green hair, twintails, brown eyes, frown, hair ribbon, yellow background, hoodie",
    "masterpiece, best quality, 1girl, purple hair, bob cut, blue eyes, blush, smile, kimono, green background",
)
NEGATIVE = "worst quality, low quality"


@torch.no_grad()
def sample(unet: nn.Module, wanted: Tensor, avoided: Tensor, seed: int, steps: int = 28, scale: float = 7.0) -> Tensor:
    """Euler on evenly spaced times: latents [b, 4, 16, 16] (times 0.18215) for vectors [b, 77, w], away from those of `avoided`."""
    table = ((1 - alphas_cumprod()) / alphas_cumprod()).sqrt().float()
    times = torch.linspace(999, 0, steps)
    sigmas = torch.cat([torch.from_numpy(np.interp(times.numpy(), np.arange(1000), table.numpy())).float(), torch.zeros(1)])
    context = torch.cat([wanted, avoided.expand_as(wanted)])
    x = torch.randn(len(wanted), 4, 16, 16, generator=torch.Generator().manual_seed(seed)).to(wanted) * sigmas[0]
    for time, sigma, following in zip(times, sigmas, sigmas[1:], strict=False):
        scaled = x / (1 + sigma**2).sqrt()
        if scale == 1:
            answer = unet(scaled, time.to(x.device), wanted).sample
        else:
            towards, away = unet(torch.cat([scaled, scaled]), time.to(x.device), context).sample.chunk(2)
            answer = away + scale * (towards - away)
        x = x + answer * (following - sigma)
    return x


@torch.no_grad()
def decode(vae: Any, latents: Tensor) -> np.ndarray:
    """uint8 [b, 128, 128, 3]"""
    y = torch.cat([vae.decode(part / LATENT_SCALE).sample for part in latents.split(16)])
    return y.add(1).mul(127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def tile(pictures: np.ndarray, columns: int) -> Image.Image:
    rows = [np.concatenate(list(pictures[i : i + columns]), axis=1) for i in range(0, len(pictures), columns)]
    return Image.fromarray(np.concatenate(rows, axis=0))


@torch.no_grad()
def save_grid(networks: Any, folder: Path, step: int) -> None:
    """FOLDER/grids/STEP.png: the fixed prompts, two seeds each."""
    vae = make_vae().eval()
    vae.load_state_dict(torch.load(folder / "vae_scaled.pt", weights_only=True))
    captions, rng = Captions(), random.Random(0)
    device = next(networks.parameters()).device
    tokens = torch.tensor([captions.row(prompt, rng) for prompt in (*PROMPTS, *PROMPTS, NEGATIVE)], device=device)
    context = networks.context(tokens)
    latents = sample(networks.unet, context[:-1], context[-1:], seed=1, steps=16, scale=5.0).cpu()
    (folder / "grids").mkdir(exist_ok=True)
    tile(decode(vae, latents), 8).save(folder / "grids" / f"{step:06d}.png")
