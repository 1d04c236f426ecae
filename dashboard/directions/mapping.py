"""The view Map: a layer's keys in the plane; what is brushed appears as pictures, and becomes a direction."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from dashboard.background import show_work
from dashboard.binding import bound
from dashboard.directions.charts import scale_bar
from dashboard.directions.choices import MATCHES, Box, Coloured, Item, Marks, Placed
from dashboard.directions.exporting import map_command
from dashboard.directions.found import SCALE, SHOWN, look_closely
from dashboard.directions.judging import concepts_choice
from dashboard.directions.key_chart import BRUSH, keys_chart
from dashboard.directions.mapped import MAPPED, Mapped, mapped_of
from dashboard.directions.state import choose, chosen, keep
from dashboard.directions.taking import headed, take_away
from dashboard.dissection.charts import NOTHING, legend
from dashboard.errors import shown
from dashboard.gallery import Picture, gallery
from dashboard.session import Session, drawn
from dashboard.text import plain
from dashboard.words import counted, percent
from dissect.provenance import measured
from rewrite_core.pictures import WHITE, enlarge, outline

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["mapping"]

SIDE = 500
"""Pixels of the map."""
SMALL, COLUMNS = 76, 3
"""Side of a picture on screen, and how many are in a row."""
SENT = 160
"""Pixels that a small picture is enlarged to, or a little more: what lines need, and a third of what all would take."""
TOOLTIP = (
    "#vg-tooltip-element img { width: 84px; height: 84px; image-rendering: pixelated; border-radius: 4px; }"
)
"""A patch is a few pixels wide."""


def mapping(visitor: Session) -> None:
    """The map on the left, what is brushed on the right."""
    layer = plain(visitor.layer)
    menu = headed(
        f"What {layer} takes for alike",
        "A sample of keys from all positions of all samples, whitened. Near each other: alike to the layer. PCA keeps "
        "distances; t-SNE keeps neighbours, and its distances mean nothing. The axes have no meaning of their own.",
    )
    _looks(visitor)
    found = mapped_of(visitor)
    if found is None:
        show_work(visitor, MAPPED)
        return
    with menu:
        _take_away(visitor, found)
    with st.container(horizontal=True, gap="medium"):
        left, right = (
            st.container(width=SIDE),
            st.container(),
        )  # below each other where there is no room beside
    with left, shown():
        box = _map(visitor, found)
    with right, shown():
        _brushed(visitor, found, box)


def _looks(visitor: Session) -> None:
    """How keys are placed, what stands for one, what its colour says, and the concepts that there are."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        _choice(visitor, "placed", get_args(Placed), box=None)
        _choice(visitor, "marks", get_args(Marks))
        _choice(visitor, "coloured", get_args(Coloured))
        st.space("stretch")
        concepts_choice(visitor, "What colours the points: concepts that cover half of a position, or more.")


def _choice(visitor: Session, name: str, offered: Sequence[str], **also: Any) -> None:
    st.segmented_control(
        name.capitalize(),
        offered,
        required=True,
        label_visibility="collapsed",
        **bound(
            f"directions-{name}",
            getattr(visitor.exploring, name),
            lambda value: choose(visitor, **{name: value, **also}),
        ),
    )


# The map


def _map(visitor: Session, found: Mapped) -> Box:
    """The chart, what its colours mean, and the box that is brushed."""
    item = _hot(visitor)
    row = min(visitor.exploring.row, item.direction.rank - 1) if item else 0
    vector = item.direction.vectors[row] if item else None
    box = visitor.exploring.box
    if box is None:
        box = () if vector is None else found.around(vector)
    heated = visitor.exploring.coloured == "Heat" and vector is not None
    heat = found.graded(vector) if heated and vector is not None else None
    marks = visitor.exploring.marks
    ident = (found.key, marks, item.key if heated and item else "", row)
    start, key = _mounted(ident, box)
    st.html(f"<style>{TOOLTIP}</style>")
    st.altair_chart(
        keys_chart(found.map, heat, marks, start, SIDE),
        width="content",
        key=key,
        on_select=partial(_drag, visitor, key),
        selection_mode=BRUSH,
    )
    _key_of_colours(visitor, found, item if heated else None)
    return box


def _hot(visitor: Session) -> Item | None:
    """The direction that the tray has chosen, if it is of the layer that is mapped."""
    item = chosen(visitor)
    return item if item is not None and item.direction.layer == visitor.layer else None


def _mounted(ident: Hashable, box: Box) -> tuple[Box, str]:
    """The box that a chart begins with, and the chart's key: what else is shown is another chart, and begins anew.

    A chart that is sent again with another box would forget the one that is being dragged.
    """
    state: dict[str, Any] = st.session_state.setdefault("map-mounted", {"ident": None, "box": (), "count": 0})
    key = f"map-{state['count']}"
    if state["ident"] != ident or key not in st.session_state:
        state.update(ident=ident, box=box, count=state["count"] + 1)
    return state["box"], f"map-{state['count']}"


def _drag(visitor: Session, key: str) -> None:
    """Keep the box that was dragged; a click beside it takes it away."""
    picked: dict[str, list[float]] = st.session_state[key]["selection"].get(BRUSH) or {}
    if not {"x", "y"} <= picked.keys():
        choose(visitor, box=())
        return
    (left, right), (bottom, top) = sorted(picked["x"]), sorted(picked["y"])
    choose(visitor, box=(left, right, bottom, top))


def _key_of_colours(visitor: Session, found: Mapped, hot: Item | None) -> None:
    """The legend, and how far neighbours are alike."""
    if hot is not None:
        st.html(scale_bar(SCALE))
        st.caption(f"Heat of “{plain(hot.name)}” by its quantile over {len(found.keys.rows):,} keys.")
        return
    if visitor.exploring.coloured == "Heat":
        st.caption(f"The tray has no direction of {plain(visitor.layer)} to show the heat of.")
    counts = found.counts(range(len(found.map.points)))
    named = [name for name, _ in counts.most_common() if name]
    st.html(legend([*named, *([NOTHING] if counts[""] else [])]))
    purity = found.map.purity()
    pictures = len(np.unique(found.map.places[:, 0]))
    st.caption(
        f"{len(found.map.points):,} keys of {pictures:,} pictures. Of the ten nearest points "
        f"{percent(purity.share)} share a point's concept, {percent(purity.chance)} by chance."
    )


# What is brushed


def _brushed(visitor: Session, found: Mapped, box: Box) -> None:
    """The pictures of the brushed keys, each outlined there, and the way into the tray."""
    rows = found.inside(box)
    if not len(rows):
        st.markdown("**Brushed**")
        st.caption(
            "Drag a box over the map: the pictures of the keys in it appear here. Drag the box to move it."
        )
        return
    counts = found.counts(rows)
    seeds = list(dict.fromkeys(found.map.places[rows, 0].tolist()))
    st.markdown(f"**{counted(len(rows), 'key')}** :gray[of {counted(len(seeds), 'picture')}]")
    said = ", ".join(f"{plain(name or NOTHING)} {count}" for name, count in counts.most_common(4))
    st.caption(said + (f" · the {SHOWN} in the middle" if len(seeds) > SHOWN else ""))
    if st.button(
        "Direction from these",
        icon=":material/add:",
        type="primary",
        key="map-direction",
        help="What these keys have in common and the others have not, into the tray.",
    ):
        _keep(visitor, found, rows)
    pictures = _pictures(visitor, found, rows, seeds[:SHOWN])
    picked = gallery(pictures, key="map-gallery", selected=visitor.selected, size=SMALL, columns=COLUMNS)
    if picked != visitor.selected:
        look_closely(visitor, picked)


def _keep(visitor: Session, found: Mapped, rows: NDArray[np.intp]) -> None:
    keep(visitor, Item(found.direction(rows)))
    choose(visitor, view=MATCHES)
    st.rerun()


def _pictures(visitor: Session, found: Mapped, rows: NDArray[np.intp], seeds: Sequence[int]) -> list[Picture]:
    """The pictures of these seeds, each outlined where its brushed keys are."""
    layer = found.keys.layer
    generator = visitor.generator.pristine
    height, width = (side - 2 * generator.layer(layer).key_margin for side in generator.layer(layer).key_size)
    factor = min(visitor.enlargement, -(-SENT // generator.resolution))
    images = enlarge(drawn(visitor.spec(tuple(seeds)), generator), factor)
    places = found.map.places[rows]  # [M, 3]
    result = []
    for seed, image in zip(seeds, images, strict=True):
        cells = np.zeros((height, width), bool)
        for row, column in places[places[:, 0] == seed, 1:]:
            cells[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2] = True  # as wide as its patch
        down, across = (
            np.arange(side) * grid // side for side, grid in zip(image.shape, cells.shape, strict=False)
        )
        thick = max(1, image.shape[1] // 64)
        result.append(Picture(seed, outline(image, cells[down][:, across], WHITE, thick, dim=0.6)))
    return result


# To take away


def _take_away(visitor: Session, found: Mapped) -> None:
    words = measured(
        f"Whitened keys of {found.keys.layer}, placed by {found.map.method}.",
        visitor.generator.pristine,
        found.keys.spec,
        found.concepts,
    )
    figures = {"map": partial(_figure, found), "map of patches": partial(_figure, found, thumbnails=True)}
    take_away(visitor, "map", {"points": found.map.table()}, figures, map_command(visitor, found), words)


def _figure(found: Mapped, thumbnails: bool = False) -> Figure:
    from dissect.map_plots import map_figure

    return map_figure(found.map, thumbnails=thumbnails, width="page" if thumbnails else "column")
