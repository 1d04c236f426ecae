"""A visitor's work outlives their page: it is kept as they go, and brought back after a reload or a crash.

`recover` is called once a run before the page, and `keep` after it. What changed since the last run is written in the
background (`dashboard/autosave.py`) under a random name, which stands in the page's address as ``?session=…``: a page
that is loaded anew with it is at once what it was. The browser remembers the last name too; to a page without one in
its address the work is offered.

Whoever has the name has the work, so an address that is given away is a copy of it: the first change made there is
kept under another name, and the first visitor's work stays what it was. Strokes that were not added yet, and what undo
could bring back, are not kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import streamlit as st

from dashboard.autosave import Autosaver, default_shelter, new_name
from dashboard.gallery import range_box_kept
from dashboard.rewriting.restoring import BOXES, restore, workspace_of
from dashboard.session import Session
from dashboard.text import plain
from dashboard.words import counted
from rewrite_core.errors import PalimpsestError
from rewrite_core.generators.own import short
from rewrite_core.rules.workspace import Workspace

__all__ = ["autosaver", "keep", "recover", "told"]

PARAMETER = "session"
"""Of the address."""
LOST = "Strokes that were not added yet are lost, and Undo starts anew."
_KEPT, _BROWSER = "palimpsest-recovery", "palimpsest-remembered"

_remembered = st.components.v2.component(
    "palimpsest_remembered",
    html="<span hidden></span>",
    js=(Path(__file__).parent / "recovery.js").read_text(encoding="utf-8"),
)


@dataclass
class _Kept:
    """What is known in one page.

    Attributes:
        state: of the session when it was last written, or new, or recovered.
        name: under which its work is kept; empty before the first change.
        read: the name of the work that was brought back; kept in the address until something changes.
        refused: the name of work that is not wanted, or could not be had.
        news, problem: what is said at the top of the page.
    """

    state: object = None
    name: str = ""
    read: str = ""
    refused: str = ""
    news: str = ""
    problem: str = ""


@st.cache_resource(show_spinner=False)
def autosaver() -> Autosaver:
    """The one that writes for all visitors of this process."""
    return Autosaver(default_shelter())


def recover(visitor: Session) -> None:
    """Bring back what the address names, in the first run of a page; or offer what this browser had last."""
    kept: _Kept | None = st.session_state.get(_KEPT)
    if kept is None:
        kept = st.session_state[_KEPT] = _Kept()
        if name := st.query_params.get(PARAMETER, ""):
            _bring_back(visitor, kept, name)
        kept.state = _state(visitor)
    if kept.problem:
        st.warning(plain(kept.problem), icon=":material/error:")
    if kept.news:
        st.caption(f":material/history: {plain(kept.news)}")
    if not (kept.name or kept.read):
        _offer(visitor, kept)


def keep(visitor: Session) -> None:
    """Write what changed, and let address and browser name it."""
    kept: _Kept = st.session_state[_KEPT]
    state = _state(visitor)
    if state != kept.state:
        kept.name, kept.state, kept.news = kept.name or new_name(), state, ""
        autosaver().put(kept.name, workspace_of(visitor, origin=visitor.origin))
    name = kept.name or kept.read
    if name and st.query_params.get(PARAMETER) != name:
        st.query_params[PARAMETER] = name
    _remembered(key=_BROWSER, data={"name": name}, on_last_change=lambda: None)
    if kept.name and autosaver().problem:
        st.caption(f"Not autosaved: {plain(autosaver().problem)}")


def told(workspace: Workspace, written: float) -> str:
    """``12:03, 2 rules, painting on picture 4``, in the visitor's time."""
    when = datetime.fromtimestamp(written, _zone())
    day = "" if when.date() == datetime.now(when.tzinfo).date() else f"{when:%d %B} "
    parts = [f"{day}{when:%H:%M}", counted(len(workspace.entries), "rule")]
    draft = workspace.draft
    if draft.object or draft.paste or draft.key or draft.examples or draft.given:
        parts.append(f"painting on picture {short(workspace.selected)}")
    return ", ".join(parts)


def _offer(visitor: Session, kept: _Kept) -> None:
    """What this browser had last, if it is there still."""
    name = str((st.session_state.get(_BROWSER) or {}).get("last") or "")
    if not name or name == kept.refused:
        return
    try:
        found = autosaver().load(name)
    except PalimpsestError:  # damaged: there is nothing to offer
        found = None
    if found is None:
        kept.refused = name
        return

    def refuse() -> None:
        kept.refused = name

    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="recovery"):
        st.button(
            f"Recover what you had ({plain(told(*found))})",
            icon=":material/history:",
            key="recover",
            help=LOST,
            on_click=_bring_back,
            args=(visitor, kept, name),
        )
        st.button("No", type="tertiary", key="recover-not", help="It is not offered again", on_click=refuse)


def _bring_back(visitor: Session, kept: _Kept, name: str) -> None:
    try:
        found = autosaver().load(name)
        if found is None:
            kept.problem, kept.refused = "What this address names is no longer kept, or never was.", name
            return
        restore(visitor, found[0])
    except PalimpsestError as problem:
        kept.problem = f"Your work could not be brought back: {problem}"
        return
    kept.read, kept.name, kept.problem = name, "", ""
    kept.news, kept.state = f"Recovered what you had ({told(*found)}). {LOST}", _state(visitor)


def _state(visitor: Session) -> object:
    """All that is kept, as a value to compare with; rules are compared by identity."""
    return (
        visitor.generator.fingerprint,
        visitor.layer,
        visitor.truncation,
        visitor.label,
        visitor.draft,
        visitor.title,
        visitor.stack.entries,
        visitor.tried is not None,
        visitor.own,
        visitor.selected,
        visitor.view,
        tuple(range_box_kept(key, first) for key, first in BOXES.items()),
    )


def _zone() -> ZoneInfo | None:
    """The visitor's time zone, where the browser tells it and the server knows it."""
    try:
        return ZoneInfo(st.context.timezone or "")
    except (ValueError, OSError, LookupError):
        return None
