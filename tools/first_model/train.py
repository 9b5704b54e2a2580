"""Trains UNet and text encoder together on the latents. Run: python -m tools.first_model.train FOLDER --minutes 80

FOLDER holds latents.pt and tags.json and receives model.pt (everything to go on from, and the averaged weights), train.log and
grids/STEP.png. The run goes on from model.pt; every step draws its pictures, captions and noise from its own number as seed, so a
stopped and resumed run is the same run. Loss: squared error of the predicted noise, weighted by time (see `weights`).
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .captions import Captions
from .dataset import read
from .networks import alphas_cumprod, make_text_encoder, make_unet, start_text_encoder
from .sampling import save_grid
from .state import Plan, save_state

RATE, AVERAGE = 1.5e-3, 0.9985
CLIP_SKIP_SHARE = 0.35      # of the steps that read the last layer but one, so that clip skip 1 and 2 both work


class Networks(nn.Module):
    """UNet and text encoder, trained as one."""

    def __init__(self) -> None:
        super().__init__()
        self.unet, self.text = make_unet(), make_text_encoder()

    def context(self, tokens: Tensor, clip_skip: int = 1) -> Tensor:
        """[b, 77] tokens to [b, 77, width], through the final layer norm as the web UI does it."""
        hidden = self.text(input_ids=tokens, output_hidden_states=True).hidden_states
        return getattr(self.text, "text_model", self.text).final_layer_norm(hidden[-clip_skip])


def weights(a: Tensor) -> Tensor:
    """The loss weight at alpha_cumprod a: that of a model of velocity, 1 + 1 / SNR (Salimans and Ho 2022), at most 50, and less where
    there is hardly any noise, 5 / SNR (Hang et al. 2023).

    With an even weight the error at much noise, where the prompt decides the picture, is a hundredth of the loss, and after 900 steps
    the prompt was hardly followed.
    """
    snr = a / (1 - a)
    return (1 + 1 / snr).clamp(max=50) * (5 / snr).clamp(max=1)


def noisy(latents: Tensor, table: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Noised latents, the noise, timesteps (spread evenly over the batch) and the loss weight of each."""
    b = len(latents)
    t = ((torch.arange(b) + torch.rand(b, generator=generator)) / b * 1000).long().to(latents.device)
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    a = table[t].view(-1, 1, 1, 1)
    return latents * a.sqrt() + noise * (1 - a).sqrt(), noise, t, weights(table[t])


@torch.no_grad()
def average(ema: nn.Module, networks: nn.Module, step: int) -> None:
    """Moves the averaged weights towards the current ones, fast at the start."""
    keep = min(AVERAGE, (1 + step) / (10 + step))
    mine: list[Tensor] = list(ema.parameters())
    theirs: list[Tensor] = list(networks.parameters())
    torch._foreach_lerp_(mine, theirs, 1 - keep)


def train(folder: Path, plan: Plan, grid_minutes: float, batch: int, device: str) -> None:
    """Trains until the plan's steps or minutes are used up; saves every four minutes and at the end."""
    latents = torch.load(folder / "latents.pt", weights_only=True).to(device)
    tags = read(folder)[1]
    captions, table = Captions(), alphas_cumprod().float().to(device)
    torch.manual_seed(0)
    networks, ema = Networks(), Networks()
    mask = start_text_encoder(networks.text, captions.used).to(device)
    networks.to(device), ema.to(device)
    networks.text.get_input_embeddings().weight.register_hook(lambda gradient: gradient * mask)
    ema.load_state_dict(networks.state_dict())
    optimizer = torch.optim.AdamW(networks.parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=0.01, foreach=True)
    path, step = folder / "model.pt", 0
    if path.exists():
        state = torch.load(path, weights_only=True)
        networks.load_state_dict(state["model"])
        ema.load_state_dict(state["ema"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    started = saved = shown = time.time()
    losses: list[float] = []

    def save() -> None:
        save_state(path, model=networks.state_dict(), ema=ema.state_dict(), optimizer=optimizer.state_dict(), step=step)

    with open(folder / "train.log", "a") as log:
        while step < plan.steps and time.time() - started < plan.minutes * 60:
            for group in optimizer.param_groups:
                group["lr"] = RATE * plan.rate(step)
            losses.append(one_step(networks, optimizer, latents, tags, captions, table, step, batch))
            average(ema, networks, step)
            step += 1
            if step % 25 == 0:
                print(f"{step} loss {sum(losses) / len(losses):.4f} seconds {time.time() - started:.0f}", file=log, flush=True)
                losses = []
            if time.time() - saved > 240:
                save()
                saved = time.time()
            if time.time() - shown > grid_minutes * 60:
                save_grid(ema, folder, step)
                shown = time.time()
    save()
    save_grid(ema, folder, step)


def one_step(
    networks: Networks, optimizer: Any, latents: Tensor, tags: list, captions: Captions, table: Tensor, step: int, batch: int
) -> float:
    """One optimiser step; everything random in it comes from the step's number."""
    rng = random.Random(step)
    generator = torch.Generator().manual_seed(step)
    rows = rng.sample(range(len(latents)), batch)
    x, noise, t, weight = noisy(latents[rows].float(), table, generator)
    tokens = captions.batch([tags[row] for row in rows], rng).to(latents.device)
    context = networks.context(tokens, 2 if rng.random() < CLIP_SKIP_SHARE else 1)
    error = (networks.unet(x, t, context).sample - noise).square().mean((1, 2, 3))
    loss = (error * weight).mean()
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(networks.parameters(), 1.0)
    optimizer.step()
    return error.detach().mean().item()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=80)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--grid-minutes", type=float, default=12)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    train(chosen.folder, Plan(chosen.steps, chosen.minutes), chosen.grid_minutes, chosen.batch,
          "cuda" if torch.cuda.is_available() else "cpu")
