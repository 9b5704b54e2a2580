"""Large pictures through a VAE in little memory, with the result of the whole: row by row, a layer at a time.

A convolution needs one row more than it gives, so strips of rows with a row around them give exactly what the whole gives. A group norm
looks at everything: its mean and variance are summed up while the strips before it are made. What a layer made is kept in half
precision, each strip with its own scale, so that nothing overflows; what is large and quickly made is made anew where it is needed.
The attention in the middle looks at everything by design; it works at an eighth of the size and is run whole.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

Check = Callable[[], None]              # asked before each strip; may raise to stop

LARGEST_WHOLE = 1024 * 1024             # pixels that go through the VAE in one piece
STRIP = 2**24                           # numbers in a strip that is worked on, about
KEPT = 2**28                            # numbers; what a layer makes of more is made anew instead of kept
HALF_MOST = 2.0**14                     # the largest number that is kept in half precision, after scaling; float16 ends at 65504


def is_large(width: int, height: int) -> bool:
    """Whether a picture of so many pixels goes through the VAE in strips."""
    return width * height > LARGEST_WHOLE


@torch.inference_mode()
def decode_in_strips(vae: Any, latents: Tensor, check: Check = lambda: None) -> Tensor:
    """As `vae.decode(latents)`: [1, 4, h, w] -> [1, 3, 8 h, 8 w]."""
    decoder = vae.decoder
    x = vae.post_quant_conv(latents) if vae.post_quant_conv is not None else latents
    rows: Rows = Whole(decoder.mid_block(decoder.conv_in(x)))
    del x
    for block in decoder.up_blocks:
        for resnet in block.resnets:
            rows = through(resnet, rows, check)
        for upsampler in block.upsamplers or ():
            rows = Made(rows, upsampler, Scaled.DOUBLED)
    rows = Made(rows, normed(decoder.conv_norm_out, decoder.conv_act, decoder.conv_out, moments(rows, check)), Scaled.SAME)
    return torch.cat([strip for _, strip in strips(rows, check)], dim=2)


@torch.inference_mode()
def encode_in_strips(vae: Any, pixels: Tensor, check: Check = lambda: None) -> Tensor:
    """As `vae.encode(pixels)`: [1, 3, H, W] -> the moments [1, 8, h, w]: mean and log variance."""
    encoder = vae.encoder
    rows: Rows = Made(Whole(pixels), encoder.conv_in, Scaled.SAME)
    for block in encoder.down_blocks:
        for resnet in block.resnets:
            rows = through(resnet, rows, check)
        for downsampler in block.downsamplers or ():
            rows = Kept(Made(rows, downsampler, Scaled.HALVED), check)
    x = encoder.mid_block(torch.cat([strip for _, strip in strips(rows, check)], dim=2))
    x = encoder.conv_out(encoder.conv_act(encoder.conv_norm_out(x)))
    return vae.quant_conv(x) if vae.quant_conv is not None else x


def through(resnet: Any, rows: Rows, check: Check) -> Rows:
    """What a ResNet block makes of the rows."""
    first = normed(resnet.norm1, resnet.nonlinearity, resnet.conv1, moments(rows, check))
    hidden: Rows = Made(rows, first, Scaled.SAME)
    if hidden.numbers(check) <= KEPT:
        hidden = Kept(hidden, check, drops=False)       # the shortcut needs what went in too
    second = normed(resnet.norm2, resnet.nonlinearity, resnet.conv2, moments(hidden, check))
    return Kept(Summed(Made(hidden, second, Scaled.SAME), rows, resnet.conv_shortcut), check)


# --- rows of pictures


class Rows(ABC):
    """A picture [1, C, height, W] of which some rows are asked for at a time, in the VAE's precision."""

    height: int

    @abstractmethod
    def read(self, start: int, end: int) -> Tensor:
        """These rows, [1, C, end - start, W]."""

    def drop(self, before: int) -> None:    # noqa: B027 (what keeps nothing has nothing to drop)
        """These rows will not be asked for again."""

    def numbers(self, check: Check) -> int:
        """How many numbers the picture has."""
        return self.read(0, 1).numel() * self.height


class Whole(Rows):
    """A picture that is there."""

    def __init__(self, x: Tensor) -> None:
        self._x, self.height = x, x.shape[2]

    def read(self, start: int, end: int) -> Tensor:
        return self._x[:, :, start:end]


class Scaled:
    """How many rows a layer gives for those that it gets."""

    SAME, DOUBLED, HALVED = 1.0, 2.0, 0.5


class Made(Rows):
    """What a layer with a 3x3 convolution makes of other rows, made when it is asked for."""

    def __init__(self, rows: Rows, layer: Callable[[Tensor], Tensor], scaled: float) -> None:
        self._rows, self._layer, self._scaled = rows, layer, scaled
        self.height = int(rows.height * scaled)

    def read(self, start: int, end: int) -> Tensor:
        from_, to = self._needed(start, end)
        made = self._layer(self._rows.read(from_, to))
        first = int(from_ * self._scaled)
        return made[:, :, start - first : end - first]

    def _needed(self, start: int, end: int) -> tuple[int, int]:
        """The rows to read: one more at each side than the convolution needs, and even ones where it makes one of two."""
        if self._scaled == Scaled.HALVED:       # reads rows 2 n, 2 n + 1 and 2 n + 2; below the last there are zeros
            return 2 * start, min(self._rows.height, 2 * end + 2)
        if self._scaled == Scaled.DOUBLED:
            return max(0, (start - 1) // 2), min(self._rows.height, end // 2 + 1)
        return max(0, start - 1), min(self._rows.height, end + 1)

    def drop(self, before: int) -> None:
        self._rows.drop(max(0, self._needed(before, before + 1)[0]))


class Summed(Rows):
    """The end of a ResNet block: what was made, and what went in."""

    def __init__(self, made: Rows, before: Rows, shortcut: nn.Module | None) -> None:
        self._made, self._before, self._shortcut, self.height = made, before, shortcut, made.height

    def read(self, start: int, end: int) -> Tensor:
        before = self._before.read(start, end)
        return self._made.read(start, end) + (before if self._shortcut is None else self._shortcut(before))

    def drop(self, before: int) -> None:
        self._made.drop(before)
        self._before.drop(before - 2)       # two convolutions may still look so far back


class Kept(Rows):
    """Rows that were made once and are kept in half precision."""

    def __init__(self, rows: Rows, check: Check, *, drops: bool = True) -> None:
        """`drops`: what they are made from is given up on the way."""
        self.height, self._strips = rows.height, []
        self._sums: Tensor | None = None
        for (start, end), strip in strips(rows, check):
            if start == 0:
                self._dtype = strip.dtype
            self._sums = added(self._sums, strip)
            scale = max(1.0, float(strip.abs().max()) / HALF_MOST)
            self._strips.append((start, end, scale, (strip / scale).half()))
            if drops:
                rows.drop(end)
            del strip

    def read(self, start: int, end: int) -> Tensor:
        parts = []
        for first, last, scale, strip in self._strips:
            if first < end and start < last:
                part = strip[:, :, max(0, start - first) : min(last, end) - first].to(self._dtype)
                parts.append(part * scale if scale != 1 else part)
        return torch.cat(parts, dim=2)

    def drop(self, before: int) -> None:
        self._strips = [strip for strip in self._strips if strip[1] > before]

    @property
    def sums(self) -> Tensor:
        assert self._sums is not None
        return self._sums


def strips(rows: Rows, check: Check) -> Iterator[tuple[tuple[int, int], Tensor]]:
    """The picture in strips of about `STRIP` numbers."""
    start, step = 0, 8
    while start < rows.height:
        check()
        end = min(rows.height, start + step)
        strip = rows.read(start, end)
        yield (start, end), strip
        step = max(8, min(rows.height, STRIP * (end - start) // strip.numel() // 8 * 8))
        del strip
        start = end


# --- group norms


def added(sums: Tensor | None, strip: Tensor) -> Tensor:
    """Count, sum and sum of squares of each channel: [3, C], in double precision."""
    values = strip[0].flatten(1).float()
    variance, mean = torch.var_mean(values, dim=1, correction=0)
    count, mean = torch.full_like(mean, values.shape[1], dtype=torch.float64), mean.double()
    here = torch.stack([count, count * mean, count * (variance.double() + mean * mean)])
    return here if sums is None else sums + here


def moments(rows: Rows, check: Check) -> Tensor:
    """Count, sum and sum of squares of each channel of the rows."""
    if isinstance(rows, Kept):
        return rows.sums
    sums: Tensor | None = None
    for _, strip in strips(rows, check):
        sums = added(sums, strip)
    assert sums is not None
    return sums


def normed(norm: nn.GroupNorm, activation: Callable[[Tensor], Tensor], convolution: nn.Module, sums: Tensor) -> Callable[[Tensor], Tensor]:
    """Group norm with the whole picture's mean and variance, activation, convolution."""
    count, total, squares = sums.view(3, norm.num_groups, -1).sum(2)
    mean = total / count
    factor = ((squares / count - mean * mean).clamp(min=0) + norm.eps).rsqrt()
    size = norm.num_channels // norm.num_groups
    scale = factor.repeat_interleave(size) * norm.weight.double()
    shift = norm.bias.double() - mean.repeat_interleave(size) * scale

    def layer(x: Tensor) -> Tensor:
        by, plus = scale.to(x.dtype)[:, None, None], shift.to(x.dtype)[:, None, None]
        made: Tensor = convolution(activation(torch.addcmul(plus, x, by)))
        return made
    return layer


