"""The stack in the sidebar: a switch and a strength for each rule, undo and redo, merging, warnings."""

from __future__ import annotations

import streamlit as st

from dashboard.binding import bound
from dashboard.opening import paths_allowed
from dashboard.rules.colliding import collisions
from dashboard.rules.library import library_menu
from dashboard.rules.menu import change, rule_menu
from dashboard.rules.merging import merge_menu
from dashboard.session import Session
from dashboard.text import plain
from rewrite_core.rules.stack import Entry

__all__ = ["rule_list"]

WEAKEST, STRONGEST = -1.0, 2.0
"""The slider's ends, unless a rule lies beyond."""
ROWS = (
    "[class*=st-key-rule-row-] > :first-child { flex: 1 1 0; min-width: 0; } "
    "[class*=st-key-rule-row-] .stCheckbox label * "
    "{ overflow: hidden; text-overflow: ellipsis; white-space: nowrap; } "
    "[class*=st-key-rule-menu-] button > div > div[aria-hidden=true] { display: none; }"
)
"""A long name takes as much room as a short one, and ⋮ needs no arrow; the menu has all of the name."""


def rule_list(session: Session) -> None:
    """Every rule of the stack, in order; what every page draws obeys those that are on."""
    st.html(f"<style>{ROWS}</style>")
    _head(session)
    if not session.stack.entries:
        st.caption("None kept yet. Every page draws with the rules listed here.")
    with st.container(key="rules", gap="xsmall"):
        for index, entry in enumerate(session.stack.entries):
            _entry(session, index, entry)
    collisions(session)
    merge_menu(session)


def _head(session: Session) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="xsmall", wrap=False):
        st.markdown("**Rules**", width="content")
        st.space("stretch")
        nothing = not (session.trial or session.stack.past)
        undone = not (session.dropped or session.stack.future)
        for key, icon, off, act in (
            ("undo", "undo", nothing, session.undo),
            ("redo", "redo", undone, session.redo),
        ):
            st.button(
                "",
                icon=f":material/{icon}:",
                type="tertiary",
                help=key.capitalize(),
                key=f"rules-{key}",
                disabled=off,
                on_click=act,
            )
        if paths_allowed():
            library_menu(session)


def _entry(session: Session, index: int, entry: Entry) -> None:
    rule = entry.rule
    row = st.container(
        horizontal=True, vertical_alignment="center", gap="small", wrap=False, key=f"rule-row-{index}"
    )
    with row:
        st.toggle(
            plain(rule.name),
            width="stretch",
            **bound(f"rule-on-{index}", entry.on, lambda _: change(session, session.stack.toggle(index))),
        )
        rule_menu(session, index, entry)
    st.slider(
        f"Strength of {plain(rule.name)}",
        min(WEAKEST, rule.strength),
        max(STRONGEST, rule.strength),
        step=0.05,
        disabled=not entry.on,
        label_visibility="collapsed",
        **bound(
            f"rule-strength-{index}",
            rule.strength,
            lambda strength: change(session, session.stack.with_strength(index, strength)),
        ),
    )
