"""The address of what is on screen: view, layer, unit and concept, and which embedded generator they are of.

The address follows what is chosen. An address that the page has not written is a link that somebody followed, and
what it names is chosen; what it leaves out stays. Leaving the page drops it from the address, and coming back writes it
again.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

import streamlit as st

from dashboard.dissection.state import choose, open_source, source_of
from dashboard.session import Session, embedded
from dissect.concepts.catalogue import known
from rewrite_core.errors import PalimpsestError, RequestError
from rewrite_core.generators import embedded_names

__all__ = ["address", "follow_address", "write_address"]

_WRITTEN = "dissection-address"
_NAMED = ("model", "concepts", "view", "layer", "unit", "concept")


def follow_address(visitor: Session, views: tuple[str, ...]) -> None:
    """Choose what the address names, unless the page wrote it itself; what there is not becomes the `problem`."""
    named = {name: st.query_params[name] for name in _NAMED if name in st.query_params}
    if not named or named == st.session_state.get(_WRITTEN):
        return
    problem = ""
    for name, value in named.items():
        if problem and name == "unit":
            continue  # of a layer that there is not
        try:
            _CHOOSE[name](visitor, value) if name != "view" else _view(visitor, value, views)
        except PalimpsestError as found:
            problem = problem or str(found)
    choose(visitor, problem=problem)


def write_address(visitor: Session) -> None:
    """Let the address name what is on screen."""
    named = _names(visitor)
    if {name: st.query_params.get(name) for name in _NAMED if name in st.query_params} != named:
        st.query_params.from_dict({**_others(), **named})
    st.session_state[_WRITTEN] = named


def address(visitor: Session) -> str:
    """The part of the address that names what is on screen: ``?view=Units&layer=l08…``."""
    return f"?{urlencode(_names(visitor))}"


def _names(visitor: Session) -> dict[str, str]:
    chosen = visitor.dissecting
    unit = chosen.unit[1] if chosen.unit and chosen.unit[0] == visitor.layer else None
    named = {
        "model": visitor.embedded_name,
        "concepts": chosen.concepts,
        "view": chosen.view,
        "layer": visitor.layer,
        "unit": "" if unit is None else str(unit),
        "concept": chosen.concept,
    }
    return {name: value for name, value in named.items() if value}


def _others() -> Mapping[str, str]:
    return {name: value for name, value in st.query_params.items() if name not in _NAMED}


def _model(visitor: Session, name: str) -> None:
    if name not in embedded_names():
        raise _unknown("model", name, embedded_names())
    if visitor.embedded_name != name:
        visitor.open(embedded(name))


def _concepts(visitor: Session, text: str) -> None:
    """Only what is offered anyway: following a link reads no file and fetches no model."""
    offered = ["embedded", *(offer.text for offer in known(visitor.generator) if not offer.why_not)]
    if text not in offered:
        raise _unknown("concepts", text, offered)
    open_source(visitor.generator, text)
    choose(visitor, concepts=text, own=None)


def _view(visitor: Session, name: str, views: tuple[str, ...]) -> None:
    if name not in views:
        raise _unknown("view", name, views)
    choose(visitor, view=name)


def _layer(visitor: Session, name: str) -> None:
    if name not in visitor.generator.layers:
        raise _unknown("layer", name, list(visitor.generator.layers))
    visitor.layer = name


def _unit(visitor: Session, text: str) -> None:
    units = visitor.generator.layer(visitor.layer).in_channels
    if not text.isdecimal() or int(text) >= units:
        raise _unknown("unit", text, [f"0 to {units - 1}, as layer '{visitor.layer}' has them"])
    choose(visitor, unit=(visitor.layer, int(text)))


def _concept(visitor: Session, name: str) -> None:
    names = source_of(visitor).names
    if name not in names:
        raise _unknown("concept", name, list(names))
    choose(visitor, concept=name)


def _unknown(what: str, found: str, expected: tuple[str, ...] | list[str]) -> RequestError:
    return RequestError(
        found=f"a link to the {what} {found[:80]!r}",
        expected=f"one of {', '.join(expected)}" if len(expected) > 1 else "".join(expected),
        remedy="Choose on the page.",
    )


_CHOOSE = {
    "model": _model,
    "concepts": _concepts,
    "layer": _layer,
    "unit": _unit,
    "concept": _concept,
}
