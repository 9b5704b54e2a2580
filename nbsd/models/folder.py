"""A model as diffusers keeps it: a folder with a folder for each part, each with a config.json and a file of weights."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from nbsd.errors import ModelError, UnknownModelError, WrongFamilyError
from nbsd.models import families
from nbsd.models.families import Family
from nbsd.models.sharded import read_json, shards_of
from nbsd.models.weights import is_index

INDEX, CONFIG = "model_index.json", "config.json"
MOST_LAYERS, WIDEST = 16, 8192
PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")
# Names of a part's weights, the safe ones first; whole precision before half, as diffusers takes them by default. Behind each the names
# of the index of weights in several files: a variant stands at one of three places in it, by the age of diffusers and transformers.
WEIGHTS = tuple(dict.fromkeys(
    name
    for ending, stems in (("safetensors", ("diffusion_pytorch_model", "model")), ("bin", ("diffusion_pytorch_model", "pytorch_model")))
    for stem in stems
    for variant in ("", ".fp16", ".bf16", ".fp32", ".non_ema")
    for name in (f"{stem}{variant}.{ending}", f"{stem}.{ending}{variant}.index.json", f"{stem}.{ending}.index{variant}.json",
                 f"{stem}{variant}.{ending}.index.json")
))  # fmt: skip


def weights_file(folder: Path, part: str) -> Path:
    """The weights of a part, or the index of several files: in the folder of that name, or in the folder itself. Raises ModelError."""
    places = [folder / part, folder]
    for place in places:
        for name in WEIGHTS:
            if (place / name).is_file():
                return place / name
    raise ModelError(f"the folder '{folder.name}' holds no weights of a {part} (such as {part}/{WEIGHTS[0]}): download it whole, or choose another.")


def hashed_file(path: Path) -> Path:
    """The file whose hash a model goes by: itself, or of a folder the UNet's file (of several the first). Raises ModelError."""
    if not path.is_dir():
        return path
    file = weights_file(path, "unet")
    return shards_of(file)[0] if is_index(file) else file


def size_of(folder: Path) -> int:
    """Bytes of the weights that are read of a model in a folder; other versions beside them do not count."""
    total = 0
    for part in PARTS:
        if (folder / part).is_dir():
            with suppress(ModelError, OSError):
                file = weights_file(folder, part)
                total += sum(one.stat().st_size for one in (shards_of(file) if is_index(file) else [file]))
    return total


def is_model_folder(path: Path) -> bool:
    """Whether a folder is a model of diffusers, as far as its files' names tell."""
    return path.is_dir() and ((path / INDEX).is_file() or (path / "unet" / CONFIG).is_file())


def folder_family(path: Path) -> Family:
    """The family of a model in a folder, by the configs of its parts. Raises ModelError for what is none that nbsd can use."""
    if not is_model_folder(path):
        raise UnknownModelError(f"'{path}' is a folder, not a model: choose a .safetensors or .ckpt file in it, or one with a {INDEX}.")
    kind = str(read_json(path / INDEX).get("_class_name", ""))
    unet = read_json(path / "unet" / CONFIG)
    if not unet:
        whose = f" (it is a {kind[:60]})" if kind else ""
        raise WrongFamilyError(f"the folder '{path.name}' holds no UNet{whose}: choose an SD 1, SD 2 or SDXL model.")
    if unet.get("addition_embed_type") == "text_time":
        # The refiner's UNet has four levels and its one text encoder is the second; SDXL's has three.
        return families.SDXL if len(unet.get("down_block_types", ())) == 3 else families.SDXL_REFINER
    if unet.get("addition_embed_type") or unet.get("class_embed_type") or unet.get("encoder_hid_dim"):
        raise WrongFamilyError(f"'{path.name}' is a model of a kind that nbsd does not support ({kind[:60] or 'no SD 1, SD 2 or SDXL'}).")
    return families.SD2 if unet.get("use_linear_projection") else families.SD1


def unet_arguments(path: Path) -> dict[str, Any]:
    """Arguments of diffusers' UNet2DConditionModel from a folder's config."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    config = read_json(path / "unet" / CONFIG)
    if config.get("_class_name", "UNet2DConditionModel") != "UNet2DConditionModel":
        raise WrongFamilyError(f"the UNet of '{path.name}' is a {str(config['_class_name'])[:60]}, which nbsd does not support.")
    known = inspect.signature(UNet2DConditionModel.__init__).parameters
    config = {name: value for name, value in config.items() if name in known}
    if too_much := [name for name in ("layers_per_block", "transformer_layers_per_block", "block_out_channels", "down_block_types")
                    if not _modest(config.get(name, 1))]:
        raise ModelError(f"the config of the UNet of '{path.name}' asks for an impossible {too_much[0]}: download it again.")
    return config


def _modest(value: Any) -> bool:
    """Whether a number of layers, or of levels, is one that a UNet can have; a config may claim a thousand million."""
    if isinstance(value, (list, tuple)):
        return len(value) <= MOST_LAYERS and all(isinstance(one, str) or _modest(one) for one in value)
    return isinstance(value, int) and 0 < value <= WIDEST


def scheduler(path: Path) -> Mapping[str, Any]:
    """How the model was trained, as the folder says it; empty where it does not."""
    return read_json(path / "scheduler" / "scheduler_config.json")
