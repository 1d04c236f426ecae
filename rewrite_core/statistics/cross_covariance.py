"""Covariance of the keys of two layers: which units of one layer go with which of another.

Both keys are compared on one grid: along each axis, the finer map is averaged onto the coarser (adaptive average
pooling, also where one size is no multiple of the other). Over all positions of all pictures::

    covariance = E[a bᵀ] - E[a] E[b]ᵀ          correlation = covariance / (σ_a σ_bᵀ)

Products are summed in float32 over at most `POSITIONS` positions and then added to float64 sums: an error of about
1e-7 of √(E[a²] E[b²]). So a unit whose variance is below `RESOLVED` of its power is taken as constant, and its
correlation with anything is 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional

from rewrite_core.errors import RequestError
from rewrite_core.statistics.second_moment import POSITIONS
from rewrite_core.statistics.statistic import Batch, Needs, Statistic

__all__ = ["RESOLVED", "CrossCovariance"]

RESOLVED = 1e-6
"""The smallest variance, as a part of the unit's power, that float32 products resolve."""


@dataclass(frozen=True, eq=False)
class CrossCovariance(Statistic):
    """Σ a bᵀ [C, C'] in float64, beside Σ a, Σ a² [2, C] and Σ b, Σ b² [2, C'].

    Attributes:
        beside: the layer that the b are keys of.
    """

    beside: str
    total: Tensor | None = None
    own: Tensor | None = None
    others: Tensor | None = None
    positions: int = 0
    samples: int = 0

    kind: ClassVar[str] = "cross_covariance"
    version: ClassVar[int] = 1

    def parameters(self) -> Mapping[str, Any]:
        """The other layer."""
        return {"beside": self.beside}

    def needs(self) -> Needs:
        """The other layer's keys."""
        return Needs(beside=self.beside)

    # What it says.

    @property
    def covariance(self) -> Tensor:
        """E[a bᵀ] - E[a] E[b]ᵀ, [C, C'] float64."""
        assert self.total is not None, "no sample was seen"
        assert self.own is not None
        assert self.others is not None
        count = max(self.positions, 1)
        return self.total / count - torch.outer(self.own[0] / count, self.others[0] / count)

    @property
    def correlation(self) -> Tensor:
        """Covariance in units of both standard deviations, [C, C'] float64 in [-1, 1]; 0 for a constant unit."""
        covariance = self.covariance
        assert self.own is not None
        assert self.others is not None
        inverse = (_inverse_deviation(sums / max(self.positions, 1)) for sums in (self.own, self.others))
        return (covariance * torch.outer(*inverse)).clamp(-1, 1)

    # Seeing more.

    def update(self, batch: Batch) -> Self:
        """Sums over the batch, by one matrix product a picture."""
        if batch.beside is None:
            raise RequestError(
                found=f"no keys of layer '{self.beside}'",
                expected="the keys of both layers",
                remedy="Ask for it through `sweep` or `gather`.",
            )
        grid = (
            min(batch.keys.shape[2], batch.beside.shape[2]),
            min(batch.keys.shape[3], batch.beside.shape[3]),
        )
        a = functional.adaptive_avg_pool2d(batch.keys.float(), grid).flatten(2)  # [N, C, P]
        b = functional.adaptive_avg_pool2d(batch.beside.float(), grid).flatten(2)  # [N, C', P]
        size = grid[0] * grid[1]
        total = torch.zeros(a.shape[1], b.shape[1], dtype=torch.float64, device=a.device)
        group = max(1, POSITIONS // size)
        for some, others in zip(a.split(group), b.split(group), strict=True):
            block = torch.zeros(total.shape, device=a.device)
            for picture, other in zip(some, others, strict=True):
                block.addmm_(picture, other.T)  # [C, C']
            total += block
        seen = replace(
            self,
            total=total,
            own=_powers(a),
            others=_powers(b),
            positions=len(a) * size,
            samples=len(a),
        )
        return self.merge(seen)

    def merge(self, other: Self) -> Self:
        """Sums and counts add."""
        if self.total is None or self.own is None or self.others is None:
            return other
        if other.total is None or other.own is None or other.others is None:
            return self
        return replace(
            self,
            total=self.total + other.total,
            own=self.own + other.own,
            others=self.others + other.others,
            positions=self.positions + other.positions,
            samples=self.samples + other.samples,
        )

    def state(self) -> dict[str, Tensor]:
        """`total`, `own`, `others` and the two counts."""
        if self.total is None or self.own is None or self.others is None:
            return {}
        return {
            "total": self.total,
            "own": self.own,
            "others": self.others,
            "counts": torch.tensor([self.positions, self.samples], dtype=torch.int64),
        }

    def restore(self, state: Mapping[str, Tensor]) -> Self:
        """From `state`'s tensors."""
        if not state:
            return replace(self, total=None, own=None, others=None, positions=0, samples=0)
        total, own, others = state["total"], state["own"], state["others"]
        shapes = [list(table.shape) for table in (total, own, others)]
        if total.ndim != 2 or shapes[1:] != [[2, size] for size in total.shape]:
            raise ValueError(f"sums of shapes {shapes}")
        if {total.dtype, own.dtype, others.dtype} != {torch.float64}:
            raise ValueError("sums that are not in float64")
        positions, samples = (int(count) for count in state["counts"])
        return replace(self, total=total, own=own, others=others, positions=positions, samples=samples)

    def summary(self) -> Mapping[str, Any]:
        """Units of both layers, samples, positions, and the strongest correlation."""
        if self.total is None:
            return {"samples": 0}
        return {
            "units": self.total.shape[0],
            f"units of {self.beside}": self.total.shape[1],
            "samples": self.samples,
            "positions": self.positions,
            "strongest correlation": float(self.correlation.abs().max()),
        }


def _powers(maps: Tensor) -> Tensor:
    """Σ k and Σ k², [2, C] float64, of maps [N, C, P]; squared in float64, which alone resolves a small variance."""
    wide = maps.double()
    return torch.stack([wide.sum((0, 2)), wide.square().sum((0, 2))])


def _inverse_deviation(moments: Tensor) -> Tensor:
    """1 / σ [C] of E[k] and E[k²], [2, C]; 0 for a unit that is constant."""
    mean, power = moments
    variance = power - mean.square()
    alive = variance > RESOLVED * power
    return torch.where(alive, variance.clamp(min=0).rsqrt(), 0.0)
