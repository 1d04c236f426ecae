"""How a page shows what went wrong: one line, and the rest of the page stays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from dashboard.text import plain
from rewrite_core.errors import PalimpsestError

__all__ = ["shown"]


@contextmanager
def shown() -> Iterator[None]:
    """Show a `PalimpsestError` from inside as one line."""
    try:
        yield
    except PalimpsestError as problem:
        st.error(plain(str(problem)), icon=":material/error:")
