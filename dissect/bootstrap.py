"""Intervals of means over pictures: the percentile bootstrap (Efron 1979), vectorised, the same on every run.

Pictures are resampled whole, with replacement, and the same resample serves every column: differences of columns are
thereby paired. From few pictures, or where a concept is in hardly any, such an interval is too narrow.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

__all__ = ["LEVEL", "RESAMPLES", "interval", "shares"]

RESAMPLES, LEVEL = 2000, 0.95
_NUMBERS = 1 << 22
"""Of a table of resamples by pictures or columns, at a time: 32 MiB, however many pictures there are."""


def interval(
    values: Tensor, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Lower and upper end, two float64 [K], of an interval around the mean of each column of `values` [N, K].

    With a single picture there is nothing to resample: both ends are its value.
    """
    count, columns = values.shape
    if count < 2 or not columns:
        mean = values.double().sum(0)
        return mean, mean.clone()
    at_once = max(1, _NUMBERS // resamples)
    ends = []
    for some in values.double().split(at_once, 1):
        means = torch.cat([weights @ some for weights in shares(count, resamples, seed)])  # [B, k]
        tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
        ends.append(torch.quantile(means.T.contiguous(), tails, dim=1))  # [2, k]
    low, high = torch.cat(ends, 1)
    return low, high


def shares(count: int, resamples: int = RESAMPLES, seed: int = 0) -> Iterator[Tensor]:
    """What share of each resample each of `count` pictures is, [B, N] float64: some resamples after the others.

    For what is no mean over pictures, and has to be computed of each resample.
    """
    random = np.random.RandomState(seed)  # a stream that numpy keeps for ever
    at_once = max(1, _NUMBERS // count)
    for first in range(0, resamples, at_once):
        rows = min(at_once, resamples - first)
        drawn = random.randint(count, size=(rows, count)) + count * np.arange(rows)[:, None]
        yield torch.from_numpy(np.bincount(drawn.ravel(), minlength=drawn.size) / count).reshape(drawn.shape)
