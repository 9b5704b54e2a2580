"""From the files of a model to the modules that compute with it. The network is never asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nbsd.errors import ModelError, WrongFamilyError
from nbsd.models import hashes
from nbsd.models.beside import chosen_vae
from nbsd.models.build import Plan, fill, use_positions
from nbsd.models.families import PURPOSES, Family, TextPart
from nbsd.models.folder import is_model_folder, weights_file
from nbsd.models.plans import Plans, plan_file, plan_folder
from nbsd.models.read import Progress
from nbsd.models.vae import plan_vae_file

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

PREDICTIONS = ("epsilon", "v_prediction")


@dataclass(eq=False, kw_only=True)
class Checkpoint:
    """A loaded model: everything that a picture is computed with."""

    path: Path                          # a file, or a folder of diffusers
    family: Family
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoders: tuple[Any, ...]      # transformers' CLIPTextModel or CLIPTextModelWithProjection, one for each of `text_parts`
    text_parts: tuple[TextPart, ...]    # which of their numbers are used
    alphas_cumprod: Tensor              # [1000], float32, on the CPU
    prediction: str = "epsilon"         # what the UNet predicts: a row of PREDICTIONS
    own_prediction: str = "epsilon"     # the same, when nobody says otherwise
    zero_terminal_snr: bool = False     # whether it was trained down to pure noise: `alphas_cumprod` is to be rescaled
    vae_path: Path | None = None        # None: the VAE is the checkpoint's own
    text_path: Path | None = None       # where the text encoders come from; None: they are the checkpoint's own
    weights_path: Path | None = None    # of a folder: the UNet's file (of several the first), which its hash is of

    @property
    def text_encoder(self) -> Any:
        """The first text encoder, which is the only one outside of SDXL."""
        return self.text_encoders[0]

    @property
    def name(self) -> str:
        """The model's name as an infotext writes it: the file's, without its ending."""
        return self.path.name if self.weights_path else self.path.stem

    @property
    def hash(self) -> str:
        """First 10 digits of the file's SHA-256; computed when first asked for, then remembered on disk."""
        return hashes.short_hash(self.weights_path or self.path)

    @property
    def text_title(self) -> str | None:
        """Name and hash of the model that the text encoders come from; None: they are its own. Hashing is as for `hash`."""
        if self.text_path is None or self.text_path.is_dir():
            return self.text_path.name if self.text_path else None
        return f"{self.text_path.stem} [{hashes.short_hash(self.text_path)}]"

    @property
    def purpose(self) -> str:
        """What the UNet is made for, by the channels it reads: PLAIN, EDITING or INPAINTING of `families`."""
        return PURPOSES[int(self.unet.config.in_channels)]

    @property
    def vae_name(self) -> str | None:
        """File name of the external VAE."""
        return self.vae_path.name if self.vae_path else None

    @property
    def vae_hash(self) -> str | None:
        """First 10 digits of the external VAE's SHA-256."""
        return hashes.short_hash(self.vae_path) if self.vae_path else None


def load_checkpoint(
    path: str | Path,
    *,
    vae: str | Path | None = None,
    text_encoder: str | Path | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    vae_dtype: torch.dtype = torch.float32,
    prediction: str | None = None,
    on_progress: Progress | None = None,
) -> Checkpoint:
    """Load a checkpoint of SD 1, SD 2, SDXL or its refiner, of any width: a single file, or a folder of diffusers.

    `dtype` is that of UNet and text encoders. `vae`: the VAE to use instead of the checkpoint's own, as `beside.chosen_vae` reads it.
    `text_encoder`: where the text encoders come from if the file has none, or instead of its own: another checkpoint of the
    family, a text encoder's own file, or a folder of diffusers. `prediction`: read the model as one that predicts this; None: as the
    file says, or else as its family does; an SD 2 model that does not say is asked.
    `on_progress(done, total)` counts bytes and may raise Stopped.
    Raises ModelError with the reason, before anything big is allocated, where a file is not what it should be.
    """
    path, device = Path(path), torch.device(device)
    check_prediction(prediction)
    vae_path = chosen_vae(path, vae)
    if vae_path is not None and vae_path.is_dir():
        vae_path = weights_file(vae_path, "vae")
    plans = (plan_folder if is_model_folder(path) else plan_file)(path, vae_path, text_encoder)
    _check_widths(path.name, plans)
    unet, *texts, autoencoder = fill_all(
        [(plans.unet, dtype), *((plan, dtype) for plan in plans.texts), (plans.vae, vae_dtype)], device, on_progress
    )
    for part, module, plan in zip(plans.parts, texts, plans.texts, strict=True):
        use_positions(module, plan.weights, part.prefix, device)
    asked = plans.family.prediction_asked and not PURPOSES[int(unet.config.in_channels)]     # SD 2 for inpainting predicts noise
    own = plans.prediction or (ask(unet) if asked else plans.family.prediction)
    return Checkpoint(
        path=path, family=plans.family, unet=unet, vae=autoencoder, text_encoders=tuple(texts), text_parts=plans.parts,
        alphas_cumprod=plans.alphas, prediction=prediction or own, own_prediction=own, zero_terminal_snr=plans.zero_terminal_snr, vae_path=vae_path,
        text_path=Path(text_encoder) if text_encoder else None, weights_path=plans.weights_path,
    )  # fmt: skip


def check_prediction(prediction: str | None) -> None:
    """Raise ModelError for what no model predicts; None: as the model's own file or family says."""
    if prediction not in (None, *PREDICTIONS):
        raise ModelError(f"no model predicts {prediction!r}: use one of {', '.join(PREDICTIONS)}.")


def load_vae(
    path: str | Path, family: Family, device: torch.device | str, dtype: torch.dtype, on_progress: Progress | None = None
) -> AutoencoderKL:
    """The VAE of a file alone, be it a VAE file or a checkpoint."""
    return fill_all([(plan_vae_file(path, family), dtype)], torch.device(device), on_progress)[0]


def fill_all(plans: list[tuple[Plan, torch.dtype]], device: torch.device, on_progress: Progress | None) -> list:
    """Fill the modules of several plans, with one count of bytes over all of them."""
    total, before, modules = sum(plan.nbytes for plan, _ in plans), 0, []
    for plan, dtype in plans:

        def tell(done: int, _total: int, before: int = before) -> None:
            if on_progress:
                on_progress(before + done, total)

        modules.append(fill(plan, device, dtype, tell))
        before += plan.nbytes
    return modules


@torch.inference_mode()
def ask(unet: Any) -> str:
    """What a UNet predicts, by its answer to a picture that is nearly all noise.

    There the noise is what the UNet was given, so a model that predicts it gives back its input; one that predicts v, which is
    nearly the picture turned negative there, does not. Input, time step and limit are those of the web UI's own test for SD 2
    (modules/sd_models_config.py: is_using_v_parameterization_for_sd2).
    """
    weight = unet.conv_in.weight
    x = torch.full((1, unet.config.in_channels, 8, 8), 0.5, device=weight.device, dtype=weight.dtype)
    context = torch.full((1, 2, unet.config.cross_attention_dim), 0.5, device=weight.device, dtype=weight.dtype)
    answer = unet(x, torch.tensor([999.0], device=weight.device), context, return_dict=False)[0]
    return "v_prediction" if float((answer - x[:, : answer.shape[1]]).float().mean()) < -1 else "epsilon"


def _check_widths(file: str, plans: Plans) -> None:
    wants = plans.unet.module.config.cross_attention_dim
    gets = sum(plan.module.config.hidden_size for plan in plans.texts)
    if wants != gets:
        raise WrongFamilyError(f"'{file}' does not fit together: its UNet wants texts {wants} wide, its text encoder makes {gets}.")
    if plans.family.numbers:
        config = plans.unet.module.config
        pooled = sum(plan.module.config.projection_dim for part, plan in zip(plans.parts, plans.texts, strict=True) if part.pooled)
        gets = pooled + len(plans.family.numbers) * config.addition_time_embed_dim
        wants = config.projection_class_embeddings_input_dim
        if wants != gets:
            raise WrongFamilyError(f"'{file}' does not fit together: its UNet wants a vector of {wants} numbers, its text encoder makes {gets}.")
