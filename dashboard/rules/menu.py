"""What can be done with one rule of the stack, behind ⋮."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from dashboard.binding import bound
from dashboard.errors import shown
from dashboard.opening import paths_allowed
from dashboard.session import Session
from dashboard.text import plain
from rewrite_core.rules.library import default_library, file_stem
from rewrite_core.rules.rule import Rule
from rewrite_core.rules.stack import Entry, RuleStack

__all__ = ["change", "rule_menu"]


def change(session: Session, stack: RuleStack) -> None:
    """Put another stack in place of the session's."""
    session.stack = stack


def rule_menu(session: Session, index: int, entry: Entry) -> None:
    """Rename, move, duplicate, save, download and remove the rule at `index`."""
    with st.popover("", icon=":material/more_vert:", type="tertiary", help="More", key=f"rule-menu-{index}"):
        st.text_input(
            "Name",
            max_chars=60,
            **bound(
                f"rule-rename-{index}",
                entry.rule.name,
                lambda name: change(session, session.stack.rename(index, name)),
                hidden=True,
            ),
        )
        st.caption(plain(f"{entry.rule.layer}, rank {entry.rule.rank}"))
        with st.container(horizontal=True, gap="small"):
            _act(
                session,
                index,
                "up",
                "Up",
                "arrow_upward",
                lambda stack: stack.move(index, index - 1),
                index == 0,
            )
            last = index == len(session.stack.entries) - 1
            _act(
                session,
                index,
                "down",
                "Down",
                "arrow_downward",
                lambda stack: stack.move(index, index + 1),
                last,
            )
        _act(session, index, "duplicate", "Duplicate", "content_copy", lambda stack: stack.duplicate(index))
        if paths_allowed():
            _save(index, entry.rule)
        st.download_button(
            "Download",
            entry.rule.to_bytes(),
            f"{file_stem(entry.rule.name)}.safetensors",
            "application/octet-stream",
            icon=":material/download:",
            on_click="ignore",
            key=f"rule-download-{index}",
            width="stretch",
        )
        _act(session, index, "remove", "Remove", "delete", lambda stack: stack.remove(index))


def _act(
    session: Session,
    index: int,
    key: str,
    label: str,
    icon: str,
    act: Callable[[RuleStack], RuleStack],
    disabled: bool = False,
) -> None:
    st.button(
        label,
        icon=f":material/{icon}:",
        key=f"rule-{key}-{index}",
        width="stretch",
        disabled=disabled,
        on_click=lambda: change(session, act(session.stack)),
    )


def _save(index: int, rule: Rule) -> None:
    pressed = st.button(
        "Save to library",
        icon=":material/library_add:",
        key=f"rule-save-{index}",
        width="stretch",
        help="For other sessions, and `palimpsest rules`.",
    )
    if pressed:
        with shown():
            path = default_library().save(rule)
            st.toast(f"Saved as `{path.name}`", icon=":material/check:")
