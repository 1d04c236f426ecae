"""Which units draw a concept: greedy ranking by causal effect, and the curve of effect against number of units.

Candidates, such as the units of highest IoU, are ablated one at a time; then, step by step, the unit is added whose
ablation together with those already chosen leaves the least of the concept. (GAN Dissection, section 3.2, instead
learns a weight for each unit of the layer by gradient descent through the segmenter. A greedy order needs no gradient,
works with any source of labels, and says what each further unit adds. It need not find the best set of its size.)

Choosing flatters what was chosen, so the first half of the pictures chooses, and the second measures the curve. Equal
candidates are taken in the order in which they were given; nothing here is random.

    found = rank_units(generator, LatentSpec.of(range(200)), "l08", "eyes", faces, candidates, count=8)
    found.units        # in the order chosen
    found.table()      # units, added, before, after, effect, low, high, relative

With K candidates each sample that chooses is drawn from the layer on K + 1 times for the first unit, K times for the
second, and so on. The batches that are stopped there are kept between the steps, as far as `KEPT` bytes go.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING

import torch

from dissect.bootstrap import RESAMPLES
from dissect.concepts.source import ConceptSource
from dissect.effects import Effects, Sets, counting, measured, require_measurable
from dissect.interventions import ablate
from dissect.layer import LayerDissection
from dissect.shares import concept_index
from dissect.units import halves
from rewrite_core.errors import RequestError
from rewrite_core.generators import Generator, LatentSpec, LayerInput, Progress

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["KEPT", "Ranking", "likely_units", "rank_units", "require_rankable"]

KEPT = 512 << 20
"""Bytes of stopped batches that are kept between steps; what does not fit is drawn again."""


@dataclass(frozen=True, eq=False)
class Ranking:
    """Units in the order in which they were chosen, and what ablating more and more of them does.

    Attributes:
        single: the effects of each candidate alone, on the pictures that chose; a set's name is the unit's number.
        curve: the effects of the first 1, 2, … units, on the other pictures; a set's name is how many.
    """

    layer: str
    concept: str
    units: tuple[int, ...]
    single: Effects
    curve: Effects

    def table(self, resamples: int = RESAMPLES) -> pd.DataFrame:
        """The curve of the concept: a row for each number of units.

        Columns: units, added, before, after, effect, low, high, relative.
        """
        table = self.curve.table(resamples)
        table = table[table["concept"] == self.concept].drop(columns="concept").reset_index(drop=True)
        table = table.rename(columns={"set": "units"}).astype({"units": int})
        table.insert(1, "added", list(self.units))
        return table


def rank_units(
    generator: Generator,
    spec: LatentSpec,
    layer: str,
    concept: str,
    source: ConceptSource,
    candidates: Sequence[int],
    count: int,
    progress: Progress | None = None,
) -> Ranking:
    """Choose `count` of `candidates` whose ablation takes most of `concept` away, best first.

    `progress` counts pictures drawn from the layer on.

    Raises:
        RequestError: no such unit or concept, fewer candidates than `count`, or fewer than two pictures.
        LayerError: no such layer.
        PalimpsestError: the source is not pixels-only, or cannot label this generator's pictures.
        Cancelled: from `progress`.
    """
    require_measurable(generator, spec, source, [ablate(layer, candidates)])
    label = concept_index(source.names, concept)
    require_rankable(spec, len(candidates), count)
    choosing, fresh = halves(spec)
    drawn = sum(1 + left for left in range(len(candidates), len(candidates) - count, -1))
    advance = counting(progress, drawn * len(choosing) + (1 + count) * len(fresh))

    def effects(batches: _Batches, sets: Sets) -> Effects:
        return reduce(Effects.merge, (measured(generator, at, source, sets, advance) for at in batches))

    batches = _Batches(generator, choosing, layer)
    single: Effects | None = None
    chosen: tuple[int, ...] = ()
    while len(chosen) < count:
        left = [unit for unit in candidates if unit not in chosen]
        found = effects(batches, {str(unit): [ablate(layer, (*chosen, unit))] for unit in left})
        single = single or found
        remaining = found.after[..., label].sum(1)  # [S] pixels
        chosen = (*chosen, left[int(remaining.numpy().argmin())])  # the first of equals
    curve = {str(number): [ablate(layer, chosen[:number])] for number in range(1, count + 1)}
    assert single is not None
    return Ranking(layer, concept, chosen, single, effects(_Batches(generator, fresh, layer), curve))


def require_rankable(spec: LatentSpec, candidates: int, count: int) -> None:
    """See that `count` of so many candidates can be chosen on half of the pictures, and judged on the other.

    Raises:
        RequestError: they cannot.
    """
    if not 1 <= count <= candidates or len(spec) < 2:
        raise RequestError(
            found=f"{count} units of {candidates} candidates, on {len(spec)} pictures",
            expected="at least 1 unit, no more than candidates, and at least 2 pictures",
            remedy="Give more candidates or pictures.",
        )


def likely_units(found: LayerDissection, concept: str, count: int) -> tuple[int, ...]:
    """The units of a layer that `concept` is most likely to hang on: those of the best tuned IoU, best first.

    What `rank_units` may choose from where trying every unit would take too long.

    Raises:
        RequestError: there is no such concept.
    """
    iou = found.tuned_iou[:, concept_index(found.concepts, concept)]  # [C]
    return tuple(iou.sort(descending=True, stable=True).indices[:count].tolist())


@dataclass
class _Batches:
    """The batches of `spec` stopped at `layer`, again and again; as many as fit are kept."""

    generator: Generator
    spec: LatentSpec
    layer: str
    _kept: dict[int, LayerInput] = field(default_factory=dict)
    _bytes: int = 0

    def __iter__(self) -> Iterator[LayerInput]:
        for number, block in enumerate(self.spec.blocks(self.generator.micro_batch)):
            yield self._kept[number] if number in self._kept else self._stopped(number, block)

    @torch.no_grad()
    def _stopped(self, number: int, block: LatentSpec) -> LayerInput:
        at = self.generator.keys(self.generator.latents(block), self.layer)
        size = sum(tensor.nbytes for tensor in (at.keys, *at.rest.values()))
        if self._bytes + size <= KEPT:
            self._kept[number], self._bytes = at, self._bytes + size
        return at
