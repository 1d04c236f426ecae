"""What a page shows of a job (`rewrite_core.jobs`): a bar with an estimate and Cancel, where the visitor is.

`jobs()` is the one `JobManager` of the process, shared by all visitors; a job belongs to a visitor and is shown to no
other. Its work runs in a thread and must not call `st.*`.

`follow` first waits a moment, so that quick work never flashes a bar; then a fragment alone runs again every 0.4 s, and
the page once, when the job ends.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

import streamlit as st

from dashboard.text import plain
from dashboard.words import duration, percent
from rewrite_core.jobs import Job, JobManager

__all__ = ["PATIENCE", "bar", "follow", "how_far", "jobs"]

T = TypeVar("T")

PATIENCE = 0.8
"""Seconds that a page waits for a new job before it shows a bar."""
_EVERY = 0.4  # seconds between two looks at a running job


@st.cache_resource(show_spinner=False)
def jobs() -> JobManager:
    """The job manager of this process."""
    return JobManager()


def follow(
    job: Job[T], on_done: Callable[[T], None], *, visitor: str = "", patience: float = PATIENCE
) -> None:
    """Show how far `job` is, with Cancel; when it ends, give `on_done` its result and run the page once more.

    Call it in every run for as long as the page cares about the job: why it failed stays in sight. Cancel stops the
    job, or, where `visitor` is given, withdraws that visitor from it: others may share a job of the statistics service.
    `patience` is how long the page may wait for a new job before it shows a bar.
    """
    job.wait(max(job.submitted + patience - time.monotonic(), 0))
    if not (job.ended or _left(job, visitor)):
        _watch(job, on_done, visitor)
        return
    _hand_over(job, on_done)
    if job.status == "failed":
        st.error(plain(job.error))
    elif job.status != "done":
        st.caption(f"{plain(job.label)}: cancelled.")


def bar(job: Job[Any], visitor: str = "") -> None:
    """How far `job` is, with an estimate, and Cancel."""

    def cancel() -> None:
        if visitor:
            job.leave(visitor, altogether=True)
        else:
            job.cancel()

    with st.container(horizontal=True, vertical_alignment="center", key=f"job-{job.id}"):
        st.progress(job.share, text=plain(how_far(job)))
        st.button("Cancel", key=f"cancel-{job.id}", on_click=cancel, disabled=job.cancelling)


def how_far(job: Job[Any]) -> str:
    """One line: what it is, how much of it is done, and how long the rest will take."""
    if job.cancelling:
        return f"{job.label} · stopping…"
    if job.status == "waiting":
        return f"{job.label} · waiting for its turn"
    share = percent(job.share) if job.total else duration(job.seconds)
    rest = "" if job.remaining is None else f" · about {duration(job.remaining)} left"
    return f"{job.label} · {share}{rest}"


@st.fragment(run_every=_EVERY)
def _watch(job: Job[T], on_done: Callable[[T], None], visitor: str) -> None:
    _hand_over(job, on_done)
    if _left(job, visitor):
        st.rerun()
    bar(job, visitor)


def _left(job: Job[Any], visitor: str) -> bool:
    """Whether the visitor has withdrawn from a job that goes on for others."""
    return bool(visitor) and visitor not in job.owners


def _hand_over(job: Job[T], on_done: Callable[[T], None]) -> None:
    if job.take(_taker()):
        if job.status == "done":
            on_done(job.result)  # type: ignore[arg-type]  # a job that is done has its result
            if len(job.owners) == 1:
                job.result = None  # whoever asked has it now
        st.rerun()


def _taker() -> str:
    """A name for this browser session: a shared job is taken once by each."""
    name: str = st.session_state.setdefault("palimpsest-taker", uuid.uuid4().hex)
    return name
