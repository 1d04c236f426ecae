"""The view Paint: what a new direction shall find, what it shall not, and what it shall keep away from."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from dashboard.canvas import Tool, clear_mask, paint
from dashboard.directions.choices import PAINTED, Part
from dashboard.directions.state import choose
from dashboard.gallery import Picture, gallery, range_box
from dashboard.session import Session
from dashboard.text import plain
from dashboard.tray import thumbnail
from rewrite_core.generators.own import PictureId, key_of
from rewrite_core.pictures import Mask
from rewrite_core.rules.request import Painted

__all__ = ["painting", "regions"]

ROLE = "context"
TOOLS: tuple[Tool, ...] = ("brush", "rectangle", "polygon")
BRUSHES = (8, 14, 20, 28, 40, 60)
PARTS: Mapping[str, Part] = {"Add to “this”": "this", "Add to “not that”": "that", "Protect": "protect"}
"""What a button says → the part of the context that it adds to."""
MEANING: Mapping[Part, str] = {"this": "This", "that": "Not that", "protect": "Protected"}
COLOURS: Mapping[Part, str] = {"this": "key", "that": "paste", "protect": "protect"}
"""The part of an edit whose colour a region has."""
SIDE, CANVAS = 54, 420
"""Pixels of a thumbnail, and of the canvas with its frame."""


def painting(visitor: Session) -> None:
    """The canvas over the selected picture, and the pictures to choose from."""
    with st.container(horizontal=True, gap="medium"):
        canvas, choice = st.container(width=CANVAS), st.container()  # below where there is no room beside
    with choice:
        offered: tuple[PictureId, ...] = (*visitor.own, *range_box("Pictures", key="context-seeds"))
        pictures = [Picture(*pair) for pair in zip(offered, visitor.pictures(offered), strict=True)]
        visitor.select(gallery(pictures, key="context-choice", selected=visitor.selected, size=64))
    with canvas:
        _canvas(visitor)


def _canvas(visitor: Session) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        tool = st.segmented_control(
            "Tool", TOOLS, default="brush", key="context-tool", label_visibility="collapsed"
        )
        brush = st.select_slider(
            "Brush",
            BRUSHES,
            value=20,
            key="context-brush",
            width=110,
            label_visibility="collapsed",
            help="Brush width",
        )
    image = _sheet(visitor)
    picture = visitor.pictures([visitor.selected])[0]
    painted = paint(picture, role=ROLE, image=image, tool=tool or "brush", brush=brush, buttons=tuple(PARTS))
    st.caption(
        f"Picture {plain(str(visitor.selected))}, drawn without rules. What is added is listed on the left. The same "
        "thing painted on two or three pictures says more clearly what is meant."
    )
    if painted.pressed:
        part = PARTS[painted.pressed]
        region = Painted(visitor.selected, Mask.from_array(painted.mask))
        choose(visitor, origin=PAINTED, context=visitor.exploring.context.added(part, region))
        clear_mask(ROLE, image)
        st.rerun()


def _sheet(visitor: Session) -> str:
    """What the canvas calls the selected picture: strokes belong to a picture as it is drawn."""
    counted = f"{visitor.truncation}-{visitor.label}-" if isinstance(visitor.selected, int) else ""
    return f"{visitor.generator.fingerprint[:8]}-{counted}{key_of(visitor.selected)}"


# What is painted


def regions(visitor: Session) -> None:
    """Thumbnails of what is painted, part by part, each with a cross."""
    for part, title in MEANING.items():
        painted = visitor.exploring.context.part(part)
        if not painted:
            continue
        st.caption(f"**{title}**" + (f" · {len(painted)}" if len(painted) > 1 else ""))
        with st.container(horizontal=True, gap="xsmall", key=f"context-{part}"):
            for place, region in enumerate(painted):
                _thumb(visitor, part, place, region)


def _thumb(visitor: Session, part: Part, place: int, region: Painted) -> None:
    def remove() -> None:
        choose(visitor, context=visitor.exploring.context.without(part, place))

    with st.container(width=SIDE, gap=None):
        picture = visitor.pictures([region.image])[0]
        st.image(thumbnail(picture, region, COLOURS[part]), width=SIDE)
        st.button(
            plain(str(region.image)),
            icon=":material/close:",
            type="tertiary",
            help=f"Remove the region painted on picture {plain(str(region.image))}",
            key=f"context-remove-{part}-{place}-{key_of(region.image)}",
            on_click=remove,
        )
