"""Colour correction: a picture with the colours of another one, channel by channel in Lab, but with its own brightness."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

Array = np.ndarray[Any, np.dtype[Any]]

# sRGB (IEC 61966-2-1) to XYZ with the white of D65
TO_XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
WHITE = np.array([0.950456, 1.0, 1.088754])
# CIE 1976: where the cube root gives way to a straight line, and that line
KNEE, SLOPE, OFFSET = 0.008856, 7.787, 16 / 116
# OpenCV turns bytes into Lab with whole numbers: linear light has 3 bits more than a byte, the matrix 12 bits, the cube root 15
LIGHT, MATRIX, ROOT = 8, 2**12, 2**15
LUMA = np.array([0.299, 0.587, 0.114])      # ITU-R BT.601


def with_colors_of(image: Image.Image, source: Image.Image) -> Image.Image:
    """`image` with the distribution of colours of `source`; both RGB, of any size.

    Each channel of Lab gets the histogram of the source's; the result then gets back the brightness that the picture had.
    """
    made, wanted = to_lab(np.asarray(image)), to_lab(np.asarray(source))
    moved = np.stack([matched(made[..., i], wanted[..., i]) for i in range(3)], axis=-1)
    return Image.fromarray(with_brightness_of(from_lab(moved), np.asarray(image)))


def matched(values: Array, wanted: Array) -> Array:
    """Bytes moved so that their shares are those of other bytes; what falls between two values is cut off."""
    quantiles = np.bincount(values.ravel(), minlength=256).cumsum() / values.size
    counts = np.bincount(wanted.ravel(), minlength=256)
    there = np.nonzero(counts)[0]
    table = np.interp(quantiles, counts[there].cumsum() / wanted.size, there)
    return table.astype(np.uint8)[values]


def to_lab(rgb: Array) -> Array:
    """Bytes of sRGB [H, W, 3] as bytes of CIE Lab: L times 2.55, a and b plus 128. Bit for bit OpenCV's, whose L is a little too high.

    Why so exactly: the histograms that are matched next turn a difference of one into several.
    """
    unit = np.arange(256) / 255
    light = np.rint(np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4) * 255 * LIGHT).astype(np.int64)
    share = np.arange(255 * LIGHT * 3 // 2 + 1) / (255 * LIGHT)
    root = np.rint(np.where(share < KNEE, share * SLOPE + 0.137931, np.cbrt(share)) * ROOT).astype(np.int64)
    matrix = np.rint(TO_XYZ / WHITE[:, None] * MATRIX).astype(np.int64)
    x, y, z = np.moveaxis(root[(light[rgb] @ matrix.T + MATRIX // 2) // MATRIX], -1, 0)
    lightness = 296 * y - (16 * 255 * ROOT + 50) // 100
    lab = np.stack([lightness, 500 * (x - y) + 128 * ROOT, 200 * (y - z) + 128 * ROOT], axis=-1)
    return np.clip((lab + ROOT // 2) // ROOT, 0, 255).astype(np.uint8)


def from_lab(lab: Array) -> Array:
    """The inverse of `to_lab`; what no screen shows is cut off."""
    lightness, a, b = np.moveaxis((lab - np.array((0.0, 128, 128))) / (2.55, 1, 1), -1, 0)
    y = (lightness + 16) / 116
    f = np.stack([y + a / 500, y, y - b / 200], axis=-1)
    xyz = np.where(f**3 > KNEE, f**3, (f - OFFSET) / SLOPE) * WHITE
    linear = np.clip(xyz @ np.linalg.inv(TO_XYZ).T, 0, 1)
    return _bytes(np.rint(np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055) * 255))


def with_brightness_of(image: Array, other: Array) -> Array:
    """The "luminosity" blend of W3C's Compositing and Blending Level 1: colour of the first picture, brightness of the second.

    Cut off to bytes, not rounded, as the web UI's colour correction does.
    """
    colors, wanted = image / 255, (other / 255) @ LUMA
    colors = colors + (wanted - colors @ LUMA)[..., None]
    gray, low, high = (colors @ LUMA)[..., None], colors.min(-1, keepdims=True), colors.max(-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        colors = np.where(low < 0, gray + (colors - gray) * gray / (gray - low), colors)
        colors = np.where(high > 1, gray + (colors - gray) * (1 - gray) / (high - gray), colors)
    return _bytes(colors * 255)


def _bytes(values: Array) -> Array:
    return np.clip(values, 0, 255).astype(np.uint8)
