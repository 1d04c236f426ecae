"""Context from a concept: "all eyes" instead of eyes painted by hand, and what must not change, by name.

`concept_menu` is a popover for a page's panel. What a concept finds becomes painted regions of the draft, each with its
thumbnail and its cross; nothing is asked of the source again.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import streamlit as st

from dashboard.background import brought, show_work
from dashboard.binding import bound
from dashboard.budget import Budget
from dashboard.dissection.state import concepts_text, identity_of, open_source, source_of
from dashboard.errors import shown
from dashboard.session import Session
from dashboard.text import plain
from dashboard.words import counted
from dissect.concept_context import COUNT, SEARCHED, concept_regions
from dissect.concepts import ConceptSource
from dissect.concepts.catalogue import known
from rewrite_core.errors import PalimpsestError
from rewrite_core.jobs import Progress
from rewrite_core.rules.regions import Painted

__all__ = ["all_of_it", "concept_menu"]

PURPOSE = "context from a concept"
PARTS = {"key": "Add to context", "protect": "Protect"}
"""The part of an edit → the button that adds to it."""
MOST = 128
"""Pictures of a concept, at most: their masks go into the edit's file."""
CONTRAST = 3.0
DISSECTED = "as dissected"
"""The choice of the source that the page Dissection works with, which may have been made there."""

Regions = tuple[Painted, ...]

_found: Budget[Regions] = Budget(64 << 20, lambda found: sum(one.mask.pixels.nbytes for one in found))


@dataclass(frozen=True)
class _Wanted:
    """Regions that were asked for: of which part of the edit, in pictures of which concept of which source."""

    part: str
    source: str
    concept: str
    count: int


def concept_menu(visitor: Session) -> None:
    """The popover, and how far the last search is."""
    with st.popover(
        "From a concept",
        icon=":material/category:",
        type="tertiary",
        key="from-concept",
        help="All eyes, say: context or protected regions by name",
        on_change="rerun",
    ) as menu:
        if menu.open:
            with shown():
                _content(visitor)
    wanted: _Wanted | None = st.session_state.get("concept-wanted")
    if wanted:
        with shown():
            _bring(visitor, wanted)


def all_of_it(visitor: Session, key: str = "contrast-concept") -> None:
    """A switch for contrast: all that the context leaves out of its pictures is not meant."""

    def switch(on: bool) -> None:
        direction = visitor.draft.direction.model_copy(update={"contrast": CONTRAST if on else 0.0})
        visitor.change(direction=direction)

    st.toggle(
        "I painted all of it in these pictures",
        help="Contrast: what was left unpainted in the context pictures counts as not meant. A concept covers all of "
        "it where its source sees all of it; regions painted by hand in other pictures have to do so too.",
        **bound(key, visitor.draft.direction.contrast > 0, switch),
    )


def _content(visitor: Session) -> None:
    offers = {offer.text: offer.title for offer in known(visitor.generator) if not offer.why_not}
    chosen = st.selectbox(
        "Concepts",
        [DISSECTED, *offers],
        format_func=lambda text: offers.get(text, f"{DISSECTED}: {_in_use(visitor)}"),
        key="concept-context-source",
    )
    source = _source(visitor, chosen)
    fresh = st.session_state.get("concept-context-name") not in source.names
    if fresh:
        st.session_state["concept-context-name"] = source.names[0]
    concept = st.selectbox("Concept", source.names, key="concept-context-name")
    count = st.number_input(
        "Pictures",
        1,
        MOST,
        COUNT,
        key="concept-context-count",
        help=f"The first that show it, of {SEARCHED:,}",
    )
    with st.container(horizontal=True, gap="small"):
        for part, label in PARTS.items():
            if st.button(label, key=f"concept-context-{part}"):
                st.session_state["concept-wanted"] = _Wanted(part, chosen, concept, int(count))
    named: tuple[str, int] | None = st.session_state.get("concept-added")
    if named and visitor.draft.key:
        st.caption(f"{counted(named[1], 'region')} of {plain(named[0])} in the context.")
        all_of_it(visitor)


def _in_use(visitor: Session) -> str:
    try:
        return source_of(visitor).title
    except PalimpsestError:
        return concepts_text(visitor)


def _source(visitor: Session, text: str) -> ConceptSource:
    return source_of(visitor) if text == DISSECTED else open_source(visitor.generator, text)


def _bring(visitor: Session, wanted: _Wanted) -> None:
    """Add to the draft what was asked for, once it is found."""
    regions = _regions(visitor, wanted)
    if regions is None:
        show_work(visitor, PURPOSE)
        return
    st.session_state["concept-wanted"] = None
    before: Regions = getattr(visitor.draft, wanted.part)
    new = tuple(region for region in regions if region not in before)
    visitor.change(**{wanted.part: (*before, *new)})
    if wanted.part == "key":
        st.session_state["concept-added"] = (wanted.concept, len(regions))
    st.rerun()


def _regions(visitor: Session, wanted: _Wanted) -> Regions | None:
    """Where the concept is; None while it is looked for."""
    generator, source = visitor.generator, _source(visitor, wanted.source)
    spec = visitor.spec(tuple(range(SEARCHED)))

    def work(progress: Progress) -> Regions:
        return concept_regions(generator, source, wanted.concept, spec, count=wanted.count, progress=progress)

    key: Hashable = (
        generator.pristine.fingerprint,
        identity_of(source),
        wanted.concept,
        spec,
        wanted.count,
    )
    return brought(visitor, PURPOSE, key, _found, f"Looking for {wanted.concept}", work)
