"""What the UNet of a model for other work reads beside the latents: a mask and a masked picture, or a picture to edit.

Models for inpainting read 5 channels more: where the picture is to change (1), and the latents of the picture with that part hidden (4).
The web UI gives them those in every mode; from words alone everything is to change, and what is hidden is grey. InstructPix2Pix reads 4
more, the latents of the picture as the VAE has them, unscaled (Brooks et al. 2023, arXiv:2211.09800, and its released code).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nbsd.models.families import EDITING, INPAINTING, LATENT
from nbsd.pipeline.img2img import Given, encode_tensors, tensor_of
from nbsd.pipeline.sizes import PIXELS_PER_LATENT
from nbsd.recipe import Recipe

if TYPE_CHECKING:
    from nbsd.pipeline.model import Model


def beside(model: Model, recipe: Recipe, given: Given | None = None) -> Tensor | None:
    """What is read beside the latents of a recipe's size, [1, k, h, w] on the model's device; None for a model that reads them alone."""
    purpose, height, width = model.checkpoint.purpose, recipe.height, recipe.width
    places = height // PIXELS_PER_LATENT, width // PIXELS_PER_LATENT
    if purpose == EDITING:
        if given is None:       # as in a part of its training: it sees no picture
            return torch.zeros(1, LATENT, *places, device=model.compute.device)
        latent = encode_tensors(model, [tensor_of(given.image)], tiling=recipe.tiling)
        return _fitted(latent / model.checkpoint.vae.config.scaling_factor, places)
    if purpose != INPAINTING:
        return None
    if given is None:
        return masked_picture(model, torch.zeros(1, 3, height, width), torch.ones(1, 1, height, width), recipe)
    return masked_picture(model, tensor_of(given.image), _mask(given, recipe), recipe)


def masked_picture(model: Model, pixels: Tensor, mask: Tensor, recipe: Recipe) -> Tensor:
    """For a model made for inpainting: pixels [1, 3, H, W], -1 to 1, and a mask [1, 1, H, W], 1 where they are to change.

    At a `mask_weight` below 1 what is hidden shines through.
    """
    latent = encode_tensors(model, [pixels * (1 - mask * recipe.mask_weight)], tiling=recipe.tiling)
    places = recipe.height // PIXELS_PER_LATENT, recipe.width // PIXELS_PER_LATENT
    return torch.cat([functional.interpolate(mask, size=places).to(latent), _fitted(latent, places)], dim=1)


def _mask(given: Given, recipe: Recipe) -> Tensor:
    """The mask in the picture's size, [1, 1, H, W]; all of the picture where there is none."""
    width, height = given.image.size
    if given.mask is None or recipe.inpaint is None:
        return torch.ones(1, 1, height, width)
    values = np.asarray(given.mask.convert("L").resize(given.image.size), dtype=np.float32) / 255
    return torch.from_numpy(np.around(values) if recipe.inpaint.rounds else values)[None, None]


def _fitted(latent: Tensor, places: tuple[int, int]) -> Tensor:
    """In the recipe's size, where the latents of the picture are what is resized."""
    return latent if tuple(latent.shape[2:]) == places else functional.interpolate(latent, size=places, mode="bilinear")
