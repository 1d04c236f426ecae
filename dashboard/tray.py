"""What has been painted so far: thumbnails of copy, paste, context and protected regions, each with a cross."""

from __future__ import annotations

import numpy as np
import streamlit as st
from numpy.typing import NDArray
from PIL import Image

from dashboard.session import Session
from dashboard.text import plain
from rewrite_core.directions import Direction
from rewrite_core.pictures import encode_png, outline
from rewrite_core.rules.request import Painted

__all__ = ["thumbnail", "tray"]

SIDE = 54
ONE_LINE = ".st-key-tray button * { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }"
"""A long name takes as much room as a number; the tooltip has all of it."""
COLOURS = {
    "object": (240, 200, 40),
    "paste": (235, 70, 70),
    "key": (255, 255, 255),
    "protect": (70, 190, 240),
}
"""Copy yellow and paste red as in the published interface, context white, protected blue."""


def tray(session: Session) -> None:
    """The context in one row, copy and paste in another, and what is protected if anything is."""
    st.html(f"<style>{ONE_LINE}</style>")
    with st.container(key="tray"):
        _rows(session)


def _rows(session: Session) -> None:
    if session.draft.given:
        _given(session, session.draft.given)
    else:
        _row(session, "Context", "key", "Where the rule is to act: paint it in a few pictures.")
    copied, pasted = st.columns(2)
    with copied:
        _row(session, "Copy", "object", "What to copy.")
    with pasted:
        _row(session, "Paste", "paste", "Where to put it.")
    if session.draft.protect:
        _row(session, "Protected", "protect", "")


def _row(session: Session, title: str, part: str, hint: str) -> None:
    value = getattr(session.draft, part)
    regions: tuple[Painted, ...] = value if isinstance(value, tuple) else (value,) if value else ()
    st.caption(f"**{title}**" + (f" · {len(regions)}" if len(regions) > 1 else ""))
    if not regions:
        st.caption(hint)
        return
    with st.container(horizontal=True, gap="xsmall"):
        for index, painted in enumerate(regions):
            _thumb(session, part, painted, f"{abs(hash(painted)):x}-{regions[:index].count(painted)}")


def _given(session: Session, direction: Direction) -> None:
    """A direction that takes the painted context's place."""
    st.caption("**Context** · a direction of the page Directions")
    st.button(
        f"{plain(direction.name or direction.method)} · {plain(direction.layer)}",
        icon=":material/close:",
        type="tertiary",
        help="Where it matches is where the rule acts. Remove it to paint a context instead.",
        key="remove-given",
        on_click=lambda: session.change(given=None),
    )


def _thumb(session: Session, part: str, painted: Painted, key: str) -> None:
    def remove() -> None:
        rest = None
        if isinstance(value := getattr(session.draft, part), tuple):
            index = value.index(painted)
            rest = value[:index] + value[index + 1 :]
        session.change(**{part: rest})

    with st.container(width=SIDE, gap=None):
        picture = session.pictures([painted.image])[0]
        st.image(thumbnail(picture, painted, part), width=SIDE)
        st.button(
            plain(str(painted.image)),
            icon=":material/close:",
            type="tertiary",
            help=f"Remove the region painted on picture {plain(str(painted.image))}",
            key=f"remove-{part}-{key}",
            on_click=remove,
        )


@st.cache_data(max_entries=512, show_spinner=False, hash_funcs={Painted: hash})
def thumbnail(picture: NDArray[np.uint8], painted: Painted, part: str) -> bytes:
    """A PNG of `picture` [H, W, 3], enlarged, with what lies outside the mask dimmed."""
    width = 3 * SIDE
    height = round(width * picture.shape[0] / picture.shape[1])
    large = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.NEAREST))
    area = painted.mask.area((height, width)).numpy() > 0.5
    return encode_png(outline(large, area, COLOURS[part], thickness=3, dim=0.55))
