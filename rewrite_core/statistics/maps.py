"""The maps themselves, of every picture: what a few directions say at each position.

Nothing is summed up, so this is for a handful of maps and not for a layer's units. Asked `Along` queries it gives the
heat of each of them, all from one pass, kept on disk and resumed as every statistic is::

    found = fetch(generator, "l08", spec, Along(queries, Maps())).inner.maps    # [N, M, h, w]

Pictures stay in the order in which they were seen. Blocks are kept apart until the maps are asked for: to join them
one by one would copy the first of them as often as there are blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from rewrite_core.statistics.statistic import Batch, Statistic

__all__ = ["Maps"]


@dataclass(frozen=True, eq=False)
class Maps(Statistic):
    """Every value of every map, with a layer's margins.

    Attributes:
        parts: maps [n, M, h, w] float32, block after block, on the device that they were seen on.
        seeds: the pictures that they are of, in the same order.
    """

    parts: tuple[Tensor, ...] = ()
    seeds: tuple[int, ...] = ()

    kind: ClassVar[str] = "maps"
    version: ClassVar[int] = 1
    few: ClassVar[bool] = True

    @cached_property
    def maps(self) -> Tensor:
        """All of them, [N, M, h, w] float32."""
        assert self.parts, "no sample was seen"
        return torch.cat(self.parts)

    # Seeing more.

    def update(self, batch: Batch) -> Self:
        """Also the maps of `batch`."""
        return replace(self, parts=(*self.parts, batch.keys.float()), seeds=self.seeds + batch.seeds)

    def merge(self, other: Self) -> Self:
        """One after the other."""
        return replace(self, parts=self.parts + other.parts, seeds=self.seeds + other.seeds)

    def state(self) -> dict[str, Tensor]:
        """`maps` and `seeds`."""
        if not self.parts:
            return {}
        return {"maps": self.maps, "seeds": torch.tensor(self.seeds, dtype=torch.int64)}

    def restore(self, state: Mapping[str, Tensor]) -> Self:
        """From `state`'s tensors."""
        if not state:
            return replace(self, parts=(), seeds=())
        maps, seeds = state["maps"], state["seeds"]
        if maps.ndim != 4 or maps.dtype != torch.float32 or seeds.shape != maps.shape[:1]:
            raise ValueError(
                f"{maps.dtype} maps of shape {list(maps.shape)} for {list(seeds.shape)} pictures"
            )
        return replace(self, parts=(maps,), seeds=tuple(seeds.tolist()))

    def summary(self) -> Mapping[str, Any]:
        """Units, samples, positions of a map, and bytes of all."""
        if not self.parts:
            return {"samples": 0}
        _, units, height, width = self.parts[0].shape
        size = sum(part.nbytes for part in self.parts)
        return {"units": units, "samples": len(self.seeds), "positions": height * width, "bytes": size}
