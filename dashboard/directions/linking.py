"""The address of what is on screen: view, layer, direction, samples, quantile, scale, and which embedded generator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from dashboard.address import Address, Choose, choose_layer, open_named, unknown
from dashboard.directions.choices import (
    DOING,
    FEWEST,
    LARGEST,
    OUTLINE,
    OVERLAPS,
    QUANTILES,
    SAMPLES,
    SCALES,
    SPECTRUM,
)
from dashboard.directions.making import require_link
from dashboard.directions.state import choose, chosen
from dashboard.session import Session

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
    """The part of the address that names what is on screen: ``?view=Matches&layer=l08&direction=eyes…``."""
    return _address().link(visitor)


def _address(views: tuple[str, ...] = ()) -> Address:
    choosers: dict[str, Choose] = {
        "model": open_named,
        "view": partial(_view, views=views),
        "layer": choose_layer,
        "direction": _direction,
        "samples": _samples,
        "quantile": _quantile,
        "alpha": _alpha,
    }
    return Address("directions", choosers, _names, needy=("direction",))


def _names(visitor: Session) -> dict[str, str]:
    looked_at, item = visitor.exploring, chosen(visitor)
    if item and looked_at.view in (OVERLAPS, SPECTRUM) and item.direction.layer != visitor.layer:
        item = None  # these views are about the session's layer
    return {
        "model": visitor.embedded_name,
        "view": looked_at.view,
        "layer": item.direction.layer if item else visitor.layer,
        "direction": looked_at.wanted or (item.link if item else ""),
        "samples": "" if looked_at.samples == SAMPLES else str(looked_at.samples),
        "quantile": "" if looked_at.quantile == OUTLINE else f"{looked_at.quantile:g}",
        "alpha": f"{looked_at.alpha:g}" if looked_at.view == DOING and looked_at.alpha else "",
    }


def _view(visitor: Session, name: str, views: tuple[str, ...]) -> None:
    if name not in views:
        raise unknown("view", name, views)
    choose(visitor, view=name)


def _direction(visitor: Session, link: str) -> None:
    require_link(visitor.generator, visitor.layer, link)
    choose(visitor, wanted=link)


def _samples(visitor: Session, text: str) -> None:
    if not text.isdecimal() or not FEWEST <= int(text[:9]) <= LARGEST:
        raise unknown("number of samples", text, [f"{FEWEST:,} to {LARGEST:,}"])
    choose(visitor, samples=int(text))


def _quantile(visitor: Session, text: str) -> None:
    choose(visitor, quantile=_one_of("quantile", text, QUANTILES))


def _alpha(visitor: Session, text: str) -> None:
    choose(visitor, alpha=_one_of("scale", text, SCALES))


def _one_of(what: str, text: str, offered: Sequence[float]) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if value not in offered:
        raise unknown(what, text, [f"{one:g}" for one in offered])
    return value
