"""How far a network agrees with its teacher on samples that it did not learn from."""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, model_validator
from torch import Tensor

from rewrite_core.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

__all__ = ["HeldOut"]

Count = Annotated[int, Field(ge=0)]


class HeldOut(Settings):
    """Counts of pixels in held-out samples; those of two sets of samples add up.

    Attributes:
        names: of the L concepts.
        samples: how many were held out.
        pixels: in all of them.
        right: pixels in which the two agree on every concept.
        both: pixels that both give each concept, [L].
        teacher: those that the teacher gives it, [L].
        network: those that the network gives it, [L].
    """

    names: tuple[str, ...]
    samples: Count
    pixels: Count
    right: Count
    both: tuple[Count, ...]
    teacher: tuple[Count, ...]
    network: tuple[Count, ...]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        areas = (self.both, self.teacher, self.network)
        if any(len(area) != len(self.names) for area in areas):
            raise ValueError(f"{len(self.names)} counts of pixels, one for each concept")
        inside = all(map(int.__le__, self.both, map(min, self.teacher, self.network)))
        if not inside or max((self.right, *self.teacher, *self.network), default=0) > self.pixels:
            raise ValueError("counts of pixels that fit together")
        return self

    @classmethod
    def of(cls, names: tuple[str, ...], teacher: Tensor, network: Tensor) -> Self:
        """Of bool labels [N, L, h, w] by both, on the same grid."""

        def areas(masks: Tensor) -> tuple[int, ...]:
            return tuple(masks.sum((0, 2, 3)).tolist())

        agree = (teacher == network).all(1)  # [N, h, w]
        return cls(
            names=names,
            samples=len(agree),
            pixels=agree.numel(),
            right=int(agree.sum()),
            both=areas(teacher & network),
            teacher=areas(teacher),
            network=areas(network),
        )

    @classmethod
    def nothing(cls, names: tuple[str, ...]) -> Self:
        """Of no sample yet."""
        none = (0,) * len(names)
        return cls(names=names, samples=0, pixels=0, right=0, both=none, teacher=none, network=none)

    @classmethod
    def total(cls, parts: Iterable[Self]) -> Self:
        """Of all samples of `parts`, at least one, together."""
        return reduce(cls._merged, parts)

    @property
    def accuracy(self) -> float:
        """Share of the pixels in which the two agree on every concept."""
        return self.right / max(self.pixels, 1)

    @property
    def iou(self) -> dict[str, float]:
        """The IoU of each concept that either of the two sees anywhere."""
        areas = zip(self.names, self.both, self.teacher, self.network, strict=True)
        return {name: both / (one + other - both) for name, both, one, other in areas if one + other > 0}

    @property
    def mean_iou(self) -> float:
        """The mean of `iou`; 0 if there is none."""
        return sum(self.iou.values()) / max(len(self.iou), 1)

    @property
    def sentence(self) -> str:
        """What it says, in words fit for a page."""
        weak = [name for name, value in self.iou.items() if value < 0.5]
        told = f" Take care with {', '.join(weak)}: IoU below 0.5." if weak else ""
        return (
            f"On {self.samples:,} samples that it did not learn from, the network agrees with its teacher in "
            f"{self.accuracy:.0%} of the pixels; mean IoU {self.mean_iou:.2f}.{told}"
        )

    def table(self) -> pd.DataFrame:
        """A row for each concept: its IoU, and the share of pixels that the teacher and the network give it.

        The IoU is 0 where neither of the two ever sees the concept, as the shares then are.
        """
        import pandas as pd

        pixels = max(self.pixels, 1)
        return pd.DataFrame(
            {
                "concept": self.names,
                "IoU": [self.iou.get(name, 0.0) for name in self.names],
                "share of pixels, teacher": [area / pixels for area in self.teacher],
                "share of pixels, network": [area / pixels for area in self.network],
            }
        )

    def _merged(self, other: Self) -> Self:
        counts = ("samples", "pixels", "right")
        areas = ("both", "teacher", "network")
        added = {name: getattr(self, name) + getattr(other, name) for name in counts}
        added |= {name: tuple(map(add, getattr(self, name), getattr(other, name))) for name in areas}
        return self.model_copy(update=added)
