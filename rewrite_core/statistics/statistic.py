"""A statistic: a mergeable summary of what thousands of samples say about a layer.

``merge(a, b)`` equals having seen both; that one property gives batching, resuming, several devices and several
machines. A statistic is a frozen value: `update` and `merge` return new ones, and an *empty* one, built from its
parameters, is how it is asked for. Adding a statistic is one file with such a class and one line in
`rewrite_core.statistics.catalogue`.

What a statistic is shown is a `Batch`: a micro-batch of the layer's keys [N, C, h, w], and where it `needs` them,
labels of the pictures or the keys of another layer. Its tensors stay on the batch's device until a block of samples
is done, so an update must not wait for the device (no `.item()`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self

from torch import Tensor

from rewrite_core.generators import Latents

__all__ = ["Batch", "Labeller", "Needs", "Scene", "Statistic"]


@dataclass(frozen=True, eq=False)
class Scene:
    """A micro-batch as a labeller sees it.

    Attributes:
        pictures: [N, 3, R, R] in [-1, 1].
        latents: what they were drawn from; their spec's seeds name the pictures.
        maps: keys [N, C, h, w] of each layer that the labeller reads, without a layer's margins.
    """

    pictures: Tensor
    latents: Latents
    maps: Mapping[str, Tensor] = field(default_factory=dict)


class Labeller(Protocol):
    """Where the labels (concepts) of pictures come from; a label may be soft, and labels may overlap."""

    @property
    def names(self) -> tuple[str, ...]:
        """What the L labels are called."""
        ...

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers whose keys it reads; none, if it sees pictures alone."""
        ...

    def identity(self) -> Mapping[str, Any]:
        """Everything that its labels depend on beside the picture, as JSON values; part of the cache key."""
        ...

    def __call__(self, scene: Scene) -> Tensor:
        """Labels [N, L, H, W] of the scene's pictures, bool or float in [0, 1], on the same device."""
        ...


@dataclass(frozen=True)
class Needs:
    """What a statistic is to be shown beside the keys of its own layer."""

    labeller: Labeller | None = None
    beside: str | None = None


@dataclass(frozen=True, eq=False)
class Batch:
    """A micro-batch as a statistic sees it.

    Attributes:
        keys: the layer's keys [N, C, h, w], of any floating type; half precision is accumulated in float32 or better.
            Where there are labels or another layer, they are those in the picture, without a layer's margins.
        seeds: the N numbers of the pictures.
        labels: [N, L, H, W], bool or float in [0, 1], where the statistic needs a labeller.
        beside: keys [N, C', h', w'] of the other layer, where it needs one.
    """

    keys: Tensor
    seeds: tuple[int, ...]
    labels: Tensor | None = None
    beside: Tensor | None = None

    @classmethod
    def of(cls, keys: Tensor, first: int = 0, labels: Tensor | None = None) -> Batch:
        """Keys of the pictures `first`, `first` + 1, …."""
        return cls(keys, tuple(range(first, first + len(keys))), labels)


class Statistic(ABC):
    """What sweep and store know of a statistic. Subclasses are frozen dataclasses of parameters and tensors."""

    kind: ClassVar[str]
    """Its name on the command line, in files and in keys."""
    version: ClassVar[int]
    """Raised whenever the same samples would give another state; part of the cache key."""
    mapped: ClassVar[bool] = False
    """Whether its state is so large that a stored file is mapped into memory, and not read into it."""
    few: ClassVar[bool] = False
    """Whether it is for a few maps, and has no place among what is asked of all units of a layer."""

    def parameters(self) -> Mapping[str, Any]:
        """What its state depends on beside the samples (JSON values; part of the cache key)."""
        return {}

    def needs(self) -> Needs:
        """What it is to be shown beside its layer's keys."""
        return Needs()

    @abstractmethod
    def update(self, batch: Batch) -> Self:
        """Also having seen `batch`."""

    @abstractmethod
    def merge(self, other: Self) -> Self:
        """Having seen what both have seen, in this order; the empty statistic changes nothing."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Everything needed to go on, as named tensors; empty if nothing was seen."""

    @abstractmethod
    def restore(self, state: Mapping[str, Tensor]) -> Self:
        """The statistic of these parameters whose state is `state`, on the state's device.

        Raises:
            KeyError, ValueError: the state is not one of this statistic with these parameters.
        """

    @abstractmethod
    def summary(self) -> Mapping[str, Any]:
        """What a reader wants to know at a glance: a few numbers by name (JSON values, no NaN)."""
