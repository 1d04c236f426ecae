"""How well a heat finds a concept: average precision over positions, its curve, and an interval over pictures.

Every position of every picture is ranked by its heat. A threshold then finds some of them: its *precision* is the
share of those that lie in the concept, its *recall* the share of the concept's positions that it finds. *Average
precision* is the mean of precision over recall, as scikit-learn computes it: Σ (R_n − R_{n−1}) P_n over all
thresholds. A heat that knows nothing has the concept's share of the positions, a perfect one has 1; unlike the area
under the ROC curve it does not flatter a rare concept.

The interval resamples whole pictures (`dissect.bootstrap`), since positions of one picture are no independent samples.
Resamples read the curve at up to `LEVELS` thresholds only; the average over these differs from the exact one in the
third decimal, by which the interval is moved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dissect.bootstrap import LEVEL, RESAMPLES, shares
from rewrite_core.errors import RequestError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LEVELS", "Precision", "average_precision", "place_alone", "precision_of"]

LEVELS = 512
"""Thresholds at which curves are kept and resampled: half of them by ranks of the concept, half by ranks of all."""


@dataclass(frozen=True, eq=False)
class Precision:
    """What the ranking of all positions by a heat says of a concept.

    Attributes:
        average: average precision, 0 to 1.
        low, high: ends of its 95 % bootstrap interval over pictures.
        share: the concept's share of the positions: the average precision of chance.
        recall, precision: the curve at descending thresholds, [K] float64 each.
    """

    average: float
    low: float
    high: float
    share: float
    recall: NDArray[np.float64]
    precision: NDArray[np.float64]

    def curve(self) -> pd.DataFrame:
        """Columns recall and precision, recall ascending."""
        import pandas as pd

        return pd.DataFrame({"recall": self.recall, "precision": self.precision})


def precision_of(heat: Tensor, truth: Tensor) -> Precision:
    """How well `heat` [N, h, w] finds the positions of `truth` [N, h, w] bool.

    Raises:
        RequestError: the shapes differ, or the concept is nowhere.
    """
    average = average_precision(heat, truth)
    scores, positive = heat.flatten(1).double().numpy(), truth.flatten(1).numpy()  # [N, P] each
    hits, found = _counts(scores, positive)  # [N, K] each
    recall, precision = _curve(hits.sum(0)[None], found.sum(0)[None])
    low, high = _interval(hits, found, average)
    return Precision(average, low, high, float(positive.mean()), recall[0], precision[0])


def average_precision(heat: Tensor, truth: Tensor) -> float:
    """That of the ranking of all positions by `heat` [N, h, w], where `truth` [N, h, w] bool is to be found.

    Raises:
        RequestError: the shapes differ, or the concept is nowhere.
    """
    _check(heat, truth)
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(truth.flatten().numpy(), heat.flatten().numpy()))


def place_alone(truth: Tensor) -> Tensor:
    """The heat of somebody who knows where the concept mostly is and looks at no picture, [N, h, w] float64.

    Each position of a picture gets the share of the *other* pictures that have the concept there. In aligned pictures
    that finds a lot: what a direction finds beyond it, it has read off the picture.
    """
    others = max(len(truth) - 1, 1)
    seen = truth.double()
    return (seen.sum(0, keepdim=True) - seen) / others


def _check(heat: Tensor, truth: Tensor) -> None:
    if heat.shape != truth.shape or heat.ndim != 3:
        raise RequestError(
            found=f"heat of shape {list(heat.shape)} for a concept of shape {list(truth.shape)}",
            expected="a number and a yes or no for each position of each picture",
            remedy="Pool the labels to the grid of the layer's keys.",
        )
    if not bool(truth.any()):
        raise RequestError(
            found="a concept that covers half of no position in any picture",
            expected="some positions to be found",
            remedy="Take more pictures, a finer layer or another concept.",
        )


def _counts(
    scores: NDArray[np.float64], positive: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each picture, how many positions lie between two thresholds, and how many of them positive: [N, K] each.

    Hits first. Thresholds descend along K, and every score lies at or above the last.
    """
    ranks = np.linspace(0, 1, LEVELS // 2)
    some = [np.quantile(of, ranks, method="lower") for of in (scores[positive], scores)]
    thresholds = np.unique(np.concatenate(some))  # [K] ascending; the least is the least score
    level = len(thresholds) - np.searchsorted(thresholds, scores, side="right")  # [N, P]; 0 is the highest
    place = (level + len(thresholds) * np.arange(len(scores))[:, None]).ravel()  # [N·P]
    shape = len(scores), len(thresholds)
    hits, found = (
        np.bincount(place, weights, shape[0] * shape[1]).reshape(shape).astype(np.float64)
        for weights in (positive.ravel().astype(np.float64), None)
    )
    return hits, found


def _curve(
    hits: NDArray[np.float64], found: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Recall and precision [B, K] at each threshold, of counts [B, K] between thresholds."""
    hits, found = hits.cumsum(1), found.cumsum(1)
    tiny = np.finfo(np.float64).tiny  # a resample may have found nothing yet
    return hits / np.maximum(hits[:, -1:], tiny), hits / np.maximum(found, tiny)


def _interval(hits: NDArray[np.float64], found: NDArray[np.float64], average: float) -> tuple[float, float]:
    """Both ends around the exact `average`; resamples in which the concept is nowhere say nothing and are left out."""
    values = []
    for weights in shares(len(hits), RESAMPLES):  # [B, N]
        recall, precision = _curve(weights.numpy() @ hits, weights.numpy() @ found)
        values.append(_average(recall, precision)[recall[:, -1] > 0])
    whole = _average(*_curve(hits.sum(0)[None], found.sum(0)[None]))[0]
    low, high = np.quantile(np.concatenate(values), [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) + average - whole
    return float(max(low, 0.0)), float(min(high, 1.0))


def _average(recall: NDArray[np.float64], precision: NDArray[np.float64]) -> NDArray[np.float64]:
    """Σ (R_n − R_{n−1}) P_n, [B]."""
    average: NDArray[np.float64] = (np.diff(recall, axis=1, prepend=0) * precision).sum(1)
    return average
