"""The concepts that the views of the page Directions refer to: the same choice as on the page Dissection."""

from __future__ import annotations

import streamlit as st

from dashboard.binding import bound
from dashboard.directions import state
from dashboard.dissection.state import choose, concepts_text, open_source
from dashboard.session import Session
from dissect.concepts.catalogue import known
from rewrite_core.errors import PalimpsestError

__all__ = ["concepts_choice"]

MADE_HERE = "made on the page Dissection"


def concepts_choice(visitor: Session, help: str) -> None:
    """A menu of the concepts that fit the open generator; what is chosen holds on the page Dissection too."""
    offers = {offer.text: offer.title for offer in known(visitor.generator) if not offer.why_not}
    own, current = visitor.dissecting.own, concepts_text(visitor)
    if own is not None:
        current = MADE_HERE
        offers = {MADE_HERE: own.title, **offers}
    elif current == "embedded" and offers:
        current = next((text for text in offers if text.startswith("embedded:")), current)
    st.selectbox(
        "Concepts",
        list(dict.fromkeys([*offers, current])),
        format_func=lambda text: offers.get(text, text),
        label_visibility="collapsed",
        width=264,
        help=help,
        **bound("directions-concepts", current, lambda text: _choose(visitor, text)),
    )


def _choose(visitor: Session, text: str) -> None:
    """Take other concepts once they are open; else what was there stays, and the page says why."""
    if text == MADE_HERE:
        return
    try:
        open_source(visitor.generator, text)
    except PalimpsestError as problem:
        state.choose(visitor, problem=str(problem))
        return
    choose(visitor, concepts=text, own=None, concept="")
