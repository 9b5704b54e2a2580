"""Makes CFG scale 7, which everybody uses, the right one for this model. Run after train: python -m tools.first_model.soften FOLDER

So small a model on so clear a data set follows its prompt at CFG 3 already; at 7 the colours burn out and the mouth with them. So the UNet
goes on learning with the difference between "with this caption" and "without caption" made smaller: for a caption c the noise that it should
tell is e(c) - (1 - SHARE) * (e(c) - e(empty)), with e of a frozen copy (and, by half, the true noise, so that it learns on). CFG 7 then does
what 7 * SHARE did. FOLDER/model.pt stays as it is; the result is FOLDER/soft.pt.
"""

from __future__ import annotations

import argparse
import copy
import random
import time
from pathlib import Path

import torch

from .state import Plan, save_state
from .train import Trainer, average, noisy

SHARE, RATE, AVERAGE = 0.5, 1e-3, 0.985


class Softener(Trainer):
    """Goes on from the averaged weights of model.pt, or from soft.pt."""

    def __init__(self, folder: Path, batch: int, device: str) -> None:
        super().__init__(folder, batch, device)
        self.teacher = copy.deepcopy(self.fast).requires_grad_(False)
        with torch.no_grad():
            torch._foreach_copy_(list(self.teacher.parameters()), list(self.ema.unet.parameters()))
        self.networks.load_state_dict(self.ema.state_dict())
        self.path, self.begun = folder / "soft.pt", self.step
        if self.path.exists():
            state = torch.load(self.path, weights_only=True)
            self.networks.load_state_dict(state["model"])
            self.ema.load_state_dict(state["ema"])
            self.step = state["step"]

    def save(self) -> None:
        save_state(self.path, model=self.networks.state_dict(), ema=self.ema.state_dict(), step=self.step)

    def one_step(self, rate: float) -> tuple[float, float]:
        rng = random.Random(self.step)
        generator = torch.Generator().manual_seed(self.step)
        rows = [rng.choice(self.fine) if rng.random() < 0.6 else rng.randrange(len(self.latents)) for _ in range(self.batch)]
        x, noise, t, weight = noisy(self.latents[rows].float(), self.table, generator)
        mine, fast = list(self.networks.unet.parameters()), list(self.fast.parameters())
        context = self.context(rows, rng).bfloat16()
        empty = self.networks.context(self.empty).bfloat16().expand_as(context)
        with torch.no_grad():
            torch._foreach_copy_(fast, mine)
            said = self.teacher(x.bfloat16(), t, context).sample.float()
            plain = self.teacher(x.bfloat16(), t, empty).sample.float()
        target = (said + noise) / 2 - (1 - SHARE) * (said - plain)
        square = (self.fast(x.bfloat16(), t, context).sample.float() - target).square()
        loss = ((square * self.where).mean((1, 2, 3)) * weight).mean()
        loss.backward()
        for parameter, copied in zip(mine, fast, strict=True):
            assert copied.grad is not None
            parameter.grad, copied.grad = copied.grad.float(), None
        torch.nn.utils.clip_grad_norm_(mine, 1.0)
        self.optimizer.step(rate)
        average(self.ema, self.networks, self.step - self.begun, AVERAGE)
        self.step += 1
        return loss.item(), square.detach().mean().item()


def soften(folder: Path, plan: Plan, batch: int, device: str) -> None:
    trainer = Softener(folder, batch, device)
    started, saved = time.process_time(), time.time()
    with open(folder / "soft.log", "a") as log:
        while (done := trainer.step - trainer.begun) < plan.steps and time.process_time() - started < plan.minutes * 60:
            loss = trainer.one_step(RATE * plan.rate(done))
            if done % 10 == 9:
                print(f"{done + 1} loss {loss[0]:.4f} error {loss[1]:.4f} seconds {time.process_time() - started:.0f}", file=log, flush=True)
            if time.time() - saved > 60:
                trainer.save()
                saved = time.time()
    trainer.save()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=80)
    parser.add_argument("--steps", type=int, default=350)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    soften(chosen.folder, Plan(chosen.steps, chosen.minutes, warmup=10, level=0.3), chosen.batch, "cuda" if torch.cuda.is_available() else "cpu")
