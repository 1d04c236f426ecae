"""Widgets that show a value kept elsewhere, and write it back when the visitor changes it.

Streamlit forgets a widget's state when its page is left. Here the value lives in the visitor's `Session`; the widget
is set from it in every run, and `store` is called with the new value when it is touched. So one value may be shown in
several places, and a value loaded from a file simply appears.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

__all__ = ["bound"]


def bound(key: str, value: Any, store: Callable[[Any], None]) -> dict[str, Any]:
    """The `key` and `on_change` arguments of a widget that shows `value`."""
    st.session_state[key] = value
    return {"key": key, "on_change": lambda: store(st.session_state[key])}
