"""Write a random model of real shapes, in the layout of the single-file checkpoints of its family.

    python bench/make_checkpoint.py OUT.safetensors [--family sd1|sd2|sdxl|refiner] [--dtype float32|float16] [--recipe FILE] [--empty]

In float32 an SD 1 file has 4.27 GB, as the original one without running averages; an SDXL file in float16 has 6.94 GB. With `--recipe`,
a JSON file of {"tensors": {key: [shape, kind, scale]}}, every tensor is drawn as it says: torch.randn with the CRC-32 of the key as seed,
times the scale; kind "norm" adds 1, kind "bias-0.12" takes 0.12 away. The tensors are drawn and written one at a time.
With `--empty` all drawn tensors are zeros and the file takes no room on the disk: enough to measure memory.
"""

from __future__ import annotations

import argparse
import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nbsd.models.families import LINEAR_END, LINEAR_START, TIMESTEPS

Row = tuple[list[int], str, float]      # shape, kind, scale
NAMES = {torch.float32: "F32", torch.float16: "F16", torch.int64: "I64"}
PLACES = 77


@dataclass(frozen=True)
class TextSizes:
    """A text encoder."""

    prefix: str
    width: int
    layers: int
    open_clip: bool = False
    projection: int = 0     # width of the pooled text; 0: none in the file
    words: int = 49408


@dataclass(frozen=True)
class Sizes:
    """A model."""

    texts: tuple[TextSizes, ...]
    widths: tuple[int, ...]         # of the UNet's levels
    depths: tuple[int, ...]         # transformer blocks in each attention of a level; 0: no attention there
    middle: int                     # the same in the middle
    context: int                    # width of the texts
    linear: bool = True             # whether attention starts and ends with a linear layer instead of a 1x1 convolution
    vector: int = 0                 # numbers that the UNet is told besides the text
    channels: int = 4               # that the UNet reads
    vae: tuple[int, ...] = (128, 256, 512, 512)
    schedule: bool = True           # whether the file has the noise schedule in it


FAMILIES: dict[str, Sizes] = {
    "sd1": Sizes(
        (TextSizes("cond_stage_model.transformer.text_model", 768, 12),), (320, 640, 1280, 1280), (1, 1, 1, 0), 1, 768, linear=False,
    ),
    "sd2": Sizes((TextSizes("cond_stage_model.model", 1024, 24, True, 1024),), (320, 640, 1280, 1280), (1, 1, 1, 0), 1, 1024),
    "sdxl": Sizes(
        (TextSizes("conditioner.embedders.0.transformer.text_model", 768, 12), TextSizes("conditioner.embedders.1.model", 1280, 32, True, 1280)),
        (320, 640, 1280), (0, 2, 10), 10, 2048, vector=2816, schedule=False,
    ),
    "refiner": Sizes(
        (TextSizes("conditioner.embedders.0.model", 1280, 32, True, 1280),), (384, 768, 1536, 1536), (0, 4, 4, 0), 4, 1280, vector=2560,
        schedule=False,
    ),
}  # fmt: skip
LAYERS, LATENT = 2, 4       # ResNet blocks a level, of UNet and VAE; channels of the latent


def conv(out: int, into: int, size: int = 3) -> Iterator[tuple[str, list[int]]]:
    yield "weight", [out, into, size, size]
    yield "bias", [out]


def linear(out: int, into: int, bias: bool = True) -> Iterator[tuple[str, list[int]]]:
    yield "weight", [out, into]
    if bias:
        yield "bias", [out]


def pointwise(out: int, into: int) -> Iterator[tuple[str, list[int]]]:
    return conv(out, into, 1)


def norm(width: int) -> Iterator[tuple[str, list[int]]]:
    yield "weight", [width]
    yield "bias", [width]


Parts = Iterator[tuple[str, list[int]]]


def within(name: str, parts: Parts) -> Parts:
    for key, shape in parts:
        yield f"{name}.{key}", shape


def unet_resnet(into: int, out: int, time: int) -> Parts:
    yield from within("in_layers.0", norm(into))
    yield from within("in_layers.2", conv(out, into))
    yield from within("emb_layers.1", linear(out, time))
    yield from within("out_layers.0", norm(out))
    yield from within("out_layers.3", conv(out, out))
    if into != out:
        yield from within("skip_connection", conv(out, into, 1))


def transformer(width: int, depth: int, sizes: Sizes) -> Parts:
    projection = linear if sizes.linear else pointwise
    yield from within("norm", norm(width))
    yield from within("proj_in", projection(width, width))
    for number in range(depth):
        block = f"transformer_blocks.{number}"
        for name, source in (("attn1", width), ("attn2", sizes.context)):
            for part, into in (("to_q", width), ("to_k", source), ("to_v", source)):
                yield from within(f"{block}.{name}.{part}", linear(width, into, bias=False))
            yield from within(f"{block}.{name}.to_out.0", linear(width, width))
        yield from within(f"{block}.ff.net.0.proj", linear(8 * width, width))
        yield from within(f"{block}.ff.net.2", linear(width, 4 * width))
        for place in (1, 2, 3):
            yield from within(f"{block}.norm{place}", norm(width))
    yield from within("proj_out", projection(width, width))


def unet(sizes: Sizes) -> Parts:
    widths, last = sizes.widths, len(sizes.widths) - 1
    first, time = widths[0], 4 * widths[0]
    yield from within("time_embed.0", linear(time, first))
    yield from within("time_embed.2", linear(time, time))
    if sizes.vector:
        yield from within("label_emb.0.0", linear(time, sizes.vector))
        yield from within("label_emb.0.2", linear(time, time))
    yield from within("input_blocks.0.0", conv(first, sizes.channels))
    skips, now, block = [first], first, 1
    for level, width in enumerate(widths):
        for _ in range(LAYERS):
            yield from within(f"input_blocks.{block}.0", unet_resnet(now, width, time))
            if sizes.depths[level]:
                yield from within(f"input_blocks.{block}.1", transformer(width, sizes.depths[level], sizes))
            now, block = width, block + 1
            skips.append(now)
        if level < last:
            yield from within(f"input_blocks.{block}.0.op", conv(width, width))
            block += 1
            skips.append(now)
    yield from within("middle_block.0", unet_resnet(now, now, time))
    yield from within("middle_block.1", transformer(now, sizes.middle, sizes))
    yield from within("middle_block.2", unet_resnet(now, now, time))
    for block in range((LAYERS + 1) * len(widths)):
        level = last - block // (LAYERS + 1)
        yield from within(f"output_blocks.{block}.0", unet_resnet(now + skips.pop(), widths[level], time))
        now = widths[level]
        if sizes.depths[level]:
            yield from within(f"output_blocks.{block}.1", transformer(now, sizes.depths[level], sizes))
        if level and block % (LAYERS + 1) == LAYERS:
            yield from within(f"output_blocks.{block}.{2 if sizes.depths[level] else 1}.conv", conv(now, now))
    yield from within("out.0", norm(first))
    yield from within("out.2", conv(LATENT, first))


def vae_resnet(into: int, out: int) -> Parts:
    yield from within("norm1", norm(into))
    yield from within("conv1", conv(out, into))
    yield from within("norm2", norm(out))
    yield from within("conv2", conv(out, out))
    if into != out:
        yield from within("nin_shortcut", conv(out, into, 1))


def vae_half(name: str, into: int, out: int, widths: tuple[int, ...]) -> Parts:
    """The encoder, or the decoder, which runs the widths backwards and has one block more a level."""
    encoder = name == "encoder"
    order = list(enumerate(widths)) if encoder else list(enumerate(widths))[::-1]
    now = widths[0] if encoder else widths[-1]
    yield from within("conv_in", conv(now, into))
    for level, width in order:
        for block in range(LAYERS + (0 if encoder else 1)):
            yield from within(f"{'down' if encoder else 'up'}.{level}.block.{block}", vae_resnet(now, width))
            now = width
        if encoder and level < len(widths) - 1:
            yield from within(f"down.{level}.downsample.conv", conv(width, width))
        if not encoder and level:
            yield from within(f"up.{level}.upsample.conv", conv(width, width))
    top = widths[-1]
    yield from within("mid.block_1", vae_resnet(top, top))
    yield from within("mid.attn_1.norm", norm(top))
    for part in ("q", "k", "v", "proj_out"):
        yield from within(f"mid.attn_1.{part}", conv(top, top, 1))
    yield from within("mid.block_2", vae_resnet(top, top))
    yield from within("norm_out", norm(now))
    yield from within("conv_out", conv(out, now))


def vae(widths: tuple[int, ...]) -> Parts:
    yield from within("encoder", vae_half("encoder", 3, 2 * LATENT, widths))
    yield from within("decoder", vae_half("decoder", LATENT, 3, widths))
    yield from within("quant_conv", conv(2 * LATENT, 2 * LATENT, 1))
    yield from within("post_quant_conv", conv(LATENT, LATENT, 1))


def text(sizes: TextSizes) -> Parts:
    if sizes.open_clip:
        yield from open_clip_text(sizes)
        return
    width = sizes.width
    yield "embeddings.token_embedding.weight", [sizes.words, width]
    yield "embeddings.position_embedding.weight", [PLACES, width]
    for layer in range(sizes.layers):
        start = f"encoder.layers.{layer}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from within(f"{start}.self_attn.{part}", linear(width, width))
        yield from within(f"{start}.mlp.fc1", linear(4 * width, width))
        yield from within(f"{start}.mlp.fc2", linear(width, 4 * width))
        for part in ("layer_norm1", "layer_norm2"):
            yield from within(f"{start}.{part}", norm(width))
    yield from within("final_layer_norm", norm(width))


def open_clip_text(sizes: TextSizes) -> Parts:
    width = sizes.width
    yield "token_embedding.weight", [sizes.words, width]
    yield "positional_embedding", [PLACES, width]
    for layer in range(sizes.layers):
        start = f"transformer.resblocks.{layer}"
        yield f"{start}.attn.in_proj_weight", [3 * width, width]
        yield f"{start}.attn.in_proj_bias", [3 * width]
        yield from within(f"{start}.attn.out_proj", linear(width, width))
        yield from within(f"{start}.mlp.c_fc", linear(4 * width, width))
        yield from within(f"{start}.mlp.c_proj", linear(width, 4 * width))
        for part in ("ln_1", "ln_2"):
            yield from within(f"{start}.{part}", norm(width))
    yield from within("ln_final", norm(width))
    if sizes.projection:
        yield "text_projection", [width, sizes.projection]
    yield "logit_scale", []


def own_rows(sizes: Sizes = FAMILIES["sd1"]) -> dict[str, Row]:
    """Every tensor of a model, with a scale at which numbers neither vanish nor grow from layer to layer."""
    rows: dict[str, Row] = {}
    parts = [("model.diffusion_model", unet(sizes)), ("first_stage_model", vae(sizes.vae)), *((one.prefix, text(one)) for one in sizes.texts)]
    for prefix, tensors in parts:
        for key, shape in within(prefix, tensors):
            if len(shape) > 1:
                rows[key] = shape, "normal", 1 / math.sqrt(math.prod(shape[1:])) if "embedding" not in key else 0.02
            else:
                rows[key] = shape, "norm" if key.endswith("weight") else "bias", 0.02
    return rows


def schedule() -> dict[str, Tensor]:
    """The noise schedule as ldm's DDPM keeps it in a checkpoint: all of it follows from the betas."""
    betas = torch.linspace(LINEAR_START**0.5, LINEAR_END**0.5, TIMESTEPS, dtype=torch.float64) ** 2
    now = (1 - betas).cumprod(0)
    before = torch.cat((torch.ones(1, dtype=torch.float64), now[:-1]))
    variance = betas * (1 - before) / (1 - now)
    tensors = {
        "betas": betas, "alphas_cumprod": now, "alphas_cumprod_prev": before, "sqrt_alphas_cumprod": now.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - now).sqrt(), "log_one_minus_alphas_cumprod": (1 - now).log(),
        "sqrt_recip_alphas_cumprod": (1 / now).sqrt(), "sqrt_recipm1_alphas_cumprod": (1 / now - 1).sqrt(),
        "posterior_variance": variance, "posterior_log_variance_clipped": variance.clamp(min=1e-20).log(),
        "posterior_mean_coef1": betas * before.sqrt() / (1 - now),
        "posterior_mean_coef2": (1 - before) * (1 - betas).sqrt() / (1 - now),
    }  # fmt: skip
    return {key: tensor.float() for key, tensor in tensors.items()}


def drawn(key: str, row: Row) -> Tensor:
    shape, kind, scale = row
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(key.encode()))) * scale
    return tensor + {"norm": 1.0, "bias-0.12": -0.12}.get(kind, 0.0)


def fixed_tensors(sizes: Sizes = FAMILIES["sd1"]) -> dict[str, Tensor]:
    """Those that are not drawn: the numbers of CLIP's places and, in older families, the noise schedule."""
    clip = next((one.prefix for one in sizes.texts if not one.open_clip), "")
    places = {f"{clip}.embeddings.position_ids": torch.arange(PLACES).unsqueeze(0)} if clip else {}
    return {**places, **(dict(sorted(schedule().items())) if sizes.schedule else {})}


def write(out: Path, rows: dict[str, Row], dtype: torch.dtype, sizes: Sizes = FAMILIES["sd1"], empty: bool = False) -> None:
    """Write the file; its header first, then each tensor as it is drawn. `empty`: zeros, which are not really written."""
    fixed = fixed_tensors(sizes)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0

    def add(key: str, shape: list[int], kind: torch.dtype) -> None:
        nonlocal at
        size = math.prod(shape) * kind.itemsize
        header[key] = {"dtype": NAMES[kind], "shape": shape, "data_offsets": [at, at + size]}
        at += size

    for key, tensor in fixed.items():
        add(key, list(tensor.shape), tensor.dtype)
    for key in sorted(rows):
        add(key, list(rows[key][0]), dtype)
    text_of_header = json.dumps(header, separators=(",", ":")).encode()       # as the safetensors library writes it, for the hash
    text_of_header += b" " * (-len(text_of_header) % 8)
    with out.open("wb") as file:
        file.write(len(text_of_header).to_bytes(8, "little") + text_of_header)
        for tensor in fixed.values():
            file.write(tensor.numpy().tobytes())
        if empty:
            file.truncate(8 + len(text_of_header) + at)
            return
        for key in sorted(rows):
            # Through float16 in both cases, so that the two files hold one and the same model.
            file.write(drawn(key, rows[key]).half().to(dtype).numpy().tobytes())


def from_recipe(recipe: Path, out: Path) -> None:
    """Write the model that a file like `full-width-recipe.json` describes, in float16; the file is the recorded one byte for byte."""
    write(out, json.loads(recipe.read_text())["tensors"], torch.float16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--family", choices=tuple(FAMILIES), default="sd1")
    parser.add_argument("--dtype", choices=("float32", "float16"), default="float32")
    parser.add_argument("--recipe", type=Path, help="a JSON file that says what to draw")
    parser.add_argument("--empty", action="store_true", help="zeros, in a file that takes no room")
    arguments = parser.parse_args()
    sizes = FAMILIES[arguments.family]
    rows: dict[str, Row] = json.loads(arguments.recipe.read_text())["tensors"] if arguments.recipe else own_rows(sizes)
    write(arguments.out, rows, getattr(torch, arguments.dtype), sizes, arguments.empty)
    print(f"{arguments.out}: {len(rows) + len(fixed_tensors(sizes))} tensors, {arguments.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
