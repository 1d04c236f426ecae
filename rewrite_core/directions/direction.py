"""Directions of key space, as values.

A direction `d` is a *query*: its heat at a position is `d · k`. The pattern that it stands for, what the keys
that it finds look like, is `C d`, with `C` the layer's second moment. A rule of rank `R` changes what `R`
directions write: `W' = W + Λ D`.

Axes: directions (the rank) `R`, units (channels of the key) `C`; float64 on the CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from torch import Tensor

__all__ = ["Direction"]


@dataclass(frozen=True, eq=False)
class Direction:
    """The directions `D` of one context at one layer, most telling first, and where they came from."""

    vectors: Tensor  # [R, C] orthonormal rows
    layer: str
    method: str
    singular_values: Tensor  # [K], K ≥ R, descending: those beyond R tell what a higher rank would add
    name: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)  # what it takes to compute it again; JSON

    @property
    def rank(self) -> int:
        """How many directions there are."""
        return len(self.vectors)

    def head(self, rank: int) -> Self:
        """The first `rank` of them: just what asking for that rank would have given."""
        return replace(self, vectors=self.vectors[:rank])

    def pattern(self, second_moment: Tensor) -> Tensor:
        """The keys that they stand for: rows `C d` [R, C]."""
        return self.vectors @ second_moment.to(self.vectors)
