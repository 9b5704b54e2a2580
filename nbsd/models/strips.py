"""Large pictures through a VAE in little memory, with the result of the whole: row by row, a layer at a time.

A convolution needs one row more than it gives, so strips of rows with a row around them give exactly what the whole gives. A group norm
looks at everything: its mean and variance are summed up while the strips before it are made. What a layer made is kept in half
precision, each strip with its own scale, so that nothing overflows; where there is no room for it, it is made anew where it is needed.
The attention in the middle looks at everything by design; it works at an eighth of the size and is run whole.

What costs time besides the convolutions is passing over memory: sums and extremes are taken over numbers as they lie, and strips are small
enough that the allocator gives their memory again instead of asking the system for it.
"""

from __future__ import annotations

import mmap
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from nbsd.models.memory import is_short
from nbsd.models.packed import PackedConv2d, pack_layers, plain_weight

Check = Callable[[], None]              # asked before each strip; may raise to stop

LARGEST_WHOLE = 1024 * 1024             # pixels that go through the VAE in one piece
STRIP = 2**22                           # numbers in a strip that is worked on, about: 16 MB
ROWS = 16                               # of a strip at least: each is made with a row or two around it
KEPT = 2**29                            # numbers that are kept at a time, about: 1 GB; what is more is made anew
PIECE = 2**18                           # numbers that are squared at a time
HALF_MOST = 2.0**14                     # the largest number that is kept in half precision, after scaling; float16 ends at 65504


def is_large(width: int, height: int) -> bool:
    """Whether a picture of so many pixels goes through the VAE in strips."""
    return width * height > LARGEST_WHOLE


def in_memory(whole: Callable[[], Tensor], strips: Callable[[], Tensor], large: bool = False) -> Tensor:
    """What `whole` gives; of a large picture, and where memory is short for the whole, what `strips` gives in less."""
    if large:
        return strips()
    try:
        return whole()
    except (RuntimeError, MemoryError) as error:
        if not is_short(error):
            raise
    # What was held for the whole is free once the error is gone.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return strips()


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
            rows = kept_where_it_fits(Latest(Made(rows, doubled(upsampler), Scaled.DOUBLED)), check)
    last = Made(rows, normed(decoder.conv_norm_out, decoder.conv_act, decoder.conv_out, moments(rows, check)), Scaled.SAME)
    # As high as strips of what goes in may be: three channels of a picture come from 128
    return torch.cat([strip for _, strip in strips(last, check, least=rows.numbers() // rows.height)], dim=2)


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
    hidden = kept_where_it_fits(Made(rows, first, Scaled.SAME), check, drops=False)     # the shortcut needs what went in too
    second = normed(resnet.norm2, resnet.nonlinearity, resnet.conv2, moments(hidden, check))
    return Kept(Summed(Made(hidden, second, Scaled.SAME), rows, resnet.conv_shortcut), check)


def kept_where_it_fits(rows: Rows, check: Check, *, drops: bool = True) -> Rows:
    """The rows, kept if there is room beside what is kept of the layers below."""
    return Kept(rows, check, drops=drops) if rows.numbers() + rows.held() <= KEPT else rows


# --- rows of pictures


class Rows(ABC):
    """A picture [1, C, height, W] of which some rows are asked for at a time, in the VAE's precision."""

    height: int

    @abstractmethod
    def read(self, start: int, end: int) -> Tensor:
        """These rows, [1, C, end - start, W]."""

    def drop(self, before: int) -> None:    # noqa: B027 (what keeps nothing has nothing to drop)
        """These rows will not be asked for again."""

    @abstractmethod
    def held(self) -> int:
        """How many numbers are kept for it."""

    def numbers(self) -> int:
        """How many numbers the picture has."""
        return self.read(0, 1).numel() * self.height


class Whole(Rows):
    """A picture that is there."""

    def __init__(self, x: Tensor) -> None:
        self._x, self.height = x, x.shape[2]

    def read(self, start: int, end: int) -> Tensor:
        return self._x[:, :, start:end]

    def held(self) -> int:
        return self._x.numel()


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

    def held(self) -> int:
        return self._rows.held()


class Latest(Rows):
    """Rows of which those that were read last are remembered: a block's shortcut asks for what its first layer has just asked for."""

    def __init__(self, rows: Rows) -> None:
        self._rows, self.height = rows, rows.height
        self._last: tuple[int, int, Tensor] | None = None

    def read(self, start: int, end: int) -> Tensor:
        if self._last is None or not self._last[0] <= start < end <= self._last[1]:
            self._last = None       # not two at a time
            self._last = start, end, self._rows.read(start, end)
        first, _, strip = self._last
        return strip[:, :, start - first : end - first]

    def drop(self, before: int) -> None:
        self._rows.drop(before)

    def held(self) -> int:
        return self._rows.held()


class Summed(Rows):
    """The end of a ResNet block: what was made, and what went in."""

    def __init__(self, made: Rows, before: Rows, shortcut: nn.Module | None) -> None:
        self._made, self._before, self._shortcut, self.height = made, before, shortcut, made.height

    def read(self, start: int, end: int) -> Tensor:
        made = self._made.read(start, end)      # first, for it needs more rows of what went in than the shortcut: see Latest
        before = self._before.read(start, end)
        return made.add_(before if self._shortcut is None else self._shortcut(before))

    def drop(self, before: int) -> None:
        self._made.drop(before)
        self._before.drop(before - 2)       # two convolutions may still look so far back

    def held(self) -> int:
        return self._made.held() + (self._before.held() if isinstance(self._before, Kept) else 0)


class Kept(Rows):
    """Rows that were made once and are kept in half precision."""

    def __init__(self, rows: Rows, check: Check, *, drops: bool = True) -> None:
        """`drops`: what they are made from is given up on the way."""
        self.height, self._strips, self.sums = rows.height, [], Sums()
        for (start, end), strip in strips(rows, check):
            if start == 0:
                self._dtype = strip.dtype
            self.sums.add(strip)
            scale = max(1.0, largest(strip) / HALF_MOST)
            self._strips.append((start, end, scale, put_away(strip if scale == 1 else strip / scale)))
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

    def held(self) -> int:
        return sum(strip.numel() for *_, strip in self._strips)


def put_away(strip: Tensor) -> Tensor:
    """The strip in half precision, as it lies, in memory that goes back to the system with it.

    Why: of strips that come and go in turn, the allocator gave little memory again: at 2048x2048 that was more than a gigabyte.
    """
    if strip.device.type != "cpu":
        return strip.half()
    batch, channels, height, width = strip.shape
    room = torch.frombuffer(mmap.mmap(-1, 2 * strip.numel()), dtype=torch.float16)
    lies = room.view(batch, height, width, channels).permute(0, 3, 1, 2) if _last(strip) else room.view(strip.shape)
    return lies.copy_(strip)


def strips(rows: Rows, check: Check, least: int = 0) -> Iterator[tuple[tuple[int, int], Tensor]]:
    """The picture in strips of about `STRIP` numbers; a row counts as `least` of them or more."""
    start, step = 0, ROWS
    while start < rows.height:
        check()
        end = min(rows.height, start + step)
        strip = rows.read(start, end)
        yield (start, end), strip
        step = max(ROWS, min(rows.height, STRIP // max(strip.numel() // (end - start), least) // 8 * 8))
        del strip
        start = end


# --- layers


def doubled(upsampler: Any) -> Callable[[Tensor], Tensor]:
    """A VAE's upsampler: each pixel becomes four, then a 3x3 convolution. As four 2x2 ones of the small picture, which ask less than half.

    In half precision the sums of weights would be rounded, so there it stays as it is.
    """
    conv = upsampler.conv
    weight = plain_weight(conv.weight)
    if weight.dtype != torch.float32:
        return upsampler        # type: ignore[no-any-return]
    four = nn.ModuleDict({"all": nn.Conv2d(weight.shape[1], 4 * weight.shape[0], 2, padding=1, device="meta")})
    layers = pack_layers(four) if isinstance(conv, PackedConv2d) else {}
    joined = torch.cat([kernel for down in _halves(weight, 2) for kernel in _halves(down, 3)])
    four["all"].weight = nn.Parameter(layers["all.weight"].packed(joined) if layers else joined, requires_grad=False)
    four["all"].bias = nn.Parameter(conv.bias.repeat(4), requires_grad=False)

    def layer(x: Tensor) -> Tensor:
        made = four["all"](x).chunk(4, dim=1)
        height, width = x.shape[2:]
        out = torch.empty(1, weight.shape[0], 2 * height, 2 * width, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        for place, part in enumerate(made):
            down, right = divmod(place, 2)
            out[:, :, down::2, right::2] = part[:, :, down : down + height, right : right + width]
        return out
    return layer


def _halves(weight: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Of a kernel three wide, what the first half of a pixel sees: what lies before it, and itself twice; and what the second half sees."""
    before, own, behind = weight.unbind(dim)
    return torch.stack([before, own + behind], dim), torch.stack([before + own, behind], dim)


class Sums:
    """Count, sum and sum of squares of each channel, [3, C] in double precision.

    Squares are taken of what is left without the first strip's mean: where that is large, little would be left of their difference.
    """

    def __init__(self) -> None:
        self._count = 0
        self._pivot: Tensor | None = None

    def add(self, strip: Tensor) -> None:
        """Of a strip [1, C, rows, W] more."""
        values = as_it_lies(strip).float()
        channels = strip.shape[1]
        rows = values.view(-1, channels) if _last(strip) else values.view(channels, -1)
        axis = 0 if _last(strip) else 1
        if self._pivot is None:
            self._pivot = rows.mean(dim=axis)
            self._total = torch.zeros_like(self._pivot, dtype=torch.float64)
            self._squares = torch.zeros_like(self._total)
        self._count += rows.numel() // channels
        for piece in rows.split(max(1, PIECE // channels), dim=axis):
            rest = piece - (self._pivot if axis == 0 else self._pivot[:, None])
            self._total += rest.sum(dim=axis)
            self._squares += rest.square_().sum(dim=axis)

    @property
    def moments(self) -> Tensor:
        assert self._pivot is not None
        pivot, count = self._pivot.double(), torch.full_like(self._total, self._count)
        return torch.stack([count, self._total + count * pivot, self._squares + 2 * pivot * self._total + count * pivot * pivot])


def _last(x: Tensor) -> bool:
    """Whether a pixel's channels lie side by side."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def as_it_lies(x: Tensor) -> Tensor:
    """The numbers of [1, C, H, W] in the order of memory, flat."""
    return (x.permute(0, 2, 3, 1) if _last(x) else x).reshape(-1)


def largest(x: Tensor) -> float:
    """The largest absolute value."""
    low, high = as_it_lies(x).aminmax()
    return max(float(high), -float(low))


def moments(rows: Rows, check: Check) -> Tensor:
    """Count, sum and sum of squares of each channel of the rows."""
    if isinstance(rows, Kept):
        return rows.sums.moments
    sums = Sums()
    for _, strip in strips(rows, check):
        sums.add(strip)
    return sums.moments


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
        between = torch.addcmul(plus, x, by)
        made: Tensor = convolution(silu(between, inplace=True) if isinstance(activation, nn.SiLU) else activation(between))
        return made
    return layer


