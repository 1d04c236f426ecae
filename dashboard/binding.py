"""Widgets that show a value kept elsewhere, and write it back when the visitor changes it.

Streamlit forgets a widget's state when its page is left. Here the value lives in the visitor's `Session`; the widget
is set from it in every run, and `store` is called with the new value when it is touched. So one value may be shown in
several places, and a value loaded from a file simply appears.

A widget in a popover is `hidden` while that is closed: the browser has taken it off the page. It is not told of a value
that changes elsewhere meanwhile, and with the next click, wherever that is, sends its old one, which would be stored as
if the visitor had chosen it. So a hidden widget gets a new key whenever its value changed other than through itself:
it is another widget then, and what the browser says of the old one is about nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import streamlit as st

__all__ = ["bound"]


@dataclass(frozen=True)
class _Shown:
    """What a hidden widget showed last, which of its keys it had, and whether it was touched since."""

    value: Any
    generation: int = 0
    touched: bool = False


def bound(key: str, value: Any, store: Callable[[Any], None], *, hidden: bool = False) -> dict[str, Any]:
    """The `key` and `on_change` arguments of a widget that shows `value`; `hidden` for one in a popover."""
    kept = f"{key} shown"
    if hidden:
        shown: _Shown = st.session_state.get(kept, _Shown(value))
        elsewhere = shown.value != value and not shown.touched
        shown = _Shown(value, shown.generation + elsewhere)
        st.session_state[kept] = shown
        key = f"{key}-{shown.generation}" if shown.generation else key

    def changed() -> None:
        if hidden:
            st.session_state[kept] = replace(st.session_state[kept], touched=True)
        store(st.session_state[key])

    st.session_state[key] = value
    return {"key": key, "on_change": changed}
