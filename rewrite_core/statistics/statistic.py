"""A statistic: a mergeable summary of what thousands of samples say about a layer.

``merge(a, b)`` equals having seen both; that one property gives batching, resuming, several devices and several
machines. A statistic is a value: `update` returns a new one. Adding a statistic is one file with such a class and one
line where it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

from torch import Tensor

__all__ = ["Statistic"]


@runtime_checkable
class Statistic(Protocol):
    """What the sweep and the store need to know of a statistic."""

    kind: ClassVar[str]
    """Its name in files and keys."""
    version: ClassVar[int]
    """Raised whenever the same samples would give another state; part of the cache key."""

    def parameters(self) -> Mapping[str, Any]:
        """What its state depends on beside the samples (JSON values; part of the cache key)."""
        ...

    def update(self, keys: Tensor) -> Self:
        """Also having seen a batch of feature maps [N, C, h, w]."""
        ...

    def merge(self, other: Self) -> Self:
        """Having seen what both have seen, in this order."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Everything needed to go on, as named tensors."""
        ...

    def restore(self, state: Mapping[str, Tensor]) -> Self:
        """The statistic of these parameters whose state is `state`."""
        ...
