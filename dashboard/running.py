"""The jobs that a visitor sees: their own, and that others have some."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import streamlit as st

from dashboard.progress import jobs
from dashboard.session import THE_APP, Session, service
from dashboard.words import ago, counted, duration, percent
from rewrite_core.jobs import Job

__all__ = ["ended", "log_text", "others", "own", "running_line", "summary", "title", "under_way", "veiled"]

_EVERY = 2.0  # seconds between two looks of the sidebar at the jobs


def own(visitor: Session) -> list[Job[Any]]:
    """The visitor's jobs, newest first."""
    return [job for job in _all() if visitor.visitor in job.owners]


def others(visitor: Session) -> list[Job[Any]]:
    """Everybody else's unfinished jobs, and the visitor's own from before a reload."""
    return [job for job in under_way(_all()) if visitor.visitor not in job.owners]


def veiled(job: Job[Any]) -> str:
    """What may be said of a job to other visitors: whose kind it is, and how far."""
    who = "The app" if THE_APP in job.owners else "Another visitor"
    return f"{who} · {'waiting' if job.status == 'waiting' else percent(job.share)}"


def under_way(found: Sequence[Job[Any]]) -> list[Job[Any]]:
    """Those that have not ended: what runs, then what waits, the oldest first."""
    unfinished = [job for job in found if not job.ended]
    return sorted(unfinished, key=lambda job: (job.status == "waiting", job.submitted))


def ended(found: Sequence[Job[Any]], most: int = 8) -> list[Job[Any]]:
    """The newest that have ended."""
    return [job for job in found if job.ended][:most]


def summary(found: Sequence[Job[Any]]) -> str:
    """``2 jobs running · 43 %`` of unfinished jobs, ``1 job waiting`` while none runs; empty if there are none."""
    running = [job for job in found if job.status != "waiting"]
    if not running:
        return f"{counted(len(found), 'job')} waiting" if found else ""
    share = sum(job.share for job in running) / len(running)
    return f"{counted(len(running), 'job')} running · {percent(share)}"


def title(job: Job[Any]) -> str:
    """How a job ended: ``Second moment of l08 · 1,000 samples · done in 12 s, 3 min ago``."""
    words = {"done": f"done in {duration(job.seconds)}", "failed": "failed", "cancelled": "cancelled"}
    since = time.monotonic() - (job.finished or time.monotonic())
    return f"{job.label} · {words[job.status]}, {ago(since)}"


def log_text(job: Job[Any]) -> str:
    """Its log, a line each with the server's time of day."""
    return "\n".join(
        f"{time.strftime('%H:%M:%S', time.localtime(line.time))}  {line.text}" for line in job.lines
    )


def running_line(visitor: Session, page: Any) -> None:
    """A line that leads to `page`, while jobs of this visitor run; it looks again by itself."""
    if under_way(own(visitor)):
        _running_line(visitor, page)


@st.fragment(run_every=_EVERY)
def _running_line(visitor: Session, page: Any) -> None:
    line = summary(under_way(own(visitor)))
    if line:
        st.page_link(page, label=line)


def _all() -> list[Job[Any]]:
    return sorted([*jobs().all(), *service().jobs()], key=lambda job: job.submitted, reverse=True)
