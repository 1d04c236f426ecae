"""Where the labels of every picture are, on a grid of one's choice: the truth that heat maps are held against.

A label is averaged over the area of each cell of the grid (adaptive average pooling, as in
`rewrite_core.statistics.conditional`), and that share is kept as a byte, 255 for all of it. A soft label gives the mean
of what it says there. On a layer's own grid a cell is a position of its keys, and `at_least(0.5)` are the positions of
which a label covers half or more::

    grid = fetch(generator, "l08", spec, Labels(source, (16, 16)))
    eyes = grid.at_least(0.5)[:, source.names.index("eyes")]       # [N, h, w] bool

Pictures are kept one by one, by their numbers, so whatever is said of them can be said of some of them alone. N
pictures of L labels take N·L·h·w bytes: 2 MB for 1,000 pictures of eight labels on a grid of 16 × 16.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional

from rewrite_core.errors import RequestError
from rewrite_core.statistics.intersection import labels_of
from rewrite_core.statistics.statistic import Batch, Labeller, Needs, Statistic

__all__ = ["ALL", "Labels"]

ALL = 255
"""The byte of a cell that a label covers whole."""


@dataclass(frozen=True, eq=False)
class Labels(Statistic):
    """Shares [N, L, h, w] uint8 of the pictures `seeds` [N] int64, which ascend and are kept on the CPU.

    A picture that was seen twice counts once; should rounding set its two rows apart, each cell keeps the greater byte.
    So merging is associative and commutative to the bit.

    Attributes:
        labeller: where the L labels come from.
        grid: height and width that they are pooled to.
        shares: which share of each cell a label covers, 0 to `ALL`, rounded.
        seeds: the numbers of the pictures.
    """

    labeller: Labeller
    grid: tuple[int, int]
    shares: Tensor | None = None
    seeds: Tensor | None = None

    kind: ClassVar[str] = "labels"
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if len(self.grid) != 2 or min(self.grid) < 1:
            raise RequestError(
                found=f"a grid of {' × '.join(map(str, self.grid)) or 'no numbers'}",
                expected="a height and a width, at least 1 × 1",
                remedy="Give the grid of the layer's keys.",
            )

    def parameters(self) -> Mapping[str, Any]:
        """Where the labels come from, and the grid."""
        return {
            "labels": list(self.labeller.names),
            "labeller": dict(self.labeller.identity()),
            "grid": list(self.grid),
        }

    def needs(self) -> Needs:
        """Labels of every picture."""
        return Needs(labeller=self.labeller)

    # What it says.

    def at_least(self, share: float, seeds: Sequence[int] | None = None) -> Tensor:
        """The cells of which a label covers `share` or more, bool [N, L, h, w], to the byte that the share rounds to.

        Of all pictures in the order of their numbers, or of these in their order; errors as `of`.
        """
        shares = self._seen()[0] if seeds is None else self.of(seeds)
        return shares >= round(ALL * share)

    def of(self, seeds: Sequence[int]) -> Tensor:
        """The shares of these pictures in this order, [n, L, h, w] uint8.

        Raises:
            RequestError: one of them was not seen.
        """
        shares, known = self._seen()
        wanted = torch.tensor(list(seeds), dtype=torch.int64)
        rows = torch.searchsorted(known, wanted).clamp(max=len(known) - 1)  # [n]
        absent = known[rows] != wanted
        if bool(absent.any()):
            raise RequestError(
                found=f"picture {int(wanted[absent][0])}",
                expected=f"one of the {len(known):,} that were labelled",
                remedy="Label that picture too.",
            )
        return shares[rows.to(shares.device)]

    # Seeing more.

    def update(self, batch: Batch) -> Self:
        """The labels of the batch, pooled; the keys are not looked at."""
        labels = labels_of(batch, self.labeller).float()  # [N, L, H, W]
        pooled = functional.adaptive_avg_pool2d(labels, self.grid)  # [N, L, h, w]
        shares = (pooled * ALL).round().clamp(0, ALL).to(torch.uint8)
        return self.merge(self._with(*_ordered(shares, torch.tensor(batch.seeds, dtype=torch.int64))))

    def merge(self, other: Self) -> Self:
        """The pictures of both."""
        if self.shares is None or self.seeds is None:
            return other
        if other.shares is None or other.seeds is None:
            return self
        shares, seeds = torch.cat([self.shares, other.shares]), torch.cat([self.seeds, other.seeds])
        return self._with(*_ordered(shares, seeds))

    def state(self) -> dict[str, Tensor]:
        """`shares` and `seeds`."""
        if self.shares is None or self.seeds is None:
            return {}
        return {"shares": self.shares, "seeds": self.seeds}

    def restore(self, state: Mapping[str, Tensor]) -> Self:
        """From `state`'s tensors."""
        if not state:
            return replace(self, shares=None, seeds=None)
        shares, seeds = state["shares"], state["seeds"]
        shape = [len(self.labeller.names), *self.grid]
        if shares.ndim != 4 or list(shares.shape[1:]) != shape or shares.dtype != torch.uint8:
            raise ValueError(f"shares of shape {list(shares.shape)} and type {shares.dtype} for {shape}")
        if seeds.dtype != torch.int64 or seeds.shape != (len(shares),):
            raise ValueError(f"{list(seeds.shape)} pictures of type {seeds.dtype} for {len(shares)} rows")
        if not len(seeds) or not _ascending(seeds):
            raise ValueError("pictures that are not in order")
        return replace(self, shares=shares, seeds=seeds.cpu())

    def summary(self) -> Mapping[str, Any]:
        """Samples, cells of each, and the mean share of a cell that each label covers."""
        if self.shares is None:
            return {"samples": 0}
        mean = self.shares.sum((0, 2, 3), dtype=torch.int64) / (ALL * self.shares[:, 0].numel())  # [L]
        named = zip(self.labeller.names, mean.tolist(), strict=True)
        return {
            "samples": len(self.shares),
            "cells": self.grid[0] * self.grid[1],
            **{f"share of {name}": share for name, share in named},
        }

    def _with(self, shares: Tensor, seeds: Tensor) -> Self:
        return replace(self, shares=shares, seeds=seeds)

    def _seen(self) -> tuple[Tensor, Tensor]:
        assert self.shares is not None, "no sample was seen"
        assert self.seeds is not None, "no sample was seen"
        return self.shares, self.seeds


def _ascending(seeds: Tensor) -> bool:
    return bool((seeds[1:] > seeds[:-1]).all())


def _ordered(shares: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
    """Rows in the order of their seeds, those of one seed made one."""
    if _ascending(seeds):  # as in every pass: batches and blocks follow each other
        return shares, seeds
    once, row = seeds.unique(return_inverse=True)
    rows = row.to(shares.device)[:, None, None, None].expand_as(shares)  # [N, L, h, w]
    kept = shares.new_zeros(len(once), *shares.shape[1:])
    return kept.scatter_reduce_(0, rows, shares, "amax"), once
