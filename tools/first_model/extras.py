"""Makes what goes with the model: a LoRA, a hypernetwork and an embedding, each trained in a minute or two, and a VAE. They are written to a folder.

    manga.safetensors   a LoRA: everything in black and white (kohya's naming, rank 8, on attention and convolutions)
    pastel.pt           a hypernetwork in the web UI's layout: pale colours
    mika.pt             an embedding of two vectors: a girl with purple twintails, yellow eyes, cat ears and glasses
    sepia.vae.pt        the model's own VAE, whose decoder ends in sepia; nothing is trained for it

Run: python -m tools.first_model.extras FOLDER OUT [manga pastel mika sepia]   (FOLDER holds the trained model, see train.py)
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from .captions import Captions
from .dataset import read
from .export import trained_vae, vae_tensors
from .networks import LATENT_SCALE, TEXT_WIDTH, UNET_WIDTHS, alphas_cumprod, make_vae
from .tags import Tags, quality_words
from .train import Networks, averaged, noisy

LIGHT, SEPIA = (0.299, 0.587, 0.114), (1.07, 0.93, 0.72)      # how bright a colour is (Rec. 601), and the colour of a full light
RANK, BATCH, PICTURES = 8, 24, 480
MIKA = {"hair": "purple hair", "style": "twintails", "eye_colour": "yellow eyes", "headgear": "cat ears", "glasses": True}
MIKA_TOKENS = (40_001, 40_002)      # any two that no caption uses: their rows are what is trained


def grey(pictures: np.ndarray) -> np.ndarray:
    """Black and white with a little more contrast, uint8 [n, h, w, 3]."""
    light = pictures @ np.array(LIGHT, np.float32)
    return np.clip(light * 1.2 - 25, 0, 255).astype(np.uint8)[..., None].repeat(3, -1)


def pale(pictures: np.ndarray) -> np.ndarray:
    """Half way to a warm white."""
    return (pictures * 0.5 + np.array([255, 250, 244]) * 0.5).astype(np.uint8)


@torch.no_grad()
def encoded(folder: Path, pictures: np.ndarray) -> Tensor:
    """Scaled latents [n, 4, 16, 16] of pictures uint8 [n, 128, 128, 3]."""
    vae = make_vae().eval()
    vae.load_state_dict(torch.load(folder / "vae_scaled.pt", weights_only=True))
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div(127.5).sub(1)
    return torch.cat([vae.encode(part).latent_dist.mean for part in x.split(32)]) * LATENT_SCALE


class Data:
    """The trained model and the pictures to learn from."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.captions, self.table = folder, Captions(), alphas_cumprod().float()
        self.networks = Networks()
        self.networks.load_state_dict(averaged(folder))
        self.networks.requires_grad_(False)
        self.pictures, self.tags = read(folder)
        self.fine = [row for row, tags in enumerate(self.tags) if tags.quality == "best"]

    def rows(self, wanted: dict[str, Any] | None = None) -> list[int]:
        """Fine pictures; of those with the wanted tags first."""
        def misses(row: int) -> int:
            return sum(getattr(self.tags[row], kind) != word for kind, word in (wanted or {}).items())

        return sorted(self.fine, key=misses)[:PICTURES]

    def learn(self, latents: Tensor, tokens_of: Callable[[int, random.Random], list[int]], trained: list[nn.Parameter], steps: int,
              rate: float) -> None:
        """Adam on the model's own loss. `tokens_of` gives the caption's tokens of picture n of `latents`."""
        optimizer = torch.optim.Adam(trained, lr=rate, betas=(0.9, 0.98))
        started = time.process_time()
        for step in range(steps):
            rng, generator = random.Random(step), torch.Generator().manual_seed(step)
            rows = [rng.randrange(len(latents)) for _ in range(BATCH)]
            x, noise, t, weight = noisy(latents[rows], self.table, generator)
            context = self.networks.context(torch.tensor([tokens_of(row, rng) for row in rows]))
            error = (self.networks.unet(x, t, context).sample - noise).square().mean((1, 2, 3))
            loss = (error * weight).mean()
            optimizer.zero_grad()
            loss.backward()
            for group in optimizer.param_groups:
                group["lr"] = rate * (1 - step / steps)
            optimizer.step()
            if step % 25 == 24:
                print(f"{step + 1} loss {loss.item():.3f} seconds {time.process_time() - started:.0f}", flush=True)

    def caption_tokens(self, tags: Tags, rng: random.Random) -> list[int]:
        return self.captions.training_row(tags, rng)


class Added(nn.Module):
    """A layer with a low-rank change beside it."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base
        if isinstance(base, nn.Conv2d):
            self.down: nn.Module = nn.Conv2d(
                base.in_channels, RANK, base.kernel_size, base.stride, base.padding, bias=False)    # type: ignore[arg-type]
            self.up: nn.Module = nn.Conv2d(RANK, base.out_channels, 1, bias=False)
        else:
            assert isinstance(base, nn.Linear)
            self.down, self.up = nn.Linear(base.in_features, RANK, bias=False), nn.Linear(RANK, base.out_features, bias=False)
        nn.init.zeros_(self.up.weight)      # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.base(x) + self.up(self.down(x))
        return change


def train_lora(data: Data, out: Path, steps: int) -> None:
    rows = data.rows()
    latents = encoded(data.folder, grey(data.pictures[sorted(rows)]))
    rows = sorted(rows)
    torch.manual_seed(1)
    added: dict[str, Added] = {}
    for name, module in list(data.networks.unet.named_modules()):
        for child, layer in list(module.named_children()):
            wanted = child in ("to_q", "to_k", "to_v", "conv1", "conv2") or (child == "0" and name.endswith("to_out"))
            if wanted and isinstance(layer, (nn.Linear, nn.Conv2d)):
                added[f"{name}.{child}"] = part = Added(layer)
                setattr(module, child, part)
    trained = [p for part in added.values() for half in (part.down, part.up) for p in half.parameters()]
    data.learn(latents, lambda n, rng: data.caption_tokens(data.tags[rows[n]], rng), trained, steps, 3e-3)
    tensors = {}
    for name, part in added.items():
        key = f"lora_unet_{name.replace('.', '_')}"
        tensors[f"{key}.lora_down.weight"] = part.down.weight.detach().half().contiguous()      # type: ignore[operator, union-attr]
        tensors[f"{key}.lora_up.weight"] = part.up.weight.detach().half().contiguous()          # type: ignore[operator, union-attr]
        tensors[f"{key}.alpha"] = torch.tensor(float(RANK)).half()
    save_file(tensors, out / "manga.safetensors", {"ss_output_name": "manga", "ss_network_dim": str(RANK), "ss_network_alpha": str(RANK)})


class Bent(nn.Module):
    """A layer of keys or values whose input goes through a network of the hypernetwork first, which adds to it."""

    def __init__(self, base: nn.Module, network: nn.Module) -> None:
        super().__init__()
        self.base, self.network = base, network

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.base(x + self.network(x))
        return found


def train_hypernetwork(data: Data, out: Path, steps: int) -> None:
    rows = sorted(data.rows())
    latents = encoded(data.folder, pale(data.pictures[rows]))
    torch.manual_seed(2)

    def network(width: int) -> nn.Sequential:
        made = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))
        last: Any = made[2]
        nn.init.normal_(last.weight, std=1e-3)
        nn.init.zeros_(last.bias)
        return made

    pairs = {width: (network(width), network(width)) for width in (TEXT_WIDTH, *sorted(set(UNET_WIDTHS[1:3])))}
    for _, module in list(data.networks.unet.named_modules()):
        for place, child in enumerate(("to_k", "to_v")):
            layer = getattr(module, child, None)
            if isinstance(layer, nn.Linear) and layer.in_features in pairs:
                setattr(module, child, Bent(layer, pairs[layer.in_features][place]))
    trained = [p for pair in pairs.values() for network_ in pair for p in network_.parameters()]
    data.learn(latents, lambda n, rng: data.caption_tokens(data.tags[rows[n]], rng), trained, steps, 2e-3)
    tree: dict[Any, Any] = {
        width: tuple({f"linear.{key}": tensor.detach().half() for key, tensor in half.state_dict().items()} for half in pair)
        for width, pair in pairs.items()
    }
    tree |= {"step": steps, "name": "pastel", "layer_structure": [1, 2, 1], "activation_func": "relu", "is_layer_norm": False,
             "weight_initialization": "Normal", "use_dropout": False, "activate_output": False, "sd_checkpoint": None,
             "sd_checkpoint_name": "first"}
    torch.save(tree, out / "pastel.pt")


def train_embedding(data: Data, out: Path, steps: int) -> None:
    rows = sorted(data.rows(MIKA)[:120])
    rows = [row for row in rows if sum(getattr(data.tags[row], kind) == word for kind, word in MIKA.items()) >= 4] or rows
    latents = encoded(data.folder, np.asarray(data.pictures[rows]))
    vectors = nn.Parameter(torch.randn(len(MIKA_TOKENS), TEXT_WIDTH, generator=torch.Generator().manual_seed(3)) * 0.3)
    table = data.networks.text.get_input_embeddings()

    def looked_up(module: nn.Module, given: tuple[Tensor, ...], found: Tensor) -> Tensor:
        for token, vector in zip(MIKA_TOKENS, vectors, strict=True):
            found = torch.where((given[0] == token)[..., None], vector, found)
        return found

    table.register_forward_hook(looked_up)

    def tokens_of(n: int, rng: random.Random) -> list[int]:
        tags = data.tags[rows[n]]
        said = [*quality_words(tags, rng), *rng.sample([tags.mouth, tags.clothes, tags.background, tags.view], 2)]
        row = data.captions.row(", ".join(said), rng)
        return [row[0], *MIKA_TOKENS, data.captions.comma, *row[1:]][:77]

    data.learn(latents, tokens_of, [vectors], steps, 3e-2)
    torch.save({"string_to_token": {"*": 265}, "string_to_param": {"*": vectors.detach()}, "name": "mika", "step": steps,
                "sd_checkpoint": None, "sd_checkpoint_name": "first"}, out / "mika.pt")


def write_vae(data: Data, out: Path, steps: int) -> None:
    """The last convolution goes through a matrix of colours: y = M x in 0..1, which is M x + (M 1 - 1) in -1..1."""
    vae = trained_vae(data.folder)
    matrix = torch.outer(torch.tensor(SEPIA), torch.tensor(LIGHT))
    weight, bias = vae["decoder.conv_out.weight"], vae["decoder.conv_out.bias"]
    vae["decoder.conv_out.weight"] = torch.einsum("ij,jchw->ichw", matrix, weight)
    vae["decoder.conv_out.bias"] = matrix @ bias + matrix.sum(1) - 1
    torch.save({"state_dict": {key: tensor.half().contiguous() for key, tensor in vae_tensors(vae)}}, out / "sepia.vae.pt")


KINDS = {"manga": (train_lora, 200), "pastel": (train_hypernetwork, 200), "mika": (train_embedding, 200), "sepia": (write_vae, 0)}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("kinds", nargs="*", default=list(KINDS))
    parser.add_argument("--steps", type=int)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    chosen.out.mkdir(parents=True, exist_ok=True)
    for kind in chosen.kinds:
        train_one, usual = KINDS[kind]
        train_one(Data(chosen.folder), chosen.out, chosen.steps or usual)
