"""The sidebar: what is open, the layer, and the rule stack, because rules change what every page draws."""

from __future__ import annotations

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard.binding import bound
from dashboard.rules.listing import rule_list
from dashboard.session import Session
from dashboard.text import plain

__all__ = ["layer_choice", "sidebar"]


def sidebar(session: Session) -> DeltaGenerator:
    """Draw it; call it once a run, before the page. What comes back is the place for a line about jobs."""
    generator = session.generator
    with st.sidebar:
        line = st.container(key="jobs-running")
        st.markdown(f"**{plain(generator.name)}**")
        st.caption(f"{generator.family} · {generator.resolution} px · {generator.device.type}")
        if session.draft.latents.scheme == "rows":
            _rows(session)
        layer_choice(session, "sidebar")
        rule_list(session)
    return line


def _rows(session: Session) -> None:
    """Pictures are numbered as a published edit numbers them: say so, and offer the way back."""
    st.caption("Pictures are numbered as in the published interface, by rows of one random matrix.")
    st.button("Number by seed", key="by-seed", help="Drops the loaded edit", on_click=session.clear_edit)


def layer_choice(session: Session, place: str) -> None:
    """The session's layer; every place that offers it shows and changes the same one."""
    layers = session.generator.layers

    def grid(name: str) -> str:
        return f"{name} · {layers[name].key_size[0]} → {layers[name].value_size[0]} px"

    def store(name: str) -> None:
        session.layer = name

    st.selectbox("Layer", list(layers), format_func=grid, **bound(f"layer-{place}", session.layer, store))
