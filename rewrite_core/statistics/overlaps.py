"""Count the pixels in which units fire and labels are: bilinear map, thresholds and count.

A unit fires in a pixel if its map, sampled there, is above its threshold. Maps are sampled along rows, then along
columns, as ``near · a + far · b`` in float32, each operation rounded; and what is sampled between two numbers is above
a threshold only if one of the two is, which rounding alone could break: a constant map equal to its threshold fires
nowhere.

So each pixel has a *reach*: the least of its sample and of what it was sampled between. It fires at exactly the
thresholds below its reach, and one pass over the pixels counts at several thresholds of a unit, its *levels*, what a
pass for each would. NaN is above nothing.

That fixes every count. On the CPU the compiled kernel counts; without numba, and on a GPU, torch gives the same
counts, more slowly on a CPU, and without ever waiting for a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rewrite_core.errors import RequestError
from rewrite_core.statistics.kernels import kernel, spread

__all__ = [
    "MOST_LEVELS",
    "Axis",
    "Counts",
    "axis",
    "check_levels",
    "count_overlaps",
    "counted_by_kernel",
    "counted_by_torch",
]

NUMBERS = 1 << 22
"""Numbers in the sampled maps that torch works on at once."""
MOST_LEVELS = 64
"""Levels of a unit, at most."""

Counts = tuple[Tensor, Tensor, Tensor]
"""Pixels of unit and label at each level [C, T, L], of each unit [C, T], and of each label [L]; int64."""


def check_levels(thresholds: Tensor) -> None:
    """Refuse what is not one threshold for each unit, [C], or some that ascend, [C, T].

    Raises:
        RequestError: if they are not.
    """
    if thresholds.ndim not in (1, 2) or not bool(thresholds.isfinite().all()):
        raise RequestError(
            found=f"thresholds of shape {list(thresholds.shape)}, or not finite",
            expected="one number for each unit, or several",
            remedy="Take quantiles of every unit.",
        )
    if thresholds.ndim == 1:
        return
    if not 1 <= thresholds.shape[1] <= MOST_LEVELS:
        raise RequestError(
            found=f"{thresholds.shape[1]} levels of each unit",
            expected=f"1 to {MOST_LEVELS}",
            remedy="A dozen quantiles are enough to choose from.",
        )
    if falling := (thresholds.diff(dim=1) < 0).any(1).nonzero().flatten().tolist():
        raise RequestError(
            found=f"levels of unit {falling[0]} that descend",
            expected="levels in ascending order",
            remedy="Sort the quantiles.",
        )


def count_overlaps(keys: Tensor, levels: Tensor, labels: Tensor, align_corners: bool) -> Counts:
    """The counts of keys [N, C, h, w] above their levels [C, T], all float32, and labels [N, L, H, W], bool.

    Levels ascend, not necessarily strictly, and there is at least one.
    """
    rows = axis(keys.shape[2], labels.shape[2], align_corners)
    columns = axis(keys.shape[3], labels.shape[3], align_corners)
    compiled = keys.device.type == "cpu" and kernel("intersection") is not None
    return (counted_by_kernel if compiled else counted_by_torch)(keys, levels, labels, rows, columns)


class Axis(NamedTuple):
    """How pixels lie along the positions of a map: pixel i is ``near[i] · map[low[i]] + far[i] · map[low[i] + 1]``.

    Attributes:
        low: the position at or before each pixel, [size] int64; the one after the last is the last.
        near: weight of that position, [size] float32.
        far: weight of the next, [size] float32.
        starts: first pixel whose `low` is at least p, for p = 0 … positions, int64.
    """

    low: NDArray[np.int64]
    near: NDArray[np.float32]
    far: NDArray[np.float32]
    starts: NDArray[np.int64]


@lru_cache(maxsize=64)
def axis(positions: int, size: int, align_corners: bool) -> Axis:
    """The axis in which `size` pixels sample `positions`."""
    at = np.arange(size, dtype=np.float64)
    if align_corners:
        at = at * (positions - 1) / max(1, size - 1)
    else:
        at = np.clip((at + 0.5) * positions / size - 0.5, 0, None)
    low = np.minimum(at.astype(np.int64), positions - 1)
    far = (at - low).astype(np.float32)
    return Axis(low, np.float32(1) - far, far, np.searchsorted(low, np.arange(positions + 1)))


def counted_by_kernel(keys: Tensor, levels: Tensor, labels: Tensor, rows: Axis, columns: Axis) -> Counts:
    """The counts by the compiled kernel."""
    compiled = kernel("intersection")
    assert compiled is not None
    maps = labels.contiguous().flatten(2).view(torch.uint8).numpy()  # [N, L, P]
    samples, named, pixels = maps.shape
    lengths = np.zeros((samples, pixels), np.int64)
    areas = np.zeros((samples, named), np.int64)
    spread(lambda first, end: compiled.count_labels(maps, lengths, areas, first, end), samples)
    offsets = np.zeros(lengths.size + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    items = np.empty(offsets[-1], np.int32)
    spread(lambda first, end: compiled.list_labels(maps, offsets, items, first, end), samples)
    whole, above = keys.contiguous().numpy(), levels.contiguous().numpy()
    shared, fired = np.zeros((*above.shape, named), np.int64), np.zeros(above.shape, np.int64)
    down, across = ((along.starts, along.near, along.far) for along in (rows, columns))

    def work(first: int, end: int) -> None:
        compiled.count_overlaps(whole, above, down, across, offsets, items, shared, fired, first, end)

    spread(work, len(above))
    return torch.from_numpy(shared), torch.from_numpy(fired), torch.from_numpy(areas.sum(0))


def counted_by_torch(keys: Tensor, levels: Tensor, labels: Tensor, rows: Axis, columns: Axis) -> Counts:
    """The same counts by torch, on any device."""
    units, pixels = keys.shape[1], labels[0, 0].numel()
    exact = torch.float32 if pixels <= 1 << 24 else torch.float64  # holds every count of one picture
    at_once = max(1, NUMBERS // (pixels * levels.shape[1]))
    steps = [_step(columns, keys, 2), _step(rows, keys, 1)]
    level = levels.to(keys.device, non_blocking=True)[..., None]  # [C, T, 1]
    fired = torch.zeros(levels.shape, dtype=torch.int64, device=keys.device)
    shared = torch.zeros((*levels.shape, labels.shape[1]), dtype=torch.int64, device=keys.device)
    for maps, masks in zip(keys, labels.flatten(2), strict=True):  # [C, h, w], [L, P]
        where = masks.T.to(exact)
        for some in (slice(first, first + at_once) for first in range(0, units, at_once)):
            fires = _reach(maps[some], steps).flatten(1)[:, None] > level[some]  # [c, T, P]
            shared[some] += (fires.to(exact) @ where).long()  # [c, T, L]
            fired[some] += fires.sum(2)
    return shared, fired, labels.sum((0, 2, 3))


class _Step(NamedTuple):
    """An axis on the device: the two positions of each pixel along `dim`, and their weights."""

    dim: int
    low: Tensor
    high: Tensor
    near: Tensor
    far: Tensor


def _step(along: Axis, keys: Tensor, dim: int) -> _Step:
    """The axis for dimension `dim` of the maps [C, h, w] in `keys`."""
    low, near, far = (torch.from_numpy(array).to(keys.device, non_blocking=True) for array in along[:3])
    shape = (-1, 1) if dim == 1 else (-1,)
    high = (low + 1).clamp(max=keys.shape[dim + 1] - 1)
    return _Step(dim, low, high, near.reshape(shape), far.reshape(shape))


def _reach(maps: Tensor, steps: Sequence[_Step]) -> Tensor:
    """The reach of each pixel of maps [c, h, w], sampled along `steps`: [c, H, W]; NaN where it is above nothing."""
    reach = maps
    for dim, low, high, near, far in steps:
        first, second = maps.index_select(dim, low) * near, maps.index_select(dim, high) * far
        maps = first + second  # each operation is rounded, as in the kernel
        between = torch.fmax(reach.index_select(dim, low), reach.index_select(dim, high))  # passes over NaN
        reach = torch.minimum(between, maps)  # keeps it
    return reach
