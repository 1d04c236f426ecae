"""The table of units: narrowed by layer, concept and search, one row chosen to be looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import pandas as pd
import streamlit as st

from dashboard.binding import bound
from dashboard.dissection.charts import hex_of
from dashboard.dissection.state import choose
from dashboard.session import Session
from dashboard.words import counted
from dissect.units import Dissection

__all__ = [
    "ALL",
    "COLOUR",
    "chosen_unit",
    "columns",
    "dotted",
    "hear",
    "listed",
    "look_at",
    "swatch",
    "table",
]

ALL = "all concepts"
COLOUR = "colour"
"""The column of a concept's colour, beside those of `Dissection.units`."""
_SHOWN = (COLOUR, "unit", "concept", "held_out_iou", "baseline", "iou", "density", "threshold", "detector")


def listed(visitor: Session, found: Dissection) -> pd.DataFrame:
    """The units that the table shows, the best first; the columns are those of `Dissection.units`."""
    chosen = visitor.dissecting
    rows = found.units()
    if not chosen.all_layers:
        rows = rows[rows["layer"] == visitor.layer]
    if chosen.concept in found.names:
        rows = rows[rows["concept"] == chosen.concept]
    if chosen.detectors_only:
        rows = rows[rows["detector"]]
    if wanted := chosen.search.strip().casefold():
        names = rows["concept"].str.casefold()
        same = rows["unit"].astype(str) == wanted
        rows = rows[same | names.str.contains(wanted, regex=False)]
    return _best_first(rows)


def chosen_unit(visitor: Session, found: Dissection, rows: pd.DataFrame) -> tuple[str, int]:
    """The unit to look at: the visitor's if it is of the session's layer, else the first in the table, else of all."""
    unit = visitor.dissecting.unit
    if unit and unit[0] == visitor.layer:
        return unit
    rows = rows[rows["layer"] == visitor.layer]
    if rows.empty:
        rows = found.units()
        rows = _best_first(rows[rows["layer"] == visitor.layer])
    return visitor.layer, int(rows["unit"].iloc[0])


def look_at(visitor: Session, layer: str, unit: int) -> None:
    """Show the sheet of a unit; its layer becomes the session's."""
    visitor.layer = layer
    choose(visitor, unit=(layer, unit))


def table(visitor: Session, found: Dissection, rows: pd.DataFrame, unit: tuple[str, int]) -> None:
    """Filters and rows; a click on a row shows its unit."""
    _filters(visitor, found)
    if rows.empty:
        st.caption("No unit is like that. Clear a filter, or lower the IoU level.")
        return
    shown = rows.assign(**{COLOUR: [swatch(name) for name in rows["concept"]]})
    order = ["layer", *_SHOWN] if visitor.dissecting.all_layers else list(_SHOWN)
    st.dataframe(
        shown,
        key=_key(rows, unit),
        hide_index=True,
        height=min(38 + 35 * len(rows), 430),
        column_order=order,
        column_config=columns(found),
        selection_mode="single-row",
        selection_default={"selection": {"rows": _places(rows, unit)}},
        on_select="rerun",
    )
    detectors = counted(int(rows["detector"].sum()), "detector")
    st.caption(f"{counted(len(rows), 'unit')}, {detectors}; first, those farthest above their baseline.")


def _best_first(rows: pd.DataFrame) -> pd.DataFrame:
    """Detectors first, then by how far the held-out IoU is above the baseline: large concepts start high."""
    gain = rows["held_out_iou"] - rows["baseline"]
    ordered = rows.assign(gain=gain).sort_values(["detector", "gain"], ascending=False, kind="stable")
    return ordered.drop(columns="gain").reset_index(drop=True)


def _filters(visitor: Session, found: Dissection) -> None:
    chosen = visitor.dissecting

    def store(**value: Any) -> None:
        choose(visitor, **value)

    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        options = [ALL, *found.names]
        current = chosen.concept if chosen.concept in found.names else ALL
        st.selectbox(
            "Concept",
            options,
            label_visibility="collapsed",
            width=132,
            **bound("units-concept", current, lambda name: store(concept="" if name == ALL else name)),
        )
        st.text_input(
            "Search",
            placeholder="search",
            label_visibility="collapsed",
            icon=":material/search:",
            max_chars=80,
            width=118,
            **bound("units-search", chosen.search, lambda text: store(search=text)),
        )
        st.toggle(
            "Detectors",
            **bound("units-detectors", chosen.detectors_only, lambda on: store(detectors_only=on)),
        )
        st.toggle(
            "All layers",
            **bound("units-layers", chosen.all_layers, lambda on: store(all_layers=on)),
        )


def _key(rows: pd.DataFrame, unit: tuple[str, int]) -> str:
    """Names what the browser shows: other rows are another table, and so is a unit chosen elsewhere."""
    state: dict[str, Any] = st.session_state.setdefault(
        "units-table", {"rows": None, "unit": None, "count": 0}
    )
    names = tuple(zip(rows["layer"], map(int, rows["unit"]), strict=True))
    if state["rows"] != names or state["unit"] != unit:
        state.update(rows=names, unit=unit, count=state["count"] + 1)
    return f"units-{state['count']}"


def hear(visitor: Session) -> None:
    """Look at the unit whose row was clicked since the last run."""
    state: Any = st.session_state.get("units-table")
    picked: Any = st.session_state.get(f"units-{state['count']}") if state else None
    for row in picked["selection"]["rows"] if picked else ():
        unit = state["rows"][row]
        if unit != state["unit"]:
            state["unit"] = unit  # the table shows it already
            elsewhere = unit[0] != visitor.layer
            look_at(visitor, *unit)
            if elsewhere:
                st.rerun()  # the sidebar shows the layer


def _places(rows: pd.DataFrame, unit: tuple[str, int]) -> list[int]:
    return rows.index[(rows["layer"] == unit[0]) & (rows["unit"] == unit[1])].tolist()


def swatch(concept: str) -> str:
    """A small picture of a concept's colour, as a data URL; empty without a concept."""
    return dotted(hex_of(concept)) if concept else ""


def dotted(colour: str) -> str:
    """A small picture of a colour (``#rrggbb``), as a data URL."""
    circle = f"<circle cx='8' cy='8' r='3.6' fill='{colour}' stroke='#8a8f9c' stroke-width='.7'/>"
    return "data:image/svg+xml;utf8," + quote(
        f"<svg xmlns='http://www.w3.org/2000/svg' width='16' height='16'>{circle}</svg>"
    )


def columns(found: Dissection) -> Mapping[str, Any]:
    """How the columns of `Dissection.units` are shown, and what they mean."""
    samples, quantile = found.spec.seeds, found.settings.quantile
    column = st.column_config
    half = f"{len(samples):,} samples: threshold chosen on the first half, IoU on the second."
    return {
        "layer": column.TextColumn(width=46),
        COLOUR: column.ImageColumn("", width=24, help="The concept's colour, the same everywhere."),
        "unit": column.NumberColumn(width=40, help="Number of the channel, from 0."),
        "concept": column.TextColumn(
            width=92, help="Of the best IoU on the first half, among concepts that it detects there."
        ),
        "held_out_iou": column.ProgressColumn(
            "held-out",
            width=82,
            min_value=0.0,
            max_value=1.0,
            format="%.3f",
            help=f"IoU with that concept, at the tuned threshold. {half}",
        ),
        "baseline": column.NumberColumn(
            width=70,
            format="%.3f",
            help="IoU of a unit that fires everywhere: the concept's share of the pixels.",
        ),
        "iou": column.NumberColumn(
            "IoU",
            width=52,
            format="%.3f",
            help=f"At the set threshold, the {quantile:g} quantile, over all samples.",
        ),
        "density": column.NumberColumn(
            width=64, format="%.3f", help="Share of pixels in which it is above the set threshold."
        ),
        "threshold": column.NumberColumn(
            width=72,
            format="%.3g",
            help=f"The {quantile:g} quantile of the unit's values over all positions.",
        ),
        "detector": column.CheckboxColumn(
            width=64,
            help=f"Held-out IoU above {found.settings.level:g}, and above the baseline.",
        ),
    }
