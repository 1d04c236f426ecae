"""Which tool paints, and how wide its brush is: the line above a canvas."""

from __future__ import annotations

from typing import get_args

import streamlit as st

from dashboard.canvas import Tool

__all__ = ["BRUSHES", "TOOLS", "tool_choice"]

TOOLS: tuple[Tool, ...] = get_args(Tool)
BRUSHES = (4, 8, 14, 20, 28, 40, 60, 90)
"""Widths in pixels of the screen."""
_NO_WIDTH: tuple[Tool, ...] = ("rectangle", "polygon")


def tool_choice(key: str = "tool", brush_key: str = "brush", default: int = 28) -> tuple[Tool, int]:
    """Widgets for both; the width matters to brush and eraser alone."""
    with st.container(horizontal=True, vertical_alignment="center"):
        tool = st.segmented_control("Tool", TOOLS, default="brush", key=key, label_visibility="collapsed")
        brush = st.select_slider(
            "Brush",
            BRUSHES,
            value=default,
            key=brush_key,
            width=110,
            label_visibility="collapsed",
            help="Width of brush and eraser",
            disabled=tool in _NO_WIDTH,
        )
    return tool or "brush", brush
