"""LoRA files and their kin: which layers of a model they change, and by how much.

A file has a few small tensors for each layer that it changes. `read_lora` sorts them by layer, `fit` finds the layers of a model,
and `Layer.change` multiplies the tensors out to the change of a weight. All numbers are as the web UI computes them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nbsd.errors import ModelError
from nbsd.models import families
from nbsd.models.detect import LORA, kind_of, lora_family
from nbsd.models.keys import UNET_RESNET
from nbsd.models.read import Reader
from nbsd.models.sharded import read_json
from nbsd.models.turns import NEUMANN, Roles, butterfly_inputs, rotated, rotated_inputs
from nbsd.models.weights import FLOATS, open_weights

# How keys end, and which role the tensor then has. kohya's trainers, LyCORIS, diffusers and peft have names of their own.
ENDINGS: dict[str, str] = {
    **{f"{name}.weight": "down" for name in ("lora_down", "lora_A", "lora_A.default", "lora.down", "lora_linear_layer.down")},
    **{f"{name}.weight": "up" for name in ("lora_up", "lora_B", "lora_B.default", "lora.up", "lora_linear_layer.up")},
    "lora_mid.weight": "mid", "alpha": "alpha", "scale": "scale",
    **{f"{name}.weight": name for name in ("a1", "a2", "b1", "b2")}, "oft_blocks": "oft_blocks", "oft_diag": "oft_diag", "rescale": "rescale",
    "oft_R.weight": "oft_R", "boft_R": "boft_R", "boft_s": "boft_s",
    "dora_scale": "dora", "lora_magnitude_vector": "dora", "lora_magnitude_vector.weight": "dora",
    **{f"hada_{name}": f"hada_{name}" for name in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")},
    **{f"lokr_{name}": f"lokr_{name}" for name in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")},
    "on_input": "on_input", "diff": "diff", "diff_b": "bias", "w_norm": "diff", "b_norm": "bias", "weight": "factor",
}  # fmt: skip
# The names of diffusers' first LoRA files: attn1.processor.to_q_lora.down.weight
_PROCESSOR = re.compile(r"(.+?)(?:\.processor)?\.(to_q|to_k|to_v|to_out)_lora\.(down|up)\.weight")
FLAGS = ("alpha", "scale", "on_input", "terms")     # single numbers, which stay on the CPU
MOST_TERMS = 100        # of a series
SETTINGS = "adapter_config.json"        # beside a file of peft's
PEFT = "base_model.model."
# What stands before the layer's name, and what kohya's trainers write there.
PREFIXES: tuple[tuple[str, str], ...] = (
    (PEFT, ""), ("text_model.", "lora_te_text_model."), ("oft_unet_", "lora_unet_"),
    ("model.diffusion_model.", "lora_unet_"), ("diffusion_model.", "lora_unet_"), ("unet.", "lora_unet_"),
    ("text_encoder_2.", "lora_te2_"), ("text_encoder.", "lora_te_"), ("lycoris_", "lora_unet_"),
)  # fmt: skip


# One function for each way of saying a change: (the tensors, the weight, ranks to use) -> the change, before alpha and strength.


def low_rank(given: Roles, weight: Tensor, ranks: int | None) -> Tensor:
    """LoRA and LoCon: up [o, r] times down [r, i, ...]; with a mid [r, r', ...] between them in a LoCon with Tucker decomposition."""
    up, down = given["up"].flatten(1)[:, :ranks], given["down"][:ranks]
    if "mid" in given:
        return torch.einsum("or,rs...,si->oi...", up, given["mid"][:ranks, :ranks], down.flatten(1))
    return (up @ down.flatten(1)).reshape(up.shape[0], *down.shape[1:])


def hadamard(given: Roles, weight: Tensor, ranks: int | None) -> Tensor:
    """LoHa: two low-rank products, multiplied element by element."""
    sides = []
    for number in ("1", "2"):
        a, b = given[f"hada_w{number}_a"], given[f"hada_w{number}_b"]
        sides.append(_tucker(given[f"hada_t{number}"], a, b) if f"hada_t{number}" in given else a @ b)
    return sides[0] * sides[1]


def kronecker(given: Roles, weight: Tensor, ranks: int | None) -> Tensor:
    """LoKr: the Kronecker product of a small matrix and a larger one; either may be a low-rank product."""
    small = given["lokr_w1"] if "lokr_w1" in given else given["lokr_w1_a"] @ given["lokr_w1_b"]
    if "lokr_w2" in given:
        large = given["lokr_w2"]
    elif "lokr_t2" in given:
        large = _tucker(given["lokr_t2"], given["lokr_w2_a"], given["lokr_w2_b"])
    else:
        large = given["lokr_w2_a"] @ given["lokr_w2_b"].flatten(1)
    return torch.kron(small.reshape(*small.shape, *[1] * (large.ndim - 2)), large.contiguous())


def factor(given: Roles, weight: Tensor, ranks: int | None) -> Tensor:
    """IA3: the weight times a number for each output, or for each input."""
    on_input = "on_input" in given and bool(given["on_input"].flatten()[0].item())
    shape = [1, -1] if on_input else [-1, 1]
    return weight * given["factor"].reshape(*shape, *[1] * (weight.ndim - 2))


def whole(given: Roles, weight: Tensor, ranks: int | None) -> Tensor:
    """The change itself."""
    return given["diff"]


def generalized(given: Roles, weight: Tensor, ranks: int | None) -> Tensor:
    """GLoRA: a low-rank change, and the weight times another. The web UI takes no notice of alpha here (its dim is never set)."""
    return given["b2"] @ given["b1"] + (weight.flatten(1) @ given["a2"]) @ given["a1"]


def _tucker(core: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """[r, s, ...] core, [r, o] a, [s, i] b -> [o, i, ...]. LyCORIS stores `a` the other way round here."""
    return torch.einsum("rs...,ro,si->oi...", core, a, b)


class Kind(NamedTuple):
    """A way of saying a change."""

    needs: tuple[str, ...]      # roles of which all must be there
    change: Callable[[Roles, Tensor, int | None], Tensor]
    ranks: tuple[tuple[str, int], ...] = ()     # tensor and dimension that tell the rank; the last one that is there


KINDS: tuple[Kind, ...] = (
    Kind(("up", "down"), low_rank, (("down", 0),)),
    Kind(("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"), hadamard, (("hada_w1_b", 0),)),
    *(Kind(needs, kronecker, (("lokr_w1_b", 0), ("lokr_w2_b", 0))) for needs in (
        ("lokr_w1", "lokr_w2"), ("lokr_w1", "lokr_w2_a", "lokr_w2_b"), ("lokr_w1_a", "lokr_w1_b", "lokr_w2"),
        ("lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b"),
    )),
    Kind(("oft_blocks",), rotated),
    Kind(("oft_diag",), rotated),
    Kind(("oft_R",), rotated_inputs),
    Kind(("boft_R",), butterfly_inputs),
    Kind(("a1", "a2", "b1", "b2"), generalized),
    Kind(("diff",), whole),
    Kind(("factor",), factor),
)  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """What a file says of one layer."""

    given: Roles            # as stored, on the CPU

    @property
    def kind(self) -> Kind | None:
        """How the change is said; None where that is not known."""
        return next((kind for kind in KINDS if all(role in self.given for role in kind.needs)), None)

    @property
    def known(self) -> bool:
        return self.kind is not None or "bias" in self.given

    def change(self, weight: Tensor, strength: float = 1.0, ranks: int | None = None) -> Tensor:
        """What is added to a weight, of its shape, on its device, float32. `ranks`: use only the first so many.

        Raises RuntimeError where the shapes do not go together.
        """
        kind = self.kind
        assert kind is not None
        given = {role: one if role in FLAGS else one.to(weight.device, torch.float32) for role, one in self.given.items()}
        change = kind.change(given, weight, ranks).reshape(weight.shape) * self.scale
        if "dora" in given:
            change = decomposed(weight + change, given["dora"]) - weight
        return change * strength

    def bias_change(self, bias: Tensor, strength: float = 1.0) -> Tensor:
        """What is added to a bias."""
        return self.given["bias"].to(bias.device, torch.float32).reshape(bias.shape) * strength

    @property
    def scale(self) -> float:
        """Alpha over the rank; 1 where either is not said, so that an absent alpha is the rank."""
        if "scale" in self.given:
            return float(self.given["scale"])
        rank = next((self.given[role].shape[dim] for role, dim in reversed(self.kind.ranks) if role in self.given), 0) if self.kind else 0
        return float(self.given["alpha"]) / rank if rank and "alpha" in self.given else 1.0

    def fits(self, module: nn.Module) -> bool:
        """Whether this is for such a module, by the shapes alone."""
        if self.kind is not None and self.given.keys() <= {"up", "down", "alpha"}:      # what most files have; the way below is slow
            up, down = self.given["up"], self.given["down"]
            wanted = getattr(module, "weight", None)
            if wanted is None or not (up.ndim and down.ndim and wanted.ndim) or up.numel() != up.shape[0] * down.shape[0]:
                return False
            return up.shape[0] == wanted.shape[0] and up.shape[0] * down.numel() == wanted.numel() * down.shape[0]
        meta = Layer({role: tensor if role in FLAGS else tensor.to("meta") for role, tensor in self.given.items()})
        weight: Any = module.weight
        bias: Any = getattr(module, "bias", None)
        try:
            if self.kind is not None:
                rough = self.kind.change({role: one.float() for role, one in meta.given.items()}, torch.empty(weight.shape, device="meta"), None)
                if rough.shape[0] != weight.shape[0] or rough.numel() != weight.numel():
                    return False
                meta.change(torch.empty(weight.shape, device="meta"))
            return "bias" not in self.given or (bias is not None and self.given["bias"].numel() == bias.numel())
        except (RuntimeError, ValueError, AttributeError, IndexError):
            return False


def decomposed(weight: Tensor, magnitude: Tensor) -> Tensor:
    """DoRA: the weight with new lengths. [1, i] are those of the inputs, as LyCORIS and kohya have it; [o] or [o, 1] of the outputs."""
    outputs, inputs = weight.shape[0], weight.shape[1]
    if magnitude.numel() == inputs and (magnitude.numel() != outputs or (magnitude.ndim > 1 and magnitude.shape[0] == 1)):
        lengths = weight.transpose(0, 1).flatten(1).norm(dim=1)
        shape = [1, inputs]
    else:
        lengths = weight.flatten(1).norm(dim=1)
        shape = [outputs, 1]
    shape += [1] * (weight.ndim - 2)
    return weight * (magnitude.flatten() / lengths).reshape(shape)


@dataclass(frozen=True)
class Lora:
    """A LoRA's file, read."""

    path: Path
    family: str                     # whose it is, in words; empty where the file does not tell
    layers: Mapping[str, Layer]     # as kohya's trainers name the layer -> what it says


def read_lora(path: Path) -> Lora:
    """Read a LoRA's file of any of the known kinds and namings. Raises ModelError for what is none."""
    weights = open_weights(path)
    if (kind := kind_of(weights)) != LORA:
        raise ModelError(f"'{path.name}' is no LoRA ({kind}): choose a LoRA's file")
    found: dict[str, dict[str, Tensor]] = {}
    with closing(Reader(weights)) as reader:
        for key, stored in weights.tensors.items():
            if place := split_key(key):
                if stored.dtype not in FLOATS and place[1] not in ("alpha", "on_input"):
                    raise ModelError(f"'{path.name}' holds weights of type {stored.dtype}: quantised LoRAs are not supported")
                found.setdefault(kohya_name(place[0]), {})[place[1]] = reader.read(stored)
    if any(key.startswith(PEFT) for key in weights.tensors):
        _settle(found, read_json(path.with_name(SETTINGS)))
    layers = {name: Layer(given) for name, given in found.items()}
    if not any(layer.known for layer in layers.values()):
        what = f"with {', '.join(sorted({role for given in found.values() for role in given})[:3])}"
        raise ModelError(f"'{path.name}' is a LoRA of a kind that nbsd does not know ({what}): use another version of it")
    return Lora(path, lora_family(weights.shapes), layers)


def _settle(found: dict[str, dict[str, Tensor]], settings: Mapping[str, Any]) -> None:
    """Add to the layers of a file of peft's what only its settings say: alpha over rank, and how OFT's turns are computed."""
    alpha, rank = settings.get("lora_alpha", settings.get("alpha")), settings.get("r")
    terms = settings.get("num_cayley_neumann_terms", NEUMANN) if settings.get("use_cayley_neumann", True) else 0
    for given in found.values():
        if "oft_R" in given and isinstance(terms, int):
            given["terms"] = torch.tensor(max(0, min(terms, MOST_TERMS)))
        down = given.get("down")
        ranks = down.shape[0] if down is not None and down.ndim else rank
        if isinstance(alpha, (int, float)) and isinstance(ranks, int) and ranks > 0 and not given.keys() & {"alpha", "oft_R", "boft_R"}:
            given["scale"] = torch.tensor(alpha / (ranks**0.5 if settings.get("use_rslora") else ranks))


def split_key(key: str) -> tuple[str, str] | None:
    """A key as the layer's name and the tensor's role; None where it is no layer's.

    >>> split_key("lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight")
    ('lora_te_text_model_encoder_layers_0_mlp_fc1', 'up')
    """
    if key.startswith("bundle_emb."):       # an embedding that travels with the LoRA
        return None
    if found := _PROCESSOR.fullmatch(key):
        return f"{found[1]}.{found[2]}{'.0' if found[2] == 'to_out' else ''}", found[3]
    for ending, role in ENDINGS.items():
        if key.endswith(f".{ending}"):
            return key[: -len(ending) - 1], role
    name, _, role = key.partition(".") if key.startswith("lora_") else key.rpartition(".")
    return (name, role) if name else None


def kohya_name(name: str) -> str:
    """A layer's name as kohya's trainers spell it.

    >>> kohya_name("unet.mid_block.resnets.0.conv1")
    'lora_unet_mid_block_resnets_0_conv1'
    """
    for start, prefix in PREFIXES:
        if name.startswith(start):
            name = prefix + name[len(start):]
    return (name if name.startswith("lora_") else f"lora_unet_{name}").replace(".", "_")


class Place(NamedTuple):
    """A layer of a model."""

    part: str           # "unet", or "te" with the number of the text encoder: "te0", "te1"
    name: str           # the module's
    module: nn.Module


TEXT_NAMES = (families.SD1.text[0].loras,)     # of the text encoders of SD 1 and SD 2


def places(
    unet: nn.Module, text_encoders: nn.Module | Sequence[nn.Module], layers_per_block: int = 2, names: Sequence[tuple[str, ...]] = TEXT_NAMES
) -> dict[str, Place]:
    """Every layer that has weights, under each of the names that a LoRA may have for it.

    `names`: what stands before the layers of each text encoder, in every spelling.
    """
    found: dict[str, Place] = {}
    levels = _crossed(unet)
    for name, module in unet.named_modules():
        if isinstance(getattr(module, "weight", None), Tensor):
            for spelled in (name, ldm_name(name, layers_per_block, levels)):
                found["lora_unet_" + spelled.replace(".", "_")] = Place("unet", name, module)
    text_encoders = [text_encoders] if isinstance(text_encoders, nn.Module) else text_encoders
    for number, (encoder, starts) in enumerate(zip(text_encoders, names, strict=True)):
        for name, module in encoder.named_modules():
            if not isinstance(getattr(module, "weight", None), Tensor):
                continue
            # transformers has a text_model around everything up to 5.0, and none in 5.15
            bare = name.removeprefix("text_model.").replace(".", "_")
            for start in starts:
                for spelled in (f"{start}_text_model_{bare}", f"{start}_{bare}"):
                    found.setdefault(spelled, Place(f"te{number}", name, module))
    return found


def _crossed(unet: nn.Module) -> tuple[bool, ...]:
    """Which levels of the UNet's second half have attention, in their order."""
    return tuple(bool(getattr(block, "attentions", None)) for block in unet.up_blocks)  # type: ignore[union-attr]


def ldm_name(name: str, layers: int, crossed: Sequence[bool] = (False, True, True, True)) -> str:
    """A UNet module's name in diffusers as the original code (ldm) calls it; `layers`: ResNet blocks a level.

    `crossed`: which of the `up_blocks` have attention, which stands before their upsampler; as given, SD 1's.

    >>> ldm_name("up_blocks.1.attentions.2.proj_in", 2)
    'output_blocks.5.1.proj_in'
    """
    ours = {theirs: own for own, theirs in UNET_RESNET.items()}
    parts = name.split(".")
    inside = ".".join(parts[4:])
    if parts[0] == "mid_block" and len(parts) > 3:
        place = 1 if parts[1] == "attentions" else 2 * int(parts[2])
        rest = ".".join(parts[3:])
        return f"middle_block.{place}.{ours.get(rest, rest) if parts[1] == 'resnets' else rest}"
    if parts[0] in ("down_blocks", "up_blocks") and len(parts) > 4:
        level, index = int(parts[1]), int(parts[3])
        first = level * (layers + 1) + (parts[0] == "down_blocks")
        blocks = "input_blocks" if parts[0] == "down_blocks" else "output_blocks"
        if parts[2] == "resnets":
            return f"{blocks}.{first + index}.0.{ours.get(inside, inside)}"
        if parts[2] == "attentions":
            return f"{blocks}.{first + index}.1.{inside}"
        if parts[2] == "downsamplers":
            return f"{blocks}.{first + layers}.0.op"
        return f"{blocks}.{first + layers}.{2 if crossed[level] else 1}.conv"
    return {
        "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2", "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0", "conv_out": "out.2", "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
    }.get(name, name)  # fmt: skip


def fit(lora: Lora, known: Mapping[str, Place]) -> tuple[list[tuple[Place, Layer]], list[str]]:
    """The layers of a model that a LoRA changes, and the names of those that it has and the model has not, or of another shape."""
    matched, left = [], []
    for name, layer in lora.layers.items():
        place = known.get(name)
        if place is not None and layer.known and layer.fits(place.module):
            matched.append((place, layer))
        else:
            left.append(name)
    return matched, left


def left_family(lora: Lora, left: Sequence[str]) -> str:
    """Of what family those layers of a LoRA are, in words; empty where they do not tell."""
    ending = {"down": "lora_down.weight", "hada_w1_b": "hada_w1_b", "diff": "diff"}
    return lora_family({f"{name}.{ending.get(role, role)}": tuple(one.shape) for name in left for role, one in lora.layers[name].given.items()})
