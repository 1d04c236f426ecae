"""What the views of the page Directions share: the choices, the tray, and where its directions come from.

    item = chosen(visitor)               # the direction that the views are about; None while the tray is empty
    bring(visitor)                       # what a link names, or the example that the page opens with, into the tray

Directions belong to the generator as it was loaded: rules that are on change neither them nor where they match.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dashboard.background import brought, show_work
from dashboard.budget import Budget
from dashboard.directions.choices import Item
from dashboard.directions.making import examples, named, require_link
from dashboard.errors import shown
from dashboard.session import Session
from rewrite_core.errors import PalimpsestError
from rewrite_core.generators import LatentSpec

__all__ = ["BRINGING", "bring", "choose", "chosen", "keep", "look_at", "remove", "rename", "searched"]

BRINGING = "bringing a direction"
"""The purpose of the job that computes what a link names."""

_brought: Budget[Item] = Budget(16 << 20, lambda item: int(item.direction.vectors.nbytes))


def choose(visitor: Session, **chosen: Any) -> None:
    """Replace some of the visitor's choices; a problem with an earlier one is settled by that."""
    visitor.exploring = replace(visitor.exploring, **{"problem": "", **chosen})


def chosen(visitor: Session) -> Item | None:
    """The direction that the views are about: the chosen one, or the newest."""
    items = visitor.tray.items
    return visitor.tray.get(visitor.exploring.chosen) or (items[-1] if items else None)


def searched(visitor: Session) -> LatentSpec:
    """The samples that are searched, numbered as everywhere in the session."""
    return visitor.spec(tuple(range(visitor.exploring.samples)))


# The tray


def keep(visitor: Session, *items: Item) -> None:
    """Put directions into the tray and look at the last of them.

    Raises:
        ModelMismatch: one is of another generator; a LayerError where its layer is not this one's.
        RequestError: the tray is full.
    """
    for item in items:
        item.direction.check(visitor.generator)
    visitor.tray = visitor.tray.added(*items)
    look_at(visitor, items[-1].key)


def look_at(visitor: Session, key: str) -> None:
    """Choose a direction of the tray, and its layer."""
    item = visitor.tray.get(key)
    if item is not None:
        visitor.layer = item.direction.layer
        choose(visitor, chosen=key, row=0, picture=None, place=None)


def remove(visitor: Session, key: str) -> None:
    """Take a direction out of the tray; the one before it is looked at next."""
    keys = [item.key for item in visitor.tray]
    at = keys.index(key) if key in keys else 0
    visitor.tray = visitor.tray.without(key)
    if key == visitor.exploring.chosen and len(visitor.tray):
        look_at(visitor, visitor.tray.items[max(at - 1, 0)].key)


def rename(visitor: Session, key: str, name: str) -> None:
    """Call a direction of the tray something else; an empty name changes nothing."""
    if name.strip():
        visitor.tray = visitor.tray.renamed(key, name.strip())


# What comes by a link


def bring(visitor: Session) -> None:
    """Put what a link names into the tray as soon as it is there, and an example into a tray never filled before."""
    if not visitor.exploring.begun:
        offered = list(examples(visitor.generator))
        wanted = visitor.exploring.wanted or (offered[0] if offered and not len(visitor.tray) else "")
        visitor.exploring = replace(visitor.exploring, begun=True, wanted=wanted)
    if visitor.exploring.wanted:
        with shown():
            _bring(visitor, visitor.exploring.wanted)


def _bring(visitor: Session, link: str) -> None:
    generator = visitor.generator
    try:
        layer = require_link(generator, visitor.layer, link)
        item = visitor.tray.linked(link, layer) or brought(
            visitor,
            BRINGING,
            (generator.fingerprint, layer, link),
            _brought,
            f"Computing the direction {link} of {layer}",
            lambda progress: named(generator, layer, link, progress),
        )
        if item is not None:
            problem = visitor.exploring.problem  # what else the link named, which is not settled by this
            keep(visitor, item)
            choose(visitor, wanted="", problem=problem)
    except PalimpsestError as problem:
        choose(visitor, wanted="", problem=str(problem))
        return
    if item is None:
        show_work(visitor, BRINGING)
