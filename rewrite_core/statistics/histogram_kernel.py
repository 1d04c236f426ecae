"""The compiled loop that counts the bins of `rewrite_core.statistics.bins`, unit by unit.

A unit's positions lie in N runs of h·w floats. They go through in pieces: one loop turns a piece into bins (the
compiler makes vector instructions of it), the next adds to a row of counts that stays in the first-level cache. Equal
values in succession would wait for each other's addition; so the zeros of a ReLU take turns over `LANES` counters.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["count"]

PIECE = 1024
"""Values that are turned into bins before they are counted."""
LANES = 8
"""Counters among which the zeros of a unit are spread; a power of 2."""

_MAGNITUDE = np.int32(0x7FFFFFFF)
_ZERO, _ONE, _SIGN, _TURN = np.int32(0), np.int32(1), np.int32(31), np.int32(LANES - 1)


@numba.njit(nogil=True, cache=True)
def count(
    bits: npt.NDArray[np.int32],
    mantissa_bits: int,
    first_unit: int,
    end_unit: int,
    first_bin: int,
    counts: npt.NDArray[np.int32],
) -> None:
    """Count the values of units `first_unit` … `end_unit` - 1 into `counts` [C, n], of the bins from `first_bin` on.

    `bits` [N, C, h·w] are float32 values seen as int32.
    """
    pictures, _, positions = bits.shape
    shift = np.int32(23 - mantissa_bits)
    below = np.int32(((127 - 16) << mantissa_bits) - 1)
    middle = np.int32(32 << mantissa_bits)
    lanes = middle + middle + _ONE  # the first of the zeros' counters, behind the bins
    bins = np.empty(PIECE, np.int32)
    row = np.zeros(lanes + LANES, np.int32)
    for unit in range(first_unit, end_unit):
        for picture in range(pictures):
            for start in range(0, positions, PIECE):
                piece = bits[picture, unit, start : start + PIECE]
                for at in range(len(piece)):
                    magnitude = piece[at] & _MAGNITUDE
                    sign = piece[at] >> _SIGN  # 0 or -1
                    step = min(max((magnitude >> shift) - below, _ONE), middle)
                    place = middle + ((step ^ sign) - sign)
                    bins[at] = place if magnitude != _ZERO else lanes + (np.int32(at) & _TURN)
                for at in range(len(piece)):
                    row[np.uint32(bins[at])] += _ONE
        row[middle] = row[lanes:].sum()
        used = row[first_bin : first_bin + counts.shape[1]]  # all bins that the values of the layer span
        counts[unit] = used
        used[:] = 0
        row[lanes:] = 0
