"""Modules of diffusers and transformers, built without memory and then filled from a file, tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor, nn
from transformers.models.clip.configuration_clip import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPTextModel, CLIPTextModelWithProjection

from nbsd.errors import ModelError
from nbsd.models.detect import Shapes, check_numbers
from nbsd.models.families import Family, TextPart
from nbsd.models.keys import (
    OLD_VAE_RULES,
    OPEN_CLIP_RULES,
    SAME,
    TEXT_RULES,
    UNET,
    Rule,
    check_complete,
    parted,
    renamed,
    unet_rules,
    vae_rules,
)
from nbsd.models.packed import pack_layers
from nbsd.models.read import Progress, Reader, read_many
from nbsd.models.shapes import text_config, unet_config, vae_config
from nbsd.models.unet import make_unet
from nbsd.models.weights import Stored, Weights

POSITIONS = "position_ids"      # of CLIP's text model: a buffer, not a weight


@dataclass(frozen=True)
class Plan:
    """A module on the meta device and the tensors that go into it. Nothing is allocated yet; everything is checked."""

    module: Any
    tensors: Mapping[str, Stored]       # the module's name -> where it lies
    weights: Weights

    @property
    def nbytes(self) -> int:
        """Bytes that will be read."""
        return sum(stored.nbytes for stored in self.tensors.values())


def plan_unet(weights: Weights, keys: list[str], family: Family) -> Plan:
    config = _config(weights, lambda shapes: unet_config(shapes, family))
    return _plan(weights, "the UNet", make_unet(config), keys, UNET, unet_rules(config["layers_per_block"]))


def plan_vae(weights: Weights, keys: list[str], prefix: str, family: Family) -> Plan:
    """`prefix`: what stands before `encoder.` and `decoder.` in the file's keys."""
    config = _config(weights, lambda shapes: vae_config(shapes, prefix, family))
    return _plan(weights, "the VAE", _on_meta(AutoencoderKL, config), keys, prefix, vae_rules(len(config["block_out_channels"])))


def plan_named_vae(weights: Weights, keys: list[str], family: Family) -> Plan:
    """A VAE's file in diffusers' own layout."""
    config = _config(weights, lambda shapes: vae_config(shapes, "", family, named=True))
    return plan_named(weights, "the VAE", _on_meta(AutoencoderKL, config), keys, OLD_VAE_RULES)


def plan_text_encoder(weights: Weights, keys: list[str], part: TextPart) -> Plan:
    """`keys`: those of this text encoder, in the layout of a single-file checkpoint."""
    if part.open_clip:
        weights = replace(weights, tensors=parted({key: weights.tensors[key] for key in keys}))
        keys = list(weights.tensors)
    config = _config(weights, lambda shapes: text_config(shapes, part))
    return _plan(weights, "the text encoder", make_text_encoder(config, part), keys, part.prefix, OPEN_CLIP_RULES if part.open_clip else TEXT_RULES)


def make_text_encoder(config: Mapping[str, Any], part: TextPart) -> nn.Module:
    """transformers' text model of a config, without memory."""
    with torch.device("meta"):
        return (CLIPTextModelWithProjection if part.pooled else CLIPTextModel)(CLIPTextConfig(**config))


def plan_named(weights: Weights, what: str, module: nn.Module, keys: list[str], rules: tuple[Rule, ...] = ()) -> Plan:
    """The plan of a file whose keys are the module's own names, but for those that the rules change. `what`: in words."""
    return _plan(weights, what, module, keys, "", (*rules, SAME))


def _on_meta(kind: Callable[..., nn.Module], config: Mapping[str, Any]) -> nn.Module:
    with torch.device("meta"):
        return kind(**config)


def _config(weights: Weights, read: Callable[[Shapes], dict[str, Any]]) -> dict[str, Any]:
    try:
        return read(weights.shapes)
    except ModelError as error:
        raise ModelError(f"'{weights.path.name}' cannot be used: {error}. Choose another version of the model.") from None


def _plan(weights: Weights, part: str, module: nn.Module, keys: list[str], prefix: str, rules: tuple[Rule, ...]) -> Plan:
    check_numbers(weights, keys)
    places, strangers = renamed(keys, prefix, rules)
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items() if not name.endswith(POSITIONS)}
    # transformers 5 dropped the "text_model." that its own checkpoints have: what the module says counts.
    places = {_as_module(place, wanted): key for place, key in places.items()}
    check_complete(weights.path.name, part, places, strangers, wanted)
    wrong = [key for place, key in places.items() if _squeezed(weights.tensors[key].shape, wanted[place]) != wanted[place]]
    if wrong:
        got = ", ".join(f"{key} {list(weights.tensors[key].shape)}" for key in sorted(wrong)[:3])
        raise ModelError(f"'{weights.path.name}' has {len(wrong)} tensors of unexpected shape in {part}, e.g. {got}: choose another version.")
    return Plan(module, {place: weights.tensors[key] for place, key in places.items()}, weights)


def _as_module(place: str, wanted: Mapping[str, Any]) -> str:
    bare = place.removeprefix("text_model.")
    return bare if place not in wanted and bare in wanted else place


def _squeezed(shape: tuple[int, ...], wanted: tuple[int, ...]) -> tuple[int, ...]:
    """A 1x1 convolution's shape as that of the linear layer it is: how old VAEs keep their attention."""
    return shape[:2] if len(wanted) == 2 and shape[2:] == (1, 1) else shape


def fill(plan: Plan, device: torch.device, dtype: torch.dtype, on_progress: Progress | None = None) -> Any:
    """Read the plan's tensors into its module, converted one at a time; the module comes back in eval mode, without gradients.

    On a CPU in float32 the weights are packed for its kernels, see `models/packed.py`.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in plan.module.state_dict().items()}
    to_pack = pack_layers(plan.module) if device.type == "cpu" and dtype == torch.float32 else {}

    def convert(name: str, reader: Reader, stored: Stored) -> Tensor:
        tensor = reader.read(stored, dtype).view(shapes[name])
        return to_pack[name].packed(tensor) if name in to_pack else tensor.to(device)

    tensors = read_many(plan.weights, plan.tensors, convert, on_progress)
    plan.module.load_state_dict(tensors, strict=False, assign=True)
    module = plan.module.requires_grad_(False).eval()
    _number_positions(module, device)
    if hollow := [name for name, tensor in (*module.named_parameters(), *module.named_buffers()) if tensor.is_meta]:
        raise RuntimeError(f"a bug in nbsd: {hollow[:3]} were not filled")
    return module


def _number_positions(module: nn.Module, device: torch.device, numbers: Tensor | None = None) -> None:
    """Fill the text model's position numbers, which are no weights: 0, 1, 2, ... unless others are given."""
    for part in module.modules():
        if POSITIONS in part._buffers:
            count = part._buffers[POSITIONS].shape[-1]  # type: ignore[union-attr]
            part._buffers[POSITIONS] = (torch.arange(count) if numbers is None else numbers).view(1, count).to(device)


def use_positions(module: nn.Module, weights: Weights, prefix: str, device: torch.device) -> None:
    """Take the position numbers from the file where they stand in it; `prefix`: of the text encoder's keys.

    Why: in some merged models they are off (40.99 for 41, cut to 40), and the web UI computes with what is in the file.
    """
    stored = next((stored for key, stored in weights.tensors.items() if key.startswith(prefix) and key.endswith(POSITIONS)), None)
    if stored is None:
        return
    with closing(Reader(weights)) as reader:
        numbers = reader.read(stored).to(torch.int64).flatten()
    count = next(part._buffers[POSITIONS].shape[-1] for part in module.modules() if POSITIONS in part._buffers)  # type: ignore[union-attr]
    if len(numbers) != count or numbers.min() < 0 or numbers.max() >= count:
        raise ModelError(f"'{weights.path.name}' numbers the places of its text in an impossible way: choose another version of the model.")
    _number_positions(module, device, numbers)
