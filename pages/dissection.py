"""Dissection: which units fire where which concepts are, and what they cause."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import streamlit as st

from dashboard.binding import bound
from dashboard.dissection.choices import UNITS
from dashboard.dissection.comparing import COMPARE, comparing
from dashboard.dissection.concepts import concepts
from dashboard.dissection.finding import FIND, finding
from dashboard.dissection.intervening import INTERVENE, intervening
from dashboard.dissection.linking import follow_address, write_address
from dashboard.dissection.overview import units
from dashboard.dissection.setting import setting
from dashboard.dissection.state import choose
from dashboard.errors import shown
from dashboard.session import Session, session
from dashboard.text import plain

# Every view of the page by its name. A new one is a module of `dashboard.dissection`, and a line here.
VIEWS: Mapping[str, Callable[[Session], None]] = {
    UNITS: units,
    "Concepts": concepts,
    FIND: finding,
    INTERVENE: intervening,
    COMPARE: comparing,
}


def page(visitor: Session) -> None:
    """The choice of view and of concepts, and the view under it."""
    follow_address(visitor, tuple(VIEWS))
    if visitor.dissecting.problem:
        st.error(plain(visitor.dissecting.problem), icon=":material/error:")

    def store(view: str | None) -> None:
        choose(visitor, view=view or visitor.dissecting.view)

    with st.container(horizontal=True, vertical_alignment="center"):
        st.segmented_control(
            "View",
            list(VIEWS),
            label_visibility="collapsed",
            **bound("dissection-view", visitor.dissecting.view, store),
        )
        st.space("stretch")
        with shown():
            setting(visitor)
    with shown():
        VIEWS[visitor.dissecting.view](visitor)
    write_address(visitor)


page(session())
