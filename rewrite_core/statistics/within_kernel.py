"""The compiled loops that keep the values of wanted bins, for `rewrite_core.statistics.exact`."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["collect", "join", "tally"]

Integers = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

_MAGNITUDE, _ZERO, _ONE, _SIGN = np.int32(0x7FFFFFFF), np.int32(0), np.int32(1), np.int32(31)


@numba.njit(nogil=True, cache=True, inline="always")
def _bin(bits: np.int32, mantissa_bits: int) -> np.uint32:
    """The bin of one value, as in `rewrite_core.statistics.bins`."""
    magnitude = bits & _MAGNITUDE
    middle = np.int32(32 << mantissa_bits)
    below = np.int32(((127 - 16) << mantissa_bits) - 1)
    step = min(max((magnitude >> np.int32(23 - mantissa_bits)) - below, _ONE), middle)
    step = step if magnitude != _ZERO else _ZERO
    sign = bits >> _SIGN  # 0 or -1
    return np.uint32(middle + ((step ^ sign) - sign))


@numba.njit(nogil=True, cache=True)
def tally(
    bits: Integers, mantissa_bits: int, first_unit: int, end_unit: int, table: Bytes, numbers: Longs
) -> None:
    """How many values of `bits` [N, C, h·w] lie in bins that `table` [C, bins] marks, into `numbers` [C]."""
    for unit in range(first_unit, end_unit):
        wanted = table[unit]
        for picture in range(len(bits)):
            for value in bits[picture, unit]:
                numbers[unit] += wanted[_bin(value, mantissa_bits)]


@numba.njit(nogil=True, cache=True)
def collect(
    bits: Integers,
    mantissa_bits: int,
    first_unit: int,
    end_unit: int,
    table: Bytes,
    starts: Longs,
    into: Integers,
) -> None:
    """Write those values' ordered bits into `into` [K], ascending in each unit, which begins at its one of `starts`."""
    for unit in range(first_unit, end_unit):
        wanted, at = table[unit], starts[unit]
        for picture in range(len(bits)):
            for value in bits[picture, unit]:
                if wanted[_bin(value, mantissa_bits)]:
                    into[at] = value ^ ((value >> _SIGN) & _MAGNITUDE)
                    at += 1
        into[starts[unit] : at].sort()


@numba.njit(nogil=True, cache=True)
def join(
    found: Longs, times: Longs, others: Longs, their_times: Longs, into: Longs, times_into: Longs
) -> int:
    """Merge two ascending lists of values and add the times of equal ones; how many values there are."""
    one, two, at = 0, 0, 0
    while one < len(found) or two < len(others):
        here = two == len(others) or (one < len(found) and found[one] <= others[two])
        there = one == len(found) or (two < len(others) and others[two] <= found[one])
        into[at] = found[one] if here else others[two]
        times_into[at] = (times[one] if here else 0) + (their_times[two] if there else 0)
        one += here
        two += there
        at += 1
    return at
