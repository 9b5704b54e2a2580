"""Freezes the encoder: grows the autoencoder to full size, gives its latents SD 1's scale and writes those of the training pictures.

FOLDER/half.pt becomes FOLDER/vae_scaled.pt (weights only) and FOLDER/latents.pt (float16 [n, 4, 16, 16], times 0.18215, unit
deviation in each channel). Run: python -m tools.first_model.latents FOLDER
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from .autoencoder import batch_of
from .dataset import read
from .half import HalfVae, grow
from .networks import LATENT_SCALE


@torch.no_grad()
def rescale(vae: AutoencoderKL, mean: Tensor, std: Tensor) -> None:
    """Changes the two 1x1 convolutions around the latents so that channel c becomes (z - mean) / std / 0.18215. Pictures stay the same."""
    scale = 1 / (std * LATENT_SCALE)                    # [4]
    quant, post = vae.quant_conv, vae.post_quant_conv
    quant.weight[:4] *= scale.view(4, 1, 1, 1)
    quant.bias[:4] = (quant.bias[:4] - mean) * scale
    quant.bias[4:] += 2 * scale.log()                   # the logarithm of the variance
    post.bias += post.weight[:, :, 0, 0] @ mean
    post.weight /= scale.view(1, 4, 1, 1)


@torch.no_grad()
def encode(half: HalfVae, pictures: np.ndarray, device: str, batch: int = 64) -> Tensor:
    """The mean latents [n, 4, 16, 16] of all pictures, unscaled."""
    found = []
    for start in range(0, len(pictures), batch):
        x = batch_of(pictures, np.arange(start, min(start + batch, len(pictures))), device)
        found.append(half.moments(torch.nn.functional.avg_pool2d(x, 2))[0].cpu())
    return torch.cat(found)


@torch.no_grad()
def prepare(folder: Path, count: int, device: str) -> None:
    pictures = read(folder)[0][:count]
    half = HalfVae().eval()
    state = torch.load(folder / "half.pt", weights_only=True)["model"]
    half.load_state_dict({key.removeprefix("small."): tensor for key, tensor in state.items() if key.startswith("small.")})
    half.to(device)
    z = encode(half, pictures, device)
    mean, std = z.mean((0, 2, 3)), z.std((0, 2, 3))
    sample = batch_of(pictures, np.arange(32), device)
    vae = grow(half.cpu(), sample.cpu()).eval().to(device)
    rescale(vae, mean.to(device), std.to(device))
    z = (z - mean.view(1, 4, 1, 1)) / std.view(1, 4, 1, 1)
    full = vae.encode(sample).latent_dist.mean.cpu() * LATENT_SCALE
    error = (vae.decode(full.to(device) / LATENT_SCALE).sample - sample).abs().mean()
    print(f"mean {mean.tolist()} deviation {std.tolist()}; the full encoder differs by {float((full - z[:32]).abs().max()):.2g}; "
          f"pixel error of the grown decoder {float(error):.3f}")
    torch.save({key: value.cpu() for key, value in vae.state_dict().items()}, folder / "vae_scaled.pt")
    torch.save(z.half(), folder / "latents.pt")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=16000, help="how many pictures, from the first on")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    prepare(chosen.folder, chosen.count, "cuda" if torch.cuda.is_available() else "cpu")
