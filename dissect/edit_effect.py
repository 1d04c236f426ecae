"""What an edit changes, over many pictures: inside what its context matches, elsewhere, and where it took effect.

    edited = generator.with_rules(edit.rule)
    found = edit_effect(generator, edited, edit.direction, LatentSpec.of(range(1000)), request=request, store=store)
    found.inside, found.outside      # mean change with its interval: Estimate(0.113, 0.109 to 0.117)
    found.took_effect                # in which share of the contexts
    found.most(6), found.least(6)    # seeds
    found.average_map                # [H, W]
    found.table()                    # all of the numbers; found.pictures() has a row for each picture

All is measured on pairs of pictures of the same seed, as bytes, before and after:

* The *change* of a pixel is the mean |after - before| over red, green and blue, from 0 to 1; that of a region is the
  mean over its pixels. It is what is seen: values beyond black and white are cut off, and less than 1/255 may be lost.
* The *regions* of a picture are the pixels where the context's first direction is above a level: its heat in the
  picture *before*, at the layer, brought to the picture's size bilinearly. The level is that of overlays, unless one is
  given: the 0.999 quantile of the heat over all positions of the layer's maps, counted by a `Histogram`.
* `inside` is the mean change over all pixels in regions, `outside` over all others: pictures with larger regions count
  for more. `protected` is the same over the pixels of the concepts that were to stay as they are, as a source labels
  the pictures *before*; they may overlap the regions.
* The edit *took effect* in a picture if the change of its regions, taken together, is at least half of the example's.
  `took_effect` is the share of such pictures among those that have a region. The example is what was painted: the
  pasted region, for an erasure without one the context, before and after. Without a request, the median change of the
  tenth of the pictures with a region that changes most stands for it; then the share tells how evenly an edit acts, but
  not whether it does what was asked. Where the example itself does not change, nothing took effect.

Intervals are 95 % bootstrap intervals over pictures (`dissect.bootstrap`): pictures are resampled whole, among those
that have any pixel of the kind. Sums are of whole numbers and exact, and pictures are resampled in the order of their
seeds, so whatever order blocks come in, and however they are merged, the numbers are the same to the bit. What is kept
is seven numbers a picture and one map.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor
from torch.nn import functional

from dissect.bootstrap import LEVEL, RESAMPLES, interval, shares
from dissect.concepts.source import ConceptSource, require_pixels_only
from dissect.shares import concept_index, concept_masks
from rewrite_core.directions import Direction
from rewrite_core.directions.matches import OUTLINE
from rewrite_core.errors import PalimpsestError, RequestError
from rewrite_core.generators import Generator, Latents, LatentSpec, Progress
from rewrite_core.generators.lanes import Lanes
from rewrite_core.memory import heat
from rewrite_core.rules.painted import latents_of
from rewrite_core.rules.request import EditRequest
from rewrite_core.statistics import Along, Histogram, Store, fetch

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["EditEffect", "Estimate", "Protected", "edit_effect", "example_change", "outline_level", "regions_of"]

HALF, STRONGEST = 0.5, 0.1
"""An edit took effect where a change is at least `HALF` of the example's, or of that of the `STRONGEST` regions."""
_FULL = 3 * 255
"""The greatest change of a pixel, as bytes summed over channels."""
_KINDS = ("inside", "outside", "protected")


@dataclass(frozen=True)
class Estimate:
    """A mean over pictures, with the ends of its 95 % bootstrap interval.

    Attributes:
        pictures: how many it is over; of none, all is 0.
    """

    value: float
    low: float
    high: float
    pictures: int


@dataclass(frozen=True)
class Protected:
    """Concepts of a source that an edit is to leave as they are. The source sees pixels alone."""

    source: ConceptSource
    concepts: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class EditEffect:
    """The change of N pictures of [H, W] pixels, from which everything said of it is computed.

    Attributes:
        before, after: names of the generators.
        direction: what its regions are found by.
        level: its heat is above this in a region.
        example: the change of what was painted; None without a request.
        protected_concepts: names; empty if nothing was protected.
        spec: the pictures.
        sums: |after - before| over pixels and channels, as bytes: inside, outside, protected; [N, 3] int64.
        pixels: of each kind, [N, 3] int64.
        total: |after - before| over pictures and channels, as bytes, [H, W] int64.
    """

    before: str
    after: str
    direction: Direction
    level: float
    example: float | None
    protected_concepts: tuple[str, ...]
    spec: LatentSpec
    sums: Tensor
    pixels: Tensor
    total: Tensor

    # Over all pictures.

    @cached_property
    def inside(self) -> Estimate:
        """The mean change in regions."""
        return self._mean(0)

    @cached_property
    def outside(self) -> Estimate:
        """The mean change elsewhere."""
        return self._mean(1)

    @cached_property
    def protected(self) -> Estimate:
        """The mean change in what was protected."""
        return self._mean(2)

    @property
    def bar(self) -> float:
        """The change of its regions from which on the edit took effect in a picture."""
        return HALF * (self._strongest() if self.example is None else self.example)

    @cached_property
    def took_effect(self) -> Estimate:
        """The share of pictures in which the edit took effect, among those with a region."""
        took = self._took()[self._sorted(0)].double()  # [K]
        low, high = interval(took[:, None])
        return Estimate(float(took.sum()) / max(len(took), 1), float(low), float(high), len(took))

    @property
    def average_map(self) -> Tensor:
        """The mean change at each pixel, [H, W] float64 from 0 to 1."""
        return self.total.double() / (_FULL * max(len(self.spec), 1))

    # Pictures.

    def most(self, count: int) -> list[int]:
        """The pictures (seeds) that change most, the most changed first; of equals the earlier one first."""
        return self._seeds(self.changes.argsort(descending=True, stable=True)[:count])

    def least(self, count: int) -> list[int]:
        """The pictures that change least, the least changed first; of equals the earlier one first."""
        return self._seeds(self.changes.argsort(stable=True)[:count])

    @property
    def changes(self) -> Tensor:
        """The mean change of each picture, all of it, [N] float64."""
        return self.sums[:, :2].sum(1).double() / (_FULL * self.total.numel())

    # Tables.

    def table(self) -> pd.DataFrame:
        """A row for each number: measure, value, low, high, and over how many pictures."""
        import pandas as pd

        rows = {"change inside the context": self.inside, "change outside it": self.outside}
        if self.protected_concepts:
            rows[f"change in {', '.join(self.protected_concepts)}"] = self.protected
        rows["took effect"] = self.took_effect
        table = pd.DataFrame([vars(row) for row in rows.values()])
        table.insert(0, "measure", list(rows))
        return table

    def pictures(self) -> pd.DataFrame:
        """A row for each picture, in order: seed, change, inside, outside, protected, region (its share), took_effect.

        A change where there is no such pixel is 0.
        """
        import pandas as pd

        columns = {"seed": list(self.spec.seeds), "change": self.changes.numpy()}
        columns |= {kind: each.numpy() for kind, each in zip(_KINDS, self._each().T, strict=True)}
        region = self.pixels[:, 0].double() / self.total.numel()
        return pd.DataFrame({**columns, "region": region.numpy(), "took_effect": self._took().numpy()})

    def merge(self, other: Self) -> Self:
        """With the pictures of `other` after these.

        Raises:
            RequestError: it is the effect of another edit, or was measured in another way.
        """
        if self._measure() != other._measure():
            raise RequestError(
                found="the effects of other edits, or measured at another level",
                expected=f"{self.before} and {self.after}, heat above {self.level:g} at {self.direction.layer}",
                remedy="Merge only what was measured alike.",
            )
        return replace(
            self,
            spec=replace(self.spec, seeds=self.spec.seeds + other.spec.seeds),
            sums=torch.cat([self.sums, other.sums]),
            pixels=torch.cat([self.pixels, other.pixels]),
            total=self.total + other.total,
        )

    def _measure(self) -> tuple[object, ...]:
        how = (self.direction.digest, self.level, self.example, self.protected_concepts)
        return (self.before, self.after, *how, replace(self.spec, seeds=()), self.total.shape)

    def _each(self) -> Tensor:
        """The change of each kind in each picture, [N, 3] float64."""
        return self.sums.double() / (_FULL * self.pixels.clamp(min=1))

    def _took(self) -> Tensor:
        """Whether the edit took effect in each picture, bool [N]."""
        bar = self.bar
        inside = self._each()[:, 0]
        return (inside >= bar) & (inside > 0) if bar > 0 else torch.zeros_like(inside, dtype=torch.bool)

    def _strongest(self) -> float:
        """The median change of the tenth of the pictures with a region whose regions change most; 0 of none."""
        inside = self._each()[self._sorted(0), 0].sort(descending=True).values
        return float(inside[: math.ceil(STRONGEST * len(inside))].quantile(0.5)) if len(inside) else 0.0

    def _mean(self, kind: int) -> Estimate:
        some = self._sorted(kind)
        sums, pixels = self.sums[some, kind], self.pixels[some, kind]  # [K] int64
        if not len(some):
            return Estimate(0.0, 0.0, 0.0, 0)
        value = int(sums.sum()) / (_FULL * int(pixels.sum()))
        if len(some) == 1:
            return Estimate(value, value, value, 1)
        both = torch.stack([sums.double() / _FULL, pixels.double()], 1)  # [K, 2]
        drawn = torch.cat([weights @ both for weights in shares(len(some), RESAMPLES)])  # [B, 2]
        tails = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)
        low, high = torch.quantile(drawn[:, 0] / drawn[:, 1], tails).tolist()
        return Estimate(value, low, high, len(some))

    def _sorted(self, kind: int) -> Tensor:
        """The places of the pictures that have pixels of a kind, in the order of their seeds."""
        order = torch.tensor(self.spec.seeds, dtype=torch.int64).argsort(stable=True)
        return order[self.pixels[order, kind] > 0]

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
        before, after: two generators of pictures of one size, such as a generator and a view of it through rules.
        direction: of the edit's context; the first of its vectors finds the regions, at its layer of `before`.
        spec: the pictures; best such as were not painted on.
        level: heat above it makes a region; `outline_level` where there is none.
        request: what was painted; see the module for what stands for it.
        protect: what was to stay as it is.
        store: where the heat's quantiles are kept, if not in the default store.
        progress: called with the pictures measured; before that, where a level is to be found, with those searched.

    Raises:
        ModelMismatch, LayerError: the direction is of another generator.
        RequestError: no picture, or pictures of two sizes; or there is no such concept.
        PalimpsestError: what is to be protected is not seen in pixels; or pictures are NaN or infinite.
        Cancelled: from `progress`.
    """
    direction.check(before)
    _require_comparable(before, after, spec)
    if protect:
        require_pixels_only(protect.source)
        protect.source.check(before)
        for name in protect.concepts:
            concept_index(protect.source.names, name)
    if level is None:
        level = outline_level(before, direction, spec, store=store, progress=progress)
    found = EditEffect(
        before=before.name,
        after=after.name,
        direction=direction,
        level=level,
        example=None if request is None else example_change(before, after, request),
        protected_concepts=protect.concepts if protect else (),
        spec=replace(spec, seeds=()),
        sums=torch.zeros(0, len(_KINDS), dtype=torch.int64),
        pixels=torch.zeros(0, len(_KINDS), dtype=torch.int64),
        total=torch.zeros(before.picture_size, dtype=torch.int64),
    )

    def measured(block: LatentSpec) -> EditEffect:
        sums, pixels, total = _measured(before, after, direction, level, block, protect)
        return replace(found, spec=block, sums=sums, pixels=pixels, total=total)

    return _gathered(before, spec, measured, progress)


def outline_level(
    generator: Generator,
    direction: Direction,
    spec: LatentSpec,
    quantile: float = OUTLINE,
    *,
    store: Store | None = None,
    progress: Progress | None = None,
) -> float:
    """The level of heat that overlays outline: a quantile of it over all positions of all pictures of `spec`.

    It is counted, so its memory does not grow with the pictures; `Histogram` says how exact that is. Of maps that reach
    beyond the picture, all positions count.

    Raises:
        LayerError: no such layer.
        Cancelled: from `progress`.
    """
    along = Along(direction.vectors[:1], Histogram())
    counted = fetch(generator, direction.layer, spec, along, store=store, progress=progress)
    return float(counted.inner.quantile([quantile])[0, 0])


@torch.no_grad()
def example_change(before: Generator, after: Generator, request: EditRequest) -> float:
    """The change of what was painted: the mean over its pixels, each as much as the mask covers it.

    It is the pasted region; for an erasure without one, the context; 0 if there is neither.
    """
    painted = [request.paste] if request.paste else list(request.key) * (request.operation == "erase")
    changed = covered = 0.0
    for region in painted:
        latents = latents_of(before, request, region.image)
        apart = _apart(*(_bytes(one.pictures(latents), latents) for one in (before, after)))[0]  # [H, W]
        area = region.mask.area(before.picture_size).double()  # [H, W]
        changed += float((apart * area).sum()) / _FULL
        covered += float(area.sum())
    return changed / covered if covered else 0.0


def regions_of(generator: Generator, direction: Direction, level: float, spec: LatentSpec | Latents) -> Tensor:
    """Where the first of the direction's vectors is above `level` in pictures, bool [N, H, W] on the CPU."""
    found = [
        _regions(generator, direction, level, generator.keys(generator.latents(block), direction.layer).keys)
        for block in spec.blocks(generator.micro_batch)
    ]
    return torch.cat([torch.zeros(0, *generator.picture_size, dtype=torch.bool), *found])


def _regions(generator: Generator, direction: Direction, level: float, keys: Tensor) -> Tensor:
    """The same for a batch of keys [N, C, h, w]."""
    found = generator.layer(direction.layer).inside(heat(keys, direction.vectors[0]))  # [N, h, w]
    if not bool(found.isfinite().all()):
        raise _not_finite("heat that is")
    size = generator.picture_size
    large = functional.interpolate(found.float()[:, None], size, mode="bilinear", align_corners=False)
    return (large[:, 0] > level).cpu()  # [N, H, W]


@torch.no_grad()
def _measured(
    before: Generator,
    after: Generator,
    direction: Direction,
    level: float,
    block: LatentSpec,
    protect: Protected | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums [N, 3], pixels [N, 3] and total [H, W] of one micro-batch."""
    latents = before.latents(block)
    at = before.keys(latents, direction.layer)
    first = before.render(at, before.values(at))  # [N, 3, H, W]
    apart = _apart(_bytes(first, latents), _bytes(after.pictures(after.latents(block)), latents))  # [N, H, W]
    inside = _regions(before, direction, level, at.keys)
    kept = _labelled(protect, first, latents) if protect else torch.zeros_like(inside)
    kinds = torch.stack([inside, ~inside, kept], 1)  # [N, 3, H, W]
    return (kinds * apart[:, None]).sum((2, 3)), kinds.sum((2, 3)), apart.sum(0)


def _labelled(protect: Protected, pictures: Tensor, latents: Latents) -> Tensor:
    """Where a picture shows what is protected, bool [N, H, W]; labels of another grid as the nearest cell has them."""
    masks = concept_masks(protect.source, pictures, latents)  # [N, L, h, w]
    chosen = [concept_index(protect.source.names, name) for name in protect.concepts]
    joined = masks[:, chosen].any(1, keepdim=True)  # [N, 1, h, w]
    return functional.interpolate(joined.float(), pictures.shape[2:], mode="nearest-exact")[:, 0].cpu() > 0.5


def _gathered(
    generator: Generator,
    spec: LatentSpec,
    measured: Callable[[LatentSpec], EditEffect],
    progress: Progress | None,
) -> EditEffect:
    """What is measured of every micro-batch, in lanes, merged."""
    lanes, parts = Lanes(generator), []
    under_way: deque[Future[EditEffect]] = deque()

    def take() -> None:
        parts.append(under_way.popleft().result())
        if progress:
            progress(sum(len(part.spec) for part in parts), len(spec))

    try:
        for block in spec.blocks(generator.micro_batch):
            if len(under_way) == lanes.count:
                take()
            under_way.append(lanes.submit(measured, block))
        while under_way:
            take()
    finally:
        lanes.close()
    return parts


def _apart(before: Tensor, after: Tensor) -> Tensor:
    """|after - before| summed over channels, of bytes [N, H, W, 3]: int64 [N, H, W]."""
    return (after.to(torch.int16) - before).abs().sum(3)


def _bytes(pictures: Tensor, latents: Latents) -> Tensor:
    """Pictures [N, 3, H, W] as they are shown, uint8 [N, H, W, 3] on the CPU."""
    if not bool(pictures.isfinite().all()):
        raise _not_finite("pixels that are", latents)
    return torch.from_numpy(to_uint8(pictures))
