"""Orthogonal fine-tuning (OFT, BOFT): weights turned by small matrices, as kohya's and LyCORIS' trainers store these and as peft does.

The trainers turn the outputs of a layer, peft its inputs.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

Roles = Mapping[str, Tensor]        # what a tensor of a layer is -> the tensor

NORM_FLOOR = 1e-8       # keeps OFT's norms off zero, in both trainers
NEUMANN = 5             # terms of the series that peft has in the place of an inverse, unless its settings say otherwise


def rotated(given: Roles, weight: Tensor, ranks: int | None) -> Tensor:
    """OFT: the outputs [o, i, ...] turned in blocks, each by a matrix of its own [blocks, b, b]; BOFT has several rounds of it."""
    if "oft_diag" in given:     # LyCORIS before 3.0: the turns themselves
        turned = _turned(given["oft_diag"], weight)
    else:
        turns = cayley(given["oft_blocks"], given.get("alpha"), weight.shape[0])
        turned = _butterfly(turns, weight) if turns.ndim == 4 else _turned(turns, weight)
    if "rescale" in given:
        turned = turned * given["rescale"].reshape(-1, *[1] * (weight.ndim - 1))
    return turned - weight


def cayley(blocks: Tensor, constraint: Tensor | None, outputs: int) -> Tensor:
    """The turns that skew-symmetric matrices stand for: (1 + q)(1 - q)^-1 with q = blocks - blocks^T, no longer than allowed.

    `constraint`: what the file calls alpha; times the number of outputs it is the greatest norm of all q together; 0: no limit.
    """
    skew = blocks - blocks.transpose(-1, -2)
    limit = float(constraint) * outputs if constraint is not None else 0.0
    if limit:
        norm = skew.norm()
        skew = skew * ((norm.clamp(max=limit) + NORM_FLOOR) / (norm + NORM_FLOOR))
    return _quotient(skew)


def _quotient(skew: Tensor) -> Tensor:
    one = torch.eye(skew.shape[-1], device=skew.device, dtype=skew.dtype)
    return (one + skew) @ torch.linalg.inv(one - skew)


def _turned(turns: Tensor, weight: Tensor) -> Tensor:
    """Each block of outputs by its matrix [blocks, b, b]; by the transposed one, as kohya's and LyCORIS' trainers do."""
    blocks, size = turns.shape[:2]
    return torch.einsum("knm,kn...->km...", turns, weight.reshape(blocks, size, *weight.shape[1:])).reshape(weight.shape)


def _butterfly(turns: Tensor, weight: Tensor) -> Tensor:
    """BOFT's rounds [m, blocks, b, b] (Liu et al. 2023, arXiv:2311.06243): before each the outputs are dealt out anew."""
    half = turns.shape[-1] // 2
    for number, turn in enumerate(turns):
        dealt = (-1, 2, 2**number * half, *weight.shape[1:])
        mixed = weight.reshape(dealt).transpose(1, 2).reshape(turn.shape[0], turn.shape[1], *weight.shape[1:])
        mixed = torch.einsum("bij,bj...->bi...", turn, mixed)
        weight = mixed.reshape(-1, 2**number * half, 2, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape)
    return weight


# As peft stores them. Inputs are counted with the places of a convolution's kernel: [o, i, h, w] has i * h * w of them.


def rotated_inputs(given: Roles, weight: Tensor, ranks: int | None) -> Tensor:
    """peft's OFT: "oft_R" [blocks, b * (b - 1) / 2] is what stands above the diagonal of each block's q; one row is for all blocks."""
    above = given["oft_R"]
    size = round((1 + (1 + 8 * above.shape[1]) ** 0.5) / 2)
    rows, columns = torch.triu_indices(size, size, 1, device=above.device)
    skew = above.new_zeros(above.shape[0], size, size)
    skew = skew.index_put((torch.arange(above.shape[0], device=above.device)[:, None], rows[None], columns[None]), above)
    skew = skew - skew.transpose(-1, -2)
    terms = int(given["terms"]) if "terms" in given else NEUMANN
    # Without the series the sign of q is the other one, in peft too.
    turns = _series(skew, terms) if terms else _quotient(-skew)
    blocks = weight[0].numel() // size
    inputs = weight.reshape(weight.shape[0], blocks, size)
    return torch.einsum("okn,kmn->okm", inputs, turns.expand(blocks, size, size)).reshape(weight.shape) - weight


def _series(skew: Tensor, terms: int) -> Tensor:
    """(1 + q)(1 - q)^-1 as 1 + 2q + 2q^2 + ... + q^n, as peft counts: the last power once, and 3 terms are 4."""
    last = terms - 1 if terms < 3 else max(terms - 1, 3)
    total, power = torch.eye(skew.shape[-1], device=skew.device, dtype=skew.dtype).expand_as(skew), skew
    for number in range(1, last + 1):
        total = total + (1.0 if number == last > 2 else 2.0) * power
        power = power @ skew
    return total


def butterfly_inputs(given: Roles, weight: Tensor, ranks: int | None) -> Tensor:
    """peft's BOFT: "boft_R" [m, blocks, b, b], of whose skew-symmetric halves come the turns; "boft_s" [o, 1], the outputs' new lengths."""
    rounds = given["boft_R"]
    turns = _quotient(-0.5 * (rounds - rounds.transpose(-1, -2)))
    inputs = weight.reshape(weight.shape[0], -1).T          # [i, o]
    chunk = max(turns.shape[-1] // 2, 1)
    for number, turn in enumerate(turns):
        # Of every 2^(number + 1) chunks the even ones come first, then the odd ones.
        deal = (-1, 2**number, 2, chunk, inputs.shape[1]) if len(turns) > 1 else (1, 1, 1, *inputs.shape)
        gather = (-1, deal[2], deal[1], *deal[3:])
        mixed = inputs.reshape(gather).transpose(1, 2).reshape(turn.shape[0], turn.shape[1], -1)
        inputs = (turn @ mixed).reshape(deal).transpose(1, 2).reshape(inputs.shape)
    turned = inputs.T.reshape(weight.shape)
    if "boft_s" in given:
        turned = turned * given["boft_s"].reshape(-1, *[1] * (weight.ndim - 1))
    return turned - weight
