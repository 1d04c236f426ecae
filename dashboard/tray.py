"""What is asked for so far: thumbnails of copy, paste, context, further examples and what is protected.

Each has a cross that removes it, and a press on the thumbnail of a region takes it up again: its picture is selected,
and its mask is on the canvas.
"""

from __future__ import annotations

import numpy as np
import streamlit as st
from numpy.typing import NDArray
from PIL import Image

from dashboard.pasting import another, pasted_as, pixels, posed
from dashboard.rewriting.selected import show_painted, take_up
from dashboard.session import Session
from dashboard.text import plain
from rewrite_core.directions import Direction
from rewrite_core.pictures import encode_png, outline
from rewrite_core.rules.example import Example
from rewrite_core.rules.patch import Patch
from rewrite_core.rules.request import Painted

__all__ = ["swatch", "thumbnail", "tray"]

SIDE = 54
ONE_LINE = ".st-key-tray button * { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }"
"""A long name takes as much room as a number; the tooltip has all of it."""
THUMB = """
[class*="st-key-thumb-"] { position: relative; }
[class*="st-key-select-"] { position: absolute; inset: 0; width: 100%; height: 100%; opacity: 0; z-index: 1; }
[class*="st-key-select-"]:is(:hover, :focus-within) { opacity: 0.3; }
[class*="st-key-select-"] * { height: 100%; min-height: 0; }
"""
"""A thumbnail is a button as a whole: its button lies over it, seen only under the mouse or the keyboard's focus."""
COLOURS = {
    "object": (240, 200, 40),
    "paste": (235, 70, 70),
    "key": (255, 255, 255),
    "protect": (70, 190, 240),
}
"""Copy yellow and paste red as in the published interface, context white, protected blue."""


def tray(session: Session) -> None:
    """The context in one row, copy and paste in another; then further examples and what is protected, if any."""
    st.html(f"<style>{ONE_LINE}{THUMB}</style>")
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
        pixels(session)
    with pasted:
        _row(session, "Paste", "paste", "Where to put it.")
    pasted_as(session)
    another(session)
    for number, example in enumerate(session.draft.examples):
        _example(session, number, example)
    if session.draft.protect:
        _row(session, "Protected", "protect", "")


def _row(session: Session, title: str, part: str, hint: str) -> None:
    value = getattr(session.draft, part)
    if isinstance(value, Patch):
        value = (value,)
    regions: tuple[Painted | Patch, ...] = value if isinstance(value, tuple) else (value,) if value else ()
    caption = f"**{title}**" + (f" · {len(regions)}" if len(regions) > 1 else "")
    if part == "key" and regions:
        _shown_on_request(session, caption)
    else:
        st.caption(caption)
    if not regions:
        st.caption(hint)
        return
    with st.container(horizontal=True, gap="xsmall"):
        for index, painted in enumerate(regions):
            _thumb(session, part, painted, f"{abs(hash(painted)):x}-{regions[:index].count(painted)}")


def _shown_on_request(session: Session, caption: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.caption(caption)
        st.space("stretch")
        st.button(
            "Show",
            type="tertiary",
            key="show-context",
            help="Offer the pictures of the context to paint on",
            on_click=show_painted,
            args=(session, session.draft.key),
        )


def _given(session: Session, direction: Direction) -> None:
    """A direction that takes the painted context's place."""
    st.caption("**Context** · a direction of the page Directions")
    st.button(
        f"{plain(direction.name or direction.method)} · {plain(direction.layer)} · rank {direction.rank}",
        icon=":material/close:",
        type="tertiary",
        help="Where it matches is where the rule acts. Remove it to paint a context instead.",
        key="remove-given",
        on_click=lambda: session.change(given=None),
    )


def _thumb(session: Session, part: str, painted: Painted | Patch, key: str) -> None:
    def remove() -> None:
        rest = None
        if isinstance(value := getattr(session.draft, part), tuple):
            index = value.index(painted)
            rest = value[:index] + value[index + 1 :]
        session.change(**{part: rest})

    label, of_what = _named(painted)
    with st.container(width=SIDE, gap=None):
        with st.container(width=SIDE, key=f"thumb-{part}-{key}"):
            st.image(_shown(session, painted, part), width=SIDE)
            if isinstance(painted, Painted):
                st.button(
                    f"Take up the region on {label}",
                    key=f"select-{part}-{key}",
                    on_click=take_up,
                    args=(session, painted),
                )
        st.button(
            label,
            icon=":material/close:",
            type="tertiary",
            help=f"Remove {of_what}",
            key=f"remove-{part}-{key}",
            on_click=remove,
        )


def _named(painted: Painted | Patch) -> tuple[str, str]:
    """What is written under a thumbnail, and what it is in a sentence."""
    if isinstance(painted, Patch):
        return painted.colour or "patch", f"the colour {painted.colour}" if painted.colour else "the patch"
    number = plain(str(painted.image))
    return number, f"the region painted on picture {number}"


def _shown(session: Session, painted: Painted | Patch, part: str) -> bytes:
    if isinstance(painted, Patch):
        return swatch(painted)
    return thumbnail(session.pictures([painted.image])[0], painted, part)


def _example(session: Session, number: int, example: Example) -> None:
    """A further copy–paste pair in a row: what is copied, where it goes, how, and a cross."""

    def remove() -> None:
        kept = session.draft.examples
        session.change(examples=kept[:number] + kept[number + 1 :])

    first = session.draft.object is not None or session.draft.paste is not None
    name, how = f"{number + 1 + first}", posed(example.scale, example.flip)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"example-{number}"):
        st.image(_shown(session, example.object, "object"), width=SIDE)
        st.caption(":material/arrow_forward:", width="content")
        st.image(_shown(session, example.paste, "paste"), width=SIDE)
        with st.container(gap=None, width="content"):
            st.button(
                f"Example {name}",
                icon=":material/close:",
                type="tertiary",
                help=f"Remove example {name}",
                key=f"remove-example-{number}",
                on_click=remove,
            )
            if how:
                st.caption(how)


@st.cache_data(max_entries=64, show_spinner=False, hash_funcs={Patch: hash})
def swatch(patch: Patch) -> bytes:
    """A PNG of the patch, as wide as a thumbnail."""
    height = max(1, round(SIDE * patch.size[0] / patch.size[1]))
    pixels = Image.fromarray(patch.pixels).resize((3 * SIDE, 3 * height), Image.Resampling.NEAREST)
    return encode_png(np.asarray(pixels))


@st.cache_data(max_entries=512, show_spinner=False, hash_funcs={Painted: hash})
def thumbnail(picture: NDArray[np.uint8], painted: Painted, part: str) -> bytes:
    """A PNG of `picture` [H, W, 3], enlarged, with what lies outside the mask dimmed."""
    width = 3 * SIDE
    height = round(width * picture.shape[0] / picture.shape[1])
    large = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.NEAREST))
    area = painted.mask.area((height, width)).numpy() > 0.5
    return encode_png(outline(large, area, COLOURS[part], thickness=3, dim=0.55))
