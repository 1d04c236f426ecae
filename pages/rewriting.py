"""Rewriting: paint what to copy, where to paste it, and the context; every picture then follows the new rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import streamlit as st

from dashboard.binding import bound
from dashboard.canvas import Tool, clear_mask, paint
from dashboard.errors import shown
from dashboard.examples import examples, title_of
from dashboard.gallery import Picture, gallery, range_box
from dashboard.progress import follow
from dashboard.saving import save_menu
from dashboard.session import Session, drawn, session
from dashboard.settings import edit_settings
from dashboard.solving import SEARCHED, ready, resolve, search, try_edit
from dashboard.text import plain
from dashboard.tray import tray
from rewrite_core.directions.matches import Matches
from rewrite_core.errors import PalimpsestError
from rewrite_core.generators.own import PictureId, key_of
from rewrite_core.pictures import Mask, blend_heat, enlarge, overlay_heat
from rewrite_core.rules.examples import example_edits
from rewrite_core.rules.request import EditRequest, Painted
from rewrite_core.rules.rewrite import Edit
from rewrite_core.rules.rule import Rule

PAINT, GALLERY, BEFORE_AFTER, MATCHES = VIEWS = ("Paint", "Gallery", "Before | after", "Matches")
TOOLS: tuple[Tool, ...] = ("brush", "rectangle", "polygon")
PARTS = {"Copy": "object", "Paste": "paste", "Add to context": "key", "Protect": "protect"}
BRUSHES = (8, 14, 20, 28, 40, 60)
TOP = 24
DEFAULT_PAIRS = tuple(range(1000, 1024))


def rule_panel(visitor: Session) -> None:
    """The edit as it stands, its settings, and what came out."""
    with st.container(border=True):
        if visitor.unpainted and example_edits(visitor.embedded_name):
            st.markdown("**Start with an example**")
            examples(visitor, "panel")
            st.markdown("**or paint your own**")
        tray(visitor)
        edit_settings(visitor)
        missing = ready(visitor)
        with st.container(horizontal=True, gap="small"):
            st.button(
                "Try", type="primary", key="try", disabled=bool(missing), on_click=_try, args=(visitor,)
            )
            st.button(
                "Search",
                key="search",
                icon=":material/search:",
                disabled=not (visitor.draft.key or visitor.draft.given),
                help=f"Which of {SEARCHED:,} pictures show the context most?",
                on_click=_search,
                args=(visitor,),
            )
        if missing and visitor.tried is None:
            st.caption(missing)
        if visitor.solving:
            follow(visitor.solving, lambda edit: _solved(visitor, edit))
        if visitor.trial:
            outcome(visitor, visitor.trial)
    history(visitor)


def outcome(visitor: Session, trial: Edit) -> None:
    """Loss and change elsewhere of the trial, and keeping it."""
    solved = trial.solved
    st.markdown(
        f"**{solved.seconds:.2f} s** · loss **{solved.loss:.3g}** (was {solved.loss_before:.3g}) · "
        f"elsewhere **{100 * solved.elsewhere:.1f} %**",
        help="Loss: mean |wanted − drawn| in the pasted box, of the very rule shown. Elsewhere: how much the layer's "
        "response changes over everything the generator draws, relative to its size (root mean square).",
    )
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        name = st.text_input("Keep as", trial.rule.name, max_chars=60, key=f"rule-name-{trial.rule.name}")
        st.button("Keep", icon=":material/check:", key="keep", on_click=lambda: visitor.keep(name))


def history(visitor: Session) -> None:
    """Undo, redo, revert."""
    with st.container(horizontal=True, gap="small"):
        nothing = not (visitor.trial or visitor.stack.past)
        undone = not (visitor.dropped or visitor.stack.future)
        original = not visitor.rules.entries
        st.button("Undo", type="tertiary", key="undo", disabled=nothing, on_click=visitor.undo)
        st.button("Redo", type="tertiary", key="redo", disabled=undone, on_click=visitor.redo)
        st.space("stretch")
        st.button(
            "New edit",
            type="tertiary",
            key="clear-edit",
            disabled=visitor.unpainted,
            help="Drops what is painted; kept rules stay",
            on_click=visitor.clear_edit,
        )
        st.button(
            "Revert",
            type="tertiary",
            key="revert",
            disabled=original,
            help="Back to the generator as it was loaded",
            on_click=visitor.revert,
        )


def painting(visitor: Session) -> None:
    """The canvas over the selected picture, and the pictures to choose from."""
    canvas, choice = st.columns([1.2, 1], gap="medium")
    with choice:
        offered: tuple[PictureId, ...] = (*visitor.own, *range_box("Pictures", key="seeds"))
        pictures = [Picture(*pair) for pair in zip(offered, visitor.pictures(offered), strict=True)]
        visitor.select(gallery(pictures, key="choice", selected=visitor.selected, size=64))
    with canvas:
        with st.container(horizontal=True, vertical_alignment="center"):
            tool = st.segmented_control(
                "Tool", TOOLS, default="brush", key="tool", label_visibility="collapsed"
            )
            brush = st.select_slider(
                "Brush",
                BRUSHES,
                value=28,
                key="brush",
                width=110,
                label_visibility="collapsed",
                help="Brush width",
            )
        image = sheet(visitor)
        picture = visitor.pictures([visitor.selected])[0]
        painted = paint(
            picture, role="edit", image=image, tool=tool or "brush", brush=brush, buttons=tuple(PARTS)
        )
        st.caption(f"Picture {plain(str(visitor.selected))}, as the generator draws it without rules.")
    if painted.pressed:
        part, region = PARTS[painted.pressed], Painted(visitor.selected, Mask.from_array(painted.mask))
        present = getattr(visitor.draft, part)
        visitor.change(**{part: (*present, region) if isinstance(present, tuple) else region})
        clear_mask("edit", image)
        st.rerun()


def sheet(visitor: Session) -> str:
    """What the canvas calls the selected picture: strokes belong to a picture as it is drawn."""
    counted = f"{visitor.truncation}-{visitor.label}-" if isinstance(visitor.selected, int) else ""
    return f"{visitor.generator.fingerprint[:8]}-{counted}{key_of(visitor.selected)}"


def pairs(visitor: Session) -> tuple[PictureId, ...]:
    """Before and after: the visitor's own pictures, and others that were never painted on; what is on screen."""
    shown: tuple[PictureId, ...] = (
        *visitor.own,
        *range_box("Fresh pictures", key="fresh", default="1000-1023"),
    )
    if not visitor.rules.active:
        st.caption("No rule is on: paint an edit and press Try, or load an example.")
    gallery(before_after(visitor, shown), key="pairs", size=96, view="pair")
    return shown


def all_pictures(visitor: Session) -> tuple[PictureId, ...]:
    """The gallery under the rules, each picture beside its original."""
    shown: tuple[PictureId, ...] = (*visitor.own, *range_box("Pictures", key="gallery-seeds", default="0-63"))
    pictures = before_after(visitor, shown)
    visitor.select(gallery(pictures, key="gallery", selected=visitor.selected, size=96, view="after"))
    return shown


def before_after(visitor: Session, images: Sequence[PictureId]) -> list[Picture]:
    """Pictures without the rules, each with what the rules make of it."""
    before, after = visitor.pictures(images), visitor.pictures(images, edited=True)
    return [Picture(*pair) for pair in zip(images, before, after, strict=True)]


def found(visitor: Session, matches: Matches) -> None:
    """The pictures that show the context most, with where they show it."""
    st.caption(f"The {TOP} of {len(matches.spec):,} pictures that match the context best, best first.")
    shows = st.segmented_control("Overlay", ("outline", "heat", "none"), default="outline", key="overlay")
    seeds, level, high = tuple(matches.top(TOP)), matches.outline, float(matches.heat.max())
    pictures = []
    images = drawn(replace(matches.spec, seeds=seeds), visitor.generator)
    for seed, image in zip(seeds, enlarge(images, visitor.enlargement), strict=True):
        heat = matches.of(seed)
        if shows == "outline":
            image = overlay_heat(image, heat, level)
        elif shows == "heat":
            image = blend_heat(image, heat, 0.0, high)
        pictures.append(Picture(seed, image, note=f"{float(heat.max()):.2f}"))
    visitor.select(gallery(pictures, key="matches", selected=visitor.selected, size=128))
    st.caption("A picture selected here is the one to paint on.")


def files(visitor: Session) -> None:
    """Open a saved edit or a rule file."""
    with st.popover("Open", icon=":material/upload:", key="open-menu"):
        file = st.file_uploader(
            "Edit (.json, also of the published interface) or rule (.safetensors)", key="open-file"
        )
        if file and st.button("Open this file", key="open-file-now"):
            _open(visitor, file.name, file.getvalue())
        if example_edits(visitor.embedded_name):
            st.caption("Examples")
            examples(visitor, "menu")


def _open(visitor: Session, name: str, content: bytes) -> None:
    with shown():
        if name.lower().endswith(".json"):
            visitor.load(EditRequest.from_json(content, name), title_of(Path(name)))
        else:
            visitor.add(Rule.load(content, name))
        st.rerun()


def _try(visitor: Session) -> None:
    _guarded(visitor, try_edit)


def _search(visitor: Session) -> None:
    _guarded(visitor, search)


def _guarded(visitor: Session, act: Callable[[Session], None]) -> None:
    visitor.problem = ""
    try:
        act(visitor)
    except PalimpsestError as problem:
        visitor.problem = str(problem)


def _solved(visitor: Session, edit: Edit) -> None:
    visitor.trial, visitor.dropped = edit, None
    visitor.view = BEFORE_AFTER


def _searched(visitor: Session, matches: Matches) -> None:
    visitor.matches, visitor.view = matches, MATCHES


def page(visitor: Session) -> None:
    """The rule on the left, the pictures on the right."""
    with shown():
        resolve(visitor)
    if visitor.problem:
        st.error(plain(visitor.problem), icon=":material/error:")
    panel, pictures = st.columns([1, 2.4], gap="medium")
    with panel, shown():
        rule_panel(visitor)
        if visitor.searching:
            follow(visitor.searching, lambda matches: _searched(visitor, matches))
    with pictures, shown():
        view(visitor)


def view(visitor: Session) -> None:
    """The chosen view, with opening and saving beside the choice."""

    def store(chosen: str | None) -> None:
        visitor.view = chosen or visitor.view

    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.segmented_control(
            "View", VIEWS, label_visibility="collapsed", **bound("view", visitor.view, store)
        )
        st.space("stretch")
        files(visitor)
        saving = st.container(width="content")
    images: tuple[PictureId, ...] = DEFAULT_PAIRS
    if visitor.view == BEFORE_AFTER:
        images = pairs(visitor)
    elif visitor.view == GALLERY:
        images = all_pictures(visitor)
    elif visitor.view == MATCHES and visitor.matches:
        found(visitor, visitor.matches)
    elif visitor.view == MATCHES:
        st.caption("Paint a context and press Search: the pictures that show it most appear here.")
    else:
        painting(visitor)
    with saving:
        save_menu(visitor, images)


page(session())
