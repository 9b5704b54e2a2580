"""The normal numbers that an NVIDIA GPU draws, computed anywhere.

`torch.randn` on CUDA runs Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") with the seed as key,
the index of the value and the number of the draw as counter, and turns the first two words of every block into one normal number.
That holds while a draw is smaller than the threads of one launch (40,960 on a T4): above that, CUDA's numbers depend on
the card, and these here are what the web UI's `NV` source gives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# Multipliers and key increments of Philox4x32, from the paper (table 2 and section 4.3)
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
WEYL = 0x9E3779B9, 0xBB67AE85
ROUNDS = 10
LOW = 0xFFFFFFFF            # a 32-bit word; words are kept in int64 tensors

# cuRAND's curand_normal.h turns a word into (0, 1] and an angle with these float32 constants
TO_UNIT = float(torch.tensor(2.3283064e-10))                    # 2**-32
TO_ANGLE = float(torch.tensor(2.3283064e-10 * 6.2831855))       # 2**-32 * 2 pi


class Philox:
    """One stream: the draws of a CUDA generator with this seed, in order."""

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        """`seed`: any integer; taken modulo 2**64. `device`: where the numbers are computed; they are the same everywhere."""
        self._seed, self._device, self._draws = seed, device, 0

    def randn(self, shape: Sequence[int]) -> Tensor:
        """The next draw: float32 unit noise of the given shape."""
        values = normals(self._seed, math.prod(shape), self._draws, self._device)
        self._draws += 1
        return values.reshape(tuple(shape))


def normals(seed: int, count: int, draw: int = 0, device: torch.device | str = "cpu") -> Tensor:
    """Draw number `draw` (from 0) of a seed: [count], float32."""
    index = torch.arange(count, dtype=torch.int64, device=device)
    first, second = words(index, draw, seed)
    # Box-Muller. The web UI computes this in float64 and rounds once.
    radius = first.double().mul_(TO_UNIT).add_(TO_UNIT / 2).log_().mul_(-2).sqrt_()
    angle = second.double().mul_(TO_ANGLE).add_(TO_ANGLE / 2)
    return angle.sin_().mul_(radius).float()


def words(index: Tensor, draw: int, seed: int) -> tuple[Tensor, Tensor]:
    """The first two of the four words of the blocks with the counters (draw, 0, index, 0); int64 tensors of the shape of index."""
    zero = torch.zeros_like(index)
    key0, key1 = seed & LOW, seed >> 32 & LOW
    c0, c1, c2, c3 = zero + draw, zero, index, zero
    for number in range(ROUNDS):
        # A product of two words fills 64 bits: int64 wraps, and the mask takes the sign off the high word again
        left, right = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        k0, k1 = key0 + number * WEYL[0] & LOW, key1 + number * WEYL[1] & LOW
        c0, c1, c2, c3 = (right >> 32 & LOW) ^ c1 ^ k0, right & LOW, (left >> 32 & LOW) ^ c3 ^ k1, left & LOW
    return c0, c1
