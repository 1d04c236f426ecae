"""The view Concepts: which concepts the directions of the tray stand for, judged as units are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd
import streamlit as st
import torch

from dashboard.background import brought, show_work
from dashboard.budget import Budget
from dashboard.directions.choices import Item
from dashboard.directions.exporting import dissect_command
from dashboard.directions.judging import concepts_choice
from dashboard.directions.overlaps import names_of
from dashboard.directions.state import choose, chosen, look_at, searched
from dashboard.directions.taking import headed, take_away
from dashboard.dissection.charts import concepts_chart
from dashboard.dissection.state import identity_of, source_of
from dashboard.dissection.table import COLOUR, columns, swatch
from dashboard.errors import shown
from dashboard.session import Session, service
from dashboard.text import plain
from dissect.directions import Stacked, stacked
from dissect.layer import LayerDissection
from dissect.provenance import caption
from dissect.units import Dissection, dissect_directions
from rewrite_core.directions import Direction
from rewrite_core.jobs import Progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["dissecting"]

DISSECTING = "dissecting directions"
"""The purpose of the job that dissects them."""
SHOWN = (COLOUR, "unit", "concept", "held_out_iou", "baseline", "iou", "detector")

_dissected: Budget[Dissection] = Budget(64 << 20, lambda _: 1 << 16)


@dataclass(frozen=True, eq=False)
class _Laid:
    """The directions of a layer one below the other, and of each row whose it is: an item's key, and which vector."""

    directions: tuple[Direction, ...]
    rows: Stacked
    owners: tuple[tuple[str, int], ...]


def dissecting(visitor: Session) -> None:
    """The table of directions, and the concepts of the one that is looked at."""
    layer = visitor.layer
    items = [item for item in visitor.tray if item.direction.layer == layer]
    menu = headed(
        f"What the tray's directions of {plain(layer)} stand for",
        "A direction fires where its heat is above a threshold. Held-out IoU: with the threshold that is best on the "
        "first half of the samples, measured on the second, as for the units on the page Dissection.",
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        concepts_choice(visitor, "What directions are compared with; the same as on the page Dissection.")
    if not items:
        st.caption(f"The tray has no direction of {plain(layer)}: add one on the left.")
        return
    laid = _laid(items)
    found = _found(visitor, laid)
    if found is None:
        show_work(visitor, DISSECTING)
        return
    with menu:
        _take_away(visitor, laid, found)
    row = _looked_at(visitor, laid)
    left, right = st.columns([2.15, 1], gap="medium")
    with left, shown():
        _table(visitor, laid, found, row)
    with right, shown():
        _one(found.layers[layer], row)


def _laid(items: Sequence[Item]) -> _Laid:
    named = zip(items, names_of(items), strict=True)
    directions = tuple(item.direction.renamed(name) for item, name in named)
    owners = tuple((item.key, row) for item in items for row in range(item.direction.rank))
    return _Laid(directions, stacked(directions), owners)


def _found(visitor: Session, laid: _Laid) -> Dissection | None:
    generator, spec, rows = visitor.generator.pristine, searched(visitor), laid.rows
    source, settings = source_of(visitor), visitor.dissecting.settings
    digests = tuple(direction.digest for direction in laid.directions)
    key = (generator.fingerprint, digests, rows.names, spec, identity_of(source), settings)

    def work(progress: Progress) -> Dissection:
        store = service().store
        return dissect_directions(
            generator,
            spec,
            rows.layer,
            rows.rows,
            rows.names,
            source,
            settings,
            store=store,
            progress=progress,
        )

    label = f"Dissecting {len(rows.names)} directions · {source.title} · {len(spec):,} samples"
    return brought(visitor, DISSECTING, key, _dissected, label, work)


def _looked_at(visitor: Session, laid: _Laid) -> int:
    """The row of the direction that the tray has chosen; the first if it is of another layer."""
    item = chosen(visitor)
    if item is None:
        return 0
    owner = (item.key, min(visitor.exploring.row, item.direction.rank - 1))
    return laid.owners.index(owner) if owner in laid.owners else 0


# The table


def _table(visitor: Session, laid: _Laid, found: Dissection, row: int) -> None:
    """A row a direction, those that stand most clearly for a concept first; a click chooses it."""
    units = found.units()
    gain = units["held_out_iou"] - units["baseline"]
    shown_rows = units.assign(
        gain=gain, place=range(len(units)), **{COLOUR: [swatch(name) for name in units["concept"]]}
    ).sort_values(["detector", "gain"], ascending=False, kind="stable", ignore_index=True)
    places = shown_rows["place"].tolist()
    key = _mounted(laid, tuple(places), row)
    st.dataframe(
        shown_rows,
        key=key,
        hide_index=True,
        height=min(38 + 35 * len(units), 500),
        column_order=list(SHOWN),
        column_config={**columns(found), "unit": st.column_config.TextColumn("direction", width=116)},
        selection_mode="single-row",
        selection_default={"selection": {"rows": [places.index(row)]}},
        on_select=partial(_picked, visitor, laid, key, places),
    )
    detectors = int(units["detector"].sum())
    st.caption(f"{detectors} of {len(units)} stand for a concept. Tick a row to look at the direction.")
    for warning in found.warnings:
        st.caption(f":material/warning: {plain(warning)}")


def _mounted(laid: _Laid, places: tuple[int, ...], row: int) -> str:
    """The key of the table: other rows are another table, and so is a direction chosen elsewhere."""
    state: dict[str, Any] = st.session_state.setdefault(
        "dissecting-mounted", {"rows": None, "row": None, "count": 0}
    )
    rows = (laid.owners, laid.rows.names, places)
    if state["rows"] != rows or state["row"] != row:
        state.update(rows=rows, row=row, count=state["count"] + 1)
    return f"dissecting-{state['count']}"


def _picked(visitor: Session, laid: _Laid, key: str, places: Sequence[int]) -> None:
    for place in st.session_state[key]["selection"]["rows"]:
        owner, row = laid.owners[places[place]]
        st.session_state["dissecting-mounted"]["row"] = places[place]  # the table shows it already
        look_at(visitor, owner)
        choose(visitor, row=row)


# One direction


def _one(found: LayerDissection, row: int) -> None:
    """How much the direction has of each concept."""
    st.markdown(
        f"**{plain(str(found.units[row]))}**",
        help="Bar: held-out IoU. Circle: IoU at the set threshold. Tick: baseline, the concept's share of the pixels.",
    )
    st.altair_chart(concepts_chart(_concepts(found, row)), key="dissecting-concepts")


def _concepts(found: LayerDissection, row: int) -> pd.DataFrame:
    """A row for each concept: how well it is detected by the direction at `row`."""

    def of(table: torch.Tensor) -> Any:
        return table[row].numpy()

    return pd.DataFrame(
        {
            "concept": found.concepts,
            "held_out_iou": of(found.held_out),
            "baseline": found.baseline.numpy(),
            "iou": of(found.iou),
            "precision": of(found.precision),
            "recall": of(found.recall),
        }
    )


# To take away


def _take_away(visitor: Session, laid: _Laid, found: Dissection) -> None:
    layer = laid.rows.layer
    overlaps = found.iou_table(layer, held_out=True).reset_index().rename(columns={"unit": "direction"})
    tables = {"directions": found.units().rename(columns={"unit": "direction"}), "held-out IoU": overlaps}
    words = caption("Concepts that directions stand for.", found)
    figures = {"best directions": partial(_figure, found)}
    take_away(visitor, "dissecting", tables, figures, dissect_command(visitor, laid.directions, found), words)


def _figure(found: Dissection) -> Figure:
    from dissect.plots import best_figure

    return best_figure(found)
