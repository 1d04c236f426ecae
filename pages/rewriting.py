"""Rewriting: paint what to copy, where to paste it, and the context; every picture then follows the new rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import streamlit as st

from dashboard.binding import bound
from dashboard.canvas import clear_mask, paint
from dashboard.errors import shown
from dashboard.examples import examples, title_of
from dashboard.gallery import Picture, gallery, range_box
from dashboard.progress import PATIENCE, follow
from dashboard.rewriting.as_published import as_published
from dashboard.rewriting.comparing import comparing
from dashboard.rewriting.did import did
from dashboard.rewriting.from_concept import concept_menu
from dashboard.rewriting.grown import grow_to_similar
from dashboard.rewriting.linking import follow_address, write_address
from dashboard.rewriting.matching import match_selection, shown_matches
from dashboard.rewriting.restoring import open_workspace
from dashboard.rewriting.selected import PAINT, ROLE, sheet, snapshot
from dashboard.rewriting.sweeping import sweeping
from dashboard.rewriting.tools import tool_choice
from dashboard.saving import save_menu
from dashboard.session import Session, session
from dashboard.settings import edit_settings
from dashboard.solving import SEARCHED, previewed, ready, resolve, search, solved, try_edit
from dashboard.text import plain
from dashboard.tray import tray
from rewrite_core.directions.matches import Matches
from rewrite_core.errors import PalimpsestError
from rewrite_core.generators.own import PictureId
from rewrite_core.pictures import Mask
from rewrite_core.rules.examples import example_edits
from rewrite_core.rules.request import EditRequest, Painted
from rewrite_core.rules.rewrite import Edit
from rewrite_core.rules.rule import Rule
from rewrite_core.rules.workspace import SUFFIX

GALLERY, BEFORE_AFTER, MATCHES = "Gallery", "Before | after", "Matches"
DID, SWEEP, COMPARE = "What it did", "Sweep", "Compare"
VIEWS = (PAINT, GALLERY, BEFORE_AFTER, DID, MATCHES, SWEEP, COMPARE)
PARTS = {"Copy": "object", "Paste": "paste", "Add to context": "key", "Protect": "protect"}
MATCH = "Match"
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
            patience = 0.0 if previewed(visitor) else PATIENCE
            follow(visitor.solving, lambda edit: solved(visitor, edit), patience=patience)
        if visitor.trial:
            outcome(visitor, visitor.trial)
        if previewed(visitor):
            st.caption("A preview of few iterations: the solution follows.")
    history(visitor)


def outcome(visitor: Session, trial: Edit) -> None:
    """Loss and change elsewhere of the trial, and keeping it."""
    solved = trial.solved
    elsewhere = f"elsewhere **{100 * solved.elsewhere:.1f} %**"
    if solved.goals:
        st.markdown(
            f"**{solved.seconds:.2f} s** · loss **{solved.loss:.3g}** (was {solved.loss_before:.3g}) · {elsewhere}",
            help="Loss: mean |wanted − drawn| in the pasted box, of the very rule shown. Elsewhere: how much the "
            "layer's response changes over everything the generator draws, relative to its size (root mean square).",
        )
    else:
        st.markdown(
            f"**{100 * solved.loss:.3g} %** of the pattern left · {elsewhere}",
            help="The share of what the layer drew for the context's pattern that it draws still.",
        )
    if len(solved.goals) > 1:
        each = [f"{goal.after:.3g} (was {goal.before:.3g})" for goal in solved.goals]
        st.caption("Loss of each example: " + " · ".join(each))
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
        tool, brush = tool_choice()
        image = sheet(visitor)
        picture = visitor.pictures([visitor.selected])[0]
        painted = paint(picture, role=ROLE, image=image, tool=tool, brush=brush, buttons=(*PARTS, MATCH))
        grow_to_similar(visitor, ROLE, image, visitor.selected, painted)
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(f"Picture {plain(str(visitor.selected))}, as the generator draws it without rules.")
            st.space("stretch")
            concept_menu(visitor)
            snapshot(visitor)
    if painted.pressed:
        region = Painted(visitor.selected, Mask.from_array(painted.mask))
        if painted.pressed == MATCH:
            _guarded(visitor, lambda session: match_selection(session, region))
        else:
            _use(visitor, region, PARTS[painted.pressed])
            clear_mask(ROLE, image)
        st.rerun()


def _use(visitor: Session, region: Painted, part: str) -> None:
    """Make a region a part of the edit: one more of several, or in place of the one that was there."""
    present = getattr(visitor.draft, part)
    visitor.change(**{part: (*present, region) if isinstance(present, tuple) else region})


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
    snapshot(visitor)
    return shown


def before_after(visitor: Session, images: Sequence[PictureId]) -> list[Picture]:
    """Pictures without the rules, each with what the rules make of it."""
    before, after = visitor.pictures(images), visitor.pictures(images, edited=True)
    return [Picture(*pair) for pair in zip(images, before, after, strict=True)]


def files(visitor: Session) -> None:
    """Open a saved edit or a rule file."""
    with st.popover("Open", icon=":material/upload:", key="open-menu"):
        file = st.file_uploader(
            "Edit (.json, also of the published interface), rule (.safetensors) or everything (.palimpsest.json)",
            key="open-file",
        )
        if file and st.button("Open this file", key="open-file-now"):
            _open(visitor, file.name, file.getvalue())
        if example_edits(visitor.embedded_name):
            st.caption("Examples")
            examples(visitor, "menu")


def _open(visitor: Session, name: str, content: bytes) -> None:
    with shown():
        if name.lower().endswith(SUFFIX):
            open_workspace(visitor, content, name)
        elif name.lower().endswith(".json"):
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


def _searched(visitor: Session, matches: Matches) -> None:
    visitor.matches, visitor.view = matches, MATCHES


def page(visitor: Session) -> None:
    """The rule on the left, the pictures on the right."""
    follow_address(visitor, VIEWS)
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
    write_address(visitor)


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
    elif visitor.view == MATCHES:
        shown_matches(visitor)
    elif visitor.view == DID:
        did(visitor)
    elif visitor.view == SWEEP:
        sweeping(visitor)
    elif visitor.view == COMPARE:
        comparing(visitor)
        with st.expander("As the published interface solves"):
            as_published(visitor)
    else:
        painting(visitor)
    with saving:
        save_menu(visitor, images)


page(session())
