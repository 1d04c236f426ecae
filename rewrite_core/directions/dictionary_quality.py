"""How well a sparse dictionary describes a layer's keys, beside two ways to spend as many numbers.

All shares are of the variance ``Σ |k - k̄|²``. A coder that may use `active` numbers for a key is held against the same
count of principal components, the same ones for every key, and of single units, which like features are chosen for each
key anew: where the units are sparse already, this second baseline is the hard one to beat.

Axes: keys `M`, units `C`, features `F`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rewrite_core.directions.sparse import SparseCoder

__all__ = ["Quality", "measured"]

_BLOCK = 4096  # keys encoded at a time


@dataclass(frozen=True, eq=False)
class Quality:
    """How well a dictionary describes the keys, and its features.

    Attributes:
        explained: of the variance of the held-out keys, the share that is in the dictionary's reconstruction.
        principal: the same of as many principal components, of the keys it learned from, as features may be active.
        single: the same of as many single units, for each key those that are furthest from their mean.
        keys: how many keys there were in all.
        held_out: how many of them it did not learn from.
        density: the share of all keys in which each feature is active, [F] float64.
        removed: the share of the variance of all keys that is lost without each feature, [F] float64; below 0 where
            a feature does harm.
    """

    explained: float
    principal: float
    single: float
    keys: int
    held_out: int
    density: Tensor
    removed: Tensor

    @property
    def dead(self) -> Tensor:
        """The features that are active in no key, [F] bool."""
        return self.density == 0

    @property
    def active(self) -> float:
        """How many features make up a key, on average."""
        return float(self.density.sum())


@torch.no_grad()
def measured(coder: SparseCoder, learned: Tensor, held_out: Tensor) -> Quality:
    """The quality of `coder` on the keys it has `learned` from [M, C] and on those `held_out` [m, C]; float64."""
    missed = torch.cat([block - _described(coder, block) for block in held_out.split(_BLOCK)])  # [m, C]
    usual = learned.mean(0)  # [C]
    deviations = held_out - usual  # [m, C]
    spread = learned - usual  # [M, C]
    axes = torch.linalg.eigh(spread.T @ spread).eigenvectors[:, -coder.active :]  # [C, active]
    count = min(coder.active, held_out.shape[1])
    rest = deviations.abs().sort(1, descending=True).values[:, count:]  # [m, C - active]
    variance = (held_out - held_out.mean(0)).square().sum()
    density, removed = _features(coder, torch.cat([learned, held_out]))
    return Quality(
        explained=_share(missed, variance),
        principal=_share(deviations - deviations @ axes @ axes.T, variance),
        single=_share(rest, variance),
        keys=len(learned) + len(held_out),
        held_out=len(held_out),
        density=density,
        removed=removed,
    )


def _described(coder: SparseCoder, keys: Tensor) -> Tensor:
    return coder.decode(coder.encode(keys)).to(keys)  # [M, C]


def _features(coder: SparseCoder, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Density and share of variance removed, [F] each.

    Without the feature f the error `e = k - k̂` is `e + z d`, and ``|e + z d|² - |e|² = 2 z e·d + z² |d|²``.
    """
    density = torch.zeros(len(coder.decoder), dtype=torch.float64)
    lost = torch.zeros_like(density)
    decoder = coder.decoder.double()
    lengths = decoder.square().sum(1)  # [F]
    for block in keys.split(_BLOCK):
        codes = coder.encode(block)  # [M, F]
        error = block - coder.decode(codes).to(block)  # [M, C]
        codes = codes.double()
        density += (codes > 0).sum(0)
        lost += 2 * ((codes.T @ error) * decoder).sum(1) + codes.square().sum(0) * lengths
    return density / len(keys), lost / (keys - keys.mean(0)).square().sum()


def _share(missed: Tensor, variance: Tensor) -> float:
    return 1 - float(missed.square().sum() / variance)
