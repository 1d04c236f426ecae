"""How the copy is pasted: pixels in its place, its scale and flip, and a further example."""

from __future__ import annotations

import streamlit as st

from dashboard.binding import bound
from dashboard.errors import shown
from dashboard.session import Session
from rewrite_core.rules.example import MOST_EXAMPLES, Example
from rewrite_core.rules.patch import LARGEST_PNG, Patch
from rewrite_core.rules.settings import Flip

__all__ = ["another", "pasted_as", "pixels", "posed"]

SCALES = [0.25, 0.33, 0.5, 0.67, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0]
FLIPS: dict[tuple[bool, bool], Flip] = {
    (False, False): "none",
    (True, False): "horizontal",
    (False, True): "vertical",
    (True, True): "both",
}
"""Left–right and top–bottom → what the request says."""
ARROWS: dict[Flip, str] = {"horizontal": "↔", "vertical": "↕", "both": "↔ ↕"}


def pixels(session: Session) -> None:
    """A colour or a picture to paste, at a layer that draws the picture itself."""
    generator = session.generator
    able = [name for name in generator.layers if generator.paints(name)]
    here = session.layer in able
    where = f"Only at {', '.join(able)}, which draws" if able else "No layer here draws"
    with st.popover(
        "Colour or patch",
        type="tertiary",
        key="pixels",
        disabled=not here,
        help="Paste a colour, or a picture that you bring." if here else f"{where} the picture itself.",
    ):
        colour = st.color_picker("Colour", "#e02020", key="pixels-colour")
        st.button("Copy this colour", key="copy-colour", on_click=_copy_colour, args=(session, colour))
        file = st.file_uploader(
            "Patch (PNG)",
            type=["png"],
            max_upload_size=LARGEST_PNG >> 20,
            key="pixels-file",
            help="Pasted pixel by pixel; what is transparent stays as it is.",
        )
        if file and st.button("Copy this patch", key="copy-patch"):
            with shown():
                session.change(object=Patch.from_png(file.getvalue(), file.name))
                st.rerun()


def pasted_as(session: Session) -> None:
    """Scale and flip of the paste in a row, once there is one.

    They are not behind a button: what is in a closed popover is not told of a value that changes elsewhere, and sends
    its old one with the next click.
    """
    draft = session.draft
    if draft.paste is None or draft.operation != "paste":
        return
    across, down = draft.flip in ("horizontal", "both"), draft.flip in ("vertical", "both")
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="paste-posed"):
        st.select_slider(
            "Scale",
            sorted({*SCALES, draft.scale}),
            format_func=lambda scale: f"× {scale:g}",
            label_visibility="collapsed",
            width=100,
            **bound("paste-scale", draft.scale, lambda scale: session.change(scale=scale)),
        )
        st.toggle(
            "↔",
            help="Flip the copy left–right",
            **bound("paste-flip-across", across, lambda on: session.change(flip=FLIPS[on, down])),
        )
        st.toggle(
            "↕",
            help="Flip the copy top–bottom",
            **bound("paste-flip-down", down, lambda on: session.change(flip=FLIPS[across, on])),
        )


def posed(scale: float, flip: Flip) -> str:
    """Scale and flip in a few signs; empty where the copy is pasted as it is."""
    return " ".join(([f"× {scale:g}"] if scale != 1 else []) + ([ARROWS[flip]] if flip != "none" else []))


def another(session: Session) -> None:
    """A button that puts copy and paste among the further examples, so that the next pair can be painted."""
    draft = session.draft
    if draft.object is None or draft.paste is None or draft.operation != "paste":
        return
    st.button(
        "Add another example",
        icon=":material/add:",
        type="tertiary",
        key="another-example",
        disabled=len(draft.examples) >= MOST_EXAMPLES,
        help="Keeps this copy and paste, and makes room for the next pair. The rule is solved for all of them.",
        on_click=_another,
        args=(session,),
    )


def _another(session: Session) -> None:
    draft = session.draft
    if draft.object is not None and draft.paste is not None:
        example = Example(draft.object, draft.paste, draft.scale, draft.flip)
        session.change(examples=(*draft.examples, example), object=None, paste=None, scale=1.0, flip="none")


def _copy_colour(session: Session, colour: str) -> None:
    session.change(object=Patch.of_colour(colour))
