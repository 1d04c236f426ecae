"""A menu behind ⋯ beside a result: its figure and caption, its data, the command that makes the same, and a link."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard.saving import FORMATS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["NO_LINE", "Line", "headed", "take_away"]

TABLES: Mapping[str, tuple[str, Callable[[pd.DataFrame], bytes]]] = {
    "CSV": ("text/csv", lambda table: table.to_csv(index=False, lineterminator="\n").encode()),
    "Parquet": ("application/vnd.apache.parquet", lambda table: table.to_parquet(index=False)),
}
"""Form of a table → its media type, and what writes it."""


@dataclass(frozen=True)
class Line:
    """Commands, a line each, and the files beside them: name → content; or, without text, why none makes the same."""

    text: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)
    why_not: str = ""


NO_LINE = Line()


def headed(title: str, help: str) -> DeltaGenerator:
    """A title, and at the end of its line the place for the menu of the result under it."""
    with st.container(horizontal=True, vertical_alignment="center", gap="xsmall"):
        st.markdown(f"**{title}**", help=help)
        st.space("stretch")
        return st.container(width="content")


def take_away(
    name: str,
    tables: Mapping[str, pd.DataFrame],
    figures: Mapping[str, Callable[[], Figure]],
    line: Line = NO_LINE,
    caption: str = "",
    link: str = "",
) -> None:
    """The menu of the result called `name`; figures and tables are made into files when a form of them is chosen.

    `caption` says under a figure where its numbers come from; `link` is the part of the address that names the view.
    """
    with st.popover("", icon=":material/more_horiz:", key=f"take-{name}", help="Figure, data, command, link"):
        for what, make in figures.items():
            _figure(what, make)
        for what, table in tables.items():
            _data(what, table)
        if caption:
            st.caption("Caption")
            st.code(caption, language=None, wrap_lines=True)
        if line.text:
            st.caption("From a terminal")
            st.code(line.text, language="bash", wrap_lines=True)
        if line.why_not:
            st.caption(f"From a terminal: not this. {line.why_not}")
        for file, content in line.files.items():
            kind = "image/png" if file.endswith(".png") else "application/octet-stream"
            st.download_button(file, content, file, kind, on_click="ignore", key=f"take-{name}-{file}")
        st.caption("A link to this view")
        st.code(f"{st.context.url or ''}{link}", language=None, wrap_lines=True)


def _data(name: str, table: pd.DataFrame) -> None:
    chosen = st.segmented_control(f"Data: {name}", list(TABLES), key=f"take-data-{name}")
    if chosen:
        kind, write = TABLES[chosen]
        file = f"{name}.{chosen.lower()}"
        st.download_button(file, write(table), file, kind, on_click="ignore", key=f"take-table-{name}")


def _figure(name: str, make: Callable[[], Figure]) -> None:
    chosen = st.segmented_control(f"Figure: {name}", list(FORMATS), key=f"take-figure-{name}")
    if chosen:
        from dissect.figures import save_figure  # matplotlib takes a while to import

        file = f"{name}.{chosen.lower()}"
        content = save_figure(make(), chosen.lower())
        st.download_button(file, content, file, FORMATS[chosen], on_click="ignore", key=f"take-file-{name}")
