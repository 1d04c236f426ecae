"""The library in the sidebar: rules of the open generator, each with three pictures before and after; a click adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import streamlit as st

from dashboard.background import brought, show_work
from dashboard.budget import Budget
from dashboard.errors import shown
from dashboard.session import Session
from dashboard.text import plain
from dashboard.words import counted
from rewrite_core.errors import PalimpsestError
from rewrite_core.generators import Generator, LatentSpec
from rewrite_core.jobs import Progress
from rewrite_core.pictures import encode_png
from rewrite_core.rules.library import Library, Shelved, default_library
from rewrite_core.rules.request import EditRequest
from rewrite_core.rules.rule import Rule

__all__ = ["library_menu", "strip"]

PURPOSE = "library"
PAIRS = 3
"""Pictures shown of each rule."""
SIDE = 46
"""Of a picture, in pixels on the screen."""

Strip = tuple[bytes, ...]
"""PNGs, each of a picture before and after, side by side; none where the rule cannot be drawn."""

_strips: Budget[Mapping[str, Strip]] = Budget(
    64 << 20, lambda strips: sum(map(len, sum(strips.values(), ())))
)
_strip: Budget[Strip] = Budget(64 << 20, lambda strip: sum(map(len, strip)))


def library_menu(session: Session) -> None:
    """A popover, looked into when it is opened."""
    with st.popover(
        "", icon=":material/shelves:", type="tertiary", help="Library", key="library", on_change="rerun"
    ) as menu:
        if menu.open:
            _content(session, default_library())


def _content(session: Session, library: Library) -> None:
    found = library.entries()
    ours = [one for one in found if one.fingerprint == session.generator.pristine.fingerprint]
    damaged = [one for one in found if one.problem]
    st.markdown(f"**Library** :gray[{counted(len(ours), 'rule')} for {plain(session.generator.name)}]")
    if not ours:
        st.caption("Save one from the ⋮ of a rule, or with `palimpsest rules add`.")
    strips = _drawn(session, library, ours) if ours else {}
    for one in ours:
        _row(session, library, one, strips.get(one.digest, ()))
    if others := len(found) - len(ours) - len(damaged):
        st.caption(f"{counted(others, 'rule')} for other generators.")
    for one in damaged:
        st.caption(f":orange[:material/warning:] {plain(one.problem)}")


def _row(session: Session, library: Library, one: Shelved, pictures: Strip) -> None:
    with st.container(key=f"shelved-{one.name}", gap="xsmall"):
        pressed = st.button(
            plain(one.title or one.name),
            icon=":material/add:",
            key=f"add-{one.name}",
            width="stretch",
            help=plain(f"Add {one.title}: layer {one.layer}, rank {one.rank}, saved {one.saved:%d %B %Y}"),
        )
        with st.container(horizontal=True, gap="small", wrap=False):
            for picture in pictures:
                st.image(picture, width=2 * SIDE)
    if pressed:
        with shown():
            session.add(library.load(one.name))
            st.rerun()


def _drawn(session: Session, library: Library, rules: Sequence[Shelved]) -> Mapping[str, Strip]:
    """Digest → pictures; none as long as they are being drawn, which is shown."""
    generator = session.generator

    def work(progress: Progress) -> dict[str, Strip]:
        strips = {}
        for done, one in enumerate(rules):
            progress(done, len(rules))
            key = (generator.fingerprint, one.digest)
            strips[one.digest] = _strip.get(key, partial(_safe, generator, library, one.name))
        return strips

    key = (generator.fingerprint, tuple(one.digest for one in rules))
    with shown():
        found = brought(session, PURPOSE, key, _strips, "Drawing the library", work)
        if found is not None:
            return found
        show_work(session, PURPOSE)
    return {}


def _safe(generator: Generator, library: Library, name: str) -> Strip:
    try:
        return strip(generator, library.load(name))
    except PalimpsestError:  # a click says what is wrong with it
        return ()


def strip(generator: Generator, rule: Rule) -> Strip:
    """Three pictures before and after, those first that the rule's context was painted on.

    Raises:
        ModelMismatch, LayerError: the rule was not made for `generator`.
    """
    spec = _pictures(rule)
    before, after = generator.draw(spec), generator.with_rules(rule).draw(spec)  # [3, H, W, 3]
    return tuple(encode_png(pair) for pair in np.concatenate([before, after], axis=2))


def _pictures(rule: Rule) -> LatentSpec:
    """The first pictures of the rule's context, filled up with the first of all."""
    try:
        request = EditRequest.from_json(rule.provenance.request or {})
    except PalimpsestError:  # of another release
        request = EditRequest()
    painted = [region.image for region in request.key if isinstance(region.image, int)]
    return request.latents.spec(tuple(dict.fromkeys([*painted, *range(PAIRS)]))[:PAIRS])
