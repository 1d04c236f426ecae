"""New directions: painted, from an example, a unit, a rule or a file, or picked from what an origin proposes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import streamlit as st

from dashboard.background import brought, show_work
from dashboard.binding import bound
from dashboard.budget import Budget
from dashboard.directions.choices import MATCHES, PAINTED, Item
from dashboard.directions.context import painted_context
from dashboard.directions.making import DICTIONARY, PROPOSED, UNIT, dictionary_of, examples, proposals
from dashboard.directions.state import choose, keep
from dashboard.directions.tray import open_file
from dashboard.errors import shown
from dashboard.session import Session
from dashboard.text import plain
from rewrite_core.directions import Direction, unit_direction
from rewrite_core.directions.dictionary import Dictionary
from rewrite_core.directions.origins import ORIGINS
from rewrite_core.errors import PalimpsestError

__all__ = ["new_direction"]

PROPOSING = "proposing directions"
"""The purpose of the job that computes them."""

_kept: Budget[list[Direction]] = Budget(64 << 20, lambda found: sum(one.vectors.nbytes for one in found))


def new_direction(visitor: Session) -> None:
    """The choice of an origin, and what it takes to make a direction of it."""
    panels = _panels(visitor)
    origin = visitor.exploring.origin if visitor.exploring.origin in panels else PAINTED
    with st.container(border=True, gap="small", key="new-direction"):
        st.selectbox(
            "New direction from",
            list(panels),
            **bound("direction-origin", origin, lambda name: choose(visitor, origin=name)),
        )
        with shown():
            panels[origin](visitor)


def _panels(visitor: Session) -> Mapping[str, Callable[[Session], None]]:
    """Every origin by its name."""
    return {
        PAINTED: painted_context,
        **({"Example": _example} if examples(visitor.generator) else {}),
        "Unit": _unit,
        "Rule": _rule,
        **{origin.title: partial(_proposed, name=name) for name, origin in ORIGINS.items()},
        "File": open_file,
    }


def _example(visitor: Session) -> None:
    st.caption(f"Painted contexts that ship with {plain(visitor.generator.name)}.")
    with st.container(horizontal=True, gap="small"):
        for name in examples(visitor.generator):
            st.button(
                name,
                icon=":material/auto_awesome:",
                key=f"direction-example-{name}",
                on_click=lambda name=name: choose(visitor, wanted=name),
            )


def _unit(visitor: Session) -> None:
    layer = visitor.layer
    most = visitor.generator.layer(layer).in_channels - 1
    dissected = visitor.dissecting.unit
    unit = st.number_input(
        f"Unit of {plain(layer)}",
        0,
        most,
        dissected[1] if dissected and dissected[0] == layer else 0,
        key=f"direction-unit-{layer}",
        help="Its heat is the unit's own feature map.",
    )
    if st.button("Add to tray", type="primary", icon=":material/add:", key="direction-add-unit"):
        keep(visitor, Item(unit_direction(visitor.generator, layer, int(unit)), link=f"{UNIT}:{int(unit)}"))
        choose(visitor, view=MATCHES)
        st.rerun()


def _rule(visitor: Session) -> None:
    rules = [entry.rule for entry in visitor.stack.entries]
    if not rules:
        st.caption(
            "No rule is kept yet. A rule acts where its directions match: keep one on the page Rewriting."
        )
        return
    number = st.selectbox(
        "Rule", range(len(rules)), format_func=lambda number: rules[number].name, key="direction-rule"
    )
    if st.button("Add to tray", type="primary", icon=":material/add:", key="direction-add-rule"):
        keep(visitor, Item(rules[number].direction()))
        choose(visitor, view=MATCHES)
        st.rerun()


def _proposed(visitor: Session, name: str) -> None:
    """What an origin finds in the layer, computed when that is asked for; a click puts one into the tray."""
    generator, layer = visitor.generator, visitor.layer
    st.caption(f"{ORIGINS[name].about} Of layer {plain(layer)}, the first {PROPOSED}.")
    key = (generator.fingerprint, layer, name)
    asked = visitor.asked.get(PROPOSING)
    known = _kept.peek(key) is not None or (asked is not None and asked.key == key)
    if not (known or _find_button(name)):
        return
    label = f"{ORIGINS[name].title} of {layer}"
    found = brought(
        visitor, PROPOSING, key, _kept, label, lambda progress: proposals(generator, layer, name, progress)
    )
    if found is None:
        show_work(visitor, PROPOSING)
        return
    with st.container(key="direction-proposals", height=250, border=False, gap="xsmall"):
        for number, direction in enumerate(found, 1):
            _offer(visitor, direction, f"{name}:{number}")
    dictionary = dictionary_of(generator, layer) if name == DICTIONARY else None
    if dictionary is not None:
        _quality(dictionary)


def _find_button(name: str) -> bool:
    return st.button("Find", icon=":material/play_arrow:", key=f"direction-find-{name}", width="stretch")


def _offer(visitor: Session, direction: Direction, link: str) -> None:
    there = visitor.tray.get(direction.digest) is not None
    facts = _facts(direction)
    st.button(
        f"{plain(direction.name)}{f'  :gray[{facts}]' if facts else ''}",
        icon=":material/check:" if there else ":material/add:",
        type="tertiary",
        width="stretch",
        key=f"propose-{link}",
        disabled=there,
        on_click=_keep,
        args=(visitor, Item(direction, link=link)),
    )


def _quality(dictionary: Dictionary) -> None:
    """How well a dictionary describes the keys, beside as many numbers spent otherwise; and its file."""
    quality = dictionary.quality
    features, dead = len(quality.density), int(quality.dead.sum())
    st.caption(
        f"{features:,} features, {dead:,} dead, {quality.active:.3g} active in a key. It explains "
        f"**{100 * quality.explained:.0f} %** of the variance of {quality.held_out:,} held-out keys; as many principal "
        f"components {100 * quality.principal:.0f} %, single units {100 * quality.single:.0f} %."
    )
    st.download_button(
        "Dictionary",
        dictionary.to_bytes(),
        f"{dictionary.layer}.dictionary.safetensors",
        "application/octet-stream",
        icon=":material/download:",
        on_click="ignore",
        key="direction-dictionary",
        help="For `palimpsest directions find --from`.",
    )


def _keep(visitor: Session, item: Item) -> None:
    try:
        keep(visitor, item)
        choose(visitor, view=MATCHES)
    except PalimpsestError as problem:  # of a callback, which has no place on the page of its own
        choose(visitor, problem=str(problem))


def _facts(direction: Direction) -> str:
    """What the origin says of one of its directions, in a few words."""
    known = direction.provenance
    if "explained_variance_ratio" in known:
        return f"{100 * known['explained_variance_ratio']:.1f} % of variance"
    if "density" in known:
        return f"{100 * known['density']:.1f} % of keys"
    if "share" in known:
        return f"{100 * known['share']:.1f} % of positions"
    return ""
