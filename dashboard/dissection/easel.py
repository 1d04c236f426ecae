"""Painting concepts: which one, the canvas and its tools, and the pictures to paint on.

Strokes go into the visitor's `Painting` as they are drawn. Everything else that changes it, also Undo, goes through
`repaint`, which empties the canvas. A callback takes the painting as it is when it is called: a stroke that came in
the same run, further down the page, is in no earlier value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from dashboard.binding import bound
from dashboard.budget import Budget
from dashboard.canvas import Tool, clear_mask, paint
from dashboard.dissection.painting import Painting, tinted
from dashboard.errors import shown
from dashboard.gallery import Picture, gallery, range_box
from dashboard.ranges import format_ranges
from dashboard.session import Session, drawn
from dashboard.text import plain
from dissect.concepts.catalogue import embedded_concepts
from dissect.concepts.concept_file import LONGEST_NAME, ConceptFile
from dissect.concepts.palette import colour_of, colours_of
from dissect.concepts.strokes import Strokes
from rewrite_core.errors import PalimpsestError
from rewrite_core.pictures import Colour

__all__ = ["concept_choice", "easel", "paint_on", "picture_choice", "repaint", "shipped", "start"]

ROLE = "concept"
ERASER = "eraser"
TOOLS: Mapping[str, Tool] = {
    "brush": "brush",
    "rectangle": "rectangle",
    "polygon": "polygon",
    ERASER: "brush",
}
BRUSHES = (8, 14, 20, 28, 40, 60)
SIDE = 64
WHITE: Colour = (255, 255, 255)


def start(visitor: Session) -> Painting:
    """What the visitor paints; at first a copy of what ships with the generator, or nothing."""
    if visitor.painting is None:
        file = shipped(visitor) or ConceptFile.empty(visitor.generator, latents=visitor.latents)
        repaint(visitor, Painting.of(file).turned(seed=file.seeds[0] if file.seeds else 0))
    assert visitor.painting is not None
    return visitor.painting


def shipped(visitor: Session) -> ConceptFile | None:
    """The painted concepts that ship with the generator, if any do."""
    path = embedded_concepts(visitor.generator).get("painted") if visitor.embedded_name else None
    return ConceptFile.load(path) if path else None


def paint_on(visitor: Session, file: ConceptFile) -> None:
    """Paint on in `file`, of which something may be learned already; Undo leads back to what was painted before."""
    painting = start(visitor).changed(file)
    painting = painting.turned(seed=file.seeds[0] if file.seeds else painting.seed)
    repaint(visitor, painting.wanting() if file.learned else painting)
    st.session_state["concept-seeds"] = format_ranges(painting.suggested)


def repaint(visitor: Session, painting: Painting) -> None:
    """Go on with `painting`, on an empty canvas."""
    visitor.painting = painting
    clear_mask(ROLE, ROLE)


def easel(visitor: Session) -> None:
    """The canvas with its tools; what is drawn on it goes into the visitor's painting."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        tool = st.segmented_control(
            "Tool", list(TOOLS), default="brush", key="concept-tool", label_visibility="collapsed"
        )
        brush = st.select_slider(
            "Brush",
            BRUSHES,
            value=20,
            key="concept-brush",
            width=90,
            label_visibility="collapsed",
            help="Brush width",
        )
    painting = start(visitor)
    if painting.erasing != (tool == ERASER):
        repaint(visitor, painting := painting.turned(erasing=tool == ERASER))
    under = _tinted(painting.base, visitor, (painting.seed,))[0]
    if not (painting.concept or painting.erasing):
        st.image(under, width=416)
        st.caption("Add a concept, such as hair; then paint it here.")
        return
    colour = WHITE if painting.erasing else colour_of(painting.concept)
    painted = paint(
        under, role=ROLE, image=ROLE, tool=TOOLS[tool or "brush"], brush=brush, colour=colour, tools=False
    )
    visitor.painting = painting = painting.stroked(painted.mask)
    _history(visitor, painting)


def _history(visitor: Session, painting: Painting) -> None:
    """What is painted here, and taking it back."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="concept-history"):
        what = f"{plain(painting.concept)} {painting.here:,} px on " if painting.concept else ""
        st.caption(f"{what}picture {painting.seed}")
        st.space("stretch")
        empty = painting.file.on(painting.seed).empty
        _tool("Undo", ":material/undo:", not painting.past, visitor, Painting.undone)
        _tool("Redo", ":material/redo:", not painting.future, visitor, Painting.redone)
        _tool("Clear", ":material/delete:", empty, visitor, Painting.cleared)


def _tool(
    label: str, icon: str, disabled: bool, visitor: Session, change: Callable[[Painting], Painting]
) -> None:
    st.button(
        label,
        icon=icon,
        type="tertiary",
        key=f"concept-{label.lower()}",
        disabled=disabled,
        help="All strokes on this picture" if label == "Clear" else None,
        on_click=lambda: repaint(visitor, change(start(visitor))),
    )


# The concepts


def concept_choice(visitor: Session) -> None:
    """The concepts in their colours, one of them chosen; adding, renaming, deleting."""
    painting = start(visitor)
    names = painting.file.concepts

    def choose(name: str | None) -> None:
        if name:
            repaint(visitor, start(visitor).turned(concept=name))
            _put_eraser_down()

    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if names:
            _dots(names)
            st.pills(
                "Concept",
                names,
                format_func=plain,
                label_visibility="collapsed",
                **bound("concept-chosen", painting.concept, choose),
            )
        with st.popover("Add", icon=":material/add:", key="concept-add"):
            _naming("New concept", "", "Add", partial(_add, visitor))
        if painting.concept:
            with st.popover("", icon=":material/edit:", key="concept-edit", help="Rename or delete it"):
                _naming("Name", painting.concept, "Rename", partial(_rename, visitor))
                st.button(
                    "Delete it, with its strokes",
                    icon=":material/delete:",
                    key="concept-delete",
                    on_click=lambda: repaint(visitor, start(visitor).without(painting.concept)),
                )
    if painting.problem:
        st.error(plain(painting.problem), icon=":material/error:")


def _naming(label: str, name: str, button: str, act: Callable[[str], None]) -> None:
    key = f"concept-name-{button}"
    with st.form(f"{key}-form", border=False, clear_on_submit=not name):
        st.text_input(label, name, max_chars=LONGEST_NAME, key=f"{key}-{name}")
        st.form_submit_button(
            button, key=f"{key}-now", on_click=lambda: act(st.session_state[f"{key}-{name}"])
        )


def _add(visitor: Session, name: str) -> None:
    _change(visitor, name, lambda file: file.with_concept(name.strip()))


def _rename(visitor: Session, name: str) -> None:
    concept = start(visitor).concept
    _change(visitor, name, lambda file: file.renamed(concept, name.strip()))


def _change(visitor: Session, name: str, change: Callable[[ConceptFile], ConceptFile]) -> None:
    """Change the file and choose the concept called `name`; else say why not, and all stays as it is."""
    painting = start(visitor)
    try:
        repaint(visitor, painting.changed(change(painting.file), name.strip()))
        _put_eraser_down()
    except PalimpsestError as problem:
        visitor.painting = painting.refused(problem)


def _put_eraser_down() -> None:
    """Who chooses a concept means to paint it."""
    if st.session_state.get("concept-tool") == ERASER:
        st.session_state["concept-tool"] = "brush"


def _dots(names: tuple[str, ...]) -> None:
    """A dot in its colour before each concept's name."""
    group, button = ".st-key-concept-chosen [role='radiogroup']", ".st-key-concept-chosen button"
    rules = [
        f"{button}:nth-of-type({place + 1})::before {{ background: rgb({red}, {green}, {blue}); }}"
        for place, (red, green, blue) in enumerate(colours_of(names))
    ]
    dot = "content: ''; width: .7rem; height: .7rem; border-radius: 50%; margin-right: .4rem; flex: none;"
    rim = "box-shadow: 0 0 0 1px rgba(128, 128, 128, .45);"
    every = f"{group} {{ flex-wrap: wrap; }} {button}::before {{ {dot} {rim} }}"
    st.html(f"<style>{every} {' '.join(rules)}</style>")


# The pictures


def picture_choice(visitor: Session) -> None:
    """The pictures to choose from, with what is painted on them."""
    painting = start(visitor)
    with shown():
        seeds = range_box(
            "Pictures to paint on", key="concept-seeds", default=format_ranges(painting.suggested)
        )
        seeds = tuple(dict.fromkeys((*seeds, painting.seed)))
        images = _tinted(painting.file, visitor, seeds)
        pictures = [Picture(seed, image) for seed, image in zip(seeds, images, strict=True)]
        chosen = gallery(pictures, key="concept-pictures", selected=painting.seed, size=SIDE)
        if isinstance(chosen, int) and chosen != painting.seed:
            repaint(visitor, painting.turned(seed=chosen))
            st.rerun()


def _tinted(file: ConceptFile, visitor: Session, seeds: tuple[int, ...]) -> list[NDArray[np.uint8]]:
    """Pictures [H, W, 3], as the generator draws them without rules, under the strokes on them."""
    pictures = drawn(file.latents.spec(seeds), visitor.generator)
    depends = (visitor.generator.fingerprint, file.latents, file.concepts)

    def tint(picture: NDArray[np.uint8], strokes: Strokes) -> NDArray[np.uint8]:
        return _kept.get((*depends, strokes), lambda: tinted(picture, strokes, colours_of(file.concepts)))

    return [tint(picture, file.on(seed)) for picture, seed in zip(pictures, seeds, strict=True)]


_kept: Budget[NDArray[np.uint8]] = Budget(128 << 20, lambda picture: picture.nbytes)
