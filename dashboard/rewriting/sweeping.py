"""The view Sweep: the edit at several layers by several ranks, as a matrix of small pictures to pick from."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from dashboard.background import brought, show_work
from dashboard.binding import bound
from dashboard.budget import Budget
from dashboard.errors import shown
from dashboard.rewriting.taking import sweep_command, take_away
from dashboard.rewriting.viewing import look, viewing
from dashboard.session import Session, statistics_of
from dashboard.solving import ready, show_edit
from dashboard.taking import headed
from dashboard.text import plain
from dissect.sweep_figure import numbers, shown_first, sweep_caption, sweep_figure, swept_pictures
from rewrite_core.generators import Generator
from rewrite_core.generators.own import PictureId, short
from rewrite_core.jobs import Progress
from rewrite_core.pictures import Picture, encode_png, enlarge
from rewrite_core.rules.request import EditRequest
from rewrite_core.rules.rewrite import Edit
from rewrite_core.rules.rule import Rule
from rewrite_core.rules.sweeping import Cell, Sweep, sweep
from rewrite_core.statistics import LayerStatistics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["sweeping"]

SWEEPING, DRAWING = "sweep", "sweep-pictures"
"""The purposes of the jobs that solve and draw."""
RANKS = (1, 2, 3, 5, 10, 20, 30)
FRESH = (1000, 1001, 1002)
"""Pictures offered besides those painted on."""
SIDE, GAP = 96, 4
"""Pixels of a picture on screen, and between the two of a pair."""
STYLE = """
[class*="st-key-sweep-cell-"] { position: relative; border-radius: 6px; padding: 4px; gap: 0.1rem; }
[class*="st-key-sweep-cell-"]:hover { background: rgba(128, 132, 149, 0.18); }
[class*="st-key-sweep-pick-"] { position: absolute; inset: 0; width: 100%; height: 100%; opacity: 0; z-index: 1; }
[class*="st-key-sweep-pick-"]:focus-within { opacity: 0.25; }
[class*="st-key-sweep-pick-"] * { height: 100%; }
[class*="st-key-sweep-cell-"][class*="-picked"] { box-shadow: 0 0 0 2px #5661cc; }
"""
"""A cell is a button as a whole: its button lies over it, unseen unless it has the keyboard's focus."""
HELP = (
    "Loss: the share that is left, of the very rule of the cell. Elsewhere: the relative change of the layer's "
    "response over everything the generator draws. Others: how much of the example's change the rule makes in the "
    "contexts painted on other pictures."
)

Drawn = tuple[Picture, dict[tuple[str, int], Picture]]

_swept: Budget[Sweep] = Budget(256 << 20, lambda found: sum(map(_size, found.cells)))
_drawn: Budget[Drawn] = Budget(64 << 20, lambda drawn: (1 + len(drawn[1])) * drawn[0].nbytes)


@dataclass(frozen=True, eq=False)
class _Question:
    """All that a sweep depends on; its job touches nothing of the session."""

    generator: Generator
    owner: str
    request: EditRequest
    layers: tuple[str, ...]
    ranks: tuple[int, ...]
    title: str
    beneath: tuple[Rule, ...]

    @property
    def key(self) -> Hashable:
        """By which its answer is kept."""
        beneath = tuple(rule.digest for rule in self.beneath)
        asked = (self.request.to_json(), self.layers, self.ranks)
        return (self.generator.fingerprint, *asked, self.title, beneath)

    def answer(self, progress: Progress) -> Sweep:
        """The sweep, in a job."""

        def statistics(layer: str) -> LayerStatistics:
            return statistics_of(self.generator, layer, progress, visitor=self.owner)

        return sweep(
            self.generator,
            self.request,
            self.layers,
            self.ranks,
            statistics_of=statistics,
            name=self.title,
            beneath=self.beneath,
            progress=progress,
        )


def sweeping(visitor: Session) -> None:
    """Layers by ranks; a click takes over the cell's layer, rank and rule."""
    missing = ready(visitor)
    menu = headed("The edit at several layers and ranks", HELP)
    if missing:
        st.caption(f"A complete edit can be swept. {plain(missing)}")
        return
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        question = _asked(visitor)
        image = _pictured(visitor, question.request)
    found = brought(visitor, SWEEPING, question.key, _swept, "Sweeping", question.answer)
    if found is None:
        show_work(visitor, SWEEPING)
        return
    drawn = brought(
        visitor,
        DRAWING,
        (question.key, image),
        _drawn,
        "Drawing the cells",
        lambda _: swept_pictures(question.generator, found, image),
    )
    if drawn is None:
        show_work(visitor, DRAWING)
        return
    with menu:
        _take_away(visitor, found, image, drawn)
    with shown():
        _matrix(visitor, found, drawn)


# What is asked for


def _asked(visitor: Session) -> _Question:
    """The edit, by the layers and the ranks that are chosen."""
    names, ranks = list(visitor.generator.layers), viewing(visitor).ranks
    layers = [name for name in names if name in viewing(visitor).layers] or around(names, visitor.layer)
    st.multiselect(
        "Layers",
        names,
        width=300,
        **bound("sweep-layers", layers, lambda chosen: look(visitor, layers=tuple(chosen))),
    )
    st.multiselect(
        "Ranks",
        sorted({*RANKS, *ranks}),
        width=230,
        **bound(
            "sweep-ranks", list(ranks), lambda chosen: look(visitor, ranks=tuple(sorted(chosen)) or (1,))
        ),
    )
    return _Question(
        generator=visitor.generator,
        owner=visitor.visitor,
        request=visitor.request().model_copy(update={"layer": None, "rank": 1}),
        layers=tuple(layers),
        ranks=ranks,
        title=visitor.title,
        beneath=visitor.stack.active,
    )


def around(names: list[str], layer: str) -> list[str]:
    """A layer, and its neighbour on either side."""
    place = names.index(layer)
    return names[max(0, place - 1) : place + 2]


def _pictured(visitor: Session, request: EditRequest) -> PictureId:
    """The picture that every cell shows: the one pasted into first, then those of the context, then fresh ones."""
    first = shown_first(request)
    painted = [region.image for region in request.key]
    offered = list(dict.fromkeys([first, *painted, *FRESH]))
    chosen = viewing(visitor).swept_on

    def named(image: PictureId) -> str:
        what = "the example" if image == first else "context" if image in painted else "fresh"
        return f"{short(image)} · {what}"

    st.selectbox(
        "Shown on",
        offered,
        format_func=named,
        width=200,
        **bound(
            "sweep-picture",
            chosen if chosen in offered else first,
            lambda image: look(visitor, swept_on=image),
        ),
    )
    return chosen if chosen is not None and chosen in offered else first


# The matrix


def _matrix(visitor: Session, found: Sweep, drawn: Drawn) -> None:
    """A row for each layer, a column for each rank."""
    st.html(f"<style>{STYLE}</style>")
    before, after = drawn
    with st.container(horizontal=True, gap="small"):
        st.space(44)
        for rank in found.ranks:
            st.markdown(f"rank {rank}", width=2 * SIDE + GAP + 8)
    for layer in found.layers:
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown(f"**{plain(layer)}**", width=44)
            for rank in found.ranks:
                _cell(visitor, found, found.at(layer, rank), before, after.get((layer, rank)))


def _cell(visitor: Session, found: Sweep, cell: Cell, before: Picture, after: Picture | None) -> None:
    """A pair over its numbers, which together are a button; or why there is none."""
    place = f"{cell.layer}-{cell.rank}"
    if cell.edit is None or after is None:
        with st.container(width=2 * SIDE + GAP + 8):
            st.caption(plain(cell.problem))
        return
    picked = visitor.trial is not None and visitor.trial.rule.digest == cell.edit.rule.digest
    with st.container(key=f"sweep-cell-{place}{'-picked' if picked else ''}", width=2 * SIDE + GAP + 8):
        st.image(pair_png(before, after), width=2 * SIDE + GAP)
        loss, elsewhere, *others = numbers(cell, found.contexts)
        st.caption("  \n".join([f"{loss} · {elsewhere}", *others]))
        st.button(
            f"Take {plain(cell.layer)}, rank {cell.rank}",
            key=f"sweep-pick-{place}",
            on_click=_pick,
            args=(visitor, found, cell, cell.edit),
        )


def _pick(visitor: Session, found: Sweep, cell: Cell, edit: Edit) -> None:
    """Take over a cell; what is swept stays, although the edit's layer is another now."""
    look(visitor, layers=found.layers)
    show_edit(visitor, edit, cell.layer, cell.rank)


@st.cache_data(max_entries=512, show_spinner=False)
def pair_png(before: Picture, after: Picture) -> bytes:
    """A PNG of a picture [H, W, 3] beside what becomes of it, small ones enlarged."""
    factor = max(1, 2 * SIDE // before.shape[1])
    apart = np.full(
        (before.shape[0] * factor, factor * before.shape[1] * GAP // SIDE, 4), 0, np.uint8
    )  # clear
    sides = [np.dstack([side, np.full(side.shape[:2], 255, np.uint8)]) for side in (before, after)]
    left, right = (enlarge(side, factor) for side in sides)
    return encode_png(np.concatenate([left, apart, right], axis=1))


def _size(cell: Cell) -> int:
    """Bytes of a cell's rule."""
    if cell.edit is None:
        return 0
    return cell.edit.rule.delta.nbytes + cell.edit.rule.directions.nbytes


def _take_away(visitor: Session, found: Sweep, image: PictureId, drawn: Drawn) -> None:
    def figure() -> Figure:
        return sweep_figure(found, *drawn)

    words = sweep_caption(visitor.generator, found, short(image))
    line = sweep_command(visitor, found.request, found.layers, found.ranks)
    take_away(visitor, "sweep", {"sweep": found.table()}, {"sweep": figure}, line, words)
