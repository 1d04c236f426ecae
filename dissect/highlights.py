"""What a report shows of a dissection: the best unit of each concept, and what ablating some of them does.

The best unit of a concept is that of the best IoU on the first half of the samples (`Dissection.concepts`). Concepts
are ranked by how far its IoU on the second half is above the baseline there. Those of the first ranks whose unit
detects them are ablated: the unit alone, and all units of its layer that detect the concept. The pictures shown are
those where the unit is strongest, so they show the effect at its largest; the effect in numbers is over the first
samples of the second half, strong or not. It needs a source that sees pixels alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from dissect.concepts import ConceptSource
from dissect.effects import Effects, causal_effects
from dissect.interventions import Intervention, ablate, sample
from dissect.layer import LayerDissection
from dissect.sheet import LayerSheets, UnitSheet, layer_sheets
from dissect.tables import Dissection
from dissect.units import halves
from rewrite_core.generators import Generator, LatentSpec
from rewrite_core.pictures import Picture, to_uint8
from rewrite_core.statistics import Store

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
        units: all detectors of the concept at its layer.
        seeds: of the N pictures.
        strips: pictures [N, H, W, 3] before, without the unit, and without all detectors if there are several.
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
    most: int = SHEETS,
    store: Store | None = None,
    advance: Callable[[], None] = lambda: None,
) -> list[Highlight]:
    """The best units of up to `most` concepts, those furthest above their baseline first.

    `advance` is called after each.
    """
    table = dissection.concepts()
    table = table[table.unit != ""]
    table = table.assign(above=table.held_out_iou - table.baseline)
    sheets: dict[str, LayerSheets] = {}
    found = []
    best = table.sort_values("above", ascending=False, kind="stable")[:most]
    for concept, layer in zip(best.concept, best.layer, strict=True):
        if layer not in sheets:
            sheets[layer] = layer_sheets(generator, dissection, layer, store=store)
        found.append(_highlight(dissection, concept, sheets[layer]))
        advance()
    return found


def ablations(
    generator: Generator,
    dissection: Dissection,
    found: Sequence[Highlight],
    judge: ConceptSource | None,
    *,
    most: int = ABLATED,
    advance: Callable[[], None] = lambda: None,
) -> list[Ablation]:
    """Up to `most` of the units that detect their concept, ablated; `judge` sees pixels alone, and measures it.

    All are measured in one pass over the same samples. `advance` is called after each.
    """
    chosen = [one for one in found if one.detector][:most]
    sets = {
        f"{number} {name}": interventions
        for number, one in enumerate(chosen)
        for name, interventions in _sets(one).items()
    }
    effects = None
    if judge is not None and sets:
        _, second = halves(dissection.spec)
        effects = causal_effects(generator, replace(second, seeds=second.seeds[:EFFECT_SAMPLES]), judge, sets)
    made = []
    for number, one in enumerate(chosen):
        made.append(_ablation(generator, dissection.spec, one, _of(effects, number)))
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


def _sets(one: Highlight) -> dict[str, list[Intervention]]:
    """What is ablated for one concept."""
    layer, units = one.sheet.layer, _detectors(one)
    sets = {UNIT: [ablate(layer, [one.sheet.row])]}
    if len(units) > 1:
        sets[DETECTORS] = [ablate(layer, units)]
    return sets


def _detectors(one: Highlight) -> tuple[int, ...]:
    """The rows of all units of the layer that detect the concept."""
    found: LayerDissection = one.sheet.found
    detects = found.detector & (found.concept == found.concepts.index(one.concept))
    return tuple(detects.nonzero()[:, 0].tolist())


def _ablation(
    generator: Generator, spec: LatentSpec, one: Highlight, effects: pd.DataFrame | None
) -> Ablation:
    seeds = one.sheet.ranges[0].seeds
    shown = replace(spec, seeds=seeds)
    strips = {"before": one.sheet.ranges[0].pictures}
    for name, interventions in _sets(one).items():
        strips[name] = to_uint8(sample(generator, shown, interventions))
    return Ablation(one, _detectors(one), seeds, strips, effects)


def _of(effects: Effects | None, number: int) -> pd.DataFrame | None:
    """The rows of one concept's sets, by their own names."""
    if effects is None:
        return None
    table, prefix = effects.table(), f"{number} "
    rows = table[table.set.str.startswith(prefix)]
    return rows.assign(set=rows.set.str.removeprefix(prefix)).reset_index(drop=True)
