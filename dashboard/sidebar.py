"""The sidebar: what is open, the layer, and the rule stack, because rules change what every page draws."""

from __future__ import annotations

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard.binding import bound
from dashboard.session import Session
from dashboard.text import plain
from rewrite_core.rules.rule import Entry, RuleStack

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
        st.markdown("**Rules**")
        if not session.stack.entries:
            st.caption("None kept yet. Every page draws with the rules listed here.")
        for index, entry in enumerate(session.stack.entries):
            _entry(session, index, entry)
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


def _entry(session: Session, index: int, entry: Entry) -> None:
    def change(stack: RuleStack) -> None:
        session.stack = stack

    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.toggle(
            plain(entry.rule.name),
            help=f"Layer {entry.rule.layer}, rank {entry.rule.rank}",
            **bound(f"rule-on-{index}", entry.on, lambda _: change(session.stack.toggle(index))),
        )
        st.space("stretch")
        st.button(
            "",
            icon=":material/close:",
            type="tertiary",
            help="Remove this rule",
            key=f"rule-remove-{index}-{entry.rule.digest[:8]}",
            on_click=lambda: change(session.stack.remove(index)),
        )
    st.slider(
        f"Strength of {plain(entry.rule.name)}",
        min(-1.0, entry.rule.strength),
        max(2.0, entry.rule.strength),
        step=0.05,
        disabled=not entry.on,
        label_visibility="collapsed",
        **bound(
            f"rule-strength-{index}",
            entry.rule.strength,
            lambda strength: change(session.stack.with_strength(index, strength)),
        ),
    )
