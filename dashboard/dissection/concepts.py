"""The view *Concepts*: what a concept source says of the pictures, and painting a source of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard.background import show_work
from dashboard.binding import bound
from dashboard.dissection.distilling import distillation
from dashboard.dissection.easel import (
    concept_choice,
    easel,
    paint_on,
    picture_choice,
    shipped,
    start,
)
from dashboard.dissection.labelling import Seen, concept_table, labelled_gallery, seen_by
from dashboard.dissection.learning import learn, numbers, save, unseen
from dashboard.dissection.state import choose, concepts_text, open_source, source_of, subject_of
from dashboard.errors import shown
from dashboard.gallery import range_box
from dashboard.opening import paths_allowed
from dashboard.session import Session
from dashboard.text import plain
from dissect.concepts import ConceptSource, agreement, shares
from dissect.concepts.catalogue import Offer, known
from dissect.concepts.concept_file import ConceptFile
from dissect.concepts.distilled import open_distilled
from dissect.concepts.painted import check_file
from rewrite_core.errors import PalimpsestError
from rewrite_core.generators import Generator, LatentSpec

__all__ = ["concepts", "take_source"]

LOOK, PAINT = PARTS = ("What they say", "Paint your own")
OWN, NONE = "own", "nothing"


def concepts(visitor: Session) -> None:
    """Look at the source that is chosen, or paint another."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        part = st.session_state.setdefault("concepts-part-kept", LOOK)
        st.segmented_control(
            "Part", PARTS, label_visibility="collapsed", **bound("concepts-part", part, _turn)
        )
        st.space("stretch")
        _files(visitor)
        saving = st.container(width="content")
    if part == PAINT:
        _painting(visitor, saving)
    else:
        _looking(visitor)


def _turn(part: str | None) -> None:
    st.session_state["concepts-part-kept"] = part or st.session_state["concepts-part-kept"]


# Looking


def _looking(visitor: Session) -> None:
    left, right = st.columns([1, 2], gap="large")
    with left:
        offers = {offer.text: offer for offer in known(visitor.generator)}
        _choice(visitor, offers)
        seeds = range_box("Pictures", key="concepts-looked-at", default="2000-2023")
        beside = None
        with shown():
            beside = _beside(visitor, offers)
    with shown():
        source, generator = source_of(visitor), subject_of(visitor)
        sources = [source] if beside is None else [source, beside]
        with right:
            seen = _labelled(visitor, generator, visitor.spec(seeds), sources)
        with left:
            if len(seen) == 2:
                _compared(*seen)
            elif seen:
                concept_table(shares(seen[0].found), "share of pixels", _WORDS)
            if visitor.rules.active and generator is visitor.generator:
                st.caption(_AS_LOADED)


def _labelled(
    visitor: Session, generator: Generator, spec: LatentSpec, sources: Sequence[ConceptSource]
) -> list[Seen]:
    """The pictures as each source labels them, side by side; those that are done."""
    done = []
    for place, (column, source) in enumerate(
        zip(st.columns(len(sources), gap="medium"), sources, strict=True)
    ):
        purpose = f"concepts-labels-{place}"
        with column, shown():
            if len(sources) > 1:
                st.markdown(f"**{plain(source.title)}**")
            seen = seen_by(visitor, purpose, generator, spec, source)
            if seen is None:
                show_work(visitor, purpose)
            else:
                done.append(seen)
                labelled_gallery(seen, purpose, size=104)
    return done


def _compared(mine: Seen, theirs: Seen) -> None:
    """How far two sources agree."""
    found = agreement(mine.found, theirs.found)
    if found.accuracy is not None:
        st.markdown(f"Both say the same of **{100 * found.accuracy:.1f} %** of the pixels.")
    concept_table(found.table, "IoU", _WORDS)


def _choice(visitor: Session, offers: Mapping[str, Offer]) -> None:
    """The source to choose; what cannot be chosen, and what to do about it."""
    text = concepts_text(visitor)
    ready = [*_ready(offers), *([OWN] if _own(visitor) else [])]
    current = next((ready_ for ready_ in ready if ready_.partition(":")[0] == text), text)
    if visitor.dissecting.own:
        current = OWN
    st.selectbox(
        "Concepts",
        list(dict.fromkeys([*ready, current])),
        format_func=lambda text: _title(offers, text),
        accept_new_options=paths_allowed(),
        help=_TYPED if paths_allowed() else None,
        **bound("concepts-source", current, lambda text: take_source(visitor, text)),
    )
    if visitor.dissecting.problem:
        st.error(plain(visitor.dissecting.problem), icon=":material/error:")
    for offer in offers.values():
        if offer.why_not:
            st.caption(plain(f"{offer.title}: {offer.why_not}"))


def take_source(visitor: Session, text: str | None) -> None:
    """Dissect with this source; if it cannot be had, say why, and all stays as it is."""
    try:
        if text == OWN:
            choose(visitor, own=_own(visitor), concept="", problem="")
        elif text:
            open_source(visitor.generator, text)
            choose(visitor, concepts=text, own=None, concept="", problem="")
    except PalimpsestError as problem:
        choose(visitor, problem=str(problem))


def _beside(visitor: Session, offers: Mapping[str, Offer]) -> ConceptSource | None:
    """Another source to compare with, if one is chosen.

    Raises:
        PalimpsestError: it cannot be had.
    """
    own = _own(visitor)
    text = st.selectbox(
        "Side by side with",
        [NONE, *_ready(offers), *([OWN] if own else [])],
        format_func=lambda text: _title(offers, text),
        key="concepts-beside",
    )
    if text == OWN:
        return own
    return None if text == NONE else open_source(visitor.generator, text)


def _own(visitor: Session) -> ConceptSource | None:
    """The source that was made on the page, if one was: the one in use, or else what was last learned."""
    return visitor.dissecting.own or (visitor.painting.learned if visitor.painting else None)


def _ready(offers: Mapping[str, Offer]) -> list[str]:
    return [text for text, offer in offers.items() if not offer.why_not]


def _title(offers: Mapping[str, Offer], text: str) -> str:
    if text == OWN:
        return "made here"
    return offers[text].title if text in offers else text


# Painting


def _painting(visitor: Session, saving: DeltaGenerator) -> None:
    file = start(visitor).file
    if visitor.rules.active:
        st.caption(_AS_LOADED)
    if file.latents != visitor.latents:
        st.caption(f"Pictures are those of the concept file: truncation {file.latents.truncation:g}.")
    concept_choice(visitor)
    left, right = st.columns([1.15, 1.35], gap="large")
    with left:
        easel(visitor)
    with right:
        picture_choice(visitor)
        learn(visitor)
    with saving:  # not before, so that it holds the last stroke, and what was learned
        save(visitor)
    with left:
        numbers(visitor)
        distillation(visitor)
    with right:
        unseen(visitor)


def _files(visitor: Session) -> None:
    """Begin anew, with a copy of what ships with the generator, or with a file."""
    with st.popover("Open", icon=":material/upload:", key="concepts-open"):
        file = st.file_uploader("Painted (.json) or distilled (.safetensors) concepts", key="concepts-file")
        if file and st.button("Open this file", key="concepts-file-now"):
            with shown():
                _open(visitor, PurePath(file.name).name, file.getvalue())
                st.rerun()
        st.caption("Or paint on")
        with st.container(horizontal=True, gap="small"):
            if ours := shipped(visitor):
                st.button("A copy of the shipped", key="concepts-copy", on_click=_paint, args=(visitor, ours))
            empty = ConceptFile.empty(visitor.generator, latents=visitor.latents)
            st.button("From nothing", key="concepts-nothing", on_click=_paint, args=(visitor, empty))


def _open(visitor: Session, name: str, content: bytes) -> None:
    """Paint on in a file of strokes; dissect with one of distilled concepts.

    Raises:
        FileError: it is neither, or damaged.
        ModelMismatch: it is for another generator.
    """
    if name.lower().endswith(".safetensors"):
        choose(visitor, own=open_distilled(content, visitor.generator, name), concept="", problem="")
        _turn(LOOK)
    else:
        file = ConceptFile.load(content, name)
        check_file(file, visitor.generator)
        _paint(visitor, file)


def _paint(visitor: Session, file: ConceptFile) -> None:
    paint_on(visitor, file)
    _turn(PAINT)


_TYPED = (
    "Where the names of what is in pictures come from. Since this is your own machine, you can also type the path of a "
    "folder of label maps or of a concept file, or segmenter: and the folder of a transformers model."
)
_WORDS = {
    "share of pixels": "of pixels",
    "share of pictures": "in pictures",
    "share of pixels in the other": "in the other",
}
_AS_LOADED = "The rules in the sidebar do not act here: these concepts know the generator as it was loaded."
