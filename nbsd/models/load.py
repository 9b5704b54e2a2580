"""From a single-file checkpoint to the modules that compute with it. The network is never asked."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nbsd.errors import ModelError, WrongFamilyError
from nbsd.models import hashes
from nbsd.models.build import Plan, fill, plan_text_encoder, plan_unet, use_positions
from nbsd.models.detect import checkpoint_family
from nbsd.models.families import LINEAR_END, LINEAR_START, TIMESTEPS, Family
from nbsd.models.keys import TEXT, UNET, VAE, check_complete, kept
from nbsd.models.read import Progress, Reader
from nbsd.models.vae import plan_own_vae, plan_vae_file
from nbsd.models.weights import FLOATS, Weights, open_weights

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers.models.clip.modeling_clip import CLIPTextModel

PREDICTIONS = ("epsilon", "v_prediction")
ALPHAS = "alphas_cumprod"


@dataclass(eq=False, kw_only=True)
class Checkpoint:
    """A loaded model: everything that a picture is computed with."""

    path: Path
    family: Family
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    alphas_cumprod: Tensor              # [1000], float32, on the CPU
    prediction: str = "epsilon"         # what the UNet predicts: a row of PREDICTIONS
    vae_path: Path | None = None        # None: the VAE is the checkpoint's own

    @property
    def name(self) -> str:
        """The model's name as an infotext writes it: the file's, without its ending."""
        return self.path.stem

    @property
    def hash(self) -> str:
        """First 10 digits of the file's SHA-256; computed when first asked for, then remembered on disk."""
        return hashes.short_hash(self.path)

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
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    vae_dtype: torch.dtype = torch.float32,
    prediction: str | None = None,
    on_progress: Progress | None = None,
) -> Checkpoint:
    """Load a single-file SD 1 checkpoint (.safetensors or .ckpt), of any width.

    `dtype` is that of UNet and text encoder. `vae`: a file whose VAE is used instead of the checkpoint's own. `prediction`: read the
    model as one that predicts this; None: as its family does. `on_progress(done, total)` counts bytes and may raise Stopped.
    Raises ModelError with the reason, before anything big is allocated, where a file is not what it should be.
    """
    path, device = Path(path), torch.device(device)
    weights = open_weights(path)
    family = checkpoint_family(weights)
    predicts = checked_prediction(prediction, family)
    keys = _kept(weights)
    plans = [
        (plan_unet(weights, [key for key in keys if key.startswith(UNET)], family), dtype),
        (plan_text_encoder(weights, [key for key in keys if key.startswith(TEXT)]), dtype),
        (plan_vae_file(vae, family) if vae else plan_own_vae(weights, keys, family), vae_dtype),
    ]
    _check_widths(path.name, plans[0][0], plans[1][0])
    alphas = read_alphas(weights)
    unet, text_encoder, autoencoder = fill_all(plans, device, on_progress)
    use_positions(text_encoder, weights, device)
    return Checkpoint(
        path=path, family=family, unet=unet, vae=autoencoder, text_encoder=text_encoder, alphas_cumprod=alphas,
        prediction=predicts, vae_path=Path(vae) if vae else None,
    )  # fmt: skip


def checked_prediction(prediction: str | None, family: Family) -> str:
    """What the model is read as predicting: as asked, or as its family does."""
    if prediction not in (None, *PREDICTIONS):
        raise ModelError(f"no model predicts {prediction!r}: use one of {', '.join(PREDICTIONS)}.")
    return prediction or family.prediction


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


def _kept(weights: Weights) -> list[str]:
    """The keys that belong to a module; a key that belongs to none is an error."""
    keys = kept(weights.tensors)
    strangers = [key for key in keys if not key.startswith((UNET, TEXT, VAE))]
    check_complete(weights.path.name, "an SD 1 model", {}, strangers, ())
    return keys


def _check_widths(file: str, unet: Plan, text: Plan) -> None:
    wants, gets = unet.module.config.cross_attention_dim, text.module.config.hidden_size
    if wants != gets:
        raise WrongFamilyError(f"'{file}' does not fit together: its UNet wants texts {wants} wide, its text encoder makes {gets}.")


def read_alphas(weights: Weights) -> Tensor:
    """The noise schedule: the file's own `alphas_cumprod` where it has one, else Stable Diffusion 1's. Shape [1000], float32."""
    stored = weights.tensors.get(ALPHAS)
    if stored is None:
        # In double precision and then rounded, as ldm's register_schedule does it.
        betas = torch.linspace(LINEAR_START**0.5, LINEAR_END**0.5, TIMESTEPS, dtype=torch.float64) ** 2
        return (1 - betas).cumprod(0).float()
    if stored.shape != (TIMESTEPS,) or stored.dtype not in FLOATS:
        raise ModelError(f"'{weights.path.name}' has {ALPHAS} of shape {list(stored.shape)} where [{TIMESTEPS}] was expected.")
    with closing(Reader(weights)) as reader:
        return reader.read(stored, torch.float32)
