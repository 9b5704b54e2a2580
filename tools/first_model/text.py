"""Teaches the text encoder alone, before any picture: its vectors must say linearly what the caption says. FOLDER receives text.pt, text.log.

The last token of each tag must tell the tag; each END token (they see the whole caption) must tell every tag of it. Both are read by one
linear layer each, from the last layer and from the last but one (clip skip 2), through the final norm as the web UI does it, with noise
on the vectors so that margins are wide. The UNet then has only linear maps to learn. Captions cost nothing: they are drawn without pictures.

Run: python -m tools.first_model.text FOLDER
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import CLIPTextModel

from nbsd.conditioning.tokens import END

from .captions import EVERY, Captions
from .networks import TEXT_WIDTH, make_text_encoder, start_text_encoder
from .state import Plan, save_state
from .tags import draw_tags

RATE, BATCH, MARGIN = 2e-3, 64, 0.2
OWN_WEIGHT = 0.3
JOINED, BARE = 0.06, 0.06       # shares of captions written with underscores, and without commas


def hidden_states(text: CLIPTextModel, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """What clip skip 1 and 2 give: each [b, 77, width]."""
    inner = getattr(text, "text_model", text)
    found = text(input_ids=tokens, output_hidden_states=True).hidden_states
    return inner.final_layer_norm(found[-1]), inner.final_layer_norm(found[-2])


class Reader(nn.Module):
    """Two linear layers that read tags off text vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.all = nn.Linear(TEXT_WIDTH, len(EVERY)), nn.Linear(TEXT_WIDTH, len(EVERY))

    def scores(self, vectors: Tensor, tokens: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of the own tag [n, words] where `own` >= 0, and of all tags [m, words] at the END tokens."""
        return self.own(vectors[own >= 0]), self.all(vectors[tokens == END])


def batch(captions: Captions, rng: random.Random, size: int = BATCH) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens [b, 77], the tag of which each token is the last or -1 [b, 77], and which tags each caption says, 0 or 1 [b, words]."""
    tokens, own, said = [], torch.full((size, 77), -1), torch.zeros(size, len(EVERY))
    for i in range(size):
        text, noise = captions.training_text(draw_tags(rng), rng)
        row, places = captions.placed(text, rng, noise, rng.random() < JOINED, rng.random() >= BARE)
        tokens.append(row)
        for at, word in places:
            own[i, at] = word
            said[i, word] = 1
    return torch.tensor(tokens), own, said


def loss_of(text: CLIPTextModel, reader: Reader, step: int, captions: Captions) -> Tensor:
    device = next(reader.parameters()).device
    tokens, own, said = (part.to(device) for part in batch(captions, random.Random(step)))
    generator = torch.Generator().manual_seed(step)
    total = torch.zeros((), device=device)
    everywhere = said[:, None].expand(-1, 77, -1)[tokens == END]
    for vectors in hidden_states(text, tokens):
        noise = MARGIN * torch.randn(vectors.shape, generator=generator).to(device)
        mine, every = reader.scores(vectors + noise, tokens, own)
        total = total + OWN_WEIGHT * nn.functional.cross_entropy(mine, own[own >= 0])
        total = total + nn.functional.binary_cross_entropy_with_logits(every, everywhere) * 12
    return total


@torch.no_grad()
def right(text: CLIPTextModel, reader: Reader, captions: Captions) -> list[float]:
    """Percent of own tags and of whole captions read rightly, for clip skip 1 and 2."""
    tokens, own, said = (part.to(next(reader.parameters()).device) for part in batch(captions, random.Random(-1), 256))
    found = []
    for vectors in hidden_states(text, tokens):
        mine, every = reader.scores(vectors, tokens, own)
        whole = ((every > 0) == (said[:, None].expand(-1, 77, -1)[tokens == END] > 0)).all(1)
        found += [100 * (mine.argmax(1) == own[own >= 0]).float().mean().item(), 100 * whole.float().mean().item()]
    return [round(value, 1) for value in found]


def train(folder: Path, plan: Plan, device: str) -> None:
    captions = Captions()
    torch.manual_seed(0)
    text, reader = make_text_encoder(), Reader()
    mask = start_text_encoder(text, captions.used).to(device)
    both = nn.ModuleDict({"text": text, "reader": reader}).to(device)
    text.get_input_embeddings().weight.register_hook(lambda gradient: gradient * mask)
    norm = getattr(text, "text_model", text).final_layer_norm.requires_grad_(False)     # fixed size: the noise cannot be outgrown
    trained = [p for p in both.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, betas=(0.9, 0.98), weight_decay=0, foreach=True)
    path, step = folder / "text.pt", 0
    if path.exists():
        state = torch.load(path, weights_only=True)
        both.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    assert not norm.weight.requires_grad
    started = time.process_time()
    with open(folder / "text.log", "a") as log:
        while step < plan.steps and time.process_time() - started < plan.minutes * 60:
            for group in optimizer.param_groups:
                group["lr"] = RATE * plan.rate(step)
            loss = loss_of(text, reader, step, captions)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            step += 1
            if step % 50 == 0:
                print(f"{step} loss {loss.item():.4f} seconds {time.process_time() - started:.0f}", file=log, flush=True)
            if step % 300 == 0:
                print(f"{step} right (own, whole; clip skip 1, 2) {right(text, reader, captions)}", file=log, flush=True)
                save_state(path, model=both.state_dict(), optimizer=optimizer.state_dict(), step=step)
    save_state(path, model=both.state_dict(), optimizer=optimizer.state_dict(), step=step)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    train(chosen.folder, Plan(chosen.steps, chosen.minutes), "cuda" if torch.cuda.is_available() else "cpu")
