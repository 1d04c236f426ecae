"""The address of the page Rewriting: embedded generator, example edit, view, layer, rank, locality, method, pictures.

Of an edit an address holds the name of an example, and the settings in which the visitor's differs from it. An edit
that was painted is in no address: ``?session=…`` (`dashboard/recovery.py`) names it on the same server, a file
everywhere.
"""

from __future__ import annotations

import math
from functools import lru_cache, partial

from dashboard.address import Address, Choose, choose_layer, open_named, unknown
from dashboard.examples import title_of
from dashboard.gallery import range_box_kept, set_range_box
from dashboard.ranges import parse_ranges
from dashboard.rewriting.restoring import BOXES
from dashboard.session import Session
from dashboard.solving import ready, try_edit
from rewrite_core.directions import METHODS
from rewrite_core.rules.examples import example_edits
from rewrite_core.rules.request import EditRequest

__all__ = ["address", "example_of", "follow_address", "write_address"]

SHOWN = {"Paint": "seeds", "Before | after": "fresh", "Gallery": "gallery-seeds"}
"""View → its range box."""
_UNSAID = {"model": None, "layer": None, "rank": 1}
"""Settings that an example is recognised without, besides locality, method, truncation and class."""


def follow_address(visitor: Session, views: tuple[str, ...]) -> None:
    """Choose what the address names, unless the page wrote it itself; what there is not becomes the `problem`."""
    before = example_of(visitor)
    problem = _address(views).follow(visitor)
    if problem is not None:
        visitor.problem = problem
    if example_of(visitor) not in ("", before) and not ready(visitor):
        try_edit(visitor)


def write_address(visitor: Session) -> None:
    """Let the address name what is on screen."""
    _address().write(visitor)


def address(visitor: Session) -> str:
    """The part of the address that names what is on screen: ``?view=Gallery&layer=l08&edit=blue-eyes``."""
    return _address().link(visitor)


def example_of(visitor: Session) -> str:
    """The example that the draft is, whatever its layer, rank, locality and method; empty if none."""
    if visitor.unpainted:
        return ""
    draft = _bare(visitor.draft)
    names = example_edits(visitor.embedded_name)
    return next((name for name in names if _bare(_example(visitor.embedded_name, name)) == draft), "")


def _address(views: tuple[str, ...] = ()) -> Address:
    choosers: dict[str, Choose] = {
        "model": open_named,
        "edit": _edit,
        "view": partial(_view, views=views),
        "layer": choose_layer,
        "rank": _rank,
        "locality": _locality,
        "method": _method,
        "pictures": _pictures,
    }
    return Address("rewriting", choosers, _names, needy=("rank", "locality", "method"))


def _names(visitor: Session) -> dict[str, str]:
    name, draft = example_of(visitor), visitor.draft
    base = _example(visitor.embedded_name, name) if name else EditRequest()
    box = SHOWN.get(visitor.view, "")
    shown = range_box_kept(box, BOXES[box]) if box else ""
    locality, method = draft.solver.locality, draft.direction.method
    return {
        "model": visitor.embedded_name,
        "edit": name,
        "view": visitor.view,
        "layer": visitor.layer,
        "rank": "" if draft.rank == base.rank else str(draft.rank),
        "locality": "" if locality == base.solver.locality else f"{locality:g}",
        "method": "" if method == base.direction.method else method,
        "pictures": "" if shown == BOXES.get(box) else shown,
    }


@lru_cache(maxsize=32)
def _example(model: str, name: str) -> EditRequest:
    return EditRequest.load(example_edits(model)[name])


def _bare(request: EditRequest) -> EditRequest:
    """A request without what the address says by itself."""
    plain = EditRequest()
    parts = {
        "solver": request.solver.model_copy(update={"locality": plain.solver.locality}),
        "direction": request.direction.model_copy(update={"method": plain.direction.method}),
        "latents": request.latents.model_copy(update={"truncation": 1.0, "label": None}),
    }
    return request.model_copy(update={**_UNSAID, **parts})


def _edit(visitor: Session, name: str) -> None:
    """Only an example of the open generator: following a link reads no other file."""
    offered = example_edits(visitor.embedded_name)
    if name not in offered:
        raise unknown("edit", name, list(offered) or ["none, as this generator comes without examples"])
    if example_of(visitor) != name:
        visitor.load(_example(visitor.embedded_name, name), title_of(offered[name]))


def _view(visitor: Session, name: str, views: tuple[str, ...]) -> None:
    if name not in views:
        raise unknown("view", name, views)
    visitor.view = name


def _rank(visitor: Session, text: str) -> None:
    units = visitor.generator.layer(visitor.layer).in_channels
    if not text.isdecimal() or not 1 <= int(text[:9]) <= units:
        raise unknown("rank", text, [f"1 to {units}, as layer '{visitor.layer}' has units"])
    visitor.change(rank=int(text))


def _locality(visitor: Session, text: str) -> None:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1e6:
        raise unknown("locality", text, ["a number from 0 on"])
    visitor.change(solver=visitor.draft.solver.model_copy(update={"locality": value}))


def _method(visitor: Session, name: str) -> None:
    if name not in METHODS:
        raise unknown("method", name, list(METHODS))
    visitor.change(direction=visitor.draft.direction.model_copy(update={"method": name}))


def _pictures(visitor: Session, text: str) -> None:
    parse_ranges(text)
    if visitor.view in SHOWN:
        set_range_box(SHOWN[visitor.view], text[:4096])
