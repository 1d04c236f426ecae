"""Example edits of the embedded generators: one click shows a rewritten generator."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboard.session import Session
from dashboard.solving import try_edit
from rewrite_core.generators import embedded_folder, embedded_names
from rewrite_core.rules.request import EditRequest

__all__ = ["example_edits", "examples"]


def example_edits(session: Session) -> list[Path]:
    """The example edits that ship for the open generator."""
    if session.generator.name not in embedded_names():
        return []
    return sorted((embedded_folder(session.generator.name) / "edits").glob("*.json"))


def examples(session: Session) -> None:
    """A button for each example edit."""
    with st.container(horizontal=True, gap="xsmall", width="content"):
        for path in example_edits(session):
            st.button(
                path.stem.replace("-", " ").capitalize(),
                icon=":material/auto_awesome:",
                key=f"example-{path.stem}",
                help="An example edit of this generator: one click loads and tries it",
                on_click=_start,
                args=(session, path),
            )


def _start(session: Session, path: Path) -> None:
    session.load(EditRequest.load(path))
    try_edit(session)
