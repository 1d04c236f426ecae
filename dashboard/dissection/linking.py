"""The address of what is on screen: view, layer, unit and concept, and which embedded generator they are of."""

from __future__ import annotations

from functools import partial

from dashboard.address import Address, Choose, choose_layer, open_named, unknown
from dashboard.dissection.state import choose, open_source, source_of
from dashboard.session import Session
from dissect.concepts.catalogue import known

__all__ = ["address", "follow_address", "write_address"]


def follow_address(visitor: Session, views: tuple[str, ...]) -> None:
    """Choose what the address names, unless the page wrote it itself; what there is not becomes the `problem`."""
    problem = _address(views).follow(visitor)
    if problem is not None:
        choose(visitor, problem=problem)


def write_address(visitor: Session) -> None:
    """Let the address name what is on screen."""
    _address().write(visitor)


def address(visitor: Session) -> str:
    """The part of the address that names what is on screen: ``?view=Units&layer=l08…``."""
    return _address().link(visitor)


def _address(views: tuple[str, ...] = ()) -> Address:
    choosers: dict[str, Choose] = {
        "model": open_named,
        "concepts": _concepts,
        "view": partial(_view, views=views),
        "layer": choose_layer,
        "unit": _unit,
        "concept": _concept,
    }
    return Address("dissection", choosers, _names, needy=("unit",))


def _names(visitor: Session) -> dict[str, str]:
    chosen = visitor.dissecting
    unit = chosen.unit[1] if chosen.unit and chosen.unit[0] == visitor.layer else None
    return {
        "model": visitor.embedded_name,
        "concepts": chosen.concepts,
        "view": chosen.view,
        "layer": visitor.layer,
        "unit": "" if unit is None else str(unit),
        "concept": chosen.concept,
    }


def _concepts(visitor: Session, text: str) -> None:
    """Only what is offered anyway: following a link reads no file and fetches no model."""
    offered = ["embedded", *(offer.text for offer in known(visitor.generator) if not offer.why_not)]
    if text not in offered:
        raise unknown("concepts", text, offered)
    open_source(visitor.generator, text)
    choose(visitor, concepts=text, own=None)


def _view(visitor: Session, name: str, views: tuple[str, ...]) -> None:
    if name not in views:
        raise unknown("view", name, views)
    choose(visitor, view=name)


def _unit(visitor: Session, text: str) -> None:
    units = visitor.generator.layer(visitor.layer).in_channels
    if not text.isdecimal() or int(text) >= units:
        raise unknown("unit", text, [f"0 to {units - 1}, as layer '{visitor.layer}' has them"])
    choose(visitor, unit=(visitor.layer, int(text)))


def _concept(visitor: Session, name: str) -> None:
    names = source_of(visitor).names
    if name not in names:
        raise unknown("concept", name, list(names))
    choose(visitor, concept=name)
