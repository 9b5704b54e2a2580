"""The random numbers of a run, one independent source for each picture of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nbsd.sampling.brownian import BrownianPath
from nbsd.sampling.streams import Stream, stream

SLERP_LINEAR_ABOVE = 0.9995     # mean cosine from which the web UI mixes linearly instead


class ImageNoise:
    """The starting noise of a batch, then its later draws: every call of `next` is one draw, [B, *shape] float32 on `device`.

    Equal to the web UI's ImageRNG. Can be called as a `Noise`.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        shape: tuple[int, int, int],
        source: str = "CPU",
        ensd: int = 0,
        *,
        variation_seeds: Sequence[int] | None = None,
        variation_strength: float = 0.0,
        resize_from: tuple[int, int] | None = None,
        own_draws: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """`seeds`: one a picture. `shape`: of one picture, (4, h, w) in latent cells.

        `ensd`: when not 0, draws after the first come from new streams with seed + ensd.
        `variation_seeds`: one a picture (0 for those without); mixed in with `variation_strength` from 0 to 1.
        `resize_from`: (h, w) in latent cells, the size whose starting noise is put into the middle of this one's; (0, 0) is none.
        `own_draws`: after so many draws besides the starting noise, the last picture's stream gives those of the whole batch at once,
        as in 2022, when one global generator was left where the last picture had put it. None: never.
        """
        self._seeds, self._shape, self._source, self._device = list(seeds), tuple(shape), source, device
        self._ensd, self._strength = ensd, variation_strength
        self._variation_seeds = list(variation_seeds) if variation_seeds is not None and variation_strength else None
        self._first_shape = (self._shape[0], *resize_from) if resize_from and all(resize_from) else self._shape
        self._streams = [self._stream(seed) for seed in self._seeds]
        self._started = False
        self._own_draws, self._later = own_draws, 0

    def __call__(self, sigma: Tensor, sigma_next: Tensor) -> Tensor:
        return self.next()

    def next(self) -> Tensor:
        """The next draw, [B, 4, h, w]: the starting noise at the first call."""
        if self._started:
            self._later += 1
            if self._own_draws is not None and self._later > self._own_draws:
                return self._streams[-1].randn((len(self._seeds), *self._shape)).to(self._device)
            draws = [s.randn(self._shape) for s in self._streams]
        else:
            self._started = True
            draws = [self._first(i) for i in range(len(self._seeds))]
            if self._ensd:
                self._streams = [self._stream(seed + self._ensd) for seed in self._seeds]
        return torch.stack(draws).to(self._device)

    def _stream(self, seed: int) -> Stream:
        return stream(self._source, seed, self._device)

    def _first(self, index: int) -> Tensor:
        """The starting noise of one picture. Later draws go on after the draw of the full size, whatever is drawn besides."""
        seed, own = self._seeds[index], self._streams[index]
        resized = self._first_shape != self._shape
        noise = (self._stream(seed) if resized else own).randn(self._first_shape)
        if self._variation_seeds is not None:
            variation = self._variation_seeds[index] if index < len(self._variation_seeds) else 0
            noise = slerp(self._strength, noise, self._stream(variation).randn(self._first_shape))
        return centred(noise, own.randn(self._shape)) if resized else noise


def slerp(share: float, low: Tensor, high: Tensor) -> Tensor:
    """Between two noises [4, h, w] along the sphere, column by column: norms and dots run down dim 1, as the web UI takes them.

    Where the two nearly agree the web UI mixes linearly with the ends the other way round (share times `low`); so does this.
    """
    dot = (low / low.norm(dim=1, keepdim=True) * (high / high.norm(dim=1, keepdim=True))).sum(1)
    if dot.mean() > SLERP_LINEAR_ABOVE:
        return low * share + high * (1 - share)
    angle = dot.acos()
    sine = angle.sin()
    return (((1 - share) * angle).sin() / sine).unsqueeze(1) * low + ((share * angle).sin() / sine).unsqueeze(1) * high


def centred(small: Tensor, large: Tensor) -> Tensor:
    """`large` [4, h, w] with `small` laid over its middle; what sticks out is cut off."""
    (_, old_h, old_w), (_, h, w) = small.shape, large.shape
    # Floor division of a negative difference rounds away from the middle, as in the web UI: odd differences depend on it
    top, left = (h - old_h) // 2, (w - old_w) // 2
    rows, columns = old_h + min(0, 2 * top), old_w + min(0, 2 * left)
    from_top, from_left, top, left = max(-top, 0), max(-left, 0), max(top, 0), max(left, 0)
    out = large.clone()
    out[:, top : top + rows, left : left + columns] = small[:, from_top : from_top + rows, from_left : from_left + columns]
    return out


class BrownianNoise:
    """Unit noise between two noise levels, as a `Noise`: the increments of one path a picture, scaled to variance 1."""

    def __init__(
        self,
        x_shape: Sequence[int],
        seeds: Sequence[int],
        sigma_min: float,
        sigma_max: float,
        source: str = "CPU",
        device: torch.device | str = "cpu",
    ) -> None:
        """`x_shape`: [B, 4, h, w]; `seeds`: B of them, the pictures' own (no ENSD, no variation seed).

        `sigma_min`, `sigma_max`: the smallest positive and the largest sigma of the whole schedule, in img2img too.
        `source`, `device`: as in `ImageNoise`.
        """
        shape, self._device = tuple(x_shape[1:]), device
        self._paths = [BrownianPath(seed, float(sigma_min), float(sigma_max), shape, source, device) for seed in seeds]

    def __call__(self, sigma: Tensor, sigma_next: Tensor) -> Tensor:
        low, high = sorted((float(sigma), float(sigma_next)))
        # The path runs upwards in sigma: a step down goes along it backwards
        sign = -1.0 if sigma_next < sigma else 1.0
        moved = torch.stack([path.increment(low, high) for path in self._paths]).to(self._device)
        return moved * sign / (sigma_next - sigma).abs().sqrt()
