"""The canonical way to count overlaps: bilinear map, threshold and count in one loop, on the CPU.

A cell is what lies between four neighbouring positions of the key map; where none of the four is above the unit's
lowest level, nothing of the cell is, and its pixels are never computed. A pixel that fires is counted at the highest
level that it passes; at the end every level takes in what was counted at those above it. Products and sums are float32,
never fused or reordered, so that `rewrite_core.statistics.overlaps`, which says what is counted, repeats every one of
them in torch to the bit.

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
    levels: NDArray[np.float32],
    rows: Samples,
    columns: Samples,
    offsets: NDArray[np.int64],
    items: NDArray[np.int32],
    overlaps: NDArray[np.int64],
    fired: NDArray[np.int64],
    first: int,
    end: int,
) -> None:
    """For units first … end of keys [N, C, h, w]: count above levels [C, T] into overlaps [C, T, L] and fired [C, T].

    Both hold 0 before. `reach` is kept only where there is more than one level.
    """
    samples, _, height, width = keys.shape
    pixels, highest = len(rows[1]) * len(columns[1]), levels.shape[1] - 1
    found, reach = np.empty(pixels, np.int64), np.empty(pixels if highest else 0, np.float32)
    hot = np.zeros(height + 1, np.bool_)  # the last row has none below it
    for picture in range(samples):
        lists = offsets[picture * pixels : (picture + 1) * pixels + 1]
        for unit in range(first, end):
            plane, steps, lowest, count = keys[picture, unit], levels[unit], levels[unit, 0], 0
            for y in range(height):
                some = False
                for x in range(width):
                    some |= plane[y, x] > lowest
                hot[y] = some
            for y in range(height):
                if hot[y] or hot[y + 1]:
                    count = _band(plane, lowest, y, rows, columns, found, reach, count)
            for at in range(count):
                level = 0
                for higher in range(1, len(steps)):
                    level += reach[at] > steps[higher]
                fired[unit, level] += 1
                for item in range(lists[found[at]], lists[found[at] + 1]):
                    overlaps[unit, level, items[item]] += 1
    for unit in range(first, end):
        for level in range(highest, 0, -1):
            overlaps[unit, level - 1] += overlaps[unit, level]
            fired[unit, level - 1] += fired[unit, level]


@njit(nogil=True, cache=True)
def _band(
    plane: NDArray[np.float32],
    lowest: np.float32,
    y: int,
    rows: Samples,
    columns: Samples,
    found: NDArray[np.int64],
    reach: NDArray[np.float32],
    count: int,
) -> int:
    """Write the pixels between row y and the next that fire to `found`, from `count` on; the count after them.

    If `reach` has room, theirs goes there: the least of the sample and of what it was sampled between, so that a pixel
    fires at exactly the levels below it. `fmax` passes over what is NaN, `minimum` keeps it: NaN is above nothing.
    """
    height, width = plane.shape
    lines, row_near, row_far = rows
    starts, near, far = columns
    several = len(reach) > 0
    below, top, bottom = min(y + 1, height - 1), lines[y], lines[y + 1]
    for x in range(width):
        right = min(x + 1, width - 1)
        a, b, c, d = plane[y, x], plane[y, right], plane[below, x], plane[below, right]
        above, under = np.fmax(a, b), np.fmax(c, d)
        if not ((above > lowest) | (under > lowest)):
            continue
        for j in range(starts[x], starts[x + 1]):
            upper = a * near[j] + b * far[j]
            lower = c * near[j] + d * far[j]
            if not (((above > lowest) & (upper > lowest)) | ((under > lowest) & (lower > lowest))):
                continue
            most = np.fmax(np.minimum(above, upper), np.minimum(under, lower))
            for i in range(top, bottom):
                value = upper * row_near[i] + lower * row_far[i]
                found[count] = i * len(near) + j  # overwritten if it does not fire: cheaper than a branch
                if several:
                    reach[count] = np.minimum(most, value)
                count += value > lowest
    return count
