"""Trains the UNet on the latents, with the text encoder as text.py left it. Run: python -m tools.first_model.train FOLDER --minutes 80

FOLDER holds latents.pt, tags.json and text.pt and receives model.pt (everything to go on from, and the averaged weights), train.log and
grids/STEP.png. The run goes on from model.pt; every step draws its pictures, captions and noise from its own number as seed, so a
stopped and resumed run is the same run. Loss: squared error of the predicted noise, weighted by time (see `weights`).

The weights are float32, and a copy of the UNet in bfloat16 does the computing: 8 instead of 13 milliseconds a sample on the CPU it was
measured on.
"""

from __future__ import annotations

import argparse
import copy
import random
import time
from pathlib import Path

import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn

from nbsd.conditioning.tokens import END

from .autoencoder import head_weight
from .captions import Captions
from .dataset import read
from .muon import Muon
from .networks import alphas_cumprod, make_text_encoder, make_unet, start_text_encoder, start_unet
from .sampling import save_grid
from .state import Plan, save_state
from .tags import Tags
from .text import hidden_states

RATE, AVERAGE = 2e-3, 0.999
CLIP_SKIP_SHARE = 0.25      # of the steps that read the last layer but one, so that clip skip 1 and 2 both work
BLIND_END = 0.35            # share of captions whose END tokens are those of the empty caption: the tags' own tokens must count too
FINE_SHARE = 0.6            # share of the samples that are drawn from the finely drawn pictures only
PLAIN = ("conv_in", "conv_out", "conv_shortcut", "time_embedding")      # what start_unet sets, and what is no matrix of features


class Networks(nn.Module):
    """UNet and text encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.unet, self.text = make_unet(), make_text_encoder()

    def context(self, tokens: Tensor, clip_skip: int = 1) -> Tensor:
        """[b, 77] tokens to [b, 77, width], through the final layer norm as the web UI does it."""
        return hidden_states(self.text, tokens)[clip_skip - 1]


def averaged(folder: Path) -> dict[str, Tensor]:
    """The averaged weights after the last stage that was run: softened, if soften.py was."""
    soft = folder / "soft.pt"
    weights: dict[str, Tensor] = torch.load(soft if soft.exists() else folder / "model.pt", weights_only=True)["ema"]
    return weights


def fresh(folder: Path) -> Networks:
    """The networks before the first step: the text encoder from text.pt, if it is there."""
    torch.manual_seed(0)
    networks = Networks()
    start_unet(networks.unet)
    start_text_encoder(networks.text, Captions().used)
    if (folder / "text.pt").exists():
        state = torch.load(folder / "text.pt", weights_only=True)["model"]
        networks.text.load_state_dict({key.removeprefix("text."): value for key, value in state.items() if key.startswith("text.")})
    networks.text.requires_grad_(False)
    return networks


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
def average(ema: nn.Module, networks: nn.Module, step: int, longest: float = AVERAGE) -> None:
    """Moves the averaged weights towards the current ones, fast at the start."""
    keep = min(longest, (1 + step) / (10 + step))
    mine: list[Tensor] = list(ema.parameters())
    theirs: list[Tensor] = list(networks.parameters())
    torch._foreach_lerp_(mine, theirs, 1 - keep)


class Trainer:
    """The networks, their running average, the optimiser and the data; one step at a time."""

    begun, longest = 0, AVERAGE     # the step at which the running average began, and how much of it is kept at most

    def __init__(self, folder: Path, batch: int, device: str) -> None:
        self.path, self.batch, self.device = folder / "model.pt", batch, device
        self.latents = torch.load(folder / "latents.pt", weights_only=True).to(device)
        self.tags: list[Tags] = read(folder)[1]
        self.fine = [row for row, tags in enumerate(self.tags[: len(self.latents)]) if tags.quality == "best"]
        self.where = head_weight(16).to(device)
        self.captions, self.table = Captions(), alphas_cumprod().float().to(device)
        self.networks, self.step = fresh(folder).to(device), 0
        self.ema = copy.deepcopy(self.networks)
        self.fast = copy.deepcopy(self.networks.unet).bfloat16()
        if device == "cpu":
            self.fast.set_attn_processor(AttnProcessor())   # the fused attention in bfloat16 takes three times as long there
        self.optimizer = Muon(self.networks.unet.named_parameters(), RATE, PLAIN)
        self.empty = torch.tensor([self.captions.row("", random.Random(0))], device=device)
        if self.path.exists():
            state = torch.load(self.path, weights_only=True)
            self.networks.load_state_dict(state["model"])
            self.ema.load_state_dict(state["ema"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = state["step"]

    def save(self) -> None:
        save_state(self.path, model=self.networks.state_dict(), ema=self.ema.state_dict(), optimizer=self.optimizer.state_dict(),
                   step=self.step)

    @torch.no_grad()
    def context(self, tokens: Tensor, rng: random.Random) -> Tensor:
        """Text vectors [b, 77, width] of rows of tokens [b, 77]."""
        skip = 2 if rng.random() < CLIP_SKIP_SHARE else 1
        found, empty = self.networks.context(tokens, skip), self.networks.context(self.empty, skip)
        blind = torch.tensor([rng.random() < BLIND_END for _ in tokens], device=self.device)
        return torch.where((blind[:, None] & (tokens == END))[..., None], empty, found)

    def one_step(self, rate: float) -> tuple[float, float]:
        """One step of the optimiser; everything random in it comes from the step's number. Weighted loss, and plain error of the noise."""
        rng = random.Random(self.step)
        (x, noise, t, weight), tags = self.samples(rng)
        context = self.context(self.captions.batch(tags, rng).to(self.device), rng)
        return self.learn(x, t, context, noise, weight, rate)

    def samples(self, rng: random.Random) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], list[Tags]]:
        """What one step learns from: noised latents, the noise, timesteps and weights, and the tags of the pictures."""
        generator = torch.Generator().manual_seed(self.step)
        rows = [rng.choice(self.fine) if rng.random() < FINE_SHARE else rng.randrange(len(self.latents)) for _ in range(self.batch)]
        return noisy(self.latents[rows].float(), self.table, generator), [self.tags[row] for row in rows]

    def learn(self, x: Tensor, t: Tensor, context: Tensor, target: Tensor, weight: Tensor, rate: float) -> tuple[float, float]:
        """One step towards `target`; the weighted loss, and the plain error."""
        mine, fast = list(self.networks.unet.parameters()), list(self.fast.parameters())
        with torch.no_grad():
            torch._foreach_copy_(fast, mine)
        square = (self.fast(x.bfloat16(), t, context.bfloat16()).sample.float() - target).square()
        loss = ((square * self.where).mean((1, 2, 3)) * weight).mean()
        loss.backward()
        for parameter, copied in zip(mine, fast, strict=True):
            assert copied.grad is not None
            parameter.grad, copied.grad = copied.grad.float(), None
        torch.nn.utils.clip_grad_norm_(mine, 1.0)
        self.optimizer.step(rate)
        average(self.ema, self.networks, self.step - self.begun, self.longest)
        self.step += 1
        return loss.item(), square.detach().mean().item()


def train(folder: Path, plan: Plan, grid_minutes: float, batch: int, device: str) -> None:
    """Trains until the plan's steps or minutes are used up; saves every four minutes and at the end."""
    trainer = Trainer(folder, batch, device)
    started, saved, shown = time.process_time(), time.time(), time.time()
    losses: list[tuple[float, float]] = []
    with open(folder / "train.log", "a") as log:
        while trainer.step < plan.steps and time.process_time() - started < plan.minutes * 60:
            losses.append(trainer.one_step(RATE * plan.rate(trainer.step)))
            if trainer.step % 50 == 0:
                mean = torch.tensor(losses).mean(0).tolist()
                print(f"{trainer.step} loss {mean[0]:.4f} error {mean[1]:.4f} rate {RATE * plan.rate(trainer.step):.2g} "
                      f"seconds {time.process_time() - started:.0f}", file=log, flush=True)
                losses = []
            if time.time() - saved > 240:
                trainer.save()
                saved = time.time()
            if time.time() - shown > grid_minutes * 60:
                save_grid(trainer.ema, folder, trainer.step)
                shown = time.time()
    trainer.save()
    save_grid(trainer.ema, folder, trainer.step)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=80)
    parser.add_argument("--steps", type=int, default=8500)
    parser.add_argument("--grid-minutes", type=float, default=12)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    train(chosen.folder, Plan(chosen.steps, chosen.minutes, level=0.4), chosen.grid_minutes, chosen.batch,
          "cuda" if torch.cuda.is_available() else "cpu")
