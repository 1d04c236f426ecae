"""Rows of units that a click chooses from, and the way from a unit to its sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from dashboard.dissection.choices import UNITS
from dashboard.dissection.state import choose
from dashboard.dissection.table import look_at
from dashboard.session import Session

__all__ = ["sheet_button", "unit_rows"]

ROW, HEAD = 35, 38
"""Pixels of a row, and of the head of a table."""


def unit_rows(
    visitor: Session,
    rows: pd.DataFrame,
    columns: Mapping[str, Any],
    order: Sequence[str],
    *,
    key: str,
    height: int = 430,
) -> None:
    """A table of units, with a column `layer` and one `unit`; a click on a row chooses its unit on the whole page."""
    rows = rows.reset_index(drop=True)

    def chosen() -> None:
        for row in st.session_state[key]["selection"]["rows"]:
            look_at(visitor, str(rows["layer"].iloc[row]), int(rows["unit"].iloc[row]))

    st.dataframe(
        rows,
        key=key,
        hide_index=True,
        height=min(HEAD + ROW * max(len(rows), 1), height),
        column_order=list(order),
        column_config=columns,
        selection_mode="single-row",
        on_select=chosen,
    )


def sheet_button(visitor: Session, layer: str, unit: int, place: str) -> None:
    """A button to the unit's sheet."""

    def turn() -> None:
        look_at(visitor, layer, unit)
        choose(visitor, view=UNITS)

    st.button(
        f"Sheet of unit {unit}",
        icon=":material/arrow_forward:",
        type="tertiary",
        key=f"sheet-{place}",
        on_click=turn,
        help="All that is known of it: top and lower pictures, values, concepts, effect",
    )
