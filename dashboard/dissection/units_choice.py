"""Which units are ablated or inserted, with what value, and where: the panel of the view *Ablate and insert*."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import streamlit as st

from dashboard.background import brought, show_work
from dashboard.binding import bound
from dashboard.budget import Budget
from dashboard.dissection.finding import easel
from dashboard.dissection.probe import (
    ABLATE,
    BY_CONCEPT,
    BY_NUMBER,
    EVERYWHERE,
    INSERT,
    MEAN,
    PAINTED,
    QUANTILE,
    SHEET,
)
from dashboard.dissection.state import identity_of, judge_of, source_of, spec_of, subject_of
from dashboard.errors import shown
from dashboard.ranges import parse_ranges
from dashboard.session import Session, service
from dashboard.text import plain
from dissect.choosing import best_units
from dissect.interventions import Intervention, Units, ablate, concept_values, insert, quantile_values
from dissect.layer import LayerDissection
from dissect.units import Dissection
from rewrite_core.errors import RequestError
from rewrite_core.jobs import Progress
from rewrite_core.statistics import Conditional, Histogram, fetch

__all__ = ["Asked", "asked_for", "concept_of", "panel", "probing"]

VALUES = "inserted-values"
MOST = 64
"""Units that are taken together, at most, when they are counted."""

_values: Budget[tuple[float, ...]] = Budget(1 << 20, lambda values: 8 * len(values))


@dataclass(frozen=True, eq=False)
class Asked:
    """An intervention, and for a key all that it depends on."""

    intervention: Intervention
    units: tuple[int, ...]
    concept: str
    key: tuple[Any, ...]


def probing(visitor: Session, **changes: Any) -> None:
    """Replace some of what the visitor tries."""
    visitor.probe = replace(visitor.probe, **changes)


def concept_of(visitor: Session, found: Dissection) -> str:
    """The concept that units are most like: the visitor's, else the page's, else what most units detect."""
    for name in (visitor.probe.concept, visitor.dissecting.concept):
        if name in found.names:
            return name
    detectors = found.detectors().loc[visitor.layer]
    if detectors.any():
        return str(detectors.idxmax())
    units = found.layers[visitor.layer].table().sort_values("held_out_iou", ascending=False, kind="stable")
    return str(units["concept"].iloc[0]) or found.names[0]


def panel(visitor: Session, found: Dissection) -> tuple[int, ...]:
    """Every choice, in the order in which one makes them; the units that are chosen, none while that says why not."""
    probe, layer = visitor.probe, found.layers[visitor.layer]
    units: tuple[int, ...] = ()
    with st.container(border=True):
        _choice(visitor, "Act", (ABLATE, INSERT), "act", probe.act)
        _choice(visitor, "Units", (BY_CONCEPT, BY_NUMBER, SHEET), "by", probe.by, _UNITS)
        if probe.by == BY_CONCEPT or (probe.act == INSERT and probe.value == MEAN):
            _concept(visitor, found)
        if probe.by == BY_NUMBER:
            st.text_input(
                "Numbers",
                placeholder="3, 17, 40-43",
                max_chars=400,
                **_bound(visitor, "numbers", probe.numbers),
            )
        with shown():
            units = _units(visitor, layer, concept_of(visitor, found))
            _said(layer, units, concept_of(visitor, found))
        if probe.act == INSERT:
            _choice(visitor, "Value", (MEAN, QUANTILE), "value", probe.value, _VALUE)
        st.slider(
            "Strength",
            0.0,
            1.0,
            step=0.05,
            help="0: untouched; 1: the units are forced to the value, here 0 for an ablation",
            **_bound(visitor, "strength", probe.strength),
        )
        _choice(visitor, "Where", (EVERYWHERE, PAINTED), "where", probe.where)
    if probe.where == PAINTED:
        _region(visitor)
    return units


def asked_for(visitor: Session, found: Dissection, units: tuple[int, ...]) -> Asked | None:
    """What the panel asks for, of these units; None while values are on their way or nothing is painted.

    Raises:
        PalimpsestError: the concepts whose values are to be inserted cannot be had.
    """
    probe, layer, concept = visitor.probe, visitor.layer, concept_of(visitor, found)
    region = probe.region if probe.where == PAINTED else None
    if probe.where == PAINTED and (region is None or region.empty):
        st.caption("Paint where to intervene: the same place in every picture.")
        return None
    values = _worth(visitor, layer, units, concept) if probe.act == INSERT else (0.0,) * len(units)
    if values is None:
        show_work(visitor, VALUES)
        return None
    if probe.act == INSERT:
        made = insert(layer, units, values, strength=probe.strength, region=region)
    else:
        made = ablate(layer, units, strength=probe.strength, region=region)
    return Asked(made, units, concept, (probe.act, layer, units, values, probe.strength, region))


def _units(visitor: Session, layer: LayerDissection, concept: str) -> tuple[int, ...]:
    probe, chosen = visitor.probe, visitor.dissecting.unit
    if probe.by == BY_NUMBER:
        units = parse_ranges(probe.numbers, len(layer.units), "unit")
        Units(units).check(visitor.generator.layer(layer.layer))
        return units
    if probe.by == SHEET and chosen and chosen[0] == layer.layer:
        return (chosen[1],)
    if units := best_units(layer, concept, 1 if probe.by == SHEET else probe.count):
        return units
    raise RequestError(
        found=f"no unit of layer '{layer.layer}' that ever meets '{concept}'",
        expected="a concept that some unit meets",
        remedy="Choose another concept or layer, or name units by number.",
    )


def _worth(visitor: Session, layer: str, units: tuple[int, ...], concept: str) -> tuple[float, ...] | None:
    """What is inserted into each of the units."""
    subject, spec, kind = subject_of(visitor), spec_of(visitor), visitor.probe.value
    judge = judge_of(visitor)  # whose means the command line takes too
    source = judge if concept in judge.names else source_of(visitor)
    labels = (identity_of(source), concept) if kind == MEAN else ()
    key = (subject.fingerprint, spec, layer, units, kind, labels)

    def work(progress: Progress) -> tuple[float, ...]:
        store = service().store
        if kind == QUANTILE:
            return quantile_values(
                fetch(subject, layer, spec, Histogram(), store=store, progress=progress), units
            )
        conditional = fetch(subject, layer, spec, Conditional(source), store=store, progress=progress)
        return concept_values(conditional, concept, units)

    return brought(visitor, VALUES, key, _values, f"What units are like where {concept} is", work)


# Widgets


def _bound(visitor: Session, name: str, value: Any) -> dict[str, Any]:
    return bound(f"probe-{name}", value, lambda chosen: probing(visitor, **{name: chosen}))


def _choice(
    visitor: Session, title: str, options: tuple[str, ...], name: str, value: str, help: str = ""
) -> None:
    st.segmented_control(
        title,
        options,
        required=True,
        label_visibility="visible" if help else "collapsed",
        help=help or None,
        width="stretch",
        **_bound(visitor, name, value),
    )


def _concept(visitor: Session, found: Dissection) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.selectbox("Concept", found.names, **_bound(visitor, "concept", concept_of(visitor, found)))
        if visitor.probe.by == BY_CONCEPT:
            st.number_input(
                "How many", 1, MOST, step=1, width=110, **_bound(visitor, "count", visitor.probe.count)
            )


def _said(layer: LayerDissection, units: tuple[int, ...], concept: str) -> None:
    """Which units they are, and how much like the concept on samples that did not choose them."""
    iou = layer.held_out[:, layer.concepts.index(concept)]
    words = " · ".join(f"**{unit}** :gray[{iou[unit]:.2f}]" for unit in units[:12])
    more = f" and {len(units) - 12} more" if len(units) > 12 else ""
    st.markdown(
        f"{words}{more}",
        help=f"Units of layer {plain(layer.layer)}, each with its held-out IoU with {plain(concept)}.",
    )


def _region(visitor: Session) -> None:
    seed = visitor.selected if isinstance(visitor.selected, int) else 0
    under = visitor.pictures((seed,), edited=True)[0]
    name = visitor.generator.pristine.fingerprint[:8]
    probing(visitor, region=easel(visitor, "where", under, name).resized(visitor.generator.picture_size))
    st.caption(f"Over picture {seed}; the same place in every picture.")


_UNITS = (
    "By concept: those of the best IoU with it on the first half of the samples, detectors first. "
    "Sheet: the one whose sheet is shown in the view Units."
)
_VALUE = (
    "What the units are forced to: the mean of each where the concept is, as in GAN Dissection, or the value that "
    "each exceeds in one position of two hundred."
)
