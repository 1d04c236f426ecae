"""What a report shows of a dissection: the best unit of each concept, and what ablating some of them does.

The best unit of a concept is that of the best IoU on the first half of the samples (`Dissection.concepts`). Concepts
are ranked by how far its IoU on the second half is above the baseline there. Those of the first ranks whose unit
detects them are ablated: the unit alone, and all units of its layer that detect the concept. The pictures shown are
those where the unit is strongest, so they show the effect at its largest; the effect in numbers is over the first
samples of the second half, strong or not. It needs a source that sees pixels alone.

Where directions took the place of units, the best one alone is ablated: what it matches, by the layer's second moment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pandas as pd
from torch import Tensor

from dissect.concepts import ConceptSource
from dissect.effects import Effects, causal_effects
from dissect.interventions import Intervention, ablate, ablate_directions, sample
from dissect.layer import LayerDissection
from dissect.sheet import LayerSheets, UnitSheet, layer_sheets
from dissect.tables import Dissection
from dissect.units import halves
from rewrite_core.generators import Generator, LatentSpec
from rewrite_core.pictures import Picture, to_uint8
from rewrite_core.statistics import SecondMoment, Store, fetch

__all__ = ["ABLATED", "EFFECT_SAMPLES", "SHEETS", "Ablation", "Highlight", "ablations", "highlights"]

SHEETS = 24
"""Concepts whose best unit gets a sheet, at most."""
ABLATED = 4
"""Of them, those whose best unit is ablated."""
RIVALS = 5
"""Units that are listed for a concept."""
EFFECT_SAMPLES = 100
"""Pictures that an effect is measured on."""
UNIT, DETECTORS = "unit", "detectors"

Ablating = Callable[[str, Sequence[int]], Intervention]
"""From a layer and some of its rows to what ablates them."""


@dataclass(frozen=True, eq=False)
class Highlight:
    """The best unit of one concept.

    Attributes:
        concept: its name.
        sheet: of that unit.
        rivals: the best units of all layers for the concept, best first: layer, unit, tuned_iou, held_out_iou.
        baseline: of the concept.
        held_out: IoU of the unit with the concept on the second half.
        tuned: the same on the first, where it was chosen.
    """

    concept: str
    sheet: UnitSheet
    rivals: pd.DataFrame
    baseline: float
    held_out: float
    tuned: float

    @property
    def detector(self) -> bool:
        """Whether it is this concept that the unit detects."""
        return self.sheet.detector and self.sheet.concept == self.concept


@dataclass(frozen=True, eq=False)
class Ablation:
    """The best unit of a concept ablated, and all units of its layer that detect the concept.

    Attributes:
        highlight: the unit.
        units: all detectors of the concept at its layer, by row.
        seeds: of the N pictures.
        strips: pictures [N, H, W, 3] before, without the unit, and without all detectors if there are several units.
        effects: on each concept of the source that judged; None where there was none.
    """

    highlight: Highlight
    units: tuple[int, ...]
    seeds: tuple[int, ...]
    strips: dict[str, Picture]
    effects: pd.DataFrame | None


def highlights(
    generator: Generator,
    dissection: Dissection,
    *,
    directions: Tensor | None = None,
    most: int = SHEETS,
    store: Store | None = None,
    advance: Callable[[], None] = lambda: None,
) -> list[Highlight]:
    """The best units of up to `most` concepts, those furthest above their baseline first.

    `directions` [M, C] are those that took the place of units, if any did. `advance` is called after each.
    """
    table = dissection.concepts()
    table = table[table.unit != ""]
    table = table.assign(above=table.held_out_iou - table.baseline)
    sheets: dict[str, LayerSheets] = {}
    found = []
    best = table.sort_values("above", ascending=False, kind="stable")[:most]
    for concept, layer in zip(best.concept, best.layer, strict=True):
        if layer not in sheets:
            sheets[layer] = layer_sheets(generator, dissection, layer, directions=directions, store=store)
        found.append(_highlight(dissection, concept, sheets[layer]))
        advance()
    return found


def ablations(
    generator: Generator,
    dissection: Dissection,
    found: Sequence[Highlight],
    judge: ConceptSource | None,
    *,
    directions: Tensor | None = None,
    most: int = ABLATED,
    store: Store | None = None,
    advance: Callable[[], None] = lambda: None,
) -> list[Ablation]:
    """Up to `most` of the units that detect their concept, ablated; `judge` sees pixels alone, and measures it.

    All are measured in one pass over the same samples. `directions` [M, C] are those that took the place of units.
    `advance` is called after each.
    """
    chosen = [one for one in found if one.detector][:most]
    if not chosen:
        return []
    ablating = _ablating(generator, dissection, directions, store)
    sets = {
        f"{number} {name}": interventions
        for number, one in enumerate(chosen)
        for name, interventions in _sets(one, ablating).items()
    }
    effects = None
    if judge is not None:
        _, second = halves(dissection.spec)
        effects = causal_effects(generator, replace(second, seeds=second.seeds[:EFFECT_SAMPLES]), judge, sets)
    made = []
    for number, one in enumerate(chosen):
        made.append(_ablation(generator, dissection.spec, one, ablating, _of(effects, number)))
        advance()
    return made


def _highlight(dissection: Dissection, concept: str, sheets: LayerSheets) -> Highlight:
    found, number = sheets.found, dissection.names.index(concept)
    row = found.best(number)
    assert row is not None, "it is the best"
    return Highlight(
        concept=concept,
        sheet=sheets.sheet(found.units[row]),
        rivals=_rivals(dissection, number),
        baseline=float(found.baseline[number]),
        held_out=float(found.held_out[row, number]),
        tuned=float(found.tuned_iou[row, number]),
    )


def _rivals(dissection: Dissection, number: int) -> pd.DataFrame:
    """The best units of all layers for one concept."""
    tables = [
        pd.DataFrame(
            {
                "layer": name,
                "unit": layer.units,
                "tuned_iou": layer.tuned_iou[:, number].numpy(),
                "held_out_iou": layer.held_out[:, number].numpy(),
            }
        ).nlargest(RIVALS, "tuned_iou", keep="first")
        for name, layer in dissection.layers.items()
    ]
    return pd.concat(tables, ignore_index=True).nlargest(RIVALS, "tuned_iou", keep="first")


def _ablating(
    generator: Generator, dissection: Dissection, directions: Tensor | None, store: Store | None
) -> Ablating:
    """How rows of a layer are ablated: as units, or as directions by their patterns."""
    if directions is None:
        return ablate
    (layer,) = dissection.layers
    moment = fetch(generator, layer, dissection.spec, SecondMoment(), store=store).matrix  # [C, C]
    return lambda layer, rows: ablate_directions(layer, directions[list(rows)], moment)


def _sets(one: Highlight, ablating: Ablating) -> dict[str, list[Intervention]]:
    """What is ablated for one concept."""
    sheet, units = one.sheet, _detectors(one)
    sets = {sheet.found.noun: [ablating(sheet.layer, [sheet.row])]}
    if len(units) > 1 and sheet.found.noun == UNIT:
        sets[DETECTORS] = [ablating(sheet.layer, units)]
    return sets


def _detectors(one: Highlight) -> tuple[int, ...]:
    """The rows of all units of the layer that detect the concept."""
    found: LayerDissection = one.sheet.found
    detects = found.detector & (found.concept == found.concepts.index(one.concept))
    return tuple(detects.nonzero()[:, 0].tolist())


def _ablation(
    generator: Generator,
    spec: LatentSpec,
    one: Highlight,
    ablating: Ablating,
    effects: pd.DataFrame | None,
) -> Ablation:
    seeds = one.sheet.ranges[0].seeds
    shown = replace(spec, seeds=seeds)
    strips = {"before": one.sheet.ranges[0].pictures}
    for name, interventions in _sets(one, ablating).items():
        strips[name] = to_uint8(sample(generator, shown, interventions))
    return Ablation(one, _detectors(one), seeds, strips, effects)


def _of(effects: Effects | None, number: int) -> pd.DataFrame | None:
    """The rows of one concept's sets, by their own names."""
    if effects is None:
        return None
    table, prefix = effects.table(), f"{number} "
    rows = table[table.set.str.startswith(prefix)]
    return rows.assign(set=rows.set.str.removeprefix(prefix)).reset_index(drop=True)
