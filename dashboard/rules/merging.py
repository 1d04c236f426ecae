"""Several rules of a layer made into one."""

from __future__ import annotations

import streamlit as st

from dashboard.rules.menu import change
from dashboard.session import Session
from dashboard.text import plain

__all__ = ["merge_menu"]


def merge_menu(session: Session) -> None:
    """Choose among the active rules of a layer, and merge them; nothing where no layer has two."""
    entries = session.stack.entries
    at: dict[str, list[int]] = {}
    for place, entry in enumerate(entries):
        if entry.on:
            at.setdefault(entry.rule.layer, []).append(place)
    layers = [layer for layer, places in at.items() if len(places) > 1]
    if not layers:
        return
    with st.popover("Merge…", icon=":material/merge:", type="tertiary", key="merge-menu"):
        st.caption("One rule that draws what all of them draw.")
        start = layers.index(session.layer) if session.layer in layers else 0
        layer = layers[0] if len(layers) == 1 else st.selectbox("Layer", layers, start, key="merge-layer")
        places = at[layer]
        title = st.container()  # first, since what is first gets the focus
        chosen = st.pills(
            f"Rules that are on at {layer}",
            places,
            default=places,
            selection_mode="multi",
            format_func=lambda place: plain(entries[place].rule.name),
            key=f"merge-parts-{layer}-{'-'.join(map(str, places))}",
        )
        names = " + ".join(entries[place].rule.name for place in sorted(chosen))
        name = title.text_input("Name", names[:60], max_chars=60, key=f"merge-name-{names}")
        st.button(
            "Merge",
            type="primary",
            key="merge",
            disabled=len(chosen) < 2,
            on_click=lambda: change(session, session.stack.merge(chosen, name)),
        )
