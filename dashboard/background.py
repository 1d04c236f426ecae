"""Work in the background of a page: asked for by what it is for, kept for all visitors, followed where it is shown.

    ranked = brought(visitor, "ranking", key, _ranked, "Ranking units", lambda progress: rank(…, progress))
    if ranked is None:
        show_work(visitor, "ranking")       # once on a page: how far, how long still, Cancel

A result is kept for all visitors under a key that names all that it depends on, in a `Budget` of the caller's. Each
visitor has one job a purpose: asking with another key cancels it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import streamlit as st

from dashboard.budget import Budget
from dashboard.progress import follow, jobs
from rewrite_core.jobs import Job, Progress

if TYPE_CHECKING:
    from dashboard.session import Session

__all__ = ["Asked", "brought", "show_work"]

T = TypeVar("T")

_MOMENT = 0.8  # seconds that a run waits for a new job, so that what is stored never flashes a bar


@dataclass(frozen=True, eq=False)
class Asked:
    """A job, and all that its result depends on."""

    key: Hashable
    job: Job[Any]


def brought(
    visitor: Session,
    purpose: str,
    key: Hashable,
    kept: Budget[T],
    label: str,
    work: Callable[[Progress], T],
) -> T | None:
    """What `work` gives, if it is `kept` under `key` or comes within a moment; else it goes on in the background.

    Raises:
        RequestError: the visitor has too many jobs under way.
    """
    found = kept.peek(key)
    if found is not None:
        return found
    asked = visitor.asked.get(purpose)
    if asked is None or asked.key != key or (asked.job.status == "done" and asked.job.result is None):
        if asked:
            asked.job.cancel()
        job = jobs().submit(visitor.visitor, label, lambda progress: kept.get(key, lambda: work(progress)))
        asked = Asked(key, job)
        visitor.asked = {**visitor.asked, purpose: asked}
    asked.job.wait(max(asked.job.submitted + _MOMENT - time.monotonic(), 0))
    result: T | None = asked.job.result
    return result


def show_work(visitor: Session, purpose: str) -> None:
    """How far the job of this purpose is, with Cancel; why it failed, and another try. Nothing where there is none."""
    asked = visitor.asked.get(purpose)
    if asked is None:
        return
    follow(asked.job, lambda _: None)
    if asked.job.ended and asked.job.status != "done":
        st.button(
            "Go on" if asked.job.status == "cancelled" else "Try again",
            key=f"again-{purpose}",
            icon=":material/refresh:",
            on_click=_again,
            args=(visitor, purpose),
        )


def _again(visitor: Session, purpose: str) -> None:
    visitor.asked = {name: asked for name, asked in visitor.asked.items() if name != purpose}
