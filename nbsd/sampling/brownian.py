"""The noise of the DPM++ SDE samplers: one Brownian path a picture over the whole schedule, so that a picture does not depend
on how its steps are cut.

The path is a tree of intervals halved again and again; every node has its own seed, so that any two points give the same path in
whatever order they are asked for. Seeds and arithmetic are those of torchsde's BrownianTree (Apache-2.0; Li et al. 2020,
arXiv:2001.01328), which k-diffusion uses: only the numbers are taken from there.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nbsd.sampling.streams import stream

DIGITS = 6          # times are rounded to 1e-6, torchsde's default tolerance
POOL_SIZE = 24      # of numpy's SeedSequence, torchsde's default for a tree
KEPT = 64           # nodes whose increments stay in memory: two paths from the root to the leaves


class Node(NamedTuple):
    """An interval of the tree. Its children meet in the middle."""

    start: float
    end: float
    key: int        # number of the node among those of its depth, from the left
    depth: int

    @property
    def middle(self) -> float:
        return round(0.5 * (self.end + self.start), DIGITS)

    def children(self) -> tuple[Node, Node]:
        key, depth = 2 * self.key, self.depth + 1
        return Node(self.start, self.middle, key, depth), Node(self.middle, self.end, key + 1, depth)


class BrownianPath:
    """The Brownian path of one seed over [start, end]."""

    def __init__(self, seed: int, start: float, end: float, shape: tuple[int, ...], source: str, device: torch.device | str) -> None:
        self._seed, self._shape, self._source, self._device = seed, shape, source, device
        self._root = Node(round(start, DIGITS), round(end, DIGITS), 0, 0)
        self._whole = self._randn(np.random.SeedSequence(seed, pool_size=POOL_SIZE)) * math.sqrt(end - start)
        self._kept: OrderedDict[Node, Tensor] = OrderedDict()

    def increment(self, start: float, end: float) -> Tensor:
        """How far the path moves from start to end (start < end): float32 of `shape`."""
        low, high = self._root.start, self._root.end
        start, end = (round(min(max(t, low), high), DIGITS) for t in (start, end))
        if start >= end:
            return torch.zeros(self._shape, device=self._whole.device)
        return self._between(self._root, self._whole, start, end)

    def _between(self, node: Node, moved: Tensor, start: float, end: float) -> Tensor:
        """The increment over [start, end] inside a node that moves by `moved`."""
        if (start, end) == (node.start, node.end):
            return moved
        left, right = node.children()
        left_moved = self._left(node, moved)
        if end <= node.middle:
            return self._between(left, left_moved, start, end)
        right_moved = moved - left_moved
        if start >= node.middle:
            return self._between(right, right_moved, start, end)
        return self._between(left, left_moved, start, node.middle) + self._between(right, right_moved, node.middle, end)

    def _left(self, node: Node, moved: Tensor) -> Tensor:
        """The increment over a node's left half: a Brownian bridge, drawn with the node's own seed."""
        if node in self._kept:
            self._kept.move_to_end(node)
            return self._kept[node]
        left, right, whole = node.middle - node.start, node.end - node.middle, 1 / (node.end - node.start)
        seeds = np.random.SeedSequence(self._seed, spawn_key=(node.key, node.depth), pool_size=POOL_SIZE)
        value = left * moved * whole + math.sqrt(left * right * whole) * self._randn(seeds)
        self._kept[node] = value
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return value

    def _randn(self, seeds: np.random.SeedSequence) -> Tensor:
        return stream(self._source, int(seeds.generate_state(1)[0]), self._device).randn(self._shape)
