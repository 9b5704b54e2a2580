"""Trains the autoencoder on rendered pictures. Run: python -m tools.first_model.autoencoder FOLDER --minutes 25

FOLDER holds the pictures (see dataset.py) and receives `vae.pt` (state to go on from) and `vae.log`. Loss: mean absolute error of the
pixels, the same of their differences to right and below (keeps the lines sharp without a foreign perceptual network), a little KL.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from .dataset import read
from .networks import make_vae
from .state import Plan, save_state

BATCH, KL_WEIGHT, EDGE_WEIGHT, RATE = 8, 3e-6, 0.8, 1.5e-3


def edges(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def losses(vae: AutoencoderKL, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The loss and the mean absolute pixel error of a batch [b, 3, 128, 128] in -1..1."""
    posterior = vae.encode(x).latent_dist
    y = vae.decode(posterior.sample(generator)).sample
    pixel = (y - x).abs().mean()
    edge = sum((a - b).abs().mean() for a, b in zip(edges(y), edges(x), strict=True))
    return pixel + 0.5 * (y - x).square().mean() + EDGE_WEIGHT * edge + KL_WEIGHT * posterior.kl().mean(), pixel


def batch_of(pictures: np.ndarray, rng: np.random.Generator, size: int) -> Tensor:
    rows = np.sort(rng.integers(0, len(pictures), size))
    return torch.from_numpy(pictures[rows]).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def train(folder: Path, plan: Plan) -> None:
    """Goes on from `vae.pt` if it is there, until the plan's steps or minutes are used up."""
    pictures, _ = read(folder)
    torch.manual_seed(0)
    vae = make_vae().train()
    optimizer = torch.optim.AdamW(vae.parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=0)
    step, path = 0, folder / "vae.pt"
    if path.exists():
        state = torch.load(path, weights_only=True)
        vae.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    started = saved = time.time()
    generator, total = torch.Generator().manual_seed(step), []
    with open(folder / "vae.log", "a") as log:
        while step < plan.steps and time.time() - started < plan.minutes * 60:
            for group in optimizer.param_groups:
                group["lr"] = RATE * plan.rate(step)
            x = batch_of(pictures, np.random.default_rng([1, step]), BATCH)
            loss, pixel = losses(vae, x, generator)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
            optimizer.step()
            step += 1
            total.append((float(loss), float(pixel)))
            if step % 25 == 0:
                mean = np.mean(total, 0)
                print(f"{step} loss {mean[0]:.4f} pixel {mean[1]:.4f} seconds {time.time() - started:.0f}", file=log, flush=True)
                total = []
            if time.time() - saved > 120:
                save_state(path, model=vae.state_dict(), optimizer=optimizer.state_dict(), step=step)
                saved = time.time()
    save_state(path, model=vae.state_dict(), optimizer=optimizer.state_dict(), step=step)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    train(chosen.folder, Plan(chosen.steps, chosen.minutes))
