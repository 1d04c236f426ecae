"""Second moment of a layer's keys, ``C = E[k kᵀ]``: uncentred, over every position of every sample.

It is the metric in which Bau et al. (2020), section 3, compare keys.

A picture's keys are multiplied as one [C, h·w] view, at the speed of the device's matrix product in float32, and
summed in float32 over at most `POSITIONS` positions before they are added to a float64 sum. On a CPU only the tiles on
and above the diagonal are multiplied, and the others copied: of a large matrix little more than half.

Running float32 sums drift (1.5e-6 after 10k positions); this holds a relative error of some 1e-7 of each unit's power,
whatever the count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from rewrite_core.statistics.statistic import Batch, Statistic

__all__ = ["SecondMoment"]

POSITIONS = 4096
"""Positions summed in float32 before they join the float64 sum."""
FEW = 128
"""Pictures of fewer positions are too narrow for a matrix product each: those of a group are laid side by side."""
TILE = 128
"""Rows of a tile: with fewer, products become too narrow; with more, too much is multiplied twice."""


@dataclass(frozen=True, eq=False)
class SecondMoment(Statistic):
    """Σ k kᵀ [C, C] and Σ k [C] in float64, and how many positions and samples they are over."""

    total: Tensor | None = None
    first: Tensor | None = None
    positions: int = 0
    samples: int = 0

    kind: ClassVar[str] = "second_moment"
    version: ClassVar[int] = 3

    @property
    def matrix(self) -> Tensor:
        """C = E[k kᵀ], [C, C] float64."""
        assert self.total is not None, "no sample was seen"
        return self.total / max(self.positions, 1)

    @property
    def mean(self) -> Tensor:
        """E[k], [C] float64."""
        assert self.first is not None, "no sample was seen"
        return self.first / max(self.positions, 1)

    def update(self, batch: Batch) -> Self:
        """Σ over the batch."""
        samples, channels, height, width = batch.keys.shape
        flat = batch.keys.float().reshape(samples, channels, height * width)  # [N, C, hw]
        total, block = None, torch.empty(channels, channels, device=flat.device)
        for group in flat.split(max(1, POSITIONS // (height * width))):
            for parts in group.split(POSITIONS, dim=2):  # [n, C, ≤ POSITIONS]
                product = _products(parts, block)
                total = product.double() if total is None else total.add_(product)
        seen = replace(
            self,
            total=total,
            first=flat.sum(2).sum(0, dtype=torch.float64),  # [C]
            positions=samples * height * width,
            samples=samples,
        )
        return self.merge(seen)

    def merge(self, other: Self) -> Self:
        """Sums and counts add."""
        if self.total is None or self.first is None:
            return other
        if other.total is None or other.first is None:
            return self
        return replace(
            self,
            total=self.total + other.total,
            first=self.first + other.first,
            positions=self.positions + other.positions,
            samples=self.samples + other.samples,
        )

    def state(self) -> dict[str, Tensor]:
        """`total`, `first` and the two counts."""
        if self.total is None or self.first is None:
            return {}
        return {
            "total": self.total,
            "first": self.first,
            "counts": torch.tensor([self.positions, self.samples], dtype=torch.int64),
        }

    def restore(self, state: Mapping[str, Tensor]) -> Self:
        """From `state`'s tensors."""
        if not state:
            return replace(self, total=None, first=None, positions=0, samples=0)
        total, first = state["total"], state["first"]
        if total.dtype != torch.float64 or total.shape != (len(first), len(first)):
            raise ValueError(f"a second moment of shape {list(total.shape)}")
        positions, samples = (int(count) for count in state["counts"])
        return replace(self, total=total, first=first, positions=positions, samples=samples)

    def summary(self) -> Mapping[str, Any]:
        """Units, samples, positions, and the mean power of a unit."""
        if self.total is None:
            return {"samples": 0}
        return {
            "units": len(self.total),
            "samples": self.samples,
            "positions": self.positions,
            "mean power": float(self.matrix.diagonal().mean()),
        }


def _products(parts: Tensor, block: Tensor) -> Tensor:
    """Σ over pictures of k kᵀ for `parts` [n, C, positions], in `block` [C, C]."""
    if parts.shape[2] < FEW:
        parts = parts.transpose(0, 1).flatten(1)[None]  # [1, C, n·positions]
    tile = TILE if block.device.type == "cpu" else len(block)
    block.zero_()
    for part in parts:
        for start in range(0, len(block), tile):
            block[start : start + tile, start:].addmm_(part[start : start + tile], part[start:].T)
    for start in range(tile, len(block), tile):
        block[start:, start - tile : start] = block[start - tile : start, start:].T
    return block
