"""What is measured when asked for, on pictures that nothing was chosen on."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

import streamlit as st

from dashboard.background import brought, show_work
from dashboard.budget import Budget
from dashboard.dissection.state import spec_of
from dashboard.session import Session
from rewrite_core.generators import LatentSpec
from rewrite_core.jobs import Progress

__all__ = ["fresh", "on_request"]

T = TypeVar("T")


def fresh(visitor: Session, count: int) -> LatentSpec:
    """The first pictures that the dissection has not seen."""
    seen = len(spec_of(visitor))
    return visitor.spec(tuple(range(seen, seen + count)))


def on_request(
    visitor: Session,
    purpose: str,
    key: Hashable,
    kept: Budget[T],
    label: str,
    work: Callable[[Progress], T],
    button: str = "Measure",
) -> T | None:
    """What is kept, or comes because it was asked for; else a button that asks."""
    if kept.peek(key) is None and visitor.probe.wanted.get(purpose) != key:
        st.button(
            button,
            icon=":material/play_arrow:",
            key=f"probe-{purpose}",
            on_click=lambda: setattr(visitor, "probe", visitor.probe.asking(purpose, key)),
        )
        return None
    found = brought(visitor, purpose, key, kept, label, work)
    if found is None:
        show_work(visitor, purpose)
    return found
