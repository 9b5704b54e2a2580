"""The families of models. A family's facts stand here; how a file of it is recognised stands in `detect.py`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """What all models of one kind have in common."""

    name: str
    latent_scale: float = 1.0           # latents are the VAE's numbers times this
    latent_channels: int = 4
    prediction: str = "epsilon"         # unless the user says otherwise; a file does not tell
    unet_heads: int = 8                 # attention heads of the UNet, which no shape tells
    supported: bool = True


# The noise schedule of Stable Diffusion 1: `linear_start` and `linear_end` in CompVis/stable-diffusion,
# configs/stable-diffusion/v1-inference.yaml; the square roots of the betas are evenly spaced.
TIMESTEPS, LINEAR_START, LINEAR_END = 1000, 0.00085, 0.012

# scale_factor in the same file; the same number in diffusers' AutoencoderKL (scaling_factor).
SD1 = Family("SD 1", latent_scale=0.18215)

# Known, so that a refusal can name them; nbsd cannot make pictures with them yet.
SD1_INPAINTING = Family("SD 1 inpainting", latent_scale=0.18215, supported=False)
SD1_PIX2PIX = Family("InstructPix2Pix", latent_scale=0.18215, supported=False)
SD2 = Family("SD 2", latent_scale=0.18215, supported=False)
SDXL = Family("SDXL", latent_scale=0.13025, supported=False)
SDXL_REFINER = Family("SDXL refiner", latent_scale=0.13025, supported=False)
SD3 = Family("SD 3", latent_channels=16, supported=False)
FLUX = Family("Flux", latent_channels=16, supported=False)
VIDEO = Family("Stable Video Diffusion", supported=False)
CASCADE = Family("Stable Cascade", latent_channels=16, supported=False)
