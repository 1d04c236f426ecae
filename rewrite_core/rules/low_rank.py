"""The algebra of a low-rank change ΛD of a layer's weight: directions D [R, C], delta Λ [O, R, kh, kw].

Flattened, Λ is [O, B] with ``B = R·kh·kw`` coefficients of the one-hot changes ``e_b``, in which everything linear in Λ
is a matrix product.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rewrite_core.errors import RequestError
from rewrite_core.generators import MICRO_BATCH, Generator

__all__ = ["basis_responses", "change", "orthonormalised", "response_moment"]

INDEPENDENT = 1e-6
"""Singular values below this share of the greatest are rounding of float32."""


def change(delta: Tensor, directions: Tensor) -> Tensor:
    """ΛD: delta [O, R, kh, kw] and directions [R, C] → the change of the weight [O, C, kh, kw]."""
    return torch.einsum("oryx,rc->ocyx", delta, directions)


def orthonormalised(directions: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [R, C] made orthonormal one after the other, each turned the way it was, and their singular values [R].

    Raises:
        RequestError: they are not independent.
    """
    stored = directions.detach().to("cpu", torch.float64)
    strengths = torch.linalg.svdvals(stored)  # [min(R, C)]
    if len(strengths) < len(stored) or not (strengths > INDEPENDENT * strengths[:1]).all():
        raise RequestError(
            found=f"a rule whose {len(stored)} directions depend on each other",
            expected="independent directions",
            remedy="Solve the edit again with a lower rank.",
        )
    basis, triangle = torch.linalg.qr(stored.T)  # [C, R], [R, R]
    return (basis * triangle.diagonal().sign()).T.contiguous(), strengths


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
