"""What can be done with a concept source that was made on the page: dissect with it here, or from a terminal."""

from __future__ import annotations

import re
import shlex

import streamlit as st

from dashboard.dissection.choices import UNITS
from dashboard.dissection.state import choose
from dashboard.session import Session
from dissect.concepts import ConceptSource

__all__ = ["command", "file_name", "use_button"]


def use_button(visitor: Session, source: ConceptSource, key: str) -> None:
    """Dissect with `source`, and show the units."""
    used = visitor.dissecting.own is source
    st.button(
        "Used for the dissection" if used else "Use for dissection",
        icon=":material/check:" if used else ":material/biotech:",
        type="primary",
        key=key,
        disabled=used,
        on_click=lambda: choose(visitor, own=source, concept="", begun=True, view=UNITS, problem=""),
    )


def file_name(visitor: Session, ending: str) -> str:
    """What a file of the visitor's concepts is called; it needs no quotes."""
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', visitor.generator.name)}-{ending}"


def command(visitor: Session, file: str) -> str:
    """The line that dissects with the saved file."""
    model = visitor.embedded_name or visitor.origin or "MODEL"
    return f"palimpsest dissect {shlex.quote(model)} --concepts {file} --out dissection"
