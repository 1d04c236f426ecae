"""Every picture's greatest value of each unit: which pictures turn a unit on most, and which least.

One row of C float32 a picture (20 MB for 10,000 pictures of 512 units) answers for any number of top pictures, and
merges by the picture's number. The order is fixed: by value, and at equal values by the smaller number. A picture that
was seen twice counts once; should its two rows differ in the last bits, each unit keeps the greater value. So merging
is associative and commutative to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from rewrite_core.statistics.statistic import Batch, Statistic

__all__ = ["Maxima"]


@dataclass(frozen=True, eq=False)
class Maxima(Statistic):
    """Maxima [N, C] float32 of the pictures `seeds` [N] int64, which ascend and are kept on the CPU."""

    maxima: Tensor | None = None
    seeds: Tensor | None = None

    kind: ClassVar[str] = "maxima"
    version: ClassVar[int] = 1

    def update(self, batch: Batch) -> Self:
        """The maximum over each picture's positions."""
        maxima = batch.keys.detach().flatten(2).amax(2).float()  # [N, C]
        seeds = torch.tensor(batch.seeds, dtype=torch.int64)
        return self.merge(replace(self, **_ordered(maxima, seeds)))

    def merge(self, other: Self) -> Self:
        """The pictures of both."""
        if self.maxima is None or self.seeds is None:
            return other
        if other.maxima is None or other.seeds is None:
            return self
        maxima, seeds = torch.cat([self.maxima, other.maxima]), torch.cat([self.seeds, other.seeds])
        return replace(self, **_ordered(maxima, seeds))

    def state(self) -> dict[str, Tensor]:
        """`maxima` and `seeds`."""
        if self.maxima is None or self.seeds is None:
            return {}
        return {"maxima": self.maxima, "seeds": self.seeds}

    def restore(self, state: Mapping[str, Tensor]) -> Self:
        """From `state`'s tensors."""
        if not state:
            return replace(self, maxima=None, seeds=None)
        maxima, seeds = state["maxima"], state["seeds"]
        if maxima.ndim != 2 or maxima.dtype != torch.float32:
            raise ValueError(f"maxima of shape {list(maxima.shape)} and type {maxima.dtype}")
        if seeds.dtype != torch.int64 or seeds.shape != (len(maxima),):
            raise ValueError(f"{list(seeds.shape)} pictures of type {seeds.dtype} for {len(maxima)} rows")
        if not len(seeds) or not _ascending(seeds):
            raise ValueError("pictures that are not in order")
        return replace(self, maxima=maxima, seeds=seeds.cpu())

    def top(self, unit: int, k: int) -> tuple[Tensor, Tensor]:
        """The `k` pictures (all, if there are fewer) where `unit` is greatest: seeds [k], greatest values first [k]."""
        return self._ranked(unit, k, descending=True)

    def bottom(self, unit: int, k: int) -> tuple[Tensor, Tensor]:
        """The `k` pictures whose greatest value of `unit` is least: seeds [k], least values first [k]."""
        return self._ranked(unit, k, descending=False)

    def top_seeds(self, k: int) -> Tensor:
        """The `k` top pictures of every unit, [C, k] int64 on the CPU."""
        maxima, seeds = self._seen()
        columns = maxima.T.contiguous()  # [C, N]
        values, best = columns.topk(min(k, len(seeds)), 1, sorted=False)  # which of equal ones is left open
        best = best.sort(1).values
        best = best.gather(1, _descending(columns.gather(1, best)))  # [C, k]
        at_least = columns >= values.amin(1, keepdim=True)
        tied = at_least.sum(1) > values.shape[1]  # units with equals beyond the k-th place
        best[tied] = _descending(columns[tied])[:, : values.shape[1]]
        return seeds[best.cpu()]

    def summary(self) -> Mapping[str, Any]:
        """Units, samples, and the range of the maxima."""
        if self.maxima is None:
            return {"samples": 0}
        least, greatest = self.maxima.aminmax()
        return {
            "units": self.maxima.shape[1],
            "samples": len(self.maxima),
            "least": float(least),
            "greatest": float(greatest),
        }

    def _ranked(self, unit: int, k: int, *, descending: bool) -> tuple[Tensor, Tensor]:
        maxima, seeds = self._seen()
        values, order = maxima[:, unit].sort(
            descending=descending, stable=True
        )  # ties: as the seeds, ascending
        return seeds[order[:k].cpu()], values[:k]

    def _seen(self) -> tuple[Tensor, Tensor]:
        assert self.maxima is not None, "no sample was seen"
        assert self.seeds is not None, "no sample was seen"
        return self.maxima, self.seeds


def _descending(rows: Tensor) -> Tensor:
    """The order of each row by value, of equals the first first."""
    return rows.sort(dim=1, descending=True, stable=True).indices


def _ascending(seeds: Tensor) -> bool:
    return bool((seeds[1:] > seeds[:-1]).all())


def _ordered(maxima: Tensor, seeds: Tensor) -> dict[str, Tensor]:
    """Rows in the order of their seeds, those of one seed made one."""
    if _ascending(seeds):  # as in every pass: batches and blocks follow each other
        return {"maxima": maxima, "seeds": seeds}
    once, row = seeds.unique(return_inverse=True)
    rows = row.to(maxima.device)[:, None].expand_as(maxima)  # [N, C]
    lowest = maxima.new_full((len(once), maxima.shape[1]), -torch.inf)
    return {"maxima": lowest.scatter_reduce_(0, rows, maxima, "amax"), "seeds": once}
