"""What the views that measure share: which fresh pictures, rules as a stack, and estimates in words."""

from __future__ import annotations

import streamlit as st

from dashboard.binding import bound
from dashboard.rewriting.viewing import MEASURED, look, viewing
from dashboard.session import Session
from dissect.edit_effect import Estimate
from rewrite_core.generators import LatentSpec
from rewrite_core.rules.rule import Rule
from rewrite_core.rules.stack import Entry, RuleStack

__all__ = ["FIRST", "fresh_seeds", "interval", "measured_choice", "percentage", "stack_of"]

FIRST = 1000
"""The first of the fresh pictures: those painted on are left out."""


def measured_choice(visitor: Session, where: str) -> None:
    """How many fresh pictures to measure over."""
    st.selectbox(
        "Fresh pictures",
        MEASURED,
        format_func=lambda count: f"{count:,}",
        width=130,
        help=f"From number {FIRST:,} on; those painted on are left out.",
        **bound(f"{where}-measured", viewing(visitor).measured, lambda count: look(visitor, measured=count)),
    )


def fresh_seeds(visitor: Session) -> LatentSpec:
    """So many pictures as are to be measured, none of which the draft is painted on."""
    draft, count = visitor.draft, viewing(visitor).measured
    pairs = [draft.object, draft.paste, *(part for one in draft.examples for part in (one.object, one.paste))]
    painted = {getattr(region, "image", None) for region in (*pairs, *draft.key, *draft.protect)}
    fresh = (seed for seed in range(FIRST, FIRST + count + len(painted)) if seed not in painted)
    return visitor.spec(tuple(fresh)[:count])


def stack_of(rules: tuple[Rule, ...]) -> RuleStack:
    """Rules in order, all of them on."""
    return RuleStack(tuple(map(Entry, rules)))


def percentage(each: Estimate, digits: int = 1) -> str:
    """An estimate as a reader takes it: ``3.4 %``."""
    return f"{100 * each.value:.{digits}f} %"


def interval(each: Estimate, digits: int = 1) -> str:
    """Its interval: ``3.1 to 3.7``."""
    return f"{100 * each.low:.{digits}f} to {100 * each.high:.{digits}f}"
