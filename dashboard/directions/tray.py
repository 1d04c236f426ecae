"""The tray: the visitor's directions, one of which the views are about, and what can be done with it."""

from __future__ import annotations

import re
from typing import Literal

import streamlit as st

from dashboard.binding import bound
from dashboard.directions.charts import strengths_chart
from dashboard.directions.choices import CONCEPTS, MOST, Item
from dashboard.directions.sending import send_button
from dashboard.directions.state import choose, chosen, keep, look_at, remove, rename
from dashboard.errors import shown
from dashboard.session import Session
from dashboard.text import plain
from rewrite_core.directions import Direction

__all__ = ["file_name", "open_file", "tray"]

LARGEST = 16
"""Megabytes of a direction's file."""
FITS = 7
"""Rows that are shown without scrolling."""
ROW = 44
ROWS = (
    ":is(.st-key-directions-tray, .st-key-direction-proposals) button { justify-content: flex-start; "
    "min-height: 2.25rem; padding: .15rem .6rem; } "
    ":is(.st-key-directions-tray, .st-key-direction-proposals) button > div { justify-content: flex-start; "
    "width: 100%; } "
    ":is(.st-key-directions-tray, .st-key-direction-proposals) button * { overflow: hidden; text-align: left; "
    "text-overflow: ellipsis; white-space: nowrap; }"
)
"""A long name takes as much room as a short one; the tooltip has all of it."""


def tray(visitor: Session) -> None:
    """The directions, and below them the one that is looked at."""
    st.html(f"<style>{ROWS}</style>")
    item = chosen(visitor)
    count = f" :gray[{len(visitor.tray)} of {MOST}]" if len(visitor.tray) else ""
    st.markdown(
        f"**Tray**{count}",
        help="Directions of key space, yours alone. A direction is a query: its heat at a position is d · k.",
    )
    if item is None:
        st.caption("Empty. Make a direction below, or open a file.")
        return
    height: int | Literal["content"] = ROW * FITS if len(visitor.tray) > FITS else "content"
    with st.container(key="directions-tray", gap="xsmall", height=height, border=False):
        for one in visitor.tray:
            _row(visitor, one, one is item)
    _about(visitor, item)


def _row(visitor: Session, item: Item, on: bool) -> None:
    direction = item.direction
    rank = f" · rank {direction.rank}" if direction.rank > 1 else ""
    st.button(
        f"{plain(item.name)}  :gray[{plain(direction.method)}{rank} · {plain(direction.layer)}]",
        key=f"direction-{item.key}",
        type="secondary" if on else "tertiary",
        icon=":material/radio_button_checked:" if on else ":material/radio_button_unchecked:",
        width="stretch",
        help=plain(f"{item.name}: {direction.method} of {direction.layer}, {direction.units} units"),
        on_click=look_at,
        args=(visitor, item.key),
    )


def _about(visitor: Session, item: Item) -> None:
    """The strengths of the chosen direction, its name, and what can be done with it."""
    direction = item.direction
    if len(direction.singular_values) > 1:
        st.altair_chart(strengths_chart(direction.singular_values, direction.rank), key="direction-strengths")
        st.caption(
            f"Singular values, the greatest as 1: {direction.rank} of {len(direction.singular_values)} used.",
            help="What stands clearly above the rest is worth having as a rank.",
        )
    if direction.rank > 1:
        st.segmented_control(
            "Look at",
            list(range(direction.rank)),
            format_func=lambda row: f"d{row + 1}",
            required=True,
            help="Which of its directions the views show.",
            **bound(
                "direction-row",
                min(visitor.exploring.row, direction.rank - 1),
                lambda row: choose(visitor, row=row, picture=None, place=None),
            ),
        )
    with st.container(horizontal=True, gap="small", vertical_alignment="center", wrap=False):
        send_button(visitor, item)
        with st.popover("", icon=":material/more_vert:", help="Rename, save, remove", key="direction-menu"):
            _menu(visitor, item)
    st.button(
        "Dissect these",
        icon=":material/biotech:",
        type="tertiary",
        key="tray-dissect",
        help=f"Which concepts the tray's directions of {plain(direction.layer)} stand for.",
        disabled=visitor.exploring.view == CONCEPTS,
        on_click=lambda: choose(visitor, view=CONCEPTS),
    )


def _menu(visitor: Session, item: Item) -> None:
    st.text_input(
        "Name",
        max_chars=60,
        **bound(
            f"direction-name-{item.key}", item.name, lambda name: rename(visitor, item.key, name), hidden=True
        ),
    )
    st.download_button(
        "Save as a file",
        item.direction.to_bytes(),
        f"{file_name(item)}.safetensors",
        "application/octet-stream",
        icon=":material/download:",
        on_click="ignore",
        key="direction-save",
        width="stretch",
        help="For this page, `palimpsest directions` and `palimpsest edit --direction`.",
    )
    st.button(
        "Remove",
        icon=":material/delete:",
        key="direction-remove",
        width="stretch",
        on_click=remove,
        args=(visitor, item.key),
    )


def open_file(visitor: Session) -> None:
    """Put a direction from a file into the tray."""
    file = st.file_uploader(
        "Direction (.safetensors)", type=["safetensors"], max_upload_size=LARGEST, key="direction-file"
    )
    if file and st.button("Open this file", key="direction-open", width="stretch"):
        with shown():
            keep(visitor, Item(Direction.load(file.getvalue(), file.name)))
            st.rerun()


def file_name(item: Item) -> str:
    """What the file of a direction is called, without its ending; it needs no quotes."""
    stem = re.sub(r"[^A-Za-z0-9_]+", "-", item.name).strip("-").lower()
    return stem or f"{item.direction.method}-{item.direction.layer}"
