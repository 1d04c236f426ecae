"""Example edits of the embedded generators: one click shows a rewritten generator."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboard.session import Session
from dashboard.solving import try_edit
from rewrite_core.rules.examples import example_edits
from rewrite_core.rules.request import EditRequest

__all__ = ["examples", "title_of"]


def examples(session: Session, place: str) -> None:
    """A button for each example edit."""
    with st.container(horizontal=True, gap="small"):
        for path in example_edits(session.embedded_name).values():
            st.button(
                title_of(path),
                icon=":material/auto_awesome:",
                key=f"example-{path.stem}-{place}",
                help="Loads this example edit and tries it",
                on_click=_start,
                args=(session, path),
            )


def title_of(path: Path) -> str:
    """The name of an edit file, as a title."""
    return path.stem.replace("-", " ").replace("_", " ").capitalize()


def _start(session: Session, path: Path) -> None:
    session.load(EditRequest.load(path), title_of(path))
    try_edit(session)
