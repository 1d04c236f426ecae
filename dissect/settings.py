"""How a dissection is asked for: at which quantile units are thresholded, and what counts as detecting."""

from __future__ import annotations

from dataclasses import dataclass

from rewrite_core.errors import RequestError
from rewrite_core.statistics.intersection import DETECTED

__all__ = ["CUSTOMARY", "Settings"]


@dataclass(frozen=True)
class Settings:
    """What the numbers of a dissection depend on, beside generator, samples and concepts.

    Attributes:
        quantile: the share of a unit's positions that lie below its set threshold.
        level: a detector's IoU is above this; 0.04 in the published reports.
        grid: height and width of the masks that are compared; the concepts' own if not given.
    """

    quantile: float = 0.99
    level: float = DETECTED
    grid: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.quantile < 1:
            raise RequestError(
                found=f"quantile {self.quantile}",
                expected="more than 0, less than 1",
                remedy="0.99 is customary.",
            )
        if not 0 <= self.level < 1:
            raise RequestError(
                found=f"an IoU level of {self.level}",
                expected="from 0 to below 1",
                remedy="0.04 is customary.",
            )
        if self.grid is not None and (len(self.grid) != 2 or min(self.grid) < 1):
            raise RequestError(
                found=f"a grid of {' × '.join(map(str, self.grid))}",
                expected="a height and a width of at least 1",
                remedy="64 × 64 is customary; without one, the concepts' own grid is taken.",
            )


CUSTOMARY = Settings()
"""Quantile 0.99, IoU above 0.04, on the concepts' own grid."""
