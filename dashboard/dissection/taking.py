"""A menu behind ⋯ beside a result: its figure, its data, the command that makes the same, and a link."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard.dissection.linking import address
from dashboard.saving import FORMATS
from dashboard.session import Session

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["headed", "take_away"]


def headed(title: str, help: str) -> DeltaGenerator:
    """A title, and at the end of its line the place for the menu of the result under it."""
    with st.container(horizontal=True, vertical_alignment="center", gap="xsmall"):
        st.markdown(f"**{title}**", help=help)
        st.space("stretch")
        return st.container(width="content")


def take_away(
    visitor: Session,
    name: str,
    tables: Mapping[str, pd.DataFrame],
    figures: Mapping[str, Callable[[], Figure]],
    command: str = "",
    files: Mapping[str, bytes] | None = None,
) -> None:
    """The menu of the result called `name`; figures are made when one is asked for, which takes a moment.

    `files` are pictures, PNG, that the command reads.
    """
    with st.popover("", icon=":material/more_horiz:", key=f"take-{name}", help="Figure, data, command, link"):
        for what, make in figures.items():
            _figure(what, make)
        if tables:
            st.caption("Data")
        for what, table in tables.items():
            content = table.to_csv(index=False).encode()
            st.download_button(
                f"{what}.csv",
                content,
                f"{what}.csv",
                "text/csv",
                on_click="ignore",
                key=f"take-{name}-{what}",
            )
        if command:
            st.caption("From a terminal")
            st.code(command, language="bash", wrap_lines=True)
            for file, content in (files or {}).items():
                st.download_button(
                    file, content, file, "image/png", on_click="ignore", key=f"take-{name}-{file}"
                )
        st.caption("A link to this view")
        st.code(address(visitor), language=None, wrap_lines=True)


def _figure(name: str, make: Callable[[], Figure]) -> None:
    chosen = st.segmented_control(f"Figure: {name}", list(FORMATS), key=f"take-figure-{name}")
    if chosen:
        from dissect.figures import save_figure  # matplotlib takes a while to import

        file = f"{name}.{chosen.lower()}"
        content = save_figure(make(), chosen.lower())
        st.download_button(file, content, file, FORMATS[chosen], on_click="ignore", key=f"take-file-{name}")
