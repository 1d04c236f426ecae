"""How much two directions of a layer have in common: as queries, as keys, and as rules that may collide.

    query_overlap(tray, C)   d₁ᵀ C d₂     do they match the same places? the correlation of their heat
    key_overlap(tray, C)     k₁ᵀ C⁻¹ k₂   were they made from the same context? the whitened cosine of their keys
    interference(tray, C)    D₁ k₂        how strongly a rule at D₁ fires on what D₂ was made from

All are normalised and without units, and [M, M] for M directions. `C = E[k kᵀ]` is the layer's second moment,
uncentred, so the "correlation" of two heat maps is E[(d₁·k)(d₂·k)] / √(E[(d₁·k)²] E[(d₂·k)²]) over every position of
every sample.

*The key of a direction* is `Direction.key`, the mean key of the context that it was made from. Where there is none (a
unit, a principal component, a rule) the patterns C Dᵀ stand for it. With k = C d exactly, k₁ᵀ C⁻¹ k₂ = d₁ᵀ C d₂: the
first two matrices say the same of directions without a key, and of contexts of rank 1 found by `mean` without ridge,
contrast and protected regions. They differ where a direction was turned away from its key, by those terms or by a
method that does not whiten. Then `interference` says what matters of two rules: each adds Λ (D k) to what the layer
draws for k, so a rule at D₁ changes the context of D₂ as far as D₁ k₂ is not 0. It need not be symmetric: after
`protect`, D₁ may pass by k₂ while D₂ hits k₁.

Numbers are float64 on the CPU. A direction that matches nothing that the layer shows overlaps with nothing: 0, itself
included.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rewrite_core.directions.direction import Direction
from rewrite_core.errors import RequestError
from rewrite_core.memory import whiten

__all__ = ["CLOSE", "interference", "key_overlap", "query_overlap"]

CLOSE = 0.5
"""Beyond this, either way, two directions have so much in common that rules at them are likely to collide."""

ROUNDING = 1e-13
"""Squared lengths below this share of the greatest possible are rounding."""


def query_overlap(directions: Sequence[Direction], second_moment: Tensor) -> Tensor:
    """Cosine of every two directions as queries, in the metric of `second_moment` C [C, C]: [M, M], in [-1, 1].

    Where one has more than one vector it is the largest canonical correlation of the two sets, from 0 to 1.

    Raises:
        RequestError: directions of different layers, or a second moment of another width.
    """
    moment = _checked(directions, second_moment)
    return _correlations([direction.vectors for direction in directions], moment)


def key_overlap(directions: Sequence[Direction], second_moment: Tensor) -> Tensor:
    """Cosine of the keys that every two directions were made from, in the metric of C⁻¹: [M, M], in [-1, 1].

    C⁻¹ is the inverse of `second_moment` [C, C] on what it spans. What stands for a direction without a key, and when
    the answer is that of `query_overlap`, see the module; of patterns of rank above 1 it is the largest canonical
    correlation, from 0 to 1.

    Raises:
        RequestError: directions of different layers, or a second moment of another width.
    """
    moment = _checked(directions, second_moment)
    inverse = whiten(moment).inverse
    return _correlations([_keys(direction, moment) for direction in directions], inverse)


def interference(directions: Sequence[Direction], second_moment: Tensor) -> Tensor:
    """How strongly direction i reads the key of direction j, in readings of its own key: ``D_i k_j / D_i k_i``, [M, M].

    Keys are compared at equal whitened length, kᵀ C⁻¹ k = 1, "equally rare". The sign is kept where i has one vector
    and j one key, and is negative where the rule at i would do the opposite there; otherwise norms are compared. The
    diagonal is 1. Row i says where a rule at i fires, column j which rules the context of j suffers from.

    Raises:
        RequestError: directions of different layers, or a second moment of another width.
    """
    moment = _checked(directions, second_moment)
    inverse = whiten(moment).inverse
    keys = [_unit(_keys(direction, moment), inverse) for direction in directions]
    found = torch.zeros(len(directions), len(directions), dtype=torch.float64)
    for row, direction in enumerate(directions):
        readings = [direction.vectors @ of.T for of in keys]  # [R, K]
        own = _size(readings[row])
        if own.abs() > 0:
            found[row] = torch.stack([_size(reading) for reading in readings]) / own
    return found


def _checked(directions: Sequence[Direction], second_moment: Tensor) -> Tensor:
    """The second moment in float64, once it is known to fit every direction."""
    moment = second_moment.detach().to("cpu", torch.float64)
    layers = list(dict.fromkeys(direction.layer for direction in directions))
    if len(layers) > 1:
        raise RequestError(
            found=f"directions of {', '.join(layers)}",
            expected="directions of one layer",
            remedy="Compare those of a layer at a time.",
        )
    for direction in directions:
        units = direction.vectors.shape[1]
        if moment.shape != (units, units):
            raise RequestError(
                found=f"a second moment {list(moment.shape)} for directions of {units} units",
                expected=f"[{units}, {units}]",
                remedy=f"Take that of {direction.layer}.",
            )
    return moment


def _keys(direction: Direction, moment: Tensor) -> Tensor:
    """The key that it was made from [1, C], or its patterns [R, C]."""
    return direction.pattern(moment) if direction.key is None else direction.key[None].to(moment)


def _unit(keys: Tensor, inverse: Tensor) -> Tensor:
    """`keys` [K, C], together of whitened length 1; zero where they have none."""
    length = torch.einsum("kc,cd,kd->", keys, inverse, keys).clamp(min=0).sqrt()
    return keys / length if length > 0 else torch.zeros_like(keys)


def _size(reading: Tensor) -> Tensor:
    """A reading [1, 1] with its sign, or the norm of several."""
    return reading.flatten()[0] if reading.numel() == 1 else reading.norm()


def _correlations(rows: Sequence[Tensor], metric: Tensor) -> Tensor:
    """Largest canonical correlation of every two of `rows` [R_i, C] under `metric`; signed where both have one row."""
    bases = [_basis(vectors, metric) for vectors in rows]  # [r_i, C], with B metric Bᵀ = 1
    found = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for i, first in enumerate(bases):
        for j, second in enumerate(bases[: i + 1]):
            crossed = first @ metric @ second.T  # [r_i, r_j]
            if crossed.numel():
                signed = len(rows[i]) == len(rows[j]) == 1
                largest = crossed[0, 0] if signed else torch.linalg.matrix_norm(crossed, ord=2)
                found[i, j] = found[j, i] = largest.clamp(-1, 1)
    return found


def _basis(vectors: Tensor, metric: Tensor) -> Tensor:
    """A basis of what `vectors` [R, C] span that is orthonormal under `metric`: [r, C], r ≤ R; of one, its own sign."""
    lengths = (vectors @ metric * vectors).sum(1)  # [R]
    floor = ROUNDING * metric.diagonal().amax() * vectors.square().sum(1)
    seen = vectors[lengths > floor] / lengths[lengths > floor].sqrt()[:, None]  # [r, C]
    if len(seen) < 2:
        return seen
    values, turned = torch.linalg.eigh(seen @ metric @ seen.T)  # [r], [r, r]
    kept = values > ROUNDING * values[-1]
    basis: Tensor = (turned[:, kept] / values[kept].sqrt()).T @ seen
    return basis
