"""The canonical way to count overlaps: bilinear map, threshold and count in one loop, on the CPU.

A cell is what lies between four neighbouring positions of the key map; where none of the four is above the threshold,
nothing of the cell is, and its pixels are never computed. Products and sums are float32, never fused or reordered, so
that `rewrite_core.statistics.overlaps`, which says what is counted, repeats every one of them in torch to the bit.

Labels come as one byte a pixel. They are turned into lists: those of pixel p of picture n are
``items[offsets[n·P + p] : offsets[n·P + p + 1]]``, and only the lists of pixels that fire are ever read.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["count_labels", "count_overlaps", "list_labels"]

Samples = tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]
"""`starts`, `near` and `far` of an `overlaps.Axis`; a plain tuple, as numba's cache must not name our classes."""

RUN = 64
"""Pixels that are skipped at once where they carry no label."""


@njit(nogil=True, cache=True)
def count_labels(
    labels: NDArray[np.uint8], lengths: NDArray[np.int64], areas: NDArray[np.int64], first: int, end: int
) -> None:
    """For pictures first … end of labels [N, L, P]: labels a pixel → lengths [N, P], pixels a label → areas [N, L]."""
    for picture in range(first, end):
        length = lengths[picture]
        for label in range(labels.shape[1]):
            plane, area = labels[picture, label], 0
            for pixel in range(len(plane)):
                length[pixel] += plane[pixel]
                area += plane[pixel]
            areas[picture, label] = area


@njit(nogil=True, cache=True)
def list_labels(
    labels: NDArray[np.uint8], offsets: NDArray[np.int64], items: NDArray[np.int32], first: int, end: int
) -> None:
    """For pictures first … end: write every pixel's labels to `items`, from its place in `offsets` on."""
    pixels = labels.shape[2]
    for picture in range(first, end):
        free = offsets[picture * pixels : (picture + 1) * pixels].copy()
        for label in range(labels.shape[1]):
            plane = labels[picture, label]
            for start in range(0, pixels, RUN):
                run, some = plane[start : start + RUN], 0
                for pixel in range(len(run)):
                    some |= run[pixel]
                if some == 0:
                    continue
                for pixel in range(start, start + len(run)):
                    if plane[pixel]:
                        items[free[pixel]] = label
                        free[pixel] += 1


@njit(nogil=True, cache=True)
def count_overlaps(
    keys: NDArray[np.float32],
    thresholds: NDArray[np.float32],
    rows: Samples,
    columns: Samples,
    offsets: NDArray[np.int64],
    items: NDArray[np.int32],
    overlaps: NDArray[np.int64],
    fired: NDArray[np.int64],
    first: int,
    end: int,
) -> None:
    """For units first … end of keys [N, C, h, w]: add to overlaps [C, L] and to the pixels that fire, fired [C]."""
    samples, _, height, width = keys.shape
    pixels = len(rows[1]) * len(columns[1])
    found = np.empty(pixels, np.int64)
    hot = np.zeros(height + 1, np.bool_)  # the last row has none below it
    for picture in range(samples):
        lists = offsets[picture * pixels : (picture + 1) * pixels + 1]
        for unit in range(first, end):
            plane, threshold, count = keys[picture, unit], thresholds[unit], 0
            for y in range(height):
                some = False
                for x in range(width):
                    some |= plane[y, x] > threshold
                hot[y] = some
            for y in range(height):
                if hot[y] or hot[y + 1]:
                    count = _band(plane, threshold, y, rows, columns, found, count)
            fired[unit] += count
            for at in range(count):
                for item in range(lists[found[at]], lists[found[at] + 1]):
                    overlaps[unit, items[item]] += 1


@njit(nogil=True, cache=True)
def _band(
    plane: NDArray[np.float32],
    threshold: np.float32,
    y: int,
    rows: Samples,
    columns: Samples,
    found: NDArray[np.int64],
    count: int,
) -> int:
    """Write the pixels between row y and the next that fire to `found`, from `count` on; the count after them."""
    height, width = plane.shape
    lines, row_near, row_far = rows
    starts, near, far = columns
    below, top, bottom = min(y + 1, height - 1), lines[y], lines[y + 1]
    for x in range(width):
        right = min(x + 1, width - 1)
        a, b, c, d = plane[y, x], plane[y, right], plane[below, x], plane[below, right]
        above, under = (a > threshold) | (b > threshold), (c > threshold) | (d > threshold)
        if not (above | under):
            continue
        for j in range(starts[x], starts[x + 1]):
            upper = a * near[j] + b * far[j]
            lower = c * near[j] + d * far[j]
            if not ((above & (upper > threshold)) | (under & (lower > threshold))):
                continue
            for i in range(top, bottom):
                found[count] = i * len(near) + j  # overwritten if it does not fire: cheaper than a branch
                count += upper * row_near[i] + lower * row_far[i] > threshold
    return count
