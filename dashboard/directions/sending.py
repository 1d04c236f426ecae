"""From a direction to an edit: Rewriting takes over a painted context as it is, and any other direction as given."""

from __future__ import annotations

import streamlit as st

from dashboard.directions.choices import Item
from dashboard.session import Session
from rewrite_core.resources import resource_dir

__all__ = ["send", "send_button"]


def send_button(visitor: Session, item: Item) -> None:
    """Hand the direction to the edit being painted, and go there."""
    if st.button(
        "Send to Rewriting",
        icon=":material/history_edu:",
        key="direction-send",
        help="Where it matches is where the edit will act; paint there what to copy and where to paste it.",
    ):
        send(visitor, item)
        st.switch_page(resource_dir("pages") / "rewriting.py")


def send(visitor: Session, item: Item) -> None:
    """Make it the context of the draft, at its layer; what is painted there to copy and paste stays, and the method.

    The method that finds a context best gives one direction, and a rule may want more of them.
    """
    request = item.request
    if request is None:
        visitor.change(given=item.direction, key=(), rank=item.direction.rank)
    else:
        if request.latents != visitor.latents:
            visitor.clear_edit()  # what was painted there is on pictures that are counted otherwise
        visitor.truncation, visitor.label = request.latents.truncation, request.latents.label
        steered = request.direction.model_copy(update={"method": visitor.draft.direction.method})
        visitor.change(
            given=None,
            key=request.key,
            protect=request.protect,
            direction=steered,
            rank=request.rank,
            latents=request.latents,
        )
    visitor.layer, visitor.view = item.direction.layer, "Paint"
