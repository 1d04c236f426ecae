"""The bins of a histogram: the leading bits of the float itself, a logarithmic scale with no edge to compute.

A bin holds the float32 values that share sign, exponent and the first m = `mantissa_bits` bits of the mantissa, which
is a relative width of at most 2⁻ᵐ. With B = 32·2ᵐ bins a side, in the order of the values:

    bin B + 1 + clamp(((bits & 0x7fffffff) >> (23 - m)) - (111 << m), 0, B - 1)    positive values
    bin B                                                                          exact zeros, of either sign
    mirrored about B                                                               negative values

From 2⁻¹⁶ to 2¹⁶ in magnitude every bin is that narrow; what is smaller shares the first bin of its side, what is
greater the last. Only integers are compared, so that every device, and compiled code as plain torch, counts the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rewrite_core.statistics.kernels import kernel, spread

__all__ = [
    "bins_of",
    "count_bins",
    "edges_of",
    "ordered_bits",
    "ordered_values",
    "span_of",
    "total_bins",
    "zero_bin",
]

VALUES = 1 << 24
"""Values that plain torch turns into bins at a time, unless one picture has more: 16 bytes each."""

_MAGNITUDE, _MANTISSA, _LOWEST, _OCTAVES = 0x7FFFFFFF, 23, 127 - 16, 32


def zero_bin(mantissa_bits: int) -> int:
    """The bin of exact zeros: B, the number of bins a side."""
    return _OCTAVES << mantissa_bits


def total_bins(mantissa_bits: int) -> int:
    """2B + 1."""
    return 2 * zero_bin(mantissa_bits) + 1


def bins_of(values: Tensor, mantissa_bits: int) -> Tensor:
    """The bin of each float32 in `values`, int32 of the same shape."""
    bits = values.contiguous().view(torch.int32)
    magnitude = bits & _MAGNITUDE
    side = zero_bin(mantissa_bits)
    step = (magnitude >> (_MANTISSA - mantissa_bits)).sub_((_LOWEST << mantissa_bits) - 1).clamp_(1, side)
    step.masked_fill_(magnitude == 0, 0)
    return torch.where(bits < 0, -step, step).add_(side)


def edges_of(mantissa_bits: int) -> tuple[Tensor, Tensor]:
    """Where every bin begins and ends, two float64 [2B + 1]; the outermost reach to infinity."""
    steps = torch.arange(zero_bin(mantissa_bits) + 1, dtype=torch.int32) + (_LOWEST << mantissa_bits)
    edges = (steps << (_MANTISSA - mantissa_bits)).view(torch.float32).double()  # [B + 1]
    edges[0], edges[-1] = 0, torch.inf
    low = torch.cat([-edges[1:].flip(0), edges[:1], edges[:-1]])  # [2B + 1]
    return low, -low.flip(0)


def ordered_bits(values: Tensor) -> Tensor:
    """The bits of float32 `values` as int32 in the order of the values (magnitudes of negative ones inverted)."""
    bits = values.contiguous().view(torch.int32)
    return bits ^ ((bits >> 31) & _MAGNITUDE)


def ordered_values(ordered: Tensor) -> Tensor:
    """The float32 values of which `ordered` (int32) are the `ordered_bits`."""
    return (ordered ^ ((ordered >> 31) & _MAGNITUDE)).view(torch.float32)


def span_of(extremes: Tensor, mantissa_bits: int) -> tuple[int, int]:
    """First bin, and the one after the last, of values within `extremes` [2, C]: whole octaves, and the zero bin."""
    ends = torch.stack([extremes[0].min(), extremes[1].max()])
    least, greatest = bins_of(ends, mantissa_bits).tolist()
    middle = zero_bin(mantissa_bits)
    below, above = (
        -(-max(0, steps) >> mantissa_bits) for steps in (middle - least, greatest - middle)
    )  # octaves
    return middle - (below << mantissa_bits), middle + 1 + (above << mantissa_bits)


def count_bins(keys: Tensor, mantissa_bits: int) -> tuple[Tensor, int, Tensor]:
    """How many of `keys` [N, C, hw] float32 fall into each bin.

    Returns:
        Counts [C, n] int32; the bin of their first column (on the CPU they span the values, else they are all bins);
        the least and the greatest value of each unit [2, C] float32.
    """
    extremes = torch.stack([keys.amin(2).amin(0), keys.amax(2).amax(0)]) + 0.0  # [2, C]; -0 is 0
    if keys.device.type != "cpu":
        return _count_plainly(keys, mantissa_bits), 0, extremes
    first, end = span_of(extremes, mantissa_bits)
    compiled = kernel("histogram")
    if compiled is None:
        return _count_plainly(keys, mantissa_bits)[:, first:end], first, extremes
    counts = torch.empty(keys.shape[1], end - first, dtype=torch.int32)
    count, bits, into = compiled.count, keys.contiguous().view(torch.int32).numpy(), counts.numpy()
    spread(lambda unit, last: count(bits, mantissa_bits, unit, last, first, into), keys.shape[1])
    return counts, first, extremes


def _count_plainly(keys: Tensor, mantissa_bits: int) -> Tensor:
    """All bins [C, 2B + 1] in plain torch, on any device and without waiting for it."""
    _, channels, positions = keys.shape
    counts = torch.zeros(channels, total_bins(mantissa_bits), dtype=torch.int32, device=keys.device)
    one = torch.ones((), dtype=torch.int32, device=keys.device)
    rows = torch.arange(channels, device=keys.device)[:, None] * counts.shape[1]  # [C, 1]
    for group in keys.split(max(1, VALUES // (channels * positions))):
        places = (bins_of(group, mantissa_bits) + rows).flatten()  # [n·C·hw] int64
        counts.view(-1).scatter_add_(0, places, one.expand(len(places)))
    return counts
