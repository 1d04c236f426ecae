"""What units cause: how much of each concept there is after an intervention, picture by picture.

For each set of interventions, and each concept, the share of a picture's pixels that the concept covers is compared
before and after. The *effect* is ``after - before``, averaged over pictures, with a bootstrap interval over them
(`dissect.bootstrap`); the *relative* effect divides by the greater of the two: -1 says that the concept is gone, 1 that
there was none before, and it is 0 where there is none in either.

The *average causal effect* of Bau et al., *GAN Dissection* (ICLR 2019), equation 3, compares inserting with ablating
the same units in the same region, ``E[share | inserted] - E[share | ablated]``: `Effects.average_causal_effect`.

    sets = {"ablated": [ablate("l08", units)], "inserted": [insert("l08", units, values)]}
    found = causal_effects(generator, LatentSpec.of(range(200)), colours, sets)
    found.table()  # set, concept, before, after, effect, low, high, relative
    found.average_causal_effect("inserted", "ablated")

Counts of pixels are exact and kept for each picture, so the effects of other pictures merge with them, and every
comparison is paired. The source must see pixels alone: labels of the unedited picture would find every erased eye.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from dissect.bootstrap import RESAMPLES, interval
from dissect.concepts.source import ConceptSource, require_pixels_only
from dissect.interventions import Intervention, ablate, check, finished, first_layer
from dissect.shares import concept_masks
from rewrite_core.errors import RequestError
from rewrite_core.generators import Generator, LatentSpec, LayerInput, Progress

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Effects",
    "Sets",
    "causal_effects",
    "counting",
    "measured",
    "require_measurable",
    "single_effects",
]

Sets = Mapping[str, Sequence[Intervention]]
"""Name → interventions that are made together."""


@dataclass(frozen=True, eq=False)
class Effects:
    """Pixels of each concept in each picture, before and after each of some sets of interventions.

    Attributes:
        sets: names of the S sets.
        concepts: names of the L concepts.
        seeds: of the N pictures.
        before: [N, L] int64.
        after: [S, N, L] int64.
        pixels: of a picture's labels.
    """

    sets: tuple[str, ...]
    concepts: tuple[str, ...]
    seeds: tuple[int, ...]
    before: Tensor
    after: Tensor
    pixels: int

    @property
    def changes(self) -> Tensor:
        """Share after less share before, of each picture: [S, N, L] float64."""
        return (self.after - self.before).double() / max(self.pixels, 1)

    def table(self, resamples: int = RESAMPLES) -> pd.DataFrame:
        """A row for each set and concept: set, concept, before, after, effect, low, high, relative."""
        before = self._mean(self.before).expand(len(self.sets), -1)  # [S, L]
        return self._compared(self.sets, before, self._mean(self.after), self.changes, resamples)

    def average_causal_effect(self, inserted: str, ablated: str, resamples: int = RESAMPLES) -> pd.DataFrame:
        """Equation 3 of GAN Dissection: a row for each concept, as in `table`; before is ablated, after is inserted.

        Raises:
            RequestError: no such sets.
        """
        after, before = self.after[self._place(inserted)], self.after[self._place(ablated)]  # [N, L]
        changes = (after - before).double() / max(self.pixels, 1)
        name = (f"{inserted} - {ablated}",)
        means = self._mean(before)[None], self._mean(after)[None]
        return self._compared(name, *means, changes[None], resamples)

    def merge(self, other: Self) -> Self:
        """With the pictures of `other` after these.

        Raises:
            RequestError: other sets or concepts, or labels of another size.
        """
        if (self.sets, self.concepts, self.pixels) != (other.sets, other.concepts, other.pixels):
            raise RequestError(
                found="effects of other interventions, or on other concepts",
                expected=f"{', '.join(self.sets)} on {', '.join(self.concepts)}, {self.pixels:,} pixels each",
                remedy="Merge only what was measured alike.",
            )
        return replace(
            self,
            seeds=self.seeds + other.seeds,
            before=torch.cat([self.before, other.before]),
            after=torch.cat([self.after, other.after], 1),
        )

    def _mean(self, counts: Tensor) -> Tensor:
        """Counts [..., N, L] → mean share [..., L] float64."""
        return counts.sum(-2).double() / max(len(self.seeds) * self.pixels, 1)

    def _place(self, name: str) -> int:
        if name not in self.sets:
            raise RequestError(
                found=f"interventions '{name}'",
                expected=f"one of {', '.join(self.sets)}",
                remedy="Measure them first.",
            )
        return self.sets.index(name)

    def _compared(
        self, sets: tuple[str, ...], before: Tensor, after: Tensor, changes: Tensor, resamples: int
    ) -> pd.DataFrame:
        """Rows of means [S, L] and the pictures' changes [S, N, L]."""
        import pandas as pd

        low, high = interval(changes.movedim(1, 0).flatten(1), resamples=resamples)  # [S * L]
        effect = after - before
        greater = torch.maximum(after, before)
        columns = {
            "before": before,
            "after": after,
            "effect": effect,
            "low": low,
            "high": high,
            "relative": torch.where(greater > 0, effect / greater, 0.0),
        }
        names = pd.MultiIndex.from_product([sets, self.concepts], names=["set", "concept"])
        numbers = {name: column.flatten().numpy() for name, column in columns.items()}
        return pd.DataFrame(numbers, index=names).reset_index()


def causal_effects(
    generator: Generator,
    spec: LatentSpec,
    source: ConceptSource,
    sets: Sets,
    progress: Progress | None = None,
) -> Effects:
    """The effects of `sets` on every concept of `source`, over the pictures of `spec`.

    `progress` counts pictures drawn: those before, and those after each set.

    Raises:
        PalimpsestError: the source is not pixels-only, or cannot label this generator's pictures.
        RequestError: no picture; or no such unit, or a region of another size (see `interventions.check`).
        LayerError: no such layer.
        Cancelled: from `progress`.
    """
    everything = [one for interventions in sets.values() for one in interventions]
    require_measurable(generator, spec, source, everything)
    layer = first_layer(generator, everything)
    advance = counting(progress, len(spec) * (1 + len(sets)))
    parts = []
    for block in spec.blocks(generator.micro_batch):
        at = generator.keys(generator.latents(block), layer)
        parts.append(measured(generator, at, source, sets, advance))
    return reduce(Effects.merge, parts)


def single_effects(
    generator: Generator,
    spec: LatentSpec,
    layer: str,
    source: ConceptSource,
    units: Iterable[int] | None = None,
    progress: Progress | None = None,
) -> Effects:
    """The effects of ablating each of `units` of `layer` alone (default: all); a set's name is the unit's number.

    The batch is stopped at the layer once, and drawn on from there for every unit.

    Raises:
        As `causal_effects`.
    """
    chosen = range(generator.layer(layer).in_channels) if units is None else units
    sets = {str(unit): [ablate(layer, [unit])] for unit in chosen}
    return causal_effects(generator, spec, source, sets, progress)


@torch.no_grad()
def measured(
    generator: Generator,
    at: LayerInput,
    source: ConceptSource,
    sets: Sets,
    advance: Callable[[int], None] | None = None,
) -> Effects:
    """The effects over one batch, stopped at or before the first layer that is intervened on.

    `advance` is called with the pictures drawn, whenever some are.
    """
    counts, pixels = [], 0
    for interventions in [(), *sets.values()]:
        masks = concept_masks(source, finished(generator, at, interventions), at.latents)  # [N, L, H, W]
        counts.append(masks.sum((2, 3)).cpu())  # [N, L] int64
        pixels = masks.shape[2] * masks.shape[3]
        if advance:
            advance(len(masks))
    before, *after = counts
    seen = torch.stack(after) if after else before.new_zeros(0, *before.shape)  # [S, N, L]
    return Effects(tuple(sets), source.names, at.latents.spec.seeds, before, seen, pixels)


def require_measurable(
    generator: Generator, spec: LatentSpec, source: ConceptSource, interventions: Iterable[Intervention]
) -> None:
    """See that the effects of `interventions` can be measured, before any picture is drawn.

    Raises:
        As `causal_effects`.
    """
    require_pixels_only(source)
    source.check(generator)
    check(generator, interventions)
    if not len(spec):
        raise RequestError(found="0 samples", expected="at least 1", remedy="100 is a sound number.")


def counting(progress: Progress | None, total: int) -> Callable[[int], None]:
    """What is to be called with the pictures drawn, whenever some are, to tell `progress` how many of `total` are."""
    done = 0

    def advance(pictures: int) -> None:
        nonlocal done
        done += pictures
        if progress:
            progress(done, total)

    return advance
