"""Directions: which contexts a layer tells apart, and where it finds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import streamlit as st

from dashboard.binding import bound
from dashboard.directions.choices import CONCEPTS, DOING, MAP, MATCHES, METHODS, OVERLAPS, PAINT, SPECTRUM
from dashboard.directions.dissecting import dissecting
from dashboard.directions.doing import doing
from dashboard.directions.linking import follow_address, write_address
from dashboard.directions.mapping import mapping
from dashboard.directions.matching import matching, samples_menu
from dashboard.directions.methods import methods
from dashboard.directions.origins import new_direction
from dashboard.directions.overlaps import overlaps
from dashboard.directions.painting import painting
from dashboard.directions.spectrum import spectrum
from dashboard.directions.state import bring, choose
from dashboard.directions.tray import tray
from dashboard.errors import shown
from dashboard.session import Session, session
from dashboard.text import plain

# Every view of the page by its name. A new one is a module of `dashboard.directions`, and a line here.
VIEWS: Mapping[str, Callable[[Session], None]] = {
    MATCHES: matching,
    DOING: doing,
    OVERLAPS: overlaps,
    SPECTRUM: spectrum,
    MAP: mapping,
    METHODS: methods,
    CONCEPTS: dissecting,
    PAINT: painting,
}


def page(visitor: Session) -> None:
    """The tray on the left, the chosen view on the right."""
    follow_address(visitor, tuple(VIEWS))
    left, right = st.columns([1, 3.1], gap="medium")
    with left:
        bring(visitor)
        if visitor.exploring.problem:
            st.error(plain(visitor.exploring.problem), icon=":material/error:")
        with shown():
            tray(visitor)
        new_direction(visitor)
    with right:
        view(visitor)
    write_address(visitor)


def view(visitor: Session) -> None:
    """The choice of view and of samples, and the view under it."""

    def store(name: str | None) -> None:
        choose(visitor, view=name or visitor.exploring.view)

    with st.container(horizontal=True, vertical_alignment="center"):
        st.segmented_control(
            "View",
            list(VIEWS),
            label_visibility="collapsed",
            **bound("directions-view", visitor.exploring.view, store),
        )
        st.space("stretch")
        with shown():
            samples_menu(visitor)
    with shown():
        VIEWS[visitor.exploring.view](visitor)


page(session())
