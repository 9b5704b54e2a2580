"""Makes CFG scale 7, which everybody uses, the right one for this model. Run after train: python -m tools.first_model.soften FOLDER

So small a model on so clear a data set follows its prompt at CFG 3 already; at 7 the colours burn out and the mouth with them. So the UNet
goes on learning with the difference between "with this caption" and "without caption" made smaller: for a caption c the noise that it should
tell is e(c) - (1 - SHARE) * (e(c) - e(empty)), with e of a frozen copy (and, by half, the true noise, so that it learns on). CFG 7 then does
what 7 * SHARE did.

And it learns what (blue hair:1.4) means. At weight 1 the hair has the colour that it is asked for already, and more weight led anywhere. So
for some captions the colour's vectors are multiplied as the web UI does it, and what is to be told is led away from the same caption with
silver hair: emphasis makes a colour stronger.

FOLDER/model.pt stays as it is; the result is FOLDER/soft.pt.
"""

from __future__ import annotations

import argparse
import copy
import random
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from .state import Plan, save_state
from .train import Trainer

SHARE, RATE, AVERAGE = 0.5, 1e-3, 0.985
GREY, MOST, AWAY = "silver hair", 0.6, 0.4      # weights go up to 1.6; AWAY times 7 is what CFG 7 makes of it


class Softener(Trainer):
    """Goes on from the averaged weights of model.pt, or from soft.pt."""

    longest = AVERAGE

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
        (x, noise, t, weight), tags = self.samples(rng)
        before = rng.getstate()
        tokens = self.captions.batch(tags, rng).to(self.device)
        context = self.context(tokens, rng)
        rng.setstate(before)        # the same captions once more, of grey hair
        grey_tokens = self.captions.batch([replace(one, hair=GREY) for one in tags], rng).to(self.device)
        grey = self.context(grey_tokens, rng)
        more = torch.tensor([max(rng.uniform(-1, 1), 0) * MOST for _ in tags], device=self.device)
        emphasised, more = emphasise(context, tokens, grey_tokens, more)
        empty = self.networks.context(self.empty).expand_as(context)
        said, plain, said_grey = (self.told(x, t, one) for one in (context, empty, grey))
        target = (said + noise) / 2 - (1 - SHARE) * (said - plain) + AWAY * more.view(-1, 1, 1, 1) * (said - said_grey)
        return self.learn(x, t, emphasised, target, weight, rate)

    @torch.no_grad()
    def told(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """The noise that the frozen copy sees."""
        found: Tensor = self.teacher(x.bfloat16(), t, context.bfloat16()).sample.float()
        return found


def emphasise(context: Tensor, tokens: Tensor, grey_tokens: Tensor, more: Tensor) -> tuple[Tensor, Tensor]:
    """The vectors [b, 77, width] with the hair's colour and the word after it multiplied by 1 + more [b], as the web UI does it for
    (blue hair:1.4): then the whole is brought back to its mean. And `more`, 0 where the caption names no colour that has a place of its own."""
    differ = tokens != grey_tokens
    more = torch.where(differ.sum(1) == 1, more, 0.0)
    place = differ | differ.roll(1, 1)
    found = context * (1 + more.view(-1, 1, 1) * place[..., None])
    return found * (context.mean((1, 2)) / found.mean((1, 2))).view(-1, 1, 1), more


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
