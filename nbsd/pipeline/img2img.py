"""A given picture on its way into the latents, and the made one on its way back: img2img and inpainting, by the web UI's rules."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor
from torch.nn import functional

from nbsd.errors import RecipeError
from nbsd.images import masks
from nbsd.images.colors import with_colors_of
from nbsd.images.masks import Box
from nbsd.images.resize import resize
from nbsd.names import FILL, LATENT_NOISE, LATENT_NOTHING, LATENT_RESIZE, ORIGINAL
from nbsd.pipeline.compute import memory_errors
from nbsd.pipeline.sizes import PIXELS_PER_LATENT
from nbsd.pipeline.soft import changed_places, mixed
from nbsd.pipeline.tiling import circular
from nbsd.recipe import OF_2022, Img2Img, Inpaint, Recipe, Soft
from nbsd.sampling.parametrize import root
from nbsd.sampling.streams import stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nbsd.pipeline.model import Model


@dataclass(frozen=True)
class Given:
    """A picture to change, prepared. The same for every picture of a job."""

    image: Image.Image                          # RGB, what the VAE encodes: of the recipe's size, unless latents are resized
    size: tuple[int, int]                       # of the recipe
    mask: Image.Image | None = None             # "L" or RGB of the recipe's size, white where the picture is to change
    overlay: Image.Image | None = None          # RGBA, laid over the made picture
    box: Box | None = None                      # where the made picture belongs in the overlay; None: it covers it
    whole: Image.Image | None = None            # RGB, the given picture in the overlay's size, for soft inpainting
    digest: str = ""                            # MD5 of the given picture's pixels
    colors: Image.Image | None = None           # RGB, whose colours count where the recipe wants them kept; None: those of `image`

    def signed(self, recipe: Recipe) -> Recipe:
        """The recipe with the hash of the given picture."""
        assert recipe.img2img is not None
        return replace(recipe, img2img=replace(recipe.img2img, image_hash=self.digest))

    def finish(self, image: Image.Image, recipe: Recipe, changed: Image.Image | None = None) -> Image.Image:
        """The made picture with the given one's colours and the rest of the given one around it, where the recipe wants that.

        `changed`: where this picture is to be seen, of the recipe's size, where soft inpainting has found that out.
        """
        if recipe.img2img and recipe.img2img.color_correction:
            image = with_colors_of(image, self.colors or self.image)
        overlay = self.overlay if recipe.inpaint and recipe.inpaint.overlay else None
        if changed is not None and self.whole is not None:      # soft inpainting lays it over whatever that setting says
            overlay = masks.outside(self.whole, masks.placed(changed, self.box, self.whole.size))
        if overlay is None:
            return image
        return masks.laid_over(image, overlay, self.box)


def completed(recipe: Recipe, image: Image.Image | None, mask: Image.Image | None) -> Recipe:
    """The recipe with the parts that a given picture and mask need. Raises RecipeError where they and the recipe do not go together."""
    if image is None:
        if mask is not None:
            raise RecipeError("a mask without a picture: give the picture to change with image=")
        if recipe.img2img or recipe.inpaint:
            raise RecipeError("this recipe changes a given picture (it says a denoising strength): give the picture with image=")
        return recipe
    if recipe.hires:
        raise RecipeError("the hires fix belongs to a new picture, not to changing a given one: take image= or the hires fix away")
    if mask is None and recipe.inpaint:
        raise RecipeError("this recipe changes a part of a picture: give a mask with mask=, white where it is to change")
    recipe = replace(recipe, img2img=recipe.img2img or Img2Img())
    return recipe if mask is None else replace(recipe, inpaint=recipe.inpaint or Inpaint())


def prepare(recipe: Recipe, image: Image.Image, mask: Image.Image | None, first: Image.Image | None = None) -> Given:
    """The given picture in the form in which every picture of the job starts from it. Raises RecipeError for a mask that cannot be used.

    `first`: where the picture came of another one, that one: the mask is of its shape, and its colours are those to keep.
    """
    how, size = recipe.img2img, (recipe.width, recipe.height)
    assert how is not None
    flat = masks.flattened(image, how.background)
    if mask is None or recipe.inpaint is None:
        given = Given(flat if how.resize_mode == LATENT_RESIZE else resize(flat, size, how.resize_mode), size)
    else:
        painted = _painted(mask, recipe.inpaint, gaussian=recipe.rules == OF_2022)
        if not recipe.inpaint.only_masked:
            masks.require_shape(painted, (first or image).size)
        given = (_only_masked if recipe.inpaint.only_masked else _whole_picture)(recipe, flat, painted)
    return replace(given, digest=masks.digest(image), colors=first and first.convert("RGB"))


def _painted(mask: Image.Image, how: Inpaint, gaussian: bool) -> Image.Image:
    """The mask as it counts: read, turned around and blurred. `gaussian`: by Pillow, as in October 2022."""
    found = masks.read_mask(mask, rounded=how.rounds)
    if how.invert:
        found = ImageOps.invert(found)
    masks.require_painted(found, how.invert)
    if gaussian:
        return found.filter(ImageFilter.GaussianBlur(how.mask_blur))
    return masks.blurred(found, how.mask_blur)


def _whole_picture(recipe: Recipe, flat: Image.Image, painted: Image.Image) -> Given:
    """The whole picture goes through the model."""
    assert recipe.img2img is not None and recipe.inpaint is not None
    size, mode = (recipe.width, recipe.height), recipe.img2img.resize_mode
    mask = resize(painted, size, mode)
    # Twice as white: where the picture is changed by half or more, nothing of the old one lies over it
    over = mask.convert("L").point([min(255, 2 * value) for value in range(256)])
    image = resize(flat, size, mode)
    given = flat if mode == LATENT_RESIZE else image
    return Given(_content(given, mask.resize(given.size), recipe.inpaint), size, mask, masks.outside(image, over), whole=image)


def _only_masked(recipe: Recipe, flat: Image.Image, painted: Image.Image) -> Given:
    """Only what is around the mask goes through the model, in the recipe's size."""
    assert recipe.inpaint is not None
    size = recipe.width, recipe.height
    painted = masks.matched(painted, flat.size)
    box = masks.shaped_box(masks.padded_box(painted, recipe.inpaint.padding), size, flat.size)
    mask = resize(painted.crop(box), size, FILL)
    image = resize(flat.crop(box), size, FILL)
    return Given(_content(image, mask, recipe.inpaint), size, mask, masks.outside(flat, painted), box, whole=flat)


def _content(image: Image.Image, mask: Image.Image, how: Inpaint) -> Image.Image:
    """What the model sees under the mask at first."""
    return image if how.fill == ORIGINAL else masks.smeared(image, mask)


# --- latents


@dataclass(frozen=True)
class Ground:
    """What a batch starts from and, where there is a mask, falls back to outside of it."""

    latent: Tensor                  # [B, 4, h, w], on the model's device
    change: Tensor | None = None    # [1, 1, h, w], 1 where the picture is to change; between 0 and 1 where the mask is not rounded
    soft: Soft | None = None

    def blend(self, x: Tensor) -> Tensor:
        """x where the picture is to change, and the given picture elsewhere."""
        return x if self.change is None else x * self.change + self.latent * (1 - self.change)

    def kept(self, x: Tensor, at: Tensor) -> Tensor:
        """`blend` while sampling, at a noise level (a time step, for the timestep samplers), which soft inpainting asks for."""
        return self.blend(x) if self.soft is None or self.change is None else mixed(self.latent, x, self.change, at, self.soft)

    def changed(self, index: int, latent: Tensor, size: tuple[int, int]) -> Image.Image | None:
        """With soft inpainting: where picture `index` of the batch, of this latent [4, h, w], is to be seen."""
        if self.soft is None or self.change is None:
            return None
        return changed_places(self.latent[index], latent, self.change[0, 0], size, self.soft)

    def blend_noised(self, x: Tensor, alpha: Tensor, noise: Tensor) -> Tensor:
        """The same with the given picture noised to a level. `alpha`: alphas_cumprod of the time step."""
        assert self.change is not None
        return x * self.change + (self.latent * root(alpha) + noise * root(1 - alpha)) * (1 - self.change)


def ground(model: Model, given: Given, batch: Sequence[Recipe]) -> Ground:
    """The latents that a batch starts from. A picture of a batch starts where it would start alone."""
    recipe, device = batch[0], model.compute.device
    latent = encode(model, [given.image], tiling=recipe.tiling)
    places = given.size[1] // PIXELS_PER_LATENT, given.size[0] // PIXELS_PER_LATENT
    if tuple(latent.shape[2:]) != places:
        latent = functional.interpolate(latent, size=places, mode="bilinear")
    latent = latent.repeat(len(batch), 1, 1, 1)
    if given.mask is None or recipe.inpaint is None:
        return Ground(latent)
    change = latent_mask(given.mask, places, rounded=recipe.inpaint.rounds).to(device)
    if recipe.inpaint.fill == LATENT_NOISE:
        noise = torch.stack([stream(recipe.rng, one.seed, device).randn(latent.shape[1:]) for one in batch]).to(device)
        latent = latent * (1 - change) + noise * change
    elif recipe.inpaint.fill == LATENT_NOTHING:
        latent = latent * (1 - change)
    return Ground(latent, change, recipe.inpaint.soft)


def latent_mask(mask: Image.Image, places: tuple[int, int], *, rounded: bool = True) -> Tensor:
    """The mask [1, 1, h, w] at the latent's places, from 0 to 1, by Pillow's bicubic resize; `rounded`: 0 or 1."""
    small = np.asarray(mask.convert("L").resize((places[1], places[0])), dtype=np.float32) / 255
    return torch.from_numpy(np.around(small) if rounded else small)[None, None]


def encode(model: Model, images: Sequence[Image.Image], *, tiling: bool = False) -> Tensor:
    """The latents [B, 4, h, w] of RGB pictures of one size."""
    return encode_tensors(model, [tensor_of(image) for image in images], tiling=tiling)


@torch.inference_mode()
def encode_tensors(model: Model, images: Sequence[Tensor], *, tiling: bool = False) -> Tensor:
    """The latents [B, 4, h, w] of pictures [1, 3, H, W] of one size, -1 to 1, one picture at a time.

    The middle of what the VAE says is possible, where the web UI draws from it without a seed: a picture can be made again.
    """
    with memory_errors("reading the picture"), circular(tiling, model.checkpoint.vae):
        given = [image.to(model.compute.device) for image in images]
        latents = torch.cat([model.encode(one, whole=tiling) for one in given])
        if not latents.isfinite().all() and model.widen_vae():
            latents = torch.cat([model.encode(one, whole=tiling) for one in given])
    return latents


def tensor_of(image: Image.Image) -> Tensor:
    """An RGB picture as [1, 3, H, W], -1 to 1."""
    pixels = torch.from_numpy(np.array(image, dtype=np.float32) / 255)
    return pixels.permute(2, 0, 1)[None] * 2 - 1
