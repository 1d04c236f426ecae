"""The settings of an edit: layer, rank and locality in sight, the rest one click away."""

from __future__ import annotations

from typing import Any

import streamlit as st

from dashboard.binding import bound
from dashboard.session import Session
from dashboard.sidebar import layer_choice
from rewrite_core.directions import METHODS

__all__ = ["edit_settings"]

LOCALITIES = [0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0]
RIDGES = [0.0, 0.001, 0.01, 0.1, 1.0]
LABELS = {"plain": "plain (mean key, not whitened)"}
"""What methods are called whose name does not say enough."""


def edit_settings(session: Session) -> None:
    """Widgets that show and change the draft's settings."""
    layer, rank = st.columns([1.6, 1])
    with layer:
        layer_choice(session, "panel")
    with rank:
        most = max(session.generator.layers[session.layer].in_channels, session.draft.rank)
        st.number_input(
            "Rank",
            1,
            most,
            help="How many directions of the context the rule may use.",
            **_draft(session, "rank"),
        )
    st.select_slider(
        "Locality",
        _with(LOCALITIES, session.draft.solver.locality),
        help="How much a change of everything else costs. More: less happens elsewhere, and less where it should.",
        **_part(session, "solver", "locality"),
    )
    with st.popover("More settings", width="stretch"):
        _more(session)


def _more(session: Session) -> None:
    st.segmented_control("Operation", ["paste", "erase"], required=True, **_draft(session, "operation"))
    if session.draft.operation == "erase":
        st.number_input(
            "Units to erase",
            1,
            help="Of 512; on narrower layers in proportion.",
            **_draft(session, "erase_units"),
        )
    st.selectbox(
        "Direction",
        list(METHODS),
        format_func=lambda method: LABELS.get(method, method),
        help="How the context becomes directions: zca is the default; the others are baselines to compare with.",
        **_part(session, "direction", "method"),
    )
    st.select_slider(
        "Ridge",
        _with(RIDGES, session.draft.direction.ridge),
        help="Added to C, in units of its mean eigenvalue. 0 is the paper's mode; 0.1 is safe.",
        **_part(session, "direction", "ridge"),
    )
    st.toggle(
        "I painted all of it in these pictures",
        help="Contrast: what was left unpainted in the context pictures counts as not meant.",
        **bound(
            "contrast",
            session.draft.direction.contrast > 0,
            lambda on: _change(session, "direction", "contrast", 3.0 if on else 0.0),
        ),
    )
    st.number_input("Weight of protected regions", 0.0, step=1.0, **_part(session, "direction", "protect"))
    st.number_input("Solver iterations", 1, 10_000, **_part(session, "solver", "iterations"))


def _draft(session: Session, name: str) -> dict[str, Any]:
    return bound(f"draft-{name}", getattr(session.draft, name), lambda value: session.change(**{name: value}))


def _part(session: Session, part: str, name: str) -> dict[str, Any]:
    value = getattr(getattr(session.draft, part), name)
    return bound(f"draft-{part}-{name}", value, lambda chosen: _change(session, part, name, chosen))


def _change(session: Session, part: str, name: str, value: Any) -> None:
    session.change(**{part: getattr(session.draft, part).model_copy(update={name: value})})


def _with(choices: list[float], value: float) -> list[float]:
    return sorted({*choices, value})
