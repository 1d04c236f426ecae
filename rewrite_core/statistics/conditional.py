"""What a layer's keys are like where a label is: first and second moments for each label.

Labels are brought to the layer's grid as area averages (adaptive average pooling), so that a label weighs a position
by the share w of its area that the label covers; a soft label weighs less. With labels coarser than the grid, each
position takes the mean of the labels' cells that it touches. Then, over all positions of all pictures::

    mean(label) = Σ w k / Σ w          second_moment(label) = Σ w k kᵀ / Σ w

Products are summed in float32 over at most `POSITIONS` positions and then added to float64 sums: an error of about
1e-7 of each unit's power, as in `rewrite_core.statistics.second_moment`, of which the covariance inherits all.

L labels of C units take L·C² numbers of 8 bytes, in memory and for each block under way on disk: more than `LARGEST`
of them are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional

from rewrite_core.errors import RequestError
from rewrite_core.statistics.intersection import labels_of
from rewrite_core.statistics.second_moment import POSITIONS
from rewrite_core.statistics.statistic import Batch, Labeller, Needs, Statistic

__all__ = ["LARGEST", "Conditional"]

LARGEST = 1 << 26
"""Numbers that L·C² may be: 512 MiB; 148 labels of 512 units are 296."""


@dataclass(frozen=True, eq=False)
class Conditional(Statistic):
    """Σ w k kᵀ [L, C, C], Σ w k [L, C] and Σ w [L], in float64, and how many positions and samples they are over."""

    labeller: Labeller
    total: Tensor | None = None
    first: Tensor | None = None
    weight: Tensor | None = None
    positions: int = 0
    samples: int = 0

    kind: ClassVar[str] = "conditional"
    version: ClassVar[int] = 1

    def parameters(self) -> Mapping[str, Any]:
        """Where the labels come from."""
        return {"labels": list(self.labeller.names), "labeller": dict(self.labeller.identity())}

    def needs(self) -> Needs:
        """Labels of every picture."""
        return Needs(labeller=self.labeller)

    # What it says.

    def share(self, label: int) -> float:
        """The part of all positions that the label covers."""
        return float(self._seen()[2][label]) / max(self.positions, 1)

    def mean(self, label: int) -> Tensor:
        """E[k | label], [C] float64; 0 where the label was never seen."""
        _, first, weight = self._seen()
        return first[label] / _or_one(weight[label])

    def second_moment(self, label: int) -> Tensor:
        """E[k kᵀ | label], [C, C] float64; 0 where the label was never seen."""
        total, _, weight = self._seen()
        return total[label] / _or_one(weight[label])

    def covariance(self, label: int) -> Tensor:
        """E[k kᵀ | label] - E[k | label] E[k | label]ᵀ, [C, C] float64."""
        mean = self.mean(label)
        return self.second_moment(label) - torch.outer(mean, mean)

    # Seeing more.

    def update(self, batch: Batch) -> Self:
        """Sums over the batch, added to a copy of those so far."""
        samples, channels, height, width = batch.keys.shape
        weights = functional.adaptive_avg_pool2d(
            self._labels(batch, channels), (height, width)
        )  # [N, L, h, w]
        weights = weights.movedim(1, 0).flatten(1)  # [L, P]
        keys = batch.keys.float().movedim(1, -1).flatten(0, 2)  # [P, C]
        total, first, weight = self._copied(len(weights), channels, keys.device)
        for some, shares in zip(keys.split(POSITIONS), weights.split(POSITIONS, 1), strict=True):
            first += shares @ some  # [L, C]
            for label, share in enumerate(shares):
                _add(total[label], some, share)
        weight += weights.sum(1, dtype=torch.float64)  # [L]
        return replace(
            self,
            total=total,
            first=first,
            weight=weight,
            positions=self.positions + samples * height * width,
            samples=self.samples + samples,
        )

    def merge(self, other: Self) -> Self:
        """Sums and counts add."""
        if self.total is None or self.first is None or self.weight is None:
            return other
        if other.total is None or other.first is None or other.weight is None:
            return self
        return replace(
            self,
            total=self.total + other.total,
            first=self.first + other.first,
            weight=self.weight + other.weight,
            positions=self.positions + other.positions,
            samples=self.samples + other.samples,
        )

    def state(self) -> dict[str, Tensor]:
        """`total`, `first`, `weight` and the two counts."""
        if self.total is None or self.first is None or self.weight is None:
            return {}
        return {
            "total": self.total,
            "first": self.first,
            "weight": self.weight,
            "counts": torch.tensor([self.positions, self.samples], dtype=torch.int64),
        }

    def restore(self, state: Mapping[str, Tensor]) -> Self:
        """From `state`'s tensors."""
        if not state:
            return replace(self, total=None, first=None, weight=None, positions=0, samples=0)
        total, first, weight = state["total"], state["first"], state["weight"]
        shapes = [list(table.shape) for table in (total, first, weight)]
        labels, channels = len(self.labeller.names), first.shape[-1:].numel()
        if shapes != [[labels, channels, channels], [labels, channels], [labels]]:
            raise ValueError(f"sums of shapes {shapes} for {labels} labels")
        if {total.dtype, first.dtype, weight.dtype} != {torch.float64}:
            raise ValueError("sums that are not in float64")
        positions, samples = (int(count) for count in state["counts"])
        return replace(self, total=total, first=first, weight=weight, positions=positions, samples=samples)

    def summary(self) -> Mapping[str, Any]:
        """Units, samples, positions, and the share of the positions that each label covers."""
        if self.total is None:
            return {"samples": 0}
        shares = {f"share of {name}": self.share(label) for label, name in enumerate(self.labeller.names)}
        return {
            "units": self.total.shape[-1],
            "samples": self.samples,
            "positions": self.positions,
            **shares,
        }

    def _labels(self, batch: Batch, channels: int) -> Tensor:
        """The batch's labels as float32, [N, L, H, W]."""
        named = len(self.labeller.names)
        if named * channels**2 > LARGEST:
            raise RequestError(
                found=f"second moments of {channels:,} units for each of {named:,} labels",
                expected=f"at most {LARGEST // channels**2:,} labels of so many units",
                remedy="Choose fewer labels, or a layer with fewer units.",
            )
        return labels_of(batch, self.labeller).float()

    def _copied(self, labels: int, channels: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """The sums so far, to add to: `total` is too large to be built anew and then added."""
        if self.total is not None:
            total, first, weight = self._seen()
            return total.clone(), first.clone(), weight.clone()
        shapes = (labels, channels, channels), (labels, channels), (labels,)
        total, first, weight = (torch.zeros(shape, dtype=torch.float64, device=device) for shape in shapes)
        return total, first, weight

    def _seen(self) -> tuple[Tensor, Tensor, Tensor]:
        assert self.total is not None, "no sample was seen"
        assert self.first is not None
        assert self.weight is not None
        return self.total, self.first, self.weight


def _add(total: Tensor, keys: Tensor, share: Tensor) -> None:
    """Σ w k kᵀ of keys [P, C] with weights [P], in float32, added to the total [C, C]."""
    if (
        keys.device.type == "cpu"
    ):  # most labels are nowhere near; on a GPU, asking where they are would wait for it
        at = share.nonzero()[:, 0]
        if not len(at):
            return
        keys, share = keys[at], share[at]
    total += (keys * share[:, None]).T @ keys


def _or_one(weight: Tensor) -> Tensor:
    """Something to divide by: where nothing was seen, the sums are 0 as they are."""
    return torch.where(weight > 0, weight, 1.0)
