"""The algebra of a low-rank change ΛD of a layer's weight: directions D [R, C], delta Λ [O, R, kh, kw].

Flattened, Λ is [O, B] with ``B = R·kh·kw`` coefficients of the one-hot changes ``e_b``, in which everything linear in Λ
is a matrix product.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rewrite_core.generators import MICRO_BATCH, Generator

__all__ = ["basis_responses", "change", "response_moment"]


def change(delta: Tensor, directions: Tensor) -> Tensor:
    """ΛD: delta [O, R, kh, kw] and directions [R, C] → the change of the weight [O, C, kh, kw]."""
    return torch.einsum("oryx,rc->ocyx", delta, directions)


def basis_responses(generator: Generator, layer: str, keys: Tensor, directions: Tensor) -> Tensor:
    """Responses to every one-hot Λ: keys [N, C, h, w] → [N, B, H, W] with B = R·kh·kw, in Λ's order."""
    rank, taps = len(directions), generator.layer(layer).convolution.kernel
    projected = (directions @ keys.flatten(2)).unflatten(2, keys.shape[2:])  # [N, R, h, w]
    one_hot = torch.eye(rank * math.prod(taps), device=keys.device).reshape(-1, rank, *taps)  # [B, R, kh, kw]
    return generator.respond(layer, projected, one_hot)


def response_moment(generator: Generator, layer: str, sample: Tensor, directions: Tensor) -> Tensor:
    """Second moment [B, B] of the basis responses over every output position of the keys `sample` [M, C, h, w]."""
    size = len(directions) * math.prod(generator.layer(layer).convolution.kernel)
    moment, positions = torch.zeros(size, size, dtype=torch.float64, device=sample.device), 0
    for keys in torch.split(sample, MICRO_BATCH):
        basis = basis_responses(generator, layer, keys, directions).double()  # [N, B, H, W]
        basis = basis.transpose(0, 1).flatten(1)  # [B, N·H·W]
        moment, positions = moment + basis @ basis.T, positions + basis.shape[1]
    return moment / positions
