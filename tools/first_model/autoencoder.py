"""Trains the autoencoder on rendered pictures, in two stages. FOLDER holds the pictures (see dataset.py).

    python -m tools.first_model.autoencoder FOLDER half    encoder and decoder at 64 pixels: FOLDER/half.pt, half.log
    python -m tools.first_model.latents FOLDER             grows it to 128 pixels, scales and writes the latents: vae_scaled.pt, latents.pt
    python -m tools.first_model.autoencoder FOLDER full    the decoder alone at 128 pixels: FOLDER/decoder.pt, decoder.log

Loss: mean absolute and mean squared error of the pixels, the same of their differences to right and below (keeps the lines sharp
without a foreign perceptual network), a little KL; all counts more where eyes and mouth are. In the half stage a small network must also
read expression and eye colour off the latents (`Probe`), or the encoder learns the mouth last of all.
A stopped run goes on where it was saved; each step's pictures come from its number.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .dataset import read
from .half import HalfVae, start
from .labels import WORDS, labels
from .networks import LATENT_SCALE, make_vae
from .state import Plan, save_state

BATCH = {"half": 8, "full": 4}
RATE = {"half": 1.2e-4, "full": 3e-4}
PROBED, PROBE_WEIGHT = ("eye_colour", "eyes", "mouth", "blush", "glasses"), 0.02
LATENT_NOISE = 0.08     # share of each latent channel's deviation that is added as noise: what the decoder must not depend on
KL_WEIGHT, EDGE_WEIGHT = 1e-6, 0.8
JITTER = 0.05       # deviation of the noise on scaled latents while the decoder trains: the UNet's latents are not exact either


def edges(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


@functools.cache
def head_weight(size: int) -> Tensor:
    """[size, size], mean 1: up to four times as much where the face is, and more than twice as much where hats and hairbands are."""
    at = (torch.arange(size) + 0.5) * 128 / size

    def blob(x: float, y: float, wide: float, high: float) -> Tensor:
        return torch.exp(-(((at - x) / wide).square()[None] + ((at - y) / high).square()[:, None]) / 2)

    weight = 1 + 3 * blob(64, 78, 24, 20) + 1.5 * blob(64, 34, 30, 14)
    return weight / weight.mean()


def picture_loss(y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of the answer y for the picture x, and its mean absolute error; both [b, 3, h, w] in -1..1."""
    weight = head_weight(x.shape[-1]).to(x.device)
    error = (y - x).abs()
    (right_y, down_y), (right_x, down_x) = edges(y), edges(x)
    edge = ((right_y - right_x).abs() * weight[:, 1:]).mean() + ((down_y - down_x).abs() * weight[1:]).mean()
    return (error * weight).mean() + 0.5 * (error.square() * weight).mean() + EDGE_WEIGHT * edge, error.mean()


class Probe(nn.Module):
    """Reads what is small in a face off the latents [b, 4, 16, 16]."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(4, 48, 3, 1, 1), nn.ReLU(), nn.Conv2d(48, 64, 3, 2, 1), nn.ReLU(), nn.Conv2d(64, 64, 3, 2, 1), nn.ReLU(), nn.Flatten(),
        )
        self.heads = nn.ModuleDict({kind: nn.Linear(64 * 16, len(WORDS[kind])) for kind in PROBED})

    def loss(self, z: Tensor, wanted: dict[str, Tensor]) -> Tensor:
        h = self.body(z)
        parts = [nn.functional.cross_entropy(self.heads[kind](h), wanted[kind].to(z.device), ignore_index=-1) for kind in PROBED]
        return torch.stack(parts).nan_to_num().sum()


def half_loss(half: HalfVae, probe: Probe, x: Tensor, wanted: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Of a batch [b, 3, 64, 64] and what its pictures show."""
    mean, log_variance = half.moments(x)
    noise = torch.randn(mean.shape, generator=generator).to(mean)
    deviation = log_variance.exp() + (LATENT_NOISE * mean.detach().std((0, 2, 3), keepdim=True)).square()
    z = mean + noise * deviation.sqrt()
    loss, pixel = picture_loss(half.decode(z), x)
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum((1, 2, 3)).mean()
    return loss + KL_WEIGHT * kl + PROBE_WEIGHT * probe.loss(z, wanted), pixel


def full_loss(vae: Any, x: Tensor, z: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Of a batch [b, 3, 128, 128] with its scaled latents [b, 4, 16, 16]."""
    z = z + JITTER * torch.randn(z.shape, generator=generator).to(z)
    with torch.autocast(z.device.type, torch.bfloat16):
        y = vae.decode(z / LATENT_SCALE).sample
    return picture_loss(y.float(), x)


def normalise_widely(decoder: Any) -> None:
    """Lets the norms, and all behind the last one, compute in float32 amid bfloat16; the weights are untouched.

    On a CPU norms are slow in bfloat16; and what the last norm gives lies around SHIFT, where bfloat16 has steps of 0.03.
    """
    for name, module in decoder.named_modules():
        if isinstance(module, nn.GroupNorm):
            module.forward = functools.partial(_wide, module, name == "conv_norm_out")      # type: ignore[method-assign]
    decoder.conv_out.forward = functools.partial(_wide_conv, decoder.conv_out)


def _wide(norm: nn.GroupNorm, stay: bool, x: Tensor) -> Tensor:
    y = nn.functional.group_norm(x.float(), norm.num_groups, norm.weight, norm.bias, norm.eps)
    return y if stay else y.to(x.dtype)


def _wide_conv(conv: nn.Conv2d, x: Tensor) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        return nn.functional.conv2d(x, conv.weight, conv.bias, padding=1)


def batch_of(pictures: np.ndarray, rows: np.ndarray, device: str = "cpu") -> Tensor:
    """[len(rows), 3, 128, 128] in -1..1"""
    return torch.from_numpy(pictures[rows]).to(device).permute(0, 3, 1, 2).float().div(127.5).sub(1)


Loss = Callable[[np.ndarray, torch.Generator], tuple[Tensor, Tensor]]


def train(model: nn.Module, loss_of: Loss, path: Path, stage: str, count: int, plan: Plan) -> None:
    """Goes on from `path` if it is there, until the plan's steps or minutes are used up."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE[stage], betas=(0.9, 0.995), weight_decay=0)
    step = 0
    if path.exists():
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    started, saved = time.process_time(), time.time()
    seen: list[tuple[float, float]] = []
    with open(path.with_suffix(".log"), "a") as log:
        while step < plan.steps and time.process_time() - started < plan.minutes * 60:
            rows = np.sort(np.random.default_rng([1, step]).integers(0, count, BATCH[stage]))
            loss, pixel = loss_of(rows, torch.Generator().manual_seed(step))
            for group in optimizer.param_groups:
                group["lr"] = RATE[stage] * plan.rate(step)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            step += 1
            seen.append((loss.item(), pixel.item()))
            if step % 25 == 0:
                mean = np.mean(seen, 0)
                print(f"{step} loss {mean[0]:.4f} pixel {mean[1]:.4f} seconds {time.process_time() - started:.0f}", file=log, flush=True)
                seen = []
            if time.time() - saved > 90:
                save_state(path, model=model.state_dict(), optimizer=optimizer.state_dict(), step=step)
                saved = time.time()
    save_state(path, model=model.state_dict(), optimizer=optimizer.state_dict(), step=step)


def train_half(folder: Path, plan: Plan, device: str) -> None:
    pictures, tags = read(folder)
    wanted = labels(tags)
    torch.manual_seed(0)
    half, probe = HalfVae(), Probe()
    start(half, torch.nn.functional.avg_pool2d(batch_of(pictures, np.arange(32)), 2))
    both = nn.ModuleDict({"small": half, "probe": probe}).to(device)

    def loss_of(rows: np.ndarray, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x = torch.nn.functional.avg_pool2d(batch_of(pictures, rows, device), 2)
        return half_loss(half, probe, x, {kind: wanted[kind][rows] for kind in PROBED}, generator)

    train(both, loss_of, folder / "half.pt", "half", len(pictures), plan)


def train_full(folder: Path, plan: Plan, device: str) -> None:
    pictures, _ = read(folder)
    latents = torch.load(folder / "latents.pt", weights_only=True)
    vae = make_vae()
    vae.load_state_dict(torch.load(folder / "vae_scaled.pt", weights_only=True))
    vae.requires_grad_(False).to(device)
    normalise_widely(vae.decoder)
    vae.decoder.requires_grad_(True)
    vae.post_quant_conv.requires_grad_(True)

    def loss_of(rows: np.ndarray, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return full_loss(vae, batch_of(pictures, rows, device), latents[rows].float().to(device), generator)

    train(vae, loss_of, folder / "decoder.pt", "full", len(latents), plan)


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
