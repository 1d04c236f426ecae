"""The published accumulators in their direct form, to measure ours against.

Written from their descriptions: a KLL-style sketch (Karnin, Lang and Liberty 2016) of resolution 8,192 for quantiles,
a buffer of the k best for top pictures, and a loop over the labels of each picture for units × concepts (Bau et al.,
*Network Dissection*, 2017, and *GAN Dissection*, 2019).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["LabelLoop", "Sketch", "TopBuffer"]


class Sketch:
    """Quantiles of C units from a stream of rows [n, C]: full buffers are sorted, and every other value moves up."""

    def __init__(self, resolution: int = 8192, seed: int = 0) -> None:
        self.resolution = resolution
        self._draw = torch.Generator().manual_seed(seed)
        self._levels: list[Tensor] = []  # each [C, resolution]; a value of level l stands for 2^l
        self._filled: list[int] = []

    def add(self, rows: Tensor) -> None:
        """Take rows [n, C]."""
        columns = rows.T  # [C, n]
        start = 0
        while start < columns.shape[1]:
            start += self._put(0, columns[:, start:])

    def quantile(self, wanted: list[float]) -> Tensor:
        """[C, Q]: the value at which the weighted share passes each of `wanted`."""
        kept = [level[:, :filled] for level, filled in zip(self._levels, self._filled, strict=True)]
        weights = [torch.full((part.shape[1],), 2.0**level) for level, part in enumerate(kept)]
        values, order = torch.cat(kept, 1).sort(1)  # [C, n]
        share = torch.cat(weights)[order].double().cumsum(1)  # [C, n]
        places = torch.tensor(wanted, dtype=torch.float64) * share[:, -1:]  # [C, Q]
        return values.gather(1, torch.searchsorted(share, places).clamp(max=values.shape[1] - 1))

    def _put(self, level: int, columns: Tensor) -> int:
        """Copy what fits into a level, which is halved into the next when it is full; how many fitted."""
        if level == len(self._levels):
            self._levels.append(columns.new_empty(len(columns), self.resolution))
            self._filled.append(0)
        at = self._filled[level]
        count = min(self.resolution - at, columns.shape[1])
        self._levels[level][:, at : at + count] = columns[:, :count]
        self._filled[level] += count
        if self._filled[level] == self.resolution:
            ordered = self._levels[level].sort(1).values  # [C, r]
            odd = int(torch.randint(2, (), generator=self._draw))
            self._filled[level] = 0
            half, start = ordered[:, odd::2], 0
            while start < half.shape[1]:
                start += self._put(level + 1, half[:, start:])
        return count


class TopBuffer:
    """The k pictures in which each unit fires most: after every batch, the best k of the buffer and the batch."""

    def __init__(self, k: int) -> None:
        self.k = k
        self.values: Tensor | None = None  # [C, ≤ k]
        self.pictures: Tensor | None = None  # [C, ≤ k]

    def add(self, keys: Tensor, first: int) -> None:
        """Take keys [N, C, h, w] of the pictures from `first` on."""
        best = keys.flatten(2).max(2).values.T  # [C, N]
        numbers = torch.arange(first, first + best.shape[1]).expand(best.shape)  # [C, N]
        if self.values is not None and self.pictures is not None:
            best, numbers = torch.cat([self.values, best], 1), torch.cat([self.pictures, numbers], 1)
        self.values, chosen = best.topk(min(self.k, best.shape[1]), 1)
        self.pictures = numbers.gather(1, chosen)


class LabelLoop:
    """Units × labels: every map is upsampled to the labels' grid, then each label of each picture is counted."""

    def __init__(self, thresholds: Tensor, labels: int) -> None:
        self.thresholds = thresholds
        self.intersection = torch.zeros(len(thresholds), labels, dtype=torch.int64)
        self.unit_area = torch.zeros(len(thresholds), dtype=torch.int64)
        self.label_area = torch.zeros(labels, dtype=torch.int64)

    def add(self, keys: Tensor, segmentation: Tensor) -> None:
        """Take keys [N, C, h, w] and segmentation [N, S, H, W], label numbers from 1 in S channels, 0 for none."""
        size = tuple(segmentation.shape[2:])
        for maps, channels in zip(keys, segmentation, strict=True):
            upsampled = functional.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0]
            above = upsampled > self.thresholds[:, None, None]  # [C, H, W]
            self.unit_area += above.sum((1, 2))
            for label in channels.unique().tolist():
                if label:
                    mask = (channels == label).any(0)  # [H, W]
                    self.intersection[:, label - 1] += (above & mask).sum((1, 2))
                    self.label_area[label - 1] += mask.sum()
