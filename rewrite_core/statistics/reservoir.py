"""A uniform sample of a layer's keys, over every position of every picture: what embeddings are drawn from.

Each position has a priority that only its picture's number and its place decide::

    priority = mix(mix(mix(mix(salt) + seed) + row) + column) >> 1        63 bits

where ``mix`` is the step of splitmix64 (Steele, Lea and Flood 2014) and + wraps. The `size` positions of lowest
priority are kept. So the sample is the same for any batches, order and number of processes; merging keeps the lowest
of both, which is associative and commutative exactly; a smaller sample is the beginning of a larger one; and two layers
with equal grids are sampled at the same positions.

Priorities are computed on the CPU; of the keys, only what is kept is ever copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rewrite_core.errors import RequestError
from rewrite_core.statistics.statistic import Batch, Statistic

__all__ = ["SIZE", "Reservoir", "priority"]

SIZE = 10_000
"""Keys that are kept if nothing else is asked for."""

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Reservoir(Statistic):
    """The keys of lowest priority, and where each is from; in order of priority.

    Attributes:
        size: how many keys are kept, at most.
        salt: another one gives another sample of the same pictures.
        keys: [k, C] float32, on the device of the maps.
        places: seed, row and column of each key, [k, 3] int64, on the CPU.
        priorities: ascending, [k] int64, on the CPU.
        positions: how many positions were seen.
        samples: how many pictures were seen.
    """

    size: int = SIZE
    salt: int = 0
    keys: Tensor | None = None
    places: Tensor | None = None
    priorities: Tensor | None = None
    positions: int = 0
    samples: int = 0

    kind: ClassVar[str] = "reservoir"
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 <= self.salt < 2**63:
            raise RequestError(
                found=f"a sample of {self.size} keys with salt {self.salt}",
                expected="at least 1 key, and a salt from 0 to 2⁶³ - 1",
                remedy=f"{SIZE:,} keys and salt 0 are sound.",
            )

    def parameters(self) -> Mapping[str, Any]:
        """Size and salt."""
        return {"size": self.size, "salt": self.salt}

    # What it says.

    @property
    def seeds(self) -> Tensor:
        """The picture that each key is from, [k] int64."""
        return self._placed()[:, 0]

    @property
    def rows(self) -> Tensor:
        """The row of the map that each key is from, [k] int64."""
        return self._placed()[:, 1]

    @property
    def columns(self) -> Tensor:
        """The column of the map that each key is from, [k] int64."""
        return self._placed()[:, 2]

    def _placed(self) -> Tensor:
        assert self.places is not None, "no sample was seen"
        return self.places

    # Seeing more.

    def update(self, batch: Batch) -> Self:
        """Those of the batch that are among the lowest, kept."""
        samples, _, height, width = batch.keys.shape
        seeds = np.array(batch.seeds, np.int64)
        grid = priority(
            self.salt, seeds[:, None, None], np.arange(height)[:, None], np.arange(width)
        )  # [N, h, w]
        picture, row, column = np.nonzero(grid <= self._bound(grid))  # [k] each
        order = _order(grid[picture, row, column], seeds[picture], row, column)[: self.size]
        at = torch.from_numpy(np.stack([picture, row, column], 1)[order])  # [k, 3]
        chosen = at.to(batch.keys.device, non_blocking=True)
        seen = replace(
            self,
            keys=batch.keys[chosen[:, 0], :, chosen[:, 1], chosen[:, 2]].float(),  # [k, C]
            places=torch.cat([torch.from_numpy(seeds)[at[:, :1]], at[:, 1:]], 1),  # [k, 3]
            priorities=torch.from_numpy(grid)[at[:, 0], at[:, 1], at[:, 2]],  # [k]
            positions=grid.size,
            samples=samples,
        )
        return self.merge(seen)

    def merge(self, other: Self) -> Self:
        """The lowest of both; equal ones by picture, row and column."""
        if self.keys is None or self.places is None or self.priorities is None:
            return other
        if other.keys is None or other.places is None or other.priorities is None:
            return self
        places = torch.cat([self.places, other.places])
        priorities = torch.cat([self.priorities, other.priorities])
        kept = torch.from_numpy(_order(priorities.numpy(), *places.numpy().T)[: self.size])
        return replace(
            self,
            keys=torch.cat([self.keys, other.keys])[kept.to(self.keys.device, non_blocking=True)],
            places=places[kept],
            priorities=priorities[kept],
            positions=self.positions + other.positions,
            samples=self.samples + other.samples,
        )

    def state(self) -> dict[str, Tensor]:
        """`keys`, `places`, `priorities` and the two counts."""
        if self.keys is None or self.places is None or self.priorities is None:
            return {}
        return {
            "keys": self.keys,
            "places": self.places,
            "priorities": self.priorities,
            "counts": torch.tensor([self.positions, self.samples], dtype=torch.int64),
        }

    def restore(self, state: Mapping[str, Tensor]) -> Self:
        """From `state`'s tensors."""
        if not state:
            return replace(self, keys=None, places=None, priorities=None, positions=0, samples=0)
        keys, places, priorities = state["keys"], state["places"], state["priorities"]
        positions, samples = (int(count) for count in state["counts"])
        kept = min(self.size, positions)
        if keys.ndim != 2 or len(keys) != kept or keys.dtype != torch.float32:
            raise ValueError(f"{keys.dtype} keys of shape {list(keys.shape)} in a sample of {kept}")
        if places.shape != (kept, 3) or places.dtype != torch.int64 or bool((places < 0).any()):
            raise ValueError(f"places of shape {list(places.shape)} in a sample of {kept}")
        expected = priority(self.salt, *places.numpy().T)  # [k]
        if not np.array_equal(priorities.numpy(), expected) or bool((np.diff(expected) < 0).any()):
            raise ValueError("priorities that are not those of the places, in order")
        return replace(
            self, keys=keys, places=places, priorities=priorities, positions=positions, samples=samples
        )

    def summary(self) -> Mapping[str, Any]:
        """Units, samples, positions, and how many keys the sample holds, of how many pictures."""
        if self.keys is None:
            return {"samples": 0}
        return {
            "units": self.keys.shape[1],
            "samples": self.samples,
            "positions": self.positions,
            "keys": len(self.keys),
            "pictures": len(self.seeds.unique()),
        }

    def _bound(self, grid: NDArray[np.int64]) -> int:
        """Of a batch with these priorities, none above this one is kept."""
        if self.priorities is not None and len(self.priorities) == self.size:
            return int(self.priorities[-1])
        return int(
            grid.max() if grid.size <= self.size else np.partition(grid, self.size - 1, None)[self.size - 1]
        )


def priority(salt: int, seed: Integers, row: Integers, column: Integers) -> Integers:
    """The priority of each position, int64 from 0 to 2⁶³ - 1, of the shape that its arguments broadcast to."""
    mixed = _mix(np.array([salt], np.uint64))
    for number in (seed, row, column):
        mixed = _mix(mixed + number.astype(np.uint64))
    return (mixed >> np.uint64(1)).astype(np.int64)


def _mix(number: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One step of splitmix64: a bijection of 64 bits in which every bit of the result depends on every bit."""
    mixed = number + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _order(priorities: Integers, seeds: Integers, rows: Integers, columns: Integers) -> NDArray[np.intp]:
    """The order of keys in a sample."""
    return np.lexsort((columns, rows, seeds, priorities))
