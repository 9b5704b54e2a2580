"""What is to be read for a model, and from where: one plan for each part. Everything is checked here; nothing big is read yet."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nbsd.errors import ModelError, NoTextEncoderError, WrongFamilyError
from nbsd.models import beside
from nbsd.models.build import (
    Plan,
    make_text_encoder,
    plan_named,
    plan_named_vae,
    plan_text_encoder,
    plan_unet,
)
from nbsd.models.detect import AVERAGES, CHOOSE, checkpoint_family, kind_of
from nbsd.models.families import LINEAR_END, LINEAR_START, TIMESTEPS, Family, TextPart
from nbsd.models.folder import (
    folder_family,
    hashed_file,
    scheduler,
    unet_arguments,
    weights_file,
)
from nbsd.models.keys import (
    TEXT_DROPS,
    UNET,
    VAE,
    VAE_DROPS,
    averaged,
    check_complete,
    kept,
)
from nbsd.models.read import Reader
from nbsd.models.shapes import text_config
from nbsd.models.unet import make_unet
from nbsd.models.vae import plan_own_vae, plan_vae_file
from nbsd.models.weights import FLOATS, Weights, open_weights

ALPHAS = "alphas_cumprod"
# How files say that they predict v: a tensor of that name (SDXL's anime descendants), or the trainer's note in the header.
V_KEY, ZERO_SNR_KEY, NOTE = "v_pred", "ztsnr", "modelspec.prediction_type"
V_NOTES = ("v", "v_prediction", "v-prediction")
IMPOSSIBLE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError)    # of a config


@dataclass(frozen=True)
class Plans:
    """The parts of a model, planned."""

    family: Family
    unet: Plan
    vae: Plan
    texts: tuple[Plan, ...]
    parts: tuple[TextPart, ...]         # what is used of each text encoder
    alphas: Tensor                      # [1000], float32
    prediction: str | None = None       # as the files say; None: they do not
    zero_terminal_snr: bool = False
    weights_path: Path | None = None    # of a folder: the UNet's file, or the first of several


def plan_file(path: Path, vae: Path | None, text_encoder: str | Path | None) -> Plans:
    """A single-file checkpoint. The arguments are those of `load.load_checkpoint`."""
    weights = with_averages(open_weights(path))
    family = checkpoint_family(weights)
    keys = kept(weights.tensors)
    known = (UNET, VAE, *(part.prefix for part in family.text))
    check_complete(path.name, f"a model of {family.name}", {}, [key for key in keys if not key.startswith(known)], ())
    texts, parts = plan_texts(weights, keys, family, text_encoder)
    return Plans(
        family, plan_unet(weights, [key for key in keys if key.startswith(UNET)], family),
        plan_vae_file(vae, family) if vae else plan_own_vae(weights, keys, family), texts, parts, read_alphas(weights),
        stated_prediction(weights), ZERO_SNR_KEY in weights.tensors,
    )  # fmt: skip


def with_averages(weights: Weights) -> Weights:
    """A file that holds only the running averages of a training, read as if they were the weights; every other file as it is.

    A file that has both is used by its weights, as the web UI does.
    """
    if kind_of(weights) != AVERAGES:
        return weights
    tensors = dict(weights.tensors)
    for key in weights.tensors:
        if name := averaged(key):
            tensors[name] = tensors.pop(key)
    return replace(weights, tensors=tensors)


def stated_prediction(weights: Weights) -> str | None:
    """What the file says that it predicts, or the settings beside it (model.yaml, which the web UI reads); None: nothing."""
    if V_KEY in weights.tensors:
        return "v_prediction"
    note = weights.metadata.get(NOTE, "").lower()
    if note:
        return "v_prediction" if note in V_NOTES else "epsilon" if note == "epsilon" else None
    return beside.stated_prediction(weights.path)


def plan_texts(
    weights: Weights, keys: list[str], family: Family, source: str | Path | None
) -> tuple[tuple[Plan, ...], tuple[TextPart, ...]]:
    """The text encoders, from the checkpoint itself or from where the user says."""
    if source is not None:
        return texts_from(Path(source), family)
    plans, parts = [], []
    for part in family.text:
        inside = [key for key in keys if key.startswith(part.prefix)]
        if not inside:
            what = "a UNet and a VAE" if any(key.startswith(VAE) for key in keys) else "a UNet"
            raise no_text_encoder(weights.path.name, family, f"{what}, but no text encoder")
        plan = plan_text_encoder(weights, inside, part)
        plans.append(plan)
        parts.append(as_long_as(part, plan.module.config.num_hidden_layers))
    return tuple(plans), tuple(parts)


def no_text_encoder(name: str, family: Family, holds: str) -> NoTextEncoderError:
    return NoTextEncoderError(
        f"'{name}' is of {family.name} and holds {holds}: take it from another {family.name} model, such as the one that it was trained from "
        "('Text encoder from' in the panel, text_encoder=... in Python)."
    )


def as_long_as(part: TextPart, layers: int) -> TextPart:
    """The part of a text encoder that has so many layers.

    Why: diffusers cuts off the last layer of SD 2's, which is never used, so there the last is what is the penultimate elsewhere.
    """
    return replace(part, layer=1) if part.layers and layers == part.layers - 1 else part


def texts_from(source: Path, family: Family) -> tuple[tuple[Plan, ...], tuple[TextPart, ...]]:
    """The text encoders of another checkpoint of the family, of a folder of diffusers, or of one text encoder's own file."""
    if source.is_dir():
        return _texts_of_folder(source, family, by_layers=True)
    weights = open_weights(source)
    if any(key.startswith(part.prefix) for key in weights.tensors for part in family.text):
        return plan_texts(weights, kept(weights.tensors), family, None)
    if len(family.text) == 1 and any(key.removeprefix("text_model.").startswith("encoder.layers.") for key in weights.tensors):
        plan = _named_text_encoder(weights, family.text[0])
        return (plan,), (as_long_as(family.text[0], plan.module.config.num_hidden_layers),)
    raise WrongFamilyError(
        f"'{source.name}' was chosen as text encoder and holds none of {family.name}: choose a whole model of that family"
        f"{', or the folder with its text encoders' if len(family.text) > 1 else ''}."
    )


def _texts_of_folder(folder: Path, family: Family, *, by_layers: bool) -> tuple[tuple[Plan, ...], tuple[TextPart, ...]]:
    plans, parts = [], []
    for part in family.text:
        plan = _named_text_encoder(open_weights(weights_file(folder, part.folder)), part)
        plans.append(plan)
        # diffusers reads the last layer of SD 2's text encoder, whose real last one it has cut off.
        layers = plan.module.config.num_hidden_layers
        parts.append(as_long_as(part, layers) if by_layers or layers == part.layers or not part.layers else replace(part, layer=1))
    return tuple(plans), tuple(parts)


def _named_text_encoder(weights: Weights, part: TextPart) -> Plan:
    """A text encoder's file in transformers' own layout."""
    named = replace(part, prefix="", open_clip=False)
    try:
        config = text_config(weights.shapes, named)
    except ModelError as error:
        raise ModelError(f"'{weights.path.name}' cannot be used as a text encoder: {error}. Choose another one.") from None
    config["hidden_act"] = "gelu" if part.open_clip else "quick_gelu"
    keys = [key for key in kept(weights.tensors, TEXT_DROPS) if part.pooled or not key.startswith("text_projection")]
    return plan_named(weights, "the text encoder", make_text_encoder(config, part), keys)


def plan_folder(path: Path, vae: Path | None, text_encoder: str | Path | None) -> Plans:
    """A model of diffusers. The arguments are those of `load.load_checkpoint`."""
    family = folder_family(path)
    file = weights_file(path, "unet")
    weights = open_weights(file)
    try:
        module = make_unet(unet_arguments(path))
    except IMPOSSIBLE as error:
        raise ModelError(f"the UNet of '{path.name}' cannot be built from its config ({str(error)[:80]}): download it again.") from error
    unet = plan_named(weights, "the UNet", module, list(weights.tensors))
    if text_encoder is None and not (path / family.text[0].folder).is_dir():
        raise no_text_encoder(path.name, family, "no text encoder")
    texts, parts = texts_from(Path(text_encoder), family) if text_encoder else _texts_of_folder(path, family, by_layers=False)
    autoencoder = plan_vae_file(vae, family) if vae else _named_vae(path, family)
    trained = scheduler(path)
    return Plans(
        family, unet, autoencoder, texts, parts, _scheduled(path, trained), stated_by(trained),
        trained.get("rescale_betas_zero_snr") is True, hashed_file(path),
    )  # fmt: skip


def _named_vae(path: Path, family: Family) -> Plan:
    weights = open_weights(weights_file(path, "vae"))
    return plan_named_vae(weights, kept(weights.tensors, VAE_DROPS), family)


def stated_by(trained: Mapping[str, Any]) -> str | None:
    """What a scheduler's config says that the model predicts."""
    said = trained.get("prediction_type")
    if said not in (None, "epsilon", "v_prediction"):
        raise ModelError(f"a model that predicts {str(said)[:40]!r} is not supported: {CHOOSE}.")
    return said


def _scheduled(path: Path, trained: Mapping[str, Any]) -> Tensor:
    """The noise schedule that a scheduler's config describes."""
    kind, steps = trained.get("beta_schedule", "scaled_linear"), trained.get("num_train_timesteps", TIMESTEPS)
    ends = trained.get("beta_start", LINEAR_START), trained.get("beta_end", LINEAR_END)
    if kind != "scaled_linear" or steps != TIMESTEPS or not all(isinstance(end, float) and 0 < end < 1 for end in ends):
        raise ModelError(f"'{path.name}' was trained with a noise schedule that nbsd does not know ({str(kind)[:40]}, {str(steps)[:20]} steps).")
    return usual_alphas(*ends)


def read_alphas(weights: Weights) -> Tensor:
    """The noise schedule: the file's own `alphas_cumprod` where it has one, else Stable Diffusion's. Shape [1000], float32."""
    stored = weights.tensors.get(ALPHAS)
    if stored is None:
        return usual_alphas()
    if stored.shape != (TIMESTEPS,) or stored.dtype not in FLOATS:
        raise ModelError(f"'{weights.path.name}' has {ALPHAS} of shape {list(stored.shape)} where [{TIMESTEPS}] was expected.")
    with closing(Reader(weights)) as reader:
        return reader.read(stored, torch.float32)


def usual_alphas(start: float = LINEAR_START, end: float = LINEAR_END) -> Tensor:
    """The noise schedule of Stable Diffusion, [1000], float32."""
    # In double precision and then rounded, as ldm's register_schedule does it.
    betas = torch.linspace(start**0.5, end**0.5, TIMESTEPS, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0).float()
