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
    st.segmented_control(
        "Operation", ["paste", "erase", "remove"], required=True, **_draft(session, "operation", hidden=True)
    )
    if session.draft.operation == "erase":
        st.number_input(
            "Units to erase",
            1,
            help="Of 512; on narrower layers in proportion.",
            **_draft(session, "erase_units", hidden=True),
        )
    if session.draft.operation == "remove":
        st.number_input(
            "What is left",
            -10.0,
            10.0,
            step=0.5,
            help="Of what the context's directions match: 0 nothing, 1 all of it, 2 twice as much.",
            **_draft(session, "alpha", hidden=True),
        )
    st.selectbox(
        "Direction",
        list(METHODS),
        format_func=lambda method: LABELS.get(method, method),
        help="How the context becomes directions: zca is the default; the others are baselines to compare with.",
        **_part(session, "direction", "method", hidden=True),
    )
    st.select_slider(
        "Ridge",
        _with(RIDGES, session.draft.direction.ridge),
        help="Added to C, in units of its mean eigenvalue. 0 is the paper's mode; 0.1 is safe.",
        **_part(session, "direction", "ridge", hidden=True),
    )
    st.toggle(
        "I painted all of it in these pictures",
        help="Contrast: what was left unpainted in the context pictures counts as not meant.",
        **bound(
            "contrast",
            session.draft.direction.contrast > 0,
            lambda on: _change(session, "direction", "contrast", 3.0 if on else 0.0),
            hidden=True,
        ),
    )
    st.number_input(
        "Weight of protected regions", 0.0, step=1.0, **_part(session, "direction", "protect", hidden=True)
    )
    st.number_input("Solver iterations", 1, 10_000, **_part(session, "solver", "iterations", hidden=True))


def _draft(session: Session, name: str, *, hidden: bool = False) -> dict[str, Any]:
    value = getattr(session.draft, name)
    return bound(f"draft-{name}", value, lambda chosen: session.change(**{name: chosen}), hidden=hidden)


def _part(session: Session, part: str, name: str, *, hidden: bool = False) -> dict[str, Any]:
    value = getattr(getattr(session.draft, part), name)
    key = f"draft-{part}-{name}"
    return bound(key, value, lambda chosen: _change(session, part, name, chosen), hidden=hidden)


def _change(session: Session, part: str, name: str, value: Any) -> None:
    session.change(**{part: getattr(session.draft, part).model_copy(update={name: value})})


def _with(choices: list[float], value: float) -> list[float]:
    return sorted({*choices, value})
