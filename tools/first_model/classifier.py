"""A small network that reads the tags off a picture, trained on renders that the model never saw. It judges; it takes no part in training.

Run: python -m tools.first_model.classifier FOLDER   (writes FOLDER/classifier.pt and prints its accuracy on other held-out renders)
"""

from __future__ import annotations

import argparse
import multiprocessing
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .dataset import HELD_OUT, picture_of, tags_of
from .labels import WORDS, labels
from .tags import Tags

TRAINED, TESTED = 8000, 1000    # held-out renders for training and for the test of the classifier


class Classifier(nn.Module):
    """[b, 3, 128, 128] in -1..1 to a score for each word of each kind of tag."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after, stride in ((3, 24, 2), (24, 48, 2), (48, 64, 2), (64, 96, 2), (96, 96, 1)):
            layers += [nn.Conv2d(before, after, 5 if before == 3 else 3, stride, 2 if before == 3 else 1), nn.BatchNorm2d(after), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten())
        self.heads = nn.ModuleDict({kind: nn.Linear(96 * 16, len(words)) for kind, words in WORDS.items()})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = self.body(x)
        return {kind: head(h) for kind, head in self.heads.items()}


def as_input(pictures: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def held_out(start: int, count: int) -> tuple[np.ndarray, list[Tags]]:
    seeds = range(HELD_OUT + start, HELD_OUT + start + count)
    with multiprocessing.Pool(2) as pool:
        return np.stack(pool.map(picture_of, seeds, chunksize=64)), [tags_of(seed) for seed in seeds]


@torch.no_grad()
def read_tags(classifier: Classifier, pictures: np.ndarray) -> dict[str, Tensor]:
    """The index of the best word of each kind, [n]."""
    parts = [classifier(as_input(part)) for part in np.array_split(pictures, max(1, len(pictures) // 64))]
    return {kind: torch.cat([part[kind] for part in parts]).argmax(1) for kind in WORDS}


def train(folder: Path, epochs: int) -> None:
    torch.manual_seed(0)
    classifier, (pictures, tags) = Classifier(), held_out(0, TRAINED)
    wanted = labels(tags)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=2e-3)
    batches = epochs * TRAINED // 64
    curve = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, batches)
    for _ in range(batches):
        rows = torch.randint(0, TRAINED, (64,))
        x = as_input(pictures[rows.numpy()])
        x = x * (1 + 0.1 * torch.randn(64, 1, 1, 1)) + 0.1 * torch.randn(64, 3, 1, 1) + 0.05 * torch.randn_like(x)
        scores = classifier(torch.roll(x, tuple(torch.randint(-4, 5, (2,)).tolist()), (2, 3)))
        loss = torch.stack([nn.functional.cross_entropy(scores[kind], wanted[kind][rows], ignore_index=-1) for kind in WORDS]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curve.step()
    classifier.eval()
    torch.save(classifier.state_dict(), folder / "classifier.pt")
    pictures, tags = held_out(TRAINED, TESTED)
    sharp = [i for i, one in enumerate(tags) if one.quality != "worst"]
    found, wanted = read_tags(classifier, pictures[sharp]), labels([tags[i] for i in sharp])
    for kind in WORDS:
        seen = wanted[kind] >= 0
        print(f"{kind:12} {100 * (found[kind] == wanted[kind])[seen].float().mean():.1f} % of {int(seen.sum())} held-out renders")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    train(chosen.folder, chosen.epochs)
