"""Units × concepts: which units of which layers fire where which concepts are (Bau et al. 2017, section 3).

    found = dissect(generator, LatentSpec.of(range(1000)), ["l05", "l08"], source)
    found.units()              # a row for each unit: its concept, IoU, held-out IoU, baseline …
    found.summary()            # a row for each layer
    found.warnings             # concepts never seen, dead units

Two passes over the samples see all layers at once, and nothing is drawn again for what the store holds:

1. the `Histogram` of every layer, for the thresholds: of each unit the set quantile, and a ladder of others (of all
   positions of its map, on the layer's own grid);
2. the `Intersection` at all of these levels, over the first half of the seeds and over the second. Counts add, so all
   samples are the merge of the two, and what is chosen on the first half is reported on the second.

Any directions of key space can take the place of the units: what is thresholded is then ``d · k`` at every position.

**The ladder.** At level q a unit fires in the share 1 − q of its positions: `LADDER` goes from a half down to a five
hundredth in steps of at most 2.5. Two masks of shares a < b have an IoU of at most a / b; so for a concept of any size
in that range there is a level at which size alone costs no more than a factor of √2.5, and mostly of √2.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from torch import Tensor

from dissect.concepts import ConceptSource
from dissect.layer import LayerDissection, Levels, Unit
from dissect.settings import CUSTOMARY, Settings
from dissect.tables import Dissection
from rewrite_core.errors import RequestError
from rewrite_core.generators import Generator, LatentSpec
from rewrite_core.jobs import Progress
from rewrite_core.statistics import Along, Histogram, Intersection, Statistic, Store, gather
from rewrite_core.statistics.sweep import Answers, Wanted

__all__ = [
    "LADDER",
    "Dissection",
    "LayerDissection",
    "Settings",
    "dissect",
    "dissect_directions",
    "halves",
    "levels_of",
]

S = TypeVar("S", bound=Statistic)

LADDER = (0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998)
"""Quantiles of the levels that are tried beside the set one."""

LOOKING, COUNTING = 1, 4
"""What a sample costs in the first pass and in the second, for one estimate of both."""


def dissect(
    generator: Generator,
    spec: LatentSpec,
    layers: Sequence[str],
    source: ConceptSource,
    settings: Settings = CUSTOMARY,
    *,
    also: Sequence[Statistic] = (),
    store: Store | None = None,
    progress: Progress | None = None,
) -> Dissection:
    """Every unit of `layers` against every concept of `source`, over the samples in `spec`.

    `also` are empty statistics of each layer that the first pass is to leave in the store as well, such as
    `Maxima()`, for whoever asks next.

    Raises:
        RequestError: no layer, no concept, fewer than two samples, or one of these named twice.
        LayerError: there is no such layer.
        PalimpsestError: the source cannot label what this generator draws.
        Cancelled: from `progress`; what is finished by then is kept.
    """
    asked = [_Asked(layer, tuple(range(generator.layer(layer).in_channels))) for layer in layers]
    return _Work(generator, spec, asked, store, progress).dissect(source, settings, also)


def dissect_directions(
    generator: Generator,
    spec: LatentSpec,
    layer: str,
    directions: Tensor,
    names: Sequence[str],
    source: ConceptSource,
    settings: Settings = CUSTOMARY,
    *,
    also: Sequence[Statistic] = (),
    store: Store | None = None,
    progress: Progress | None = None,
) -> Dissection:
    """The same for `directions` [M, C] of one layer, with their `names` in place of numbers; `also` looks along them.

    Raises:
        RequestError: as `dissect`; or directions that do not fit the layer or their names.
    """
    units = generator.layer(layer).in_channels
    if directions.ndim != 2 or directions.shape != (len(names), units) or not len(names):
        raise RequestError(
            found=f"directions of shape {list(directions.shape)} with {len(names)} names",
            expected=f"[M, {units}] at layer '{layer}', and M names, at least one",
            remedy="Take the directions from the same layer, and name each.",
        )
    _require_once("direction", names)
    asked = [_Asked(layer, tuple(names), directions)]
    return _Work(generator, spec, asked, store, progress).dissect(source, settings, also)


def halves(spec: LatentSpec) -> tuple[LatentSpec, LatentSpec]:
    """The first half of the seeds, on which is chosen, and the second (with the odd one), which is reported on."""
    middle = len(spec) // 2
    return replace(spec, seeds=spec.seeds[:middle]), replace(spec, seeds=spec.seeds[middle:])


@dataclass(frozen=True, eq=False)
class _Asked:
    """What is to be dissected of one layer: its units, or directions [M, C] by their names."""

    layer: str
    units: tuple[Unit, ...]
    directions: Tensor | None = None

    def seeing(self, empty: Statistic) -> Statistic:
        """`empty` as it is, or one that looks along the directions."""
        return empty if self.directions is None else Along(self.directions, empty)


@dataclass(frozen=True, eq=False)
class _Work:
    """Both passes over the samples of `spec`, which are progress from 0 to their weights together."""

    generator: Generator
    spec: LatentSpec
    asked: Sequence[_Asked]
    store: Store | None
    progress: Progress | None

    def dissect(
        self, source: ConceptSource, settings: Settings, also: Sequence[Statistic] = ()
    ) -> Dissection:
        """Thresholds, then counts, then what follows from them."""
        self._check(source)
        levels = self._levels(settings, also)
        first, second = halves(self.spec)
        looked = LOOKING * len(self.spec)
        chosen_on = self._counts(first, levels, source, settings, looked)
        reported = self._counts(second, levels, source, settings, looked + COUNTING * len(first))
        found = {
            one.layer: LayerDissection.of(
                one.layer,
                one.units,
                levels[one.layer],
                (chosen_on[one.layer], reported[one.layer]),
                settings,
            )
            for one in self.asked
        }
        generator = self.generator
        return Dissection(
            generator.name, generator.fingerprint, self.spec, source.title, source.identity(), settings, found
        )

    def _check(self, source: ConceptSource) -> None:
        """Refuse what cannot be dissected before anything is drawn."""
        if len(self.spec) < 2:
            raise RequestError(
                found=f"{len(self.spec)} samples",
                expected="at least 2: one half to choose on, and one to report on",
                remedy="1,000 is a sound number.",
            )
        _require_once("layer", [one.layer for one in self.asked])
        _require_once("concept", source.names)
        _require_once("seed", self.spec.seeds)
        source.check(self.generator)

    def _levels(self, settings: Settings, also: Sequence[Statistic]) -> dict[str, Levels]:
        """The first pass."""
        wanted = {one.layer: [one.seeing(Histogram()), *map(one.seeing, also)] for one in self.asked}
        found = self._gather(self.spec, wanted, 0, LOOKING)
        return {
            layer: levels_of(_seen(statistics[0], Histogram), settings) for layer, statistics in found.items()
        }

    def _counts(
        self,
        half: LatentSpec,
        levels: Mapping[str, Levels],
        source: ConceptSource,
        settings: Settings,
        before: int,
    ) -> dict[str, Intersection]:
        """The second pass, over one half."""
        wanted = {
            one.layer: [one.seeing(Intersection(levels[one.layer].values, source, settings.grid))]
            for one in self.asked
        }
        found = self._gather(half, wanted, before, COUNTING)
        return {layer: _seen(statistic, Intersection) for layer, (statistic,) in found.items()}

    def _gather(self, spec: LatentSpec, wanted: Wanted, before: int, weight: int) -> Answers:
        """`gather`, whose samples each count `weight` steps of progress, after `before` others."""
        progress, total = self.progress, (LOOKING + COUNTING) * len(self.spec)

        def advance(done: int, _: int) -> None:
            assert progress is not None
            progress(before + weight * done, total)

        return gather(
            self.generator, spec, wanted, store=self.store, progress=None if progress is None else advance
        )


def levels_of(histogram: Histogram, settings: Settings) -> Levels:
    """The set quantile of each unit among the ladder's, and which units are never above any."""
    quantiles = tuple(sorted({*LADDER, settings.quantile}))
    values = histogram.quantile(quantiles).float()  # [C, T]
    dead = values[:, 0] >= histogram.greatest.float()
    return Levels(quantiles, values, quantiles.index(settings.quantile), dead)


def _seen(statistic: Statistic, kind: type[S]) -> S:
    """The statistic itself, whether it looked along directions or not."""
    seen = statistic.inner if isinstance(statistic, Along) else statistic
    assert isinstance(seen, kind)
    return seen


def _require_once(what: str, names: Sequence[str] | Sequence[int]) -> None:
    """Each of `names` must be there once, and at least one."""
    if not names:
        raise RequestError(found=f"no {what}", expected="at least one", remedy=f"Name a {what}.")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise RequestError(
            found=f"{what} '{twice[0]}' named twice", expected="each once", remedy="Leave one of them out."
        )
