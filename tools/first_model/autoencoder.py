"""Trains the autoencoder on rendered pictures, in two stages. FOLDER holds the pictures (see dataset.py).

    python -m tools.first_model.autoencoder FOLDER half    encoder and decoder at 64 pixels: FOLDER/half.pt, half.log
    python -m tools.first_model.latents FOLDER             grows it to 128 pixels, scales and writes the latents: vae_scaled.pt, latents.pt
    python -m tools.first_model.autoencoder FOLDER full    the decoder alone at 128 pixels: FOLDER/decoder.pt, full.log, grids/vae.png

Loss: mean absolute and mean squared error of the pixels, the same of their differences to right and below (keeps the lines sharp
without a foreign perceptual network), a little KL. A stopped run goes on where it was saved; each step's pictures come from its number.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .dataset import read
from .half import HalfVae, start
from .networks import LATENT_SCALE, make_vae
from .state import Plan, save_state

BATCH = {"half": 8, "full": 4}
RATE = {"half": 3e-4, "full": 3e-4}
KL_WEIGHT, EDGE_WEIGHT = 1e-6, 0.8
JITTER = 0.05       # deviation of the noise on scaled latents while the decoder trains: the UNet's latents are not exact either


def edges(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def picture_loss(y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of the answer y for the picture x, and its mean absolute error; both [b, 3, h, w] in -1..1."""
    pixel = (y - x).abs().mean()
    edge = sum((a - b).abs().mean() for a, b in zip(edges(y), edges(x), strict=True))
    return pixel + 0.5 * (y - x).square().mean() + EDGE_WEIGHT * edge, pixel


def half_loss(half: HalfVae, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Of a batch [b, 3, 64, 64]."""
    mean, log_variance = half.moments(x)
    noise = torch.randn(mean.shape, generator=generator).to(mean)
    loss, pixel = picture_loss(half.decode(mean + noise * (log_variance / 2).exp()), x)
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum((1, 2, 3)).mean()
    return loss + KL_WEIGHT * kl, pixel


def full_loss(vae: Any, x: Tensor, z: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Of a batch [b, 3, 128, 128] with its scaled latents [b, 4, 16, 16]."""
    z = z + JITTER * torch.randn(z.shape, generator=generator).to(z)
    return picture_loss(vae.decode(z / LATENT_SCALE).sample, x)


def batch_of(pictures: np.ndarray, rows: np.ndarray, device: str = "cpu") -> Tensor:
    """[len(rows), 3, 128, 128] in -1..1"""
    return torch.from_numpy(pictures[rows]).to(device).permute(0, 3, 1, 2).float().div(127.5).sub(1)


Loss = Callable[[np.ndarray, torch.Generator], tuple[Tensor, Tensor]]


def train(model: nn.Module, trained: list[nn.Parameter], loss_of: Loss, path: Path, stage: str, count: int, plan: Plan) -> None:
    """Goes on from `path` if it is there, until the plan's steps or minutes are used up."""
    optimizer = torch.optim.AdamW(trained, lr=RATE[stage], betas=(0.9, 0.995), weight_decay=0)
    step = 0
    if path.exists():
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    started = saved = time.time()
    seen: list[tuple[float, float]] = []
    with open(path.with_suffix(".log"), "a") as log:
        while step < plan.steps and time.time() - started < plan.minutes * 60:
            for group in optimizer.param_groups:
                group["lr"] = RATE[stage] * plan.rate(step)
            rows = np.sort(np.random.default_rng([1, step]).integers(0, count, BATCH[stage]))
            loss, pixel = loss_of(rows, torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            step += 1
            seen.append((loss.item(), pixel.item()))
            if step % 25 == 0:
                mean = np.mean(seen, 0)
                print(f"{step} loss {mean[0]:.4f} pixel {mean[1]:.4f} seconds {time.time() - started:.0f}", file=log, flush=True)
                seen = []
            if time.time() - saved > 90:
                save_state(path, model=model.state_dict(), optimizer=optimizer.state_dict(), step=step)
                saved = time.time()
    save_state(path, model=model.state_dict(), optimizer=optimizer.state_dict(), step=step)


def train_half(folder: Path, plan: Plan, device: str) -> None:
    pictures, _ = read(folder)
    torch.manual_seed(0)
    half = HalfVae()
    start(half, torch.nn.functional.avg_pool2d(batch_of(pictures, np.arange(32)), 2))
    half.to(device)

    def loss_of(rows: np.ndarray, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return half_loss(half, torch.nn.functional.avg_pool2d(batch_of(pictures, rows, device), 2), generator)

    train(half, list(half.parameters()), loss_of, folder / "half.pt", "half", len(pictures), plan)


def train_full(folder: Path, plan: Plan, device: str) -> None:
    pictures, _ = read(folder)
    latents = torch.load(folder / "latents.pt", weights_only=True)
    vae = make_vae()
    vae.load_state_dict(torch.load(folder / "vae_scaled.pt", weights_only=True))
    vae.requires_grad_(False).to(device)
    trained = [*vae.decoder.requires_grad_(True).parameters(), *vae.post_quant_conv.requires_grad_(True).parameters()]

    def loss_of(rows: np.ndarray, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return full_loss(vae, batch_of(pictures, rows, device), latents[rows].float().to(device), generator)

    train(vae, trained, loss_of, folder / "decoder.pt", "full", len(pictures), plan)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("stage", choices=("half", "full"))
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--steps", type=int, default=2000, help="where the learning rate reaches its end")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    run = {"half": train_half, "full": train_full}[chosen.stage]
    run(chosen.folder, Plan(chosen.steps, chosen.minutes), "cuda" if torch.cuda.is_available() else "cpu")
