"""The view Overlaps: how much the directions of a layer have in common, and which of their rules would collide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, get_args

import numpy as np
import pandas as pd
import streamlit as st
from numpy.typing import NDArray

from dashboard.background import brought, show_work
from dashboard.binding import bound
from dashboard.budget import Budget
from dashboard.directions.choices import Compared, Item
from dashboard.directions.exporting import overlap_command
from dashboard.directions.moments import moment_of
from dashboard.directions.plots import matrix_chart
from dashboard.directions.state import choose
from dashboard.directions.taking import headed, take_away
from dashboard.session import Session
from dashboard.text import plain
from dissect.provenance import measured
from rewrite_core.directions.overlap import CLOSE, interference, key_overlap, query_overlap
from rewrite_core.generators import LatentSpec
from rewrite_core.jobs import Progress
from rewrite_core.statistics.layer import SAMPLES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["overlaps"]

SIDE, ALONE = 390, 560
"""Pixels of a matrix, where two are side by side and where one is alone."""
QUERIES, KEYS, RULES = "queries", "keys", "interference"

OVERLAP = "overlaps"
"""The purpose of the job that compares."""

Matrix = NDArray[np.float64]
Overlap = Mapping[str, Matrix]

_known: Budget[Overlap] = Budget(16 << 20, lambda found: sum(matrix.nbytes for matrix in found.values()))


def overlaps(visitor: Session) -> None:
    """The matrices of what is in the tray of this layer, and a sentence on the pair most likely to collide."""
    layer = visitor.layer
    items = [item for item in visitor.tray if item.direction.layer == layer]
    menu = headed(
        f"Overlaps :gray[at {plain(layer)}]",
        "From −1 to 1, in the metric of the layer's second moment C. As queries, dᵀCd: do they match the same places? "
        "As keys, kᵀC⁻¹k: were they made from the same contexts?",
    )
    if len(items) < 2:
        have = "one direction" if items else "no direction"
        st.caption(f"The tray has {have} of {plain(layer)}: add another on the left to compare them.")
        _left_out(visitor, items)
        return
    found = _found(visitor, layer, items)
    if found is None:
        show_work(visitor, OVERLAP)
        return
    names = names_of(items)
    with menu:
        _take_away(visitor, layer, items, names, found)
    st.markdown(_collision(names, found[RULES]))
    st.segmented_control(
        "Shown",
        get_args(Compared),
        required=True,
        label_visibility="collapsed",
        **bound(
            "directions-compared", visitor.exploring.compared, lambda name: choose(visitor, compared=name)
        ),
    )
    _matrices(visitor, names, found)
    _left_out(visitor, items)


def names_of(items: Sequence[Item]) -> list[str]:
    """A name for each, told apart by number where two are the same."""
    names = [item.name for item in items]
    return [name if names.count(name) == 1 else f"{name} ({number})" for number, name in enumerate(names, 1)]


def _found(visitor: Session, layer: str, items: Sequence[Item]) -> Overlap | None:
    directions = [item.direction for item in items]

    def work(progress: Progress) -> Overlap:
        moment = moment_of(visitor, layer, progress)
        return {
            QUERIES: query_overlap(directions, moment).numpy(),
            KEYS: key_overlap(directions, moment).numpy(),
            RULES: interference(directions, moment).numpy(),
        }

    key = (visitor.generator.pristine.fingerprint, layer, tuple(map(_identity, items)))
    return brought(visitor, OVERLAP, key, _known, f"Comparing directions of {layer}", work)


def _identity(item: Item) -> tuple[str, str]:
    """What its overlaps depend on: its vectors, and the key that it was made from, which a digest leaves out."""
    key = item.direction.key
    return item.direction.digest, "" if key is None else key.numpy().tobytes().hex()


def _matrices(visitor: Session, names: Sequence[str], found: Overlap) -> None:
    if visitor.exploring.compared == "Interference":
        st.caption(
            "How strongly a rule at the row's direction fires on the context of the column's: 1 is as on its own."
        )
        st.altair_chart(matrix_chart(names, found[RULES], ALONE), width="content", key="overlap-rules")
        return
    left, right = st.columns(2, gap="small")
    with left:
        st.caption("As queries: do they match the same places?")
        st.altair_chart(matrix_chart(names, found[QUERIES], SIDE), width="content", key="overlap-queries")
    with right:
        st.caption("As keys: were they made from the same contexts?")
        st.altair_chart(matrix_chart(names, found[KEYS], SIDE), width="content", key="overlap-keys")


def _collision(names: Sequence[str], effect: Matrix) -> str:
    """The pair whose rules are most likely to collide, in a sentence."""
    others = np.abs(effect - np.diag(np.diag(effect)))  # [M, M]
    row, column = map(int, np.unravel_index(int(others.argmax()), others.shape))
    rule, context, value = plain(names[row]), plain(names[column]), float(effect[row, column])
    if abs(value) <= CLOSE:
        return (
            f"No two are likely to collide: at most, a rule at **{rule}** acts on the context of **{context}** at "
            f"{abs(value):.2f} of its strength."
        )
    turned = ", the other way round" if value < 0 else ""
    return (
        f"**{rule}** and **{context}** are most likely to collide: a rule at {rule} acts on the context of {context} "
        f"at {abs(value):.2f} of its strength{turned}."
    )


def _left_out(visitor: Session, items: Sequence[Item]) -> None:
    """Which of the tray cannot be compared with these."""
    others = [item for item in visitor.tray if item not in items]
    if others:
        listed = ", ".join(f"{plain(item.name)} ({plain(item.direction.layer)})" for item in others)
        st.caption(
            f"Left out, of other layers: {listed}.", help="Keys of different layers cannot be compared."
        )


def _take_away(
    visitor: Session, layer: str, items: Sequence[Item], names: Sequence[str], found: Overlap
) -> None:
    tables = {what: _table(names, matrix) for what, matrix in found.items()}
    generator, spec = visitor.generator.pristine, LatentSpec.of(range(SAMPLES))
    words = measured(f"Overlaps of directions of {layer}, as queries and as keys.", generator, spec)
    figures = {"overlaps": partial(_figure, names, found)}
    take_away(visitor, "overlaps", tables, figures, overlap_command(visitor, items), words)


def _table(names: Sequence[str], matrix: Matrix) -> pd.DataFrame:
    """A row and a column for each direction."""
    return (
        pd.DataFrame(matrix, columns=list(names)).assign(direction=names).set_index("direction").reset_index()
    )


def _figure(names: Sequence[str], found: Overlap) -> Figure:
    from dissect.direction_plots import overlap_figure

    return overlap_figure(names, found[QUERIES], found[KEYS])
