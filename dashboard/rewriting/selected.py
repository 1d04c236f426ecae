"""The selected picture of the page Rewriting: its canvas, regions taken up again, and the picture as a file.

A region of the tray is *taken up* by a press on its thumbnail: its picture is selected and its mask lies on the canvas
as if it were painted there, to be changed and put to use again. The tray keeps the region until it is replaced (Copy
and Paste hold one) or removed.
"""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from dashboard.canvas import load_mask
from dashboard.gallery import set_range_box
from dashboard.ranges import format_ranges
from dashboard.session import Session
from rewrite_core.generators.own import key_of
from rewrite_core.pictures import encode_png
from rewrite_core.rules.library import file_stem
from rewrite_core.rules.request import Painted

__all__ = ["PAINT", "ROLE", "sheet", "show_painted", "snapshot", "snapshot_file", "take_up"]

PAINT, ROLE = "Paint", "edit"
"""The view with the canvas, and the canvas's role."""


def sheet(visitor: Session) -> str:
    """What the canvas calls the selected picture: strokes belong to a picture as it is drawn."""
    counted = f"{visitor.truncation}-{visitor.label}-" if isinstance(visitor.selected, int) else ""
    return f"{visitor.generator.fingerprint[:8]}-{counted}{key_of(visitor.selected)}"


def take_up(visitor: Session, region: Painted) -> None:
    """Select the picture of `region`, and lay its mask on the canvas; Undo there brings back what was painted."""
    visitor.selected, visitor.view = region.image, PAINT
    load_mask(ROLE, sheet(visitor), region.mask.pixels)


def show_painted(visitor: Session, regions: Sequence[Painted]) -> None:
    """Offer the pictures of `regions`, and no other numbers, to choose from."""
    numbers = dict.fromkeys(region.image for region in regions if isinstance(region.image, int))
    visitor.view = PAINT
    if numbers:  # pictures of one's own are offered always
        set_range_box("seeds", format_ranges(numbers))


def snapshot(visitor: Session) -> None:
    """A button that saves the selected picture as a PNG of its own size, under the rules where any is on."""
    name, content = snapshot_file(visitor)
    st.download_button(
        "Snapshot",
        content,
        name,
        "image/png",
        icon=":material/photo_camera:",
        type="tertiary",
        key="snapshot",
        on_click="ignore",
        help="The selected picture, under the rules that are on",
    )


def snapshot_file(visitor: Session) -> tuple[str, bytes]:
    """The name of the file, and the file."""
    edited = bool(visitor.rules.active)
    (picture,) = visitor.pictures([visitor.selected], edited=edited)
    stem = file_stem(f"{visitor.generator.name} {visitor.selected}{' edited' if edited else ''}")
    return f"{stem}.png", encode_png(picture)
