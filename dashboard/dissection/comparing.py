"""The view *Compare*: the model without and with its rules, or beside another one: units, concepts, where, pictures."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd
import streamlit as st

from dashboard.binding import bound
from dashboard.budget import Budget
from dashboard.dissection.asking import on_request
from dashboard.dissection.charts import effects_chart
from dashboard.dissection.exporting import compare_command
from dashboard.dissection.rows import sheet_button, unit_rows
from dashboard.dissection.setting import FEWEST, MOST
from dashboard.dissection.state import identity_of, judge_of, layers_of, open_source, source_of
from dashboard.dissection.taking import headed, take_away
from dashboard.dissection.units_choice import probing
from dashboard.errors import shown
from dashboard.examples import examples
from dashboard.gallery import Picture, gallery, range_box
from dashboard.progress import follow
from dashboard.session import Session, drawn, embedded, service
from dashboard.text import plain
from dashboard.words import counted
from dissect.compare import Comparison, compare
from dissect.concepts import ConceptSource
from dissect.provenance import INTERVALS, measured
from dissect.signed import signed
from rewrite_core.errors import PalimpsestError
from rewrite_core.generators import Generator, embedded_names
from rewrite_core.jobs import Progress
from rewrite_core.pictures import encode_png, enlarge
from rewrite_core.rules.examples import example_edits
from rewrite_core.rules.rewrite import Edit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["COMPARE", "comparing"]

COMPARE = "Compare"
PURPOSE = "comparing"
RULES = "Rules off | on"
COLOURS = "colours"
"""Concepts that any picture can be judged by."""
ANY = "changed"
CHANGES = {
    "lost": "detected a concept, and none any more",
    "gained": "became a detector",
    "moved": "detects another concept",
}
"""How a unit's meaning can change."""
MAP = 92
"""Pixels of a map's side on the page, about."""


def _size(found: Comparison) -> int:
    return found.shares.after.nbytes + (0 if found.where is None else found.where.nbytes) + (1 << 16)


_compared: Budget[Comparison] = Budget(64 << 20, _size)


def comparing(visitor: Session) -> None:
    """What is compared, on top; then what differs."""
    if visitor.solving:
        follow(visitor.solving, lambda edit: _tried(visitor, edit))
    after = _choice(visitor)
    if after is None:
        return
    with shown():
        _pictures(visitor, after)
    found = _comparison(visitor, after)
    if found is None:
        return
    left, right = st.columns([1, 1.45], gap="medium")
    with left, shown():
        _concepts(visitor, found)
    with right, shown():
        _units(visitor, found, after)


# What is compared


def _choice(visitor: Session) -> Generator | None:
    """What the open model is compared with; None if there is nothing yet, which is said."""
    options = [RULES, *_others(visitor)]
    current = _other(visitor) or RULES
    st.segmented_control(
        "Compare",
        options,
        required=True,
        label_visibility="collapsed",
        format_func=lambda name: name if name == RULES else f"with {name}",
        **bound("compare-other", current, lambda name: probing(visitor, other="" if name == RULES else name)),
    )
    if other := _other(visitor):
        return embedded(other)
    if visitor.rules.active:
        return visitor.edited()
    st.caption(
        "No rule is on: switch one on in the sidebar, make one on the page Rewriting, or try an example."
    )
    if example_edits(visitor.embedded_name):
        examples(visitor, "compare")
    return None


def _others(visitor: Session) -> list[str]:
    """The other embedded generators."""
    return [name for name in embedded_names() if name != visitor.embedded_name]


def _other(visitor: Session) -> str:
    """The model that is compared with; empty for the rules."""
    return visitor.probe.other if visitor.probe.other in _others(visitor) else ""


def _tried(visitor: Session, edit: Edit) -> None:
    visitor.trial, visitor.dropped = edit, None


def _before(visitor: Session) -> Generator:
    """The open model: as it was loaded, or, beside another one, with its rules."""
    return visitor.edited() if _other(visitor) else visitor.generator


def _names(visitor: Session) -> tuple[str, str]:
    """What both are called."""
    if other := _other(visitor):
        return _before(visitor).name, other
    return "without rules", "with " + ", ".join(rule.name for rule in visitor.rules.active)


# Pictures


def _pictures(visitor: Session, after: Generator) -> None:
    """The same seeds of both."""
    seeds = range_box("Pictures", key="compare-seeds", default="0-11")
    one, other = drawn(visitor.spec(seeds), _before(visitor)), drawn(visitor.spec(seeds), after)
    st.caption(plain(" | ".join(_names(visitor))))
    if one.shape != other.shape:
        for place, images in enumerate((one, other)):
            pictures = [Picture(*pair) for pair in zip(seeds, images, strict=True)]
            visitor.select(gallery(pictures, key=f"compare-{place}", selected=visitor.selected, size=64))
        return
    pictures = [Picture(*pair) for pair in zip(seeds, one, other, strict=True)]
    visitor.select(gallery(pictures, key="compare-pairs", selected=visitor.selected, size=64, view="pair"))


# What differs


def _comparison(visitor: Session, after: Generator) -> Comparison | None:
    """Both dissected and counted, on request."""
    judge, layers = _judge(visitor, after), layers_of(visitor)
    spec = visitor.spec(tuple(range(visitor.probe.compared)))
    before, settings = _before(visitor), visitor.dissecting.settings
    key = (before.fingerprint, after.fingerprint, spec, layers, identity_of(judge), settings)
    if judge is not source_of(visitor):
        st.caption(
            f"{plain(source_of(visitor).title)} cannot judge the pictures of both: they are judged by "
            f"{plain(judge.title)}, which can."
        )

    def work(progress: Progress) -> Comparison:
        return compare(before, after, spec, layers, judge, settings, store=service().store, progress=progress)

    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.number_input(
            "Samples",
            FEWEST,
            MOST,
            step=250,
            width=150,
            help="Thresholds are chosen on the first half and reported on the second, for each of both. 250 take well "
            "under a minute on two cores; a paper wants 1,000 or more.",
            **bound(
                "compare-samples", visitor.probe.compared, lambda count: probing(visitor, compared=count)
            ),
        )
        label = f"Comparing {counted(len(layers), 'layer')} over {len(spec):,} samples"
        return on_request(visitor, PURPOSE, key, _compared, label, work, "Compare")


def _judge(visitor: Session, after: Generator) -> ConceptSource:
    """Concepts that may judge the pictures of both: those that judge interventions, or else colours."""
    judge = judge_of(visitor)
    with suppress(PalimpsestError):
        judge.check(after)
        return judge
    return open_source(visitor.generator, COLOURS)


def _concepts(visitor: Session, found: Comparison) -> None:
    """Which concepts grew or shrank, and where."""
    table = found.concepts()
    before, after = _names(visitor)
    title = f"{after}, less {before}"
    figures = {"concepts": partial(_changes_figure, table, title)}
    if found.where is not None:
        figures["where"] = partial(_where_figure, found, title)
    menu = headed(
        "Concepts that grew or shrank",
        f"Share of pixels {plain(title)}, over {len(found.shares.seeds):,} seeds, paired; lines are 95 % "
        "bootstrap intervals over pictures.",
    )
    with menu:
        spec = visitor.spec(found.shares.seeds)
        words = measured(f"Share of pixels of each concept, {title}, {INTERVALS}.", visitor.generator, spec)
        take_away(visitor, "changes", {"concepts": table}, figures, caption=words)
    st.altair_chart(effects_chart(table), key="compare-concepts")
    if found.where is None:
        st.caption("Their pictures differ in size: there is no map of where.")
        return
    _where(found, table)


def _where(found: Comparison, table: pd.DataFrame) -> None:
    """At each pixel, how much more often a concept is there: red more, blue less."""
    assert found.where is not None
    limit = float(found.where.abs().max())
    st.markdown(
        "**Where**",
        help="At each pixel, in how many more of the pictures the concept is there (red), or fewer (blue); all maps on "
        f"one scale, whose full colours are ± {100 * limit:.0f} % of the pictures.",
    )
    names = list(found.shares.concepts)
    order = table["effect"].abs().sort_values(ascending=False, kind="stable").index
    maps = enlarge(signed(found.where.numpy()), max(1, 2 * MAP // found.where.shape[-1]))
    with st.container(horizontal=True, gap="small"):
        for place in order:
            st.image(encode_png(maps[place]), caption=plain(names[place]), width=MAP)
    st.caption(f"Blue: less, red: more, up to ± {100 * limit:.0f} % of the pictures.")


def _units(visitor: Session, found: Comparison, after: Generator) -> None:
    """Which units changed meaning."""
    table = found.units()
    menu = headed(
        "Units that changed meaning",
        "Each model is dissected with thresholds of its own. Lost: was a detector, and is none; gained: the "
        "other way round; moved: detects another one.",
    )
    with menu:
        line = compare_command(
            visitor, visitor.spec(found.shares.seeds), _other(visitor), _judge(visitor, after)
        )
        take_away(visitor, "units-compared", {"units-compared": table}, {}, line)
    if table.empty:
        st.caption(
            "They have no layer of the same name and width in common: only pictures and concepts compare."
        )
        return
    rows = _filtered(visitor, table, found)
    if rows.empty:
        st.caption("No unit is like that.")
        return
    unit_rows(visitor, rows, _COLUMNS, list(_COLUMNS), key=f"compare-units-{len(rows)}", height=470)
    chosen = visitor.dissecting.unit
    if chosen:
        sheet_button(visitor, *chosen, "compared")


def _filtered(visitor: Session, table: pd.DataFrame, found: Comparison) -> pd.DataFrame:
    """The rows of one change, one layer, one concept: the surest detectors first; in brackets what is not detected."""
    counts = table["change"].value_counts()
    said = ", ".join(f"{counts.get(change, 0)} {change}" for change in CHANGES)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.caption(f"Of {counted(len(table), 'unit')}: {said}.", width="content")
        st.space("stretch")
        layer = st.selectbox(
            "Layer",
            ["all layers", *found.layers],
            key="compare-layer",
            label_visibility="collapsed",
            width=120,
        )
        concept = st.selectbox(
            "Concept",
            ["all concepts", *found.shares.concepts],
            key="compare-concept",
            label_visibility="collapsed",
            width=150,
        )
    kind = st.segmented_control(
        "Change",
        [ANY, *CHANGES, "all"],
        default=ANY,
        required=True,
        key="compare-kind",
        label_visibility="collapsed",
    )
    rows = table
    if kind != "all":
        rows = rows[rows["change"] != ""] if kind == ANY else rows[rows["change"] == kind]
    if layer in found.layers:
        rows = rows[rows["layer"] == layer]
    if concept in found.shares.concepts:
        rows = rows[(rows["concept_before"] == concept) | (rows["concept_after"] == concept)]
    detected = [rows[f"held_out_iou_{side}"] * rows[f"detector_{side}"] for side in ("before", "after")]
    strength = pd.concat([*detected, rows["iou_change"].abs() * (rows["change"] == "")], axis=1).max(axis=1)
    bracketed = {
        f"concept_{side}": rows[f"concept_{side}"].where(
            rows[f"detector_{side}"], "(" + rows[f"concept_{side}"] + ")"
        )
        for side in ("before", "after")
    }
    return rows.assign(**bracketed).loc[strength.sort_values(ascending=False, kind="stable").index]


def _changes_figure(table: pd.DataFrame, title: str) -> Figure:
    from dissect.change_plots import changes_figure

    return changes_figure(table, title)


def _where_figure(found: Comparison, title: str) -> Figure:
    from dissect.change_plots import where_figure

    assert found.where is not None
    return where_figure(found.where, found.shares.concepts, title)


def _number(label: str, help: str, form: str = "%.3f", width: int = 76) -> Any:
    return st.column_config.NumberColumn(label, format=form, width=width, help=help)


_COLUMNS: Mapping[str, Any] = {
    "layer": st.column_config.TextColumn(width=54),
    "unit": _number("unit", "Number of the channel, from 0.", "%d", 50),
    "change": st.column_config.TextColumn(
        width=66, help="; ".join(f"{name}: {what}" for name, what in CHANGES.items())
    ),
    "concept_before": st.column_config.TextColumn(
        "before",
        width=88,
        help="The concept that it detects; in brackets, what it is most like but no detector of.",
    ),
    "concept_after": st.column_config.TextColumn("after", width=88, help="The same, after."),
    "held_out_iou_before": _number("IoU before", "Held-out IoU with that concept."),
    "held_out_iou_after": _number("after", "The same, after.", width=64),
    "firing_after": _number(
        "fires",
        "After: share of positions above the set threshold of before. It was 1 % at the quantile 0.99: less, and the "
        "unit fell silent; more, and it got louder.",
        "percent",
        64,
    ),
}
