"""The view Units: every layer at a glance, the table of units, and the sheet of one."""

from __future__ import annotations

from typing import Any

import streamlit as st

from dashboard.background import show_work
from dashboard.dissection.charts import NOTHING, PICK, detectors_chart, legend
from dashboard.dissection.exporting import command
from dashboard.dissection.setting import conventions, settings_form
from dashboard.dissection.sheet import sheet
from dashboard.dissection.state import DISSECTION, asked_for, choose, dissection_of, layers_of, source_of
from dashboard.dissection.table import chosen_unit, hear, listed, table
from dashboard.dissection.taking import take_away
from dashboard.errors import shown
from dashboard.session import Session
from dashboard.text import plain
from dashboard.words import counted, percent
from dissect.provenance import caption
from dissect.units import Dissection

__all__ = ["needed", "units"]


def units(visitor: Session) -> None:
    """Overview and table on the left, one unit on the right."""
    found = needed(visitor)
    if found is None:
        return
    hear(visitor)
    rows = listed(visitor, found)
    unit = chosen_unit(visitor, found, rows)
    left, right = st.columns([1, 1.025], gap="medium")
    with left, shown():
        overview(visitor, found)
        table(visitor, found, rows, unit)
    with right, shown():
        sheet(visitor, found, rows, unit)


def needed(visitor: Session) -> Dissection | None:
    """The dissection that a view needs, with the session's layer in it; else what there is to see or to do instead.

    Raises:
        PalimpsestError: the concepts cannot be had.
    """
    if not asked_for(visitor):
        st.markdown(
            f"**Dissect {plain(visitor.generator.name)}**: which of its units fire where which concepts are?"
        )
        with st.container(border=True, width=620):
            settings_form(visitor)
        return None
    found = dissection_of(visitor)
    if found is None:
        show_work(visitor, DISSECTION)
        return None
    if visitor.layer not in found.layers:
        st.info(f"Layer {plain(visitor.layer)} was not dissected: choose another in the sidebar, or")
        st.button("Dissect it too", key="dissect-too", on_click=_dissect_too, args=(visitor,))
        return None
    return found


def overview(visitor: Session, found: Dissection) -> None:
    """Detectors by concept, a bar a layer; what must be known to read it."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(
            "**Detectors by concept**", help=plain(f"Share of each layer's units. {conventions(visitor)}.")
        )
        st.space("stretch")
        _take_away(visitor, found)
    st.altair_chart(
        detectors_chart(found),
        key="detectors-chart",
        on_select=lambda: _picked(visitor),
        selection_mode=PICK,
    )
    counts = found.detectors()
    st.html(legend([*counts.columns[counts.sum() > 0], NOTHING]))
    (row,) = (row for row in found.summary().to_dict("records") if row["layer"] == visitor.layer)
    st.caption(
        f"Layer {plain(visitor.layer)}: {row['detectors']} of {counted(row['units'], 'unit')} "
        f"({percent(row['interpretable'])}) detect {row['concepts']} of {len(found.names)} concepts. "
        f"{_ruled(visitor)} Click a bar to see its units."
    )
    for warning in found.warnings:
        st.caption(f":material/warning: {plain(warning)}")


def _take_away(visitor: Session, found: Dissection) -> None:
    from dissect.plots import best_figure, detectors_figure  # matplotlib takes a while to import

    tables = {"units": found.units(), "layers": found.summary(), "concepts": found.concepts()}
    figures = {"detectors": lambda: detectors_figure(found), "best units": lambda: best_figure(found)}
    words = caption("Units that detect a concept, by layer.", found)
    take_away(visitor, "dissection", tables, figures, command(visitor), words)


def _picked(visitor: Session) -> None:
    """A click on a bar narrows the table to its layer and concept; one beside the bars widens it again."""
    points: list[Any] = st.session_state["detectors-chart"]["selection"][PICK]
    if not points:
        choose(visitor, concept="", unit=None)
        return
    layer, concept = str(points[0]["layer"]), str(points[0]["concept"])
    visitor.layer = layer
    nothing = concept == NOTHING
    choose(
        visitor,
        concept="" if nothing else concept,
        unit=None,
        all_layers=False,
        detectors_only=not nothing,
        search="",
    )


def _ruled(visitor: Session) -> str:
    """Whether the rules are in what is dissected."""
    if not visitor.rules.active:
        return ""
    names = ", ".join(plain(rule.name) for rule in visitor.rules.active)
    if source_of(visitor).pixels_only:
        return f"With the rules {names}."
    return "As it was loaded, without the rules: these concepts know the unedited generator alone."


def _dissect_too(visitor: Session) -> None:
    choose(
        visitor,
        layers=tuple(sorted({*layers_of(visitor), visitor.layer}, key=list(visitor.generator.layers).index)),
    )
