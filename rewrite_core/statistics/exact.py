"""Exact quantiles of every unit, by two passes over the same samples.

The first pass is a `Histogram`: it tells the bin of every rank, and exactly how many positions lie below that bin. The
second keeps the values in those bins, a percent or so of all, so that the ranks within them are known too. Equal values
are kept once with their number. No value is kept of a unit for ranks among its exact zeros, its least or its greatest.

    exact_quantiles(generator, "l08", LatentSpec.of(range(1000)), [0.5, 0.99])   # [C, 2]

The rank error is 0: the answer is what sorting all positions gives (midpoint rule, as in `histogram`). That holds
where both passes see the same maps. One that ran on another machine or at another number of threads has maps that
differ in the last bits; then the rank may be off by the few positions that rounding moved into another bin.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from rewrite_core.errors import RequestError
from rewrite_core.generators import Generator, LatentSpec, Progress
from rewrite_core.statistics.bins import bins_of, ordered_bits, ordered_values, total_bins, zero_bin
from rewrite_core.statistics.gather import fetch
from rewrite_core.statistics.histogram import MANTISSA_BITS, Histogram, checked_shares
from rewrite_core.statistics.kernels import kernel, spread
from rewrite_core.statistics.statistic import Batch, Statistic
from rewrite_core.statistics.store import Store

__all__ = ["LIMIT", "Within", "exact_quantiles"]

LIMIT = 1 << 25
"""Different values that may be kept of all units together: 16 bytes each, 512 MB in all."""

_UNIT, _LOWEST = 32, 1 << 31
"""A kept value is one integer: the unit's number times 2³², plus the value's ordered bits made positive."""


@dataclass(frozen=True, eq=False)
class Within(Statistic):
    """The values that lie in the `wanted` bins of their unit.

    Attributes:
        quantiles: what they are kept for.
        wanted: bins of each unit, [C, W] int32, with -1 where there are fewer than W.
        limit: how many different values may be kept.
        found: the values, ascending by unit and value, [K] int64 (unit · 2³² + 2³¹ + ordered bits).
        times: how often each was seen, [K] int64.
        samples: pictures seen.
    """

    quantiles: tuple[float, ...] = ()
    wanted: Tensor | None = None
    mantissa_bits: int = MANTISSA_BITS
    limit: int = LIMIT
    found: Tensor | None = None
    times: Tensor | None = None
    samples: int = 0

    kind: ClassVar[str] = "within"
    version: ClassVar[int] = 1

    @classmethod
    def of(cls, histogram: Histogram, q: Sequence[float], limit: int = LIMIT) -> Within:
        """The empty statistic that keeps what `histogram` leaves open of the quantiles `q`.

        Raises:
            RequestError: if a quantile is not from 0 to 1.
        """
        ranks, _ = _ranks(histogram, q)
        bins = _bins_at(histogram, ranks)  # [C, 2Q]
        known = (bins == zero_bin(histogram.mantissa_bits)) | (ranks <= 1) | (ranks >= histogram.positions)
        known |= (histogram.least == histogram.greatest)[:, None]
        wanted = bins.masked_fill(known, -1).sort(dim=1).values.int()
        return cls(tuple(float(share) for share in q), wanted, histogram.mantissa_bits, limit)

    @property
    def open(self) -> bool:
        """Whether there is any value to keep."""
        return self.wanted is not None and bool((self.wanted >= 0).any())

    def parameters(self) -> Mapping[str, Any]:
        """The quantiles, the width of the bins, and a hash of the wanted ones."""
        wanted = self._wanted().cpu().numpy()
        digest = hashlib.sha256(f"{wanted.shape}".encode() + wanted.astype("<i4").tobytes()).hexdigest()
        return {"quantiles": list(self.quantiles), "mantissa_bits": self.mantissa_bits, "bins": digest[:32]}

    def update(self, batch: Batch) -> Self:
        """Keep the values in wanted bins; it waits for the device, which alone knows how many they are."""
        keys = batch.keys.detach().float().flatten(2)  # [N, C, hw]
        found, times = _kept(keys, self.table(keys.device), self.mantissa_bits)
        return self.merge(replace(self, found=found, times=times, samples=len(keys)))

    def merge(self, other: Self) -> Self:
        """The values of both; equal ones become one.

        Raises:
            RequestError: if more values would be kept than `limit`.
        """
        if other.found is None or other.times is None:
            return self
        if self.found is None or self.times is None:
            found, times = other.found, other.times
        else:
            found, times = _joined(self.found, self.times, other.found, other.times)
        if len(found) > self.limit:
            raise RequestError(
                found=f"more than {self.limit:,} different values in the bins of the quantiles",
                expected="few enough to keep in memory",
                remedy="Ask for fewer quantiles or samples at once, or make do with the histogram's.",
            )
        return replace(self, found=found, times=times, samples=self.samples + other.samples)

    def state(self) -> dict[str, Tensor]:
        """`found`, `times` and `samples`."""
        if self.found is None or self.times is None:
            return {}
        return {"found": self.found, "times": self.times, "samples": torch.tensor([self.samples])}

    def restore(self, state: Mapping[str, Tensor]) -> Self:
        """From `state`'s tensors."""
        if not state:
            return replace(self, found=None, times=None, samples=0)
        found, times = state["found"], state["times"]
        if found.ndim != 1 or found.shape != times.shape or {found.dtype, times.dtype} != {torch.int64}:
            raise ValueError(f"values of shape {list(found.shape)} and numbers of shape {list(times.shape)}")
        if bool((found[1:] <= found[:-1]).any()) or bool((times < 1).any()):
            raise ValueError("values that do not ascend, or that nobody saw")
        if len(found) and not 0 <= found[0] <= found[-1] < len(self._wanted()) << _UNIT:
            raise ValueError(f"values of other units than the {len(self._wanted())} there are")
        return replace(self, found=found, times=times, samples=int(state["samples"]))

    def summary(self) -> Mapping[str, Any]:
        """Quantiles, samples, and how many values are kept of how many positions."""
        if self.found is None or self.times is None:
            return {"samples": 0}
        return {
            "quantiles": list(self.quantiles),
            "samples": self.samples,
            "values": len(self.found),
            "positions": int(self.times.sum()),
        }

    def table(self, device: torch.device) -> Tensor:
        """Whether a bin is wanted, [C, bins] bool."""
        wanted = self._wanted().to(device).long()
        table = torch.zeros(len(wanted), total_bins(self.mantissa_bits) + 1, dtype=torch.bool, device=device)
        return table.scatter_(1, wanted + 1, True)[:, 1:].contiguous()  # column 0 took the -1

    def quantile(self, histogram: Histogram) -> Tensor:
        """The exact quantiles [C, Q] float64, given the first pass."""
        ranks, part = _ranks(histogram, self.quantiles)  # [C, 2Q], [Q]
        bins = _bins_at(histogram, ranks)
        low, high = histogram.edges(bins)
        value = self._within(histogram, bins, ranks).clamp(low, high)
        value = torch.where(ranks <= 1, histogram.least[:, None], value)
        value = torch.where(ranks >= histogram.positions, histogram.greatest[:, None], value)
        lower, upper = value.chunk(2, dim=1)  # [C, Q] each
        return lower + part * (upper - lower)

    def _within(self, histogram: Histogram, bins: Tensor, ranks: Tensor) -> Tensor:
        """The kept values at `ranks`; anything where none was kept."""
        if self.found is None or self.times is None or not len(self.found):
            return torch.zeros_like(ranks, dtype=torch.float64)
        counts = histogram.seen_counts
        columns = slice(histogram.first, histogram.first + counts.shape[1])
        kept = (counts * self.table(counts.device)[:, columns]).long()
        kept_below = (kept.cumsum(1) - kept).gather(1, bins - histogram.first)  # [C, R]
        below, _ = histogram.masses(bins)
        place = ranks - below + kept_below  # [C, R] among the unit's kept positions
        upto = self.times.cumsum(0)  # [K]
        first = torch.searchsorted(self.found, torch.arange(len(counts)) << _UNIT)  # [C] its first kept value
        before = (upto - self.times)[first.clamp(max=len(upto) - 1)][:, None]  # [C, 1]
        at = torch.searchsorted(upto, before + place).clamp(max=len(upto) - 1)  # [C, R]
        return ordered_values(((self.found[at] & (2**_UNIT - 1)) - _LOWEST).int()).double()

    def _wanted(self) -> Tensor:
        if self.wanted is None:
            raise ValueError("it is asked for by `Within.of(histogram, quantiles)`")
        return self.wanted


def exact_quantiles(
    generator: Generator,
    layer: str,
    spec: LatentSpec,
    q: Sequence[float],
    *,
    store: Store | None = None,
    progress: Progress | None = None,
    limit: int = LIMIT,
) -> Tensor:
    """The exact quantiles `q` of each unit over every position of the samples in `spec`, [C, Q] float64.

    Raises:
        LayerError: if there is no such layer.
        RequestError: if `spec` is empty, a quantile is not from 0 to 1, or more than `limit` values would be kept.
        PalimpsestError: if a layer's keys are not finite, naming layer and unit.
        Cancelled: from `progress`, which sees both passes as one of twice the samples.
    """
    checked_shares(q)

    def half(done_before: int) -> Progress | None:
        return progress and (lambda done, total: progress(done_before + done, 2 * total))

    histogram = fetch(generator, layer, spec, Histogram(), store=store, progress=half(0))
    within = Within.of(histogram, q, limit)
    if within.open:
        within = fetch(generator, layer, spec, within, store=store, progress=half(len(spec)))
    return within.quantile(histogram)


def _kept(keys: Tensor, table: Tensor, mantissa_bits: int) -> tuple[Tensor, Tensor]:
    """The values of `keys` [N, C, hw] in the bins that `table` [C, bins] marks: `Within.found`, `Within.times`."""
    channels = keys.shape[1]
    units = torch.arange(channels, device=keys.device)
    compiled = kernel("within") if keys.device.type == "cpu" else None
    if compiled is None:
        kept = []
        rows = units[:, None]  # [C, 1]
        for picture in keys:  # one at a time: places in the table are 8 bytes a value
            wanted = table.flatten()[bins_of(picture, mantissa_bits) + rows * table.shape[1]]  # [C, hw] bool
            kept.append(((rows << _UNIT) + _LOWEST + ordered_bits(picture))[wanted])
        values = torch.cat(kept).sort().values
    else:
        bits, marks = keys.contiguous().view(torch.int32).numpy(), table.view(torch.uint8).numpy()
        numbers = torch.zeros(channels, dtype=torch.int64)
        sums = numbers.numpy()
        spread(lambda one, end: compiled.tally(bits, mantissa_bits, one, end, marks, sums), channels)
        starts = (numbers.cumsum(0) - numbers).numpy()
        ordered = torch.empty(int(numbers.sum()), dtype=torch.int32)
        into = ordered.numpy()
        spread(
            lambda one, end: compiled.collect(bits, mantissa_bits, one, end, marks, starts, into), channels
        )
        values = (units << _UNIT).repeat_interleave(numbers) + _LOWEST + ordered
    found, times = values.unique_consecutive(return_counts=True)
    return found, times


def _joined(found: Tensor, times: Tensor, others: Tensor, their_times: Tensor) -> tuple[Tensor, Tensor]:
    """Two lists of values and how often each was seen, made one."""
    compiled = kernel("within") if found.device.type == "cpu" else None
    if compiled is None:
        both, order = torch.cat([found, others]).sort()
        values, row = both.unique_consecutive(return_inverse=True)
        return values, torch.zeros_like(values).index_add_(0, row, torch.cat([times, their_times])[order])
    values, sums = (torch.empty(len(found) + len(others), dtype=torch.int64) for _ in range(2))
    lists = (found, times, others, their_times, values, sums)
    count = compiled.join(*(part.numpy() for part in lists))
    return values[:count].clone(), sums[:count].clone()


def _ranks(histogram: Histogram, q: Sequence[float]) -> tuple[Tensor, Tensor]:
    """The ranks on either side of each quantile [C, 2Q] (all lower ones first), and where it lies between [Q]."""
    place = checked_shares(q) * histogram.positions + 0.5  # [Q]; the i-th value is at place i
    lower = place.floor()
    ranks = torch.cat([lower, lower + 1]).long().clamp(1, histogram.positions)  # [2Q]
    return ranks.expand(len(histogram.least), -1).contiguous(), place - lower


def _bins_at(histogram: Histogram, ranks: Tensor) -> Tensor:
    """The bins that hold the `ranks` [C, R] (1 … n) of each unit, [C, R]."""
    return torch.searchsorted(histogram.seen_counts.cumsum(1), ranks) + histogram.first
