"""What an edit changes, over many pictures: inside what its context matches, elsewhere, and where it took effect.

    edited = generator.with_rules(edit.rule)
    found = edit_effect(generator, edited, edit.direction, LatentSpec.of(range(1000)), request=request)
    found.inside, found.outside      # mean change, each an Estimate: value, low, high, pictures
    found.took_effect.value          # in which share of the contexts
    found.most(6), found.least(6)    # seeds
    found.average_map                # [H, W]
    found.table()                    # all of the numbers; found.pictures() has a row for each picture

All is measured on pairs of pictures of the same seed, as bytes, before and after:

* The *change* of a pixel is the mean |after - before| over red, green and blue, from 0 to 1; that of a region is the
  mean over its pixels. It is what is seen: values beyond black and white are cut off, and less than 1/255 may be lost.
* The *regions* of a picture are the pixels where the context matches: where heat of the first of its directions, at its
  layer, in the picture *before*, brought to the picture's size bilinearly, is above a level. Unless one is given, that
  is the 0.99 quantile of the heat over all positions of these pictures, as in `dissect.scaled`. (Overlays outline what
  exceeds the 0.999 quantile, in only the few pictures that match best; an edit takes effect there first.)
* `inside` is the mean change over all pixels in regions, and `outside` over all others, so that pictures with larger
  regions count for more. `protected` is that over all pixels of the concepts that were to stay as they are, as a source
  labels the pictures *before*; they may overlap regions.
* The edit *took effect* in a picture if the change of its regions, taken together, is at least half of the example's;
  `took_effect` is the share of such pictures among those that have a region. The example is what was painted, before
  and after: the pasted region; for an erasure without one, the context. Without a request, the median change of the
  tenth of the regions that change most stands for it: then the share tells how evenly an edit acts, not whether it does
  what was asked. Where the example itself does not change, nothing took effect.

Intervals are 95 % bootstrap intervals over pictures (`dissect.bootstrap`): pictures are resampled whole, among those
that have a pixel of the kind. Sums are of whole numbers, hence exact, and pictures are resampled in the order of their
seeds: in whatever order blocks come, and however they are merged, the numbers are the same to the bit. What is kept is
six whole numbers a picture, and one map.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from dissect.bootstrap import LEVEL, RESAMPLES, interval, shares
from dissect.edit_regions import FULL, KINDS, Counts, Protected, context_level, counted, example_change
from rewrite_core.directions import Direction
from rewrite_core.errors import RequestError
from rewrite_core.generators import Generator, LatentSpec, Progress
from rewrite_core.generators.lanes import Lanes
from rewrite_core.rules.request import EditRequest
from rewrite_core.statistics import Store

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["EditEffect", "Estimate", "Protected", "edit_effect"]

ENOUGH, STRONGEST = 0.5, 0.1
"""An edit took effect from this share of the example's change on; without one, so many of the regions stand for it."""
_INSIDE, _OUTSIDE, _PROTECTED = range(len(KINDS))


@dataclass(frozen=True)
class Estimate:
    """A mean over pictures, from 0 to 1, with the ends of its interval.

    Attributes:
        pictures: how many it is over; of none, all is 0.
    """

    value: float
    low: float
    high: float
    pictures: int


@dataclass(frozen=True, eq=False)
class EditEffect:
    """The change of N pictures of [H, W] pixels, from which everything said of it is computed.

    Attributes:
        before, after: names of the generators.
        direction: what regions are found by.
        level: heat is above it in a region.
        example: the change of what was painted; None without a request.
        kept: names of the concepts that were protected.
        spec: the pictures.
        counts: bytes and pixels.
    """

    before: str
    after: str
    direction: Direction
    level: float
    example: float | None
    kept: tuple[str, ...]
    spec: LatentSpec
    counts: Counts

    # Over all pictures.

    @cached_property
    def inside(self) -> Estimate:
        """The mean change in regions."""
        return self._mean(_INSIDE)

    @cached_property
    def outside(self) -> Estimate:
        """The mean change elsewhere."""
        return self._mean(_OUTSIDE)

    @cached_property
    def protected(self) -> Estimate:
        """The mean change in what was protected."""
        return self._mean(_PROTECTED)

    @cached_property
    def took_effect(self) -> Estimate:
        """The share of pictures in which the edit took effect, among those with a region."""
        took = self._took[self._sorted(_INSIDE)].double()  # [K]
        low, high = (round(float(end), 12) for end in interval(took[:, None]))  # all of some is just 1
        return Estimate(float(took.sum()) / max(len(took), 1), low, high, len(took))

    @cached_property
    def bar(self) -> float:
        """From which change of its regions on the edit took effect in a picture."""
        return ENOUGH * (self._strongest() if self.example is None else self.example)

    @property
    def average_map(self) -> Tensor:
        """The mean change at each pixel, [H, W] float64 from 0 to 1."""
        return self.counts.total.double() / (FULL * max(len(self.spec), 1))

    # Picture by picture.

    @property
    def changes(self) -> Tensor:
        """The mean change of each picture as a whole, [N] float64."""
        return self.counts.sums[:, [_INSIDE, _OUTSIDE]].sum(1).double() / (FULL * self._area)

    def most(self, count: int) -> list[int]:
        """The pictures (seeds) that change most, the most changed first; of equals the earlier one first."""
        return self._seeds(self.changes.argsort(descending=True, stable=True)[:count])

    def least(self, count: int) -> list[int]:
        """The pictures that change least, the least changed first; of equals the earlier one first."""
        return self._seeds(self.changes.argsort(stable=True)[:count])

    # Tables.

    def table(self) -> pd.DataFrame:
        """A row for each number: measure, value, low, high, pictures (over how many)."""
        import pandas as pd

        rows = {"change inside the context": self.inside, "change outside it": self.outside}
        if self.kept:
            rows[f"change in {', '.join(self.kept)}"] = self.protected
        rows["took effect"] = self.took_effect
        table = pd.DataFrame([vars(row) for row in rows.values()])
        table.insert(0, "measure", list(rows))
        return table

    def pictures(self) -> pd.DataFrame:
        """A row for each picture, in order: seed, change, inside, outside, protected, region, took_effect.

        `region` is the share of its pixels in regions. Where there is no pixel of a kind, its change is 0.
        """
        import pandas as pd

        columns = {"seed": torch.tensor(self.spec.seeds, dtype=torch.int64), "change": self.changes}
        columns |= dict(zip(KINDS, self._each().T, strict=True))
        columns |= {"region": self.counts.pixels[:, _INSIDE] / self._area, "took_effect": self._took}
        return pd.DataFrame({name: column.numpy() for name, column in columns.items()})

    def merge(self, other: Self) -> Self:
        """With the pictures of `other` after these.

        Raises:
            RequestError: it is of another edit, or was measured in another way.
        """
        if self._measure() != other._measure():
            raise RequestError(
                found="effects of other edits, or measured in another way",
                expected=f"{self.before} and {self.after}, heat above {self.level:g} at {self.direction.layer}",
                remedy="Merge only what was measured alike.",
            )
        return self._of(self.spec.seeds + other.spec.seeds, [self.counts, other.counts])

    def _of(self, seeds: tuple[int, ...], parts: Iterable[Counts]) -> Self:
        """The same measure of other pictures, which are counted in parts."""
        return replace(self, spec=replace(self.spec, seeds=seeds), counts=Counts.joined(parts))

    def _measure(self) -> tuple[object, ...]:
        how = (self.direction.digest, self.level, self.example, self.kept, self.counts.total.shape)
        return (self.before, self.after, replace(self.spec, seeds=()), *how)

    @property
    def _area(self) -> int:
        """Pixels of a picture."""
        return self.counts.total.numel()

    @cached_property
    def _took(self) -> Tensor:
        """Whether the edit took effect in each picture, bool [N]."""
        return (self._each()[:, _INSIDE] >= self.bar) & (self.bar > 0)

    def _strongest(self) -> float:
        """The median change of the regions that change most."""
        inside = self._each()[self._sorted(_INSIDE), _INSIDE].sort(descending=True).values  # [K]
        return float(inside[: math.ceil(STRONGEST * len(inside))].quantile(0.5)) if len(inside) else 0.0

    def _each(self) -> Tensor:
        """The change of each kind in each picture, [N, 3] float64."""
        return self.counts.sums.double() / (FULL * self.counts.pixels.clamp(min=1))

    def _mean(self, kind: int) -> Estimate:
        places = self._sorted(kind)
        both = torch.stack([self.counts.sums[places, kind], self.counts.pixels[places, kind]], 1)  # [K, 2]
        if not len(places):
            return Estimate(0.0, 0.0, 0.0, 0)
        changed, covered = both.sum(0).tolist()
        drawn = torch.cat([weights @ both.double() for weights in shares(len(places), RESAMPLES)])  # [B, 2]
        tails = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)
        low, high = (torch.quantile(drawn[:, 0] / drawn[:, 1], tails) / FULL).tolist()
        return Estimate(changed / covered / FULL, low, high, len(places))

    def _sorted(self, kind: int) -> Tensor:
        """The places of the pictures that have pixels of a kind, in the order of their seeds, [K]."""
        order = torch.tensor(self.spec.seeds, dtype=torch.int64).argsort(stable=True)
        return order[self.counts.pixels[order, kind] > 0]

    def _seeds(self, places: Tensor) -> list[int]:
        return [self.spec.seeds[place] for place in places.tolist()]


def edit_effect(
    before: Generator,
    after: Generator,
    direction: Direction,
    spec: LatentSpec,
    *,
    level: float | None = None,
    request: EditRequest | None = None,
    protect: Protected | None = None,
    store: Store | None = None,
    progress: Progress | None = None,
) -> EditEffect:
    """The effect of what turns `before` into `after`, over the pictures of `spec`.

    Args:
        before: the generator without the edit.
        after: with it: a view, or another generator of pictures of the same size.
        direction: of the edit's context; regions are found by its first vector.
        spec: the pictures; best such as nobody painted on.
        level: heat above it makes a region; where there is none, `context_level` finds it.
        request: what was painted; see the module for what stands for it.
        protect: what was to stay as it is.
        store: where the heat's distribution is kept, if not in the default store.
        progress: called with the pictures measured; where a level is to be found, before that with those searched.

    Raises:
        ModelMismatch, LayerError: the direction is of another generator.
        RequestError: no picture, pictures of two sizes, or no such concept.
        PalimpsestError: the source cannot label the pictures before; or pictures, heat or labels are NaN or infinite.
        Cancelled: from `progress`.
    """
    direction.check(before)
    _require_comparable(before, after, spec)
    if protect:
        protect.check(before)
    above = context_level(before, direction, spec, store=store, progress=progress) if level is None else level
    none = torch.zeros(0, len(KINDS), dtype=torch.int64)
    empty = EditEffect(
        before=before.name,
        after=after.name,
        direction=direction,
        level=above,
        example=None if request is None else example_change(before, after, request),
        kept=protect.concepts if protect else (),
        spec=replace(spec, seeds=()),
        counts=Counts(none, none, torch.zeros(before.picture_size, dtype=torch.int64)),
    )

    def count(block: LatentSpec) -> Counts:
        return counted(before, after, direction, above, block, protect)

    return empty._of(spec.seeds, chain([empty.counts], _in_lanes(before, spec, count, progress)))


def _in_lanes(
    generator: Generator, spec: LatentSpec, count: Callable[[LatentSpec], Counts], progress: Progress | None
) -> Iterator[Counts]:
    """The counts of one micro-batch after the other, each counted in a lane."""
    lanes, done = Lanes(generator), 0
    under_way: deque[Future[Counts]] = deque()
    try:
        for block in [*spec.blocks(generator.micro_batch), None]:
            while under_way and (block is None or len(under_way) == lanes.count):
                part = under_way.popleft().result()
                done += len(part.sums)
                if progress:
                    progress(done, len(spec))
                yield part
            if block is not None:
                under_way.append(lanes.submit(count, block))
    finally:
        lanes.close()


def _require_comparable(before: Generator, after: Generator, spec: LatentSpec) -> None:
    if not len(spec):
        raise RequestError(found="0 samples", expected="at least 1", remedy="1,000 is a sound number.")
    if before.picture_size != after.picture_size:
        (height, width), (tall, wide) = before.picture_size, after.picture_size
        raise RequestError(
            found=f"pictures of {height}×{width} pixels before, and of {tall}×{wide} after",
            expected="the same size",
            remedy="Compare a generator with a view of it through rules.",
        )
