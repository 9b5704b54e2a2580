"""Writes the trained networks as one file in the web UI's single-file layout, float16.

Run: python -m tools.first_model.export FOLDER first.safetensors
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from nbsd.models.keys import TEXT, UNET, UNET_RESNET, VAE, VAE_ATTENTION

from .networks import UNET_LAYERS, UNET_WIDTHS, VAE_WIDTHS, alphas_cumprod
from .train import Networks, averaged

INSIDE = {theirs: ours for ours, theirs in UNET_RESNET.items()}
ATTENTION = {theirs: ours for ours, theirs in VAE_ATTENTION.items()}
PLAIN = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2", "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0", "conv_out": "out.2",
}


def _block(kind: str, number: int, rest: str) -> str:
    """A module of block `number`: 0 is the resnet, 1 the attention."""
    if kind == "attentions":
        return f"{number}.1.{rest}"
    inside, _, last = rest.rpartition(".")
    return f"{number}.0.{INSIDE[inside]}.{last}"


def unet_key(name: str, crossed: tuple[bool, ...]) -> str:
    """The single-file name of a tensor of diffusers' UNet. `crossed`: which levels of the way up attend to the text."""
    stem, _, last = name.rpartition(".")
    if stem in PLAIN:
        return f"{PLAIN[stem]}.{last}"
    if found := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)", name):
        number = 1 if found[1] == "attentions" else 2 * int(found[2])
        inside, _, end = found[3].rpartition(".")
        return f"middle_block.{number}.{found[3] if number == 1 else f'{INSIDE[inside]}.{end}'}"
    found = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)", name)
    assert found, name
    way, level, kind, block, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
    start = level * (UNET_LAYERS + 1)
    if kind == "downsamplers":
        return f"input_blocks.{start + UNET_LAYERS + 1}.0.op.{last}"
    if kind == "upsamplers":
        return f"output_blocks.{start + UNET_LAYERS}.{2 if crossed[level] else 1}.conv.{last}"
    return ("input_blocks." if way == "down" else "output_blocks.") + _block(kind, start + block + (way == "down"), rest)


def vae_key(name: str) -> str:
    """The single-file name of a tensor of diffusers' AutoencoderKL."""
    for theirs, ours in (
        (r"mid_block\.resnets\.0", "mid.block_1"), (r"mid_block\.resnets\.1", "mid.block_2"), (r"conv_norm_out", "norm_out"),
        (r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2"), (r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample"),
        (r"up_blocks\.(\d+)\.resnets\.(\d+)", r"up.\1.block.\2"), (r"up_blocks\.(\d+)\.upsamplers\.0", r"up.\1.upsample"),
        (r"conv_shortcut", "nin_shortcut"),
    ):
        name = re.sub(theirs, ours, name)
    if found := re.fullmatch(r"(.*)mid_block\.attentions\.0\.(.+)\.(weight|bias)", name):
        name = f"{found[1]}mid.attn_1.{ATTENTION[found[2]]}.{found[3]}"
    return re.sub(r"decoder\.up\.(\d+)", lambda found: f"decoder.up.{len(VAE_WIDTHS) - 1 - int(found[1])}", name)


def vae_tensors(vae: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The autoencoder's tensors as a VAE's own file names them."""
    for name, tensor in vae.items():
        key = vae_key(name)
        wide = ".attn_1." in key and tensor.ndim == 2       # 1x1 convolutions there
        yield key, tensor[:, :, None, None] if wide else tensor


def trained_vae(folder: Path) -> dict[str, Tensor]:
    """FOLDER/decoder.pt, else vae_scaled.pt: the autoencoder after the last stage that was run."""
    decoder = folder / "decoder.pt"
    found: dict[str, Tensor] = torch.load(decoder, weights_only=True)["model"] if decoder.exists() else torch.load(
        folder / "vae_scaled.pt", weights_only=True)
    return found


def tensors(networks: Networks, vae: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """All tensors of the file by their single-file names."""
    crossed = tuple("CrossAttn" in kind for kind in networks.unet.config.up_block_types)
    assert len(crossed) == len(UNET_WIDTHS)
    for name, tensor in networks.unet.state_dict().items():
        yield UNET + unet_key(name, crossed), tensor
    for key, tensor in vae_tensors(vae):
        yield VAE + key, tensor
    for name, tensor in networks.text.state_dict().items():
        if "position_ids" not in name:
            yield f"{TEXT}text_model.{name.removeprefix('text_model.')}", tensor
    yield "alphas_cumprod", alphas_cumprod()


def export(folder: Path, file: Path) -> None:
    """FOLDER/soft.pt (else model.pt; its averaged weights) and FOLDER/decoder.pt (else vae_scaled.pt) to a single file."""
    networks = Networks()
    networks.load_state_dict(averaged(folder))
    found = {key: tensor.float() if key == "alphas_cumprod" else tensor.half() for key, tensor in tensors(networks, trained_vae(folder))}
    save_file({key: tensor.contiguous() for key, tensor in found.items()}, file)
    print(f"{file}: {file.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("file", type=Path)
    chosen = parser.parse_args()
    export(chosen.folder, chosen.file)
