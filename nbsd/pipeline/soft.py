"""Soft inpainting: how much each place keeps of the given picture follows the noise, and at the end what really changed decides.

Names, defaults and formulas: A1111 1.8 to 1.10, its built-in extension for soft inpainting. While sampling, a mask m counts as
m ** (preservation strength * sigma ** schedule bias), and latents are mixed in direction and length apart. Afterwards the given picture is
laid over the made one where their latents hardly differ.

With the samplers that step in time steps (DDIM and its like) the web UI never puts the given latents back, so that its pictures keep noise
around the mask; here they are put back at the end.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageFilter
from torch import Tensor

from nbsd.recipe import Soft

Array = np.ndarray[Any, np.dtype[Any]]

TINY = 1e-5             # keeps lengths and shares from dividing by nothing
# The window that differences are looked at in: places to each side, and the weight is exp(-(distance / SPREAD)**2), lowered by what it
# is one place beyond the window, so that it ends in 0, and then raised to 1 in the middle again.
REACH, SPREAD = 2, 1.5
LARGEST, USUAL = (0.9, 1.0), (0.25, 0.75)   # parts of the window's weight, in the order of its values, of which the mean is taken
LEAST_WEIGHT = 1.0      # of such a part
EDGE = 4                # pixels: the blur of the final mask


def mixed(given: Tensor, made: Tensor, change: Tensor, at: Tensor, how: Soft) -> Tensor:
    """Latents [B, 4, h, w] between the given and the made ones. `change` [1, 1, h, w]: 1 where all changes; `at`: the sampler's place.

    `at` is the noise level, or for a timestep sampler the time step, as in the web UI.
    """
    share = change ** (float(at) ** how.schedule_bias * how.preservation_strength)
    direction = given * (1 - share) + made * share
    power = how.transition_contrast_boost
    # In double precision: high powers of lengths
    lengths = [one.norm(dim=1, keepdim=True).double() ** power for one in (given, made)]
    wanted = (lengths[0] * (1 - share) + lengths[1] * share) ** (1 / power)
    return (direction / (direction.norm(dim=1, keepdim=True).double() + TINY) * wanted).to(made.dtype)


def changed_places(given: Tensor, made: Tensor, change: Tensor, size: tuple[int, int], how: Soft) -> Image.Image:
    """The mask "L" of a finished picture, white where the made one is seen. `given`, `made` [4, h, w]; `change` [h, w]; `size` in pixels."""
    distance = (made - given).float().norm(dim=0).cpu().numpy()
    for part in (LARGEST, USUAL):
        distance = weighted_part(distance, part)
    by_mask = 1 - change.float().clamp(0, 1).cpu().numpy() ** (how.preservation_strength / 2)
    share = 0.5 * (1 - how.mask_influence) + by_mask * how.mask_influence
    half = how.difference_threshold * share / (1 + TINY - share)        # the distance at which half of the given picture is seen
    kept = _smoothed(1 / (1 + (distance / np.maximum(half, 1e-12)) ** how.difference_contrast))
    mask = Image.fromarray((255 * (1 - kept)).astype(np.uint8)).resize(size, Image.Resampling.LANCZOS)
    return mask.filter(ImageFilter.GaussianBlur(EDGE))


def weighted_part(values: Array, part: tuple[float, float]) -> Array:
    """Each of the values [h, w] becomes the mean of a part of its window, which is sorted and weighted: (0.25, 0.75) is its middle half."""
    steps = range(-REACH, REACH + 1)
    end = np.exp(-((REACH + 1) ** 2) / SPREAD**2)
    weight = {(y, x): max(0.0, (np.exp(-(x * x + y * y) / SPREAD**2) - end) / (1 - end)) for y in steps for x in steps}
    window = np.stack([_moved(values, *step) for step in weight])
    weights = np.stack([_moved(np.full(values.shape, weight[step]), *step) for step in weight])     # beyond the edge nothing counts
    order = window.argsort(axis=0, kind="stable")
    window, weights = np.take_along_axis(window, order, 0), np.take_along_axis(weights, order, 0)
    ends = weights.cumsum(axis=0)
    low, high = (ends[-1] * share for share in part)
    missing = np.maximum(LEAST_WEIGHT - (high - low), 0) / 2
    low, high = low - missing, high + missing
    beyond = np.maximum(high - ends[-1], 0)
    low, high = np.maximum(low - beyond, 0), high - beyond
    inside = np.clip(np.minimum(ends, high) - np.maximum(ends - weights, low), 0, None)
    return np.asarray((window * inside).sum(axis=0) / inside.sum(axis=0))


def _moved(values: Array, down: int, right: int) -> Array:
    """At each place the value that lies so far off; 0 beyond the edge."""
    wide = np.pad(values, REACH)
    return wide[REACH + down : REACH + down + values.shape[0], REACH + right : REACH + right + values.shape[1]]


def _smoothed(x: Array) -> Array:
    """Perlin's smoother step, 0 to 1 with no slope at both ends."""
    return x**3 * (x * (6 * x - 15) + 10)
