"""Strokes on one picture, as a map of concept numbers: a pixel has one concept, or is not painted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rewrite_core.errors import MaskError
from rewrite_core.pictures import Mask

__all__ = ["UNKNOWN", "Strokes", "inside", "read_mask"]

UNKNOWN = -1
"""In place of a concept's number where nothing is painted."""
_OPAQUE = 128


def inside(mask: Mask) -> NDArray[np.bool_]:
    """Where a mask is at least half opaque: what counts as painted, [H, W]."""
    return mask.pixels >= _OPAQUE


def read_mask(url: str, where: str) -> Mask:
    """The mask in a PNG data URL; `where` names its place in the error.

    Raises:
        MaskError: as `Mask.from_data_url` has it.
    """
    try:
        return Mask.from_data_url(url)
    except MaskError as problem:
        found = f"{where}: {problem.found}"
        raise MaskError(found=found, expected=problem.expected, remedy=problem.remedy) from None


@dataclass(frozen=True, eq=False, repr=False)
class Strokes:
    """What is painted on the picture of one seed, immutable: int16 `labels` [H, W], concept numbers or `UNKNOWN`."""

    seed: int
    labels: NDArray[np.int16]

    def __post_init__(self) -> None:
        given = self.labels.astype(np.int16)
        object.__setattr__(
            self, "labels", np.frombuffer(given.tobytes(), dtype=np.int16).reshape(given.shape)
        )

    @property
    def empty(self) -> bool:
        """Whether nothing is painted."""
        return bool((self.labels == UNKNOWN).all())

    def mask(self, number: int) -> Mask:
        """Where concept `number` is painted."""
        return Mask.from_array(self.labels == number)

    def painted(self, where: NDArray[np.bool_], number: int) -> Strokes:
        """The same with concept `number`, or `UNKNOWN`, in the pixels `where` [H, W]."""
        return Strokes(self.seed, np.where(where, np.int16(number), self.labels))

    def without(self, number: int) -> Strokes:
        """The same without concept `number`; those after it move up."""
        labels = np.where(self.labels == number, UNKNOWN, self.labels - (self.labels > number))
        return Strokes(self.seed, labels)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Strokes):
            return NotImplemented
        return self.seed == other.seed and np.array_equal(self.labels, other.labels)

    def __hash__(self) -> int:
        return hash((self.seed, self.labels.tobytes()))

    def __repr__(self) -> str:
        return f"Strokes(seed {self.seed}, {np.count_nonzero(self.labels != UNKNOWN)} pixels painted)"
