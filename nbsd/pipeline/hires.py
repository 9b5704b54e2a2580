"""The hires fix: the first pass's result enlarged, and run through a second pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from nbsd.events import Event
from nbsd.images import to_pil
from nbsd.models.families import INPAINTING
from nbsd.names import LATENT_UPSCALERS
from nbsd.pipeline.beside import beside, masked_picture
from nbsd.pipeline.img2img import Ground, encode, tensor_of
from nbsd.pipeline.passes import Pass, Watched
from nbsd.pipeline.sizes import PIXELS_PER_LATENT, HiresSize, final_size, hires_size, hires_size_2022
from nbsd.pipeline.texts import planned_calls
from nbsd.pipeline.upscale import find_upscaler
from nbsd.recipe import OF_2022, Recipe

if TYPE_CHECKING:
    from PIL.Image import Image

    from nbsd.pipeline.model import Model

Decode = Callable[["Model", Tensor], Tensor]        # latent [4, h, w] -> pixels [3, H, W], nominally -1 to 1


class SecondPass:
    """The second pass of a job, with all that it needs read already."""

    def __init__(self, model: Model, recipe: Recipe, report: Callable[[Event], None]) -> None:
        """Raises RecipeError or ModelError where the second model, its networks or the upscaler are not there."""
        hires = recipe.hires
        assert hires is not None
        self._first, self.model = model, model.other(hires.model) if hires.model else model
        self._hires = hires
        self.networks = self.model.networks.prepare(self.model.checkpoint, second_recipe(recipe), report)
        self._upscale = None if hires.upscaler in LATENT_UPSCALERS else find_upscaler(hires.upscaler, model.upscalers)

    def run(self, latents: Tensor, batch: Sequence[Recipe], watched: Watched, decode: Decode) -> Tensor:
        """The final latents [B, 4, h, w] from those of the first pass."""
        second = [second_recipe(one) for one in batch]
        size, (start, images) = hires_size(batch[0]), self._enlarged(latents, batch[0], watched, decode)
        with self.model.with_networks(self.networks):
            run = Pass(     # SDXL is told the size before anything is cut off
                self.model, second, watched, first_calls=planned_calls(batch[0]), told_size=(size.width, size.height),
                beside=self._beside(start, images, second[0], decode))
            return run.from_latent(Ground(start), self._hires.denoising_strength, exact=True, extra_noise=self._hires.extra_noise)

    @torch.inference_mode()
    def _beside(self, start: Tensor, images: Sequence[Image], recipe: Recipe, decode: Decode) -> Tensor | None:
        """As `beside`; where a model made for inpainting sees through what hides the picture, it sees the enlarged one.

        Of pictures that an upscaler enlarged the web UI takes the values from 0 to 1, as if they were from -1 to 1.
        """
        if self.model.checkpoint.purpose != INPAINTING or recipe.mask_weight == 1:
            return beside(self.model, recipe)
        everything = torch.ones(1, 1, recipe.height, recipe.width)
        if images and images[0].size == (recipe.width, recipe.height):
            pixels = [tensor_of(one) / 2 + 0.5 for one in images]
        else:
            pixels = [decode(self.model, latent)[None].float().cpu() for latent in start]
        return torch.cat([masked_picture(self.model, one, everything, recipe) for one in pixels])

    @torch.inference_mode()
    def _enlarged(self, latents: Tensor, recipe: Recipe, watched: Watched, decode: Decode) -> tuple[Tensor, list[Image]]:
        """The latents of the second pass's size, and the enlarged pictures where it is these that are enlarged.

        In 2022 they were cut first and then stretched, today it is the other way round.
        """
        images: list[Image] = []
        if recipe.rules == OF_2022:
            size = hires_size_2022(recipe)
            latents = cut(latents, size.cut_x // 2, size.cut_x // 2, size.cut_y // 2, size.cut_y // 2)
        else:
            size = hires_size(recipe)
        if self._upscale is None:
            larger = scaled_latents(latents, size, self._hires.upscaler)
        else:
            wanted = size.width, size.height
            images = [self._upscale.fitted(to_pil(decode(self._first, latent)), wanted, watched.tile) for latent in latents]
            larger = encode(self.model, images, tiling=recipe.tiling)
        if recipe.rules == OF_2022:
            return larger, images
        return cut(larger, size.cut_x // 2, (size.cut_x + 1) // 2, size.cut_y // 2, (size.cut_y + 1) // 2), images


def second_recipe(recipe: Recipe) -> Recipe:
    """The second pass as a recipe of its own, without what it takes from the first."""
    hires = recipe.hires
    assert hires is not None
    width, height = final_size(recipe)
    return replace(
        recipe, prompt=hires.prompt or recipe.prompt, negative_prompt=hires.negative_prompt or recipe.negative_prompt,
        sampler=hires.sampler or recipe.sampler, schedule=hires.schedule or recipe.schedule, steps=hires.steps or recipe.steps,
        width=width, height=height, hires=None,
    )


def scaled_latents(latents: Tensor, size: HiresSize, upscaler: str) -> Tensor:
    """Latents [B, 4, h, w] interpolated by one of `LATENT_UPSCALERS`."""
    mode, antialias = LATENT_UPSCALERS[upscaler]
    places = size.height // PIXELS_PER_LATENT, size.width // PIXELS_PER_LATENT
    return functional.interpolate(latents, size=places, mode=mode, antialias=antialias)


def cut(latents: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
    """Without so many places at each side."""
    return latents[:, :, top : latents.shape[2] - bottom, left : latents.shape[3] - right]
