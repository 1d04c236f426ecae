"""How well concepts are read on pictures that nothing was learned from.

The strokes of a picture are labelled by a classifier that learned from the other pictures, and counted: pixels of each
concept that got each label. Neighbouring pixels are alike, so pixels of one picture are never divided between learning
and judging. A concept that is painted on one picture only cannot be judged: a classifier that learned from the others
does not know it, so its pixels are left out, and it is named.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Evaluation"]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Counts of held-out painted pixels.

    Attributes:
        concepts: the names of the L concepts.
        pictures: how many pictures were held out, each in its turn; 0: nothing was.
        confusion: [L, L] int64, painted as the row's concept and labelled as the column's.
    """

    concepts: tuple[str, ...]
    pictures: int
    confusion: NDArray[np.int64]

    @property
    def judged(self) -> tuple[str, ...]:
        """The concepts that had held-out pixels."""
        return tuple(np.array(self.concepts)[self._painted > 0].tolist())

    @property
    def not_judged(self) -> tuple[str, ...]:
        """The concepts that had none, and so are missing in the table."""
        return tuple(np.array(self.concepts)[self._painted == 0].tolist())

    @property
    def pixels(self) -> int:
        """How many pixels were judged."""
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float | None:
        """Share of the judged pixels that got the concept they are painted as; None if there are none."""
        return float(np.trace(self.confusion) / self.pixels) if self.pixels else None

    @property
    def mean_iou(self) -> float | None:
        """The mean IoU of the judged concepts; None if there are none."""
        return float(_share(self._right, self._union)[self._painted > 0].mean()) if self.pixels else None

    @property
    def sentence(self) -> str:
        """What it says, in words fit for a page."""
        if not self.pixels:
            return (
                "Nothing was held out, so nothing is known of how well this works. Paint on a second picture."
            )
        assert self.accuracy is not None
        assert self.mean_iou is not None
        lacking = (
            f" Painted on too few pictures to be judged: {', '.join(self.not_judged)}."
            if self.not_judged
            else ""
        )
        return (
            f"Of {self.pixels:,} painted pixels on {self.pictures} pictures, each held out in its turn, "
            f"{self.accuracy:.0%} were labelled as painted; mean IoU {self.mean_iou:.2f}.{lacking}"
        )

    def table(self) -> pd.DataFrame:
        """One row for each judged concept: its held-out pixels, IoU, precision and recall, all from 0 to 1."""
        import pandas as pd

        columns = {
            "concept": self.concepts,
            "pixels": self._painted,
            "iou": _share(self._right, self._union),
            "precision": _share(self._right, self.confusion.sum(0)),
            "recall": _share(self._right, self._painted),
        }
        return pd.DataFrame(columns)[self._painted > 0].reset_index(drop=True)

    @property
    def _right(self) -> NDArray[np.int64]:
        right: NDArray[np.int64] = self.confusion.diagonal()
        return right

    @property
    def _painted(self) -> NDArray[np.int64]:
        painted: NDArray[np.int64] = self.confusion.sum(1)
        return painted

    @property
    def _union(self) -> NDArray[np.int64]:
        union: NDArray[np.int64] = self._painted + self.confusion.sum(0) - self._right
        return union


def _share(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    """The share of `part` in `whole`, and 0 where there is nothing."""
    return part / np.maximum(whole, 1)
