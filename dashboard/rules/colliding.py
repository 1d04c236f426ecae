"""A line for every two rules that get in each other's way, with the measured number."""

from __future__ import annotations

from contextlib import suppress

import streamlit as st

from dashboard.background import brought, show_work
from dashboard.budget import Budget
from dashboard.session import Session, statistics_of
from dashboard.text import plain
from rewrite_core.errors import RequestError
from rewrite_core.jobs import Progress
from rewrite_core.rules.interference import Interference, interference

__all__ = ["collisions"]

PURPOSE = "interference"
MOST = 3
"""Lines, at most: the worst."""
HELP = (
    "Changed: where the one writes most, one in a hundred positions of real pictures, how much the other writes, "
    "relative to it. Overlap: how strongly the other's directions read the one's pattern, relative to their own."
)

_found: Budget[tuple[Interference, ...]] = Budget(4096, len)


def collisions(session: Session) -> None:
    """Compare the active rules of each layer, the trial's included; the worst pairs get a line each."""
    rules = session.rules
    layers = [rule.layer for rule in rules.active]
    if len(set(layers)) == len(layers):
        return
    generator, visitor = session.generator, session.visitor

    def work(progress: Progress) -> tuple[Interference, ...]:
        return interference(
            rules, generator, lambda layer: statistics_of(generator, layer, progress, visitor=visitor)
        )

    key = (
        generator.pristine.fingerprint,
        tuple((entry.on, entry.rule.name, entry.rule.digest) for entry in rules.entries),
    )
    found = None
    with suppress(RequestError):  # too many jobs under way: the next run asks again
        found = brought(session, PURPOSE, key, _found, "Comparing rules", work)
    if found is None:
        show_work(session, PURPOSE)
        return
    told: set[frozenset[int]] = set()
    for one in found:  # worst first; of two rules only what is worse is told
        pair = frozenset((one.disturbed, one.by))
        if pair not in told and len(told) < MOST:
            told.add(pair)
            st.caption(f":orange[:material/warning:] {plain(one.sentence)}", help=HELP)
