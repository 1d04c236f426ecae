"""What was found at one layer: every unit against every concept, and what follows from it.

Axes: units C (or directions, in their place), concepts L, levels T.

A unit has two thresholds for a concept. The *set* one is the same for all concepts, and its numbers (`iou`,
`precision`, `recall`, `density`) are over all samples. The *tuned* one is, of the unit's T levels, that of the best IoU
on the first half of the samples; the IoU reported for it (`held_out`) is on the second half alone. (The values of the
levels are quantiles over both halves, which takes no labels.)

**Which concept a unit stands for** is chosen on the first half too: that of the best tuned IoU among those that it
detects there (as below, on that half), or among all if it detects none. Without that preference a concept that covers
most of the picture would take nearly every unit for itself, for any large mask has a high IoU with it.

**A detector** is a unit whose held-out IoU with that concept is above the IoU level (0.04 by default), *and* above the
concept's baseline: the IoU on the second half of a unit that fires everywhere, which is the concept's share of the
pixels. A unit that fires independently of a concept of share s, in a share d of the pixels, has the IoU
d s / (d + s − d s) ≤ s, so nothing but dependence beats the baseline, up to the noise of the samples. That dependence
may be one of place alone: in aligned pictures, a unit that always fires in the middle meets what is always there.

A unit is *dead* if it is above none of its levels anywhere: its map is constant, or at its greatest value more often
than not. It stands for no concept, and its numbers are 0. Nothing here is ever NaN.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from dissect.settings import Settings
from rewrite_core.statistics import Intersection

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LayerDissection", "Levels", "Unit"]

Unit = int | str
"""A unit by its number, or a direction by its name."""


@dataclass(frozen=True, eq=False)
class Levels:
    """Thresholds of every unit of a layer, at ascending quantiles of its values.

    Attributes:
        quantiles: the T shares of positions that lie below, the same for each unit.
        values: the thresholds, [C, T] float32.
        chosen: which of the T is the set one.
        dead: which units are above none of them anywhere, [C] bool.
    """

    quantiles: tuple[float, ...]
    values: Tensor
    chosen: int
    dead: Tensor


@dataclass(frozen=True, eq=False)
class LayerDissection:
    """Every unit of a layer against every concept; all tensors are float64 on the CPU unless said otherwise.

    Attributes:
        layer: its name.
        units: number of each unit, or name of each direction, C.
        concepts: the L names.
        levels: the thresholds that were tried.
        density: share of all pixels in which a unit is above its set threshold, [C].
        iou, precision, recall: with it, over all samples, [C, L].
        tuned: which level has the best IoU on the first half, [C, L] int64; see `_best_level`.
        tuned_iou: that IoU, which flatters, [C, L].
        held_out: the IoU at the same level on the second half, [C, L].
        share: of all pixels, those that carry a concept, [L].
        halves: the same of each half's pixels, [2, L].
        concept: which concept a unit stands for, [C] int64; -1 if it meets none.
        detector: which units detect theirs, [C] bool.
        samples, pixels: how many of both were counted.
    """

    layer: str
    units: tuple[Unit, ...]
    concepts: tuple[str, ...]
    levels: Levels
    density: Tensor
    iou: Tensor
    precision: Tensor
    recall: Tensor
    tuned: Tensor
    tuned_iou: Tensor
    held_out: Tensor
    share: Tensor
    halves: Tensor
    concept: Tensor
    detector: Tensor
    samples: int
    pixels: int

    @classmethod
    def of(
        cls,
        layer: str,
        units: tuple[Unit, ...],
        levels: Levels,
        counts: tuple[Intersection, Intersection],
        settings: Settings,
    ) -> Self:
        """From the counts of the two halves at those levels."""
        first, second = counts
        whole = first.merge(second)
        set_level = whole.at(levels.chosen)
        halves = torch.stack([_share(first), _share(second)])  # [2, L]
        tuned = _best_level(first.iou, levels.chosen)  # [C, L]
        tuned_iou, held_out = first.at_levels(tuned).iou, second.at_levels(tuned).iou
        needed = halves.clamp(min=settings.level)  # [2, L]
        concept = _best_concept(tuned_iou, tuned_iou > needed[0])  # [C]
        return cls(
            layer=layer,
            units=units,
            concepts=whole.labeller.names,
            levels=levels,
            density=set_level.density,
            iou=set_level.iou,
            precision=set_level.precision,
            recall=set_level.recall,
            tuned=tuned,
            tuned_iou=tuned_iou,
            held_out=held_out,
            share=_share(whole),
            halves=halves,
            concept=concept,
            detector=_picked(held_out > needed[1], concept),
            samples=whole.samples,
            pixels=whole.pixels,
        )

    @property
    def noun(self) -> str:
        """What each of `units` is called: ``unit``, or ``direction`` where these took their place."""
        return "direction" if isinstance(self.units[0], str) else "unit"

    @property
    def thresholds(self) -> Tensor:
        """The set threshold of each unit, [C] float32."""
        return self.levels.values[:, self.levels.chosen]

    @property
    def baseline(self) -> Tensor:
        """IoU on the second half of a unit that fires everywhere, [L]: what a held-out IoU has to beat."""
        return self.halves[1]

    @property
    def dead(self) -> Tensor:
        """Which units are dead, [C] bool."""
        return self.levels.dead

    @property
    def tuned_quantile(self) -> Tensor:
        """The quantile of the tuned threshold, [C, L]."""
        return torch.tensor(self.levels.quantiles, dtype=torch.float64)[self.tuned]

    @property
    def tuned_threshold(self) -> Tensor:
        """The tuned threshold itself, [C, L] float32."""
        return self.levels.values.gather(1, self.tuned)

    def best(self, concept: int) -> int | None:
        """The unit of the best tuned IoU with `concept` on the first half, the first of equals; None if all are 0."""
        iou = self.tuned_iou[:, concept]
        return int(iou.numpy().argmax()) if bool((iou > 0).any()) else None

    def table(self) -> pd.DataFrame:
        """A row for each unit, with the columns that `Dissection.units` explains."""
        import pandas as pd

        names = (*self.concepts, "")  # the last is what -1 stands for
        columns: dict[str, Any] = {
            "layer": self.layer,
            "unit": list(self.units),
            "concept": [names[concept] for concept in self.concept.tolist()],
            "iou": self._own(self.iou),
            "tuned_quantile": self._own(self.tuned_quantile),
            "held_out_iou": self._own(self.held_out),
            "baseline": self._own(self.baseline.expand_as(self.iou)),
            "precision": self._own(self.precision),
            "recall": self._own(self.recall),
            "density": self.density.numpy(),
            "threshold": self.thresholds.double().numpy(),
            "dead": self.dead.numpy(),
            "detector": self.detector.numpy(),
        }
        return pd.DataFrame(columns)

    def warnings(self) -> Iterator[str]:
        """One line for each concept that cannot be judged."""
        for name, first, second in zip(self.concepts, *self.halves.tolist(), strict=True):
            if first == second == 0:
                yield f"'{name}' is in none of the {self.samples:,} samples: no {self.noun} can detect it"
            elif first == 0:
                yield f"'{name}' is in the second half of the samples only: no threshold could be chosen for it"
            elif second == 0:
                yield f"'{name}' is in the first half of the samples only: every held-out IoU with it is 0"

    def _own(self, table: Tensor) -> Any:
        """Of `table` [C, L], each unit's entry at the concept that it stands for: an array [C]."""
        return _picked(table, self.concept).numpy()


def _share(seen: Intersection) -> Tensor:
    """The share of pixels that carry each label, [L]: also the IoU of a unit that fires everywhere."""
    assert seen.label_area is not None, "no sample was seen"
    return seen.label_area.double() / seen.pixels


def _best_level(iou: Tensor, otherwise: int) -> Tensor:
    """The level of the highest of `iou` [C, T, L], [C, L]: the last of equals, and `otherwise` where all are 0."""
    backwards = torch.from_numpy(iou.flip(1).numpy().argmax(1))  # numpy takes the first of equals, torch any
    return torch.where(iou.amax(1) > 0, iou.shape[1] - 1 - backwards, otherwise)


def _best_concept(iou: Tensor, detected: Tensor) -> Tensor:
    """The concept of the highest of `iou` [C, L] among those `detected`, if any is, [C]; -1 where all are 0."""
    eligible = detected | ~detected.any(1, keepdim=True)
    best = torch.from_numpy(iou.masked_fill(~eligible, -1.0).numpy().argmax(1))  # the first of equals
    return best.masked_fill(iou.amax(1) <= 0, -1)


def _picked(table: Tensor, concept: Tensor) -> Tensor:
    """Of `table` [C, L], each unit's entry at its concept [C], [C]; 0 or False where it has none."""
    return table.gather(1, concept.clamp(min=0)[:, None])[:, 0].masked_fill(concept < 0, 0)
