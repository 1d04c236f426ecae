"""The view Methods: one painted context by all methods, on the same pictures, and judged by a concept."""

from __future__ import annotations

import html
from functools import partial
from typing import TYPE_CHECKING, get_args

import streamlit as st

from dashboard.background import show_work
from dashboard.binding import bound
from dashboard.directions.charts import scale_bar
from dashboard.directions.choices import Item, Pictured
from dashboard.directions.compared import COMPARING, Sides, compared_of, context_of, judge, samples_of
from dashboard.directions.exporting import methods_command
from dashboard.directions.found import SCALE, look_closely
from dashboard.directions.judging import concepts_choice
from dashboard.directions.method_chart import colour_of, curves_chart
from dashboard.directions.plots import matrix_chart
from dashboard.directions.state import choose, chosen, look_at
from dashboard.directions.taking import headed, take_away
from dashboard.dissection.state import source_of
from dashboard.dissection.table import dotted
from dashboard.errors import shown
from dashboard.gallery import Picture, gallery
from dashboard.session import Session
from dashboard.text import plain
from dissect.methods import MethodComparison
from dissect.provenance import measured
from rewrite_core.rules.request import EditRequest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["methods"]

NOBODY = "not judged"
SAME, SMALL = 10, 62
"""Pictures that every method is shown on, and the side of a picture on screen."""
NAME = 88
"""Pixels of a method's name beside its pictures."""
MATRIX = 330
"""Pixels of the matrix of overlaps, about."""


def methods(visitor: Session) -> None:
    """How well each method finds what was painted, and on which pictures."""
    item = chosen(visitor)
    request = None if item is None else context_of(item)
    if item is None or request is None:
        _elsewhere(visitor, item)
        return
    menu = headed(
        f"{plain(item.name)} :gray[by every method, at {plain(item.direction.layer)}]",
        "The same painted context, made into one direction by each method, all with the same ridge, contrast and "
        "protected regions. Pictures that were painted on are left out.",
    )
    _judging(visitor, item)
    sides = compared_of(visitor, item, request)
    if sides is None:
        show_work(visitor, COMPARING)
        return
    with menu:
        _take_away(visitor, item, request, sides)
    if sides.found.judged:
        with shown():
            _judged(visitor, sides.found)
    with shown():
        _pictures(visitor, item, sides)
        _agreement(sides.found)


def _elsewhere(visitor: Session, item: Item | None) -> None:
    """Why there is nothing to compare, and the directions of the tray that there would be."""
    painted = [one for one in visitor.tray if context_of(one) is not None]
    what = "" if item is None else f"“{plain(item.name)}” was not made from a painted context. "
    other = "Choose one that was:" if painted else "Paint one, or take an example, on the left."
    st.markdown("**One context by every method**")
    st.caption(f"{what}Methods differ in what they make of a painted context. {other}")
    with st.container(horizontal=True, gap="small"):
        for one in painted:
            st.button(
                plain(one.name),
                icon=":material/brush:",
                key=f"methods-{one.key}",
                on_click=look_at,
                args=(visitor, one.key),
            )


def _judging(visitor: Session, item: Item) -> None:
    """The concept that methods are judged by, and where it comes from."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown("Judged by")
        names = ["", *source_of(visitor).names]
        st.selectbox(
            "Concept",
            names,
            format_func=lambda name: name or NOBODY,
            label_visibility="collapsed",
            width=150,
            **bound("methods-concept", judge(visitor, item), lambda name: choose(visitor, judged=name)),
        )
        st.markdown("of")
        concepts_choice(
            visitor, "Where a concept covers half of a position or more, the position is to be found."
        )


# Judged


def _judged(visitor: Session, found: MethodComparison) -> None:
    """Average precision of each method with its interval, and precision against recall."""
    left, right = st.columns([1.35, 1], gap="medium")
    names, rows = list(found.judged), found.precision
    chance, place = float(rows["share"].iloc[0]), float(rows["place_alone"].iloc[0])
    with left:
        _table(names, found)
        st.caption(
            f"Over {len(found.spec):,} pictures. By chance {chance:.3f}; by where “{plain(found.concept)}” mostly is "
            f"{place:.3f}.",
        )
        if not source_of(visitor).pixels_only:
            st.caption(
                ":material/info: These concepts read the same network's feature maps, which favours its directions: "
                "judge by concepts that see pixels alone as well."
            )
    with right:
        st.altair_chart(curves_chart(found.curves, names, chance), key="methods-curves")


def _table(names: list[str], found: MethodComparison) -> None:
    rows, column = found.precision, st.column_config
    best = float(rows["high"].max())
    st.dataframe(
        rows.assign(
            colour=[dotted(colour_of(names, method)) for method in rows["method"]],
            interval=[
                f"{low:.3f} to {high:.3f}" for low, high in zip(rows["low"], rows["high"], strict=True)
            ],
            head=[f"{hits} of {top}" for hits, top in zip(rows["hits"], rows["top"], strict=True)],
        ),
        key="methods-table",
        hide_index=True,
        column_order=["colour", "method", "average_precision", "interval", "head"],
        column_config={
            "colour": column.ImageColumn("", width=24, help="Its line beside."),
            "method": column.TextColumn(width=88),
            "average_precision": column.ProgressColumn(
                "average precision",
                width=126,
                min_value=0.0,
                max_value=max(best, 1e-6),
                format="%.3f",
                help="Of positions by their heat: the area under precision against recall.",
            ),
            "interval": column.TextColumn("95 % interval", width=112, help="Bootstrap over pictures."),
            "head": column.TextColumn(
                f"best {found.top}",
                width=70,
                help="Of the best pictures, those whose position of greatest heat is the concept's.",
            ),
        },
    )


# Pictures


def _pictures(visitor: Session, item: Item, sides: Sides) -> None:
    """A row of pictures a method, under its heat."""
    found = sides.found
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.segmented_control(
            "Pictures",
            get_args(Pictured),
            required=True,
            label_visibility="collapsed",
            **bound(
                "directions-pictured",
                visitor.exploring.pictured,
                lambda name: choose(visitor, pictured=name),
            ),
        )
        st.caption("Under each picture its rank by the method. Colours: quantiles of the method's own heat.")
    st.html(scale_bar(SCALE))
    factor, same = visitor.enlargement, visitor.exploring.pictured == "Same pictures"
    methods, own = list(found.matches), item.direction.method
    best = found.matches[own if own in methods else methods[0]].top(min(SAME, len(found.spec)))
    if same:
        _row(visitor, 0, [Picture(*pair) for pair in zip(best, sides.plain(best, factor), strict=True)])
    for number, (method, matches) in enumerate(found.matches.items(), 1):
        seeds = best if same else matches.top(found.top)
        ranks = [f"#{sides.rank(method, seed)}" for seed in seeds]
        images = sides.pictures(method, seeds, factor)
        pictures = [Picture(*one) for one in zip(seeds, images, [None] * len(seeds), ranks, strict=True)]
        _row(visitor, number, pictures, method, colour_of(methods, method))


def _row(visitor: Session, number: int, pictures: list[Picture], method: str = "", colour: str = "") -> None:
    """A method's name, and its pictures; without a name, pictures as they are."""
    with st.container(horizontal=True, gap="small", vertical_alignment="center", wrap=False):
        name, row = st.container(width=NAME), st.container()
    with name:
        if method:
            dot = f'<span style="color:{colour}">●</span>'
            st.html(f'<div style="white-space:nowrap;font-size:.85rem">{dot} {html.escape(method)}</div>')
    with row:
        key = f"methods-row-{number}"
        picked = gallery(pictures, key=key, selected=visitor.selected, size=SMALL, columns=SAME)
    if picked != visitor.selected:
        look_closely(visitor, picked)


def _agreement(found: MethodComparison) -> None:
    """How far methods agree on their best pictures."""
    st.markdown(
        f"**Shared of the best {found.top}**",
        help="Of all pictures that are the best of either, those of both.",
    )
    overlap = found.top_overlap
    st.altair_chart(
        matrix_chart(list(overlap.index), overlap.to_numpy(), MATRIX), width="content", key="methods-overlap"
    )


# To take away


def _take_away(visitor: Session, item: Item, request: EditRequest, sides: Sides) -> None:
    found = sides.found
    tables = {
        **({"precision": found.precision, "curves": found.curves} if found.judged else {}),
        "rankings": found.rankings,
        "overlap": found.top_overlap.rename_axis("method").reset_index(),
    }
    figures = {
        **({"curves": partial(_curves, found)} if found.judged else {}),
        "heat": partial(_heat, sides, item),
    }
    judged = f"{found.concept} of {found.source}" if found.concept else ""
    words = measured(
        f"The context {item.name} by every method at {found.layer}.", sides.generator, found.spec, judged
    )
    line = methods_command(visitor, request, found, samples_of(visitor))
    take_away(visitor, "methods", tables, figures, line, words)


def _curves(found: MethodComparison) -> Figure:
    from dissect.direction_plots import curves_figure

    return curves_figure(found.curves, found.precision)


def _heat(sides: Sides, item: Item) -> Figure:
    from dissect.direction_figures import methods_figure, strip

    found = sides.found
    seeds = next(iter(found.matches.values())).top(SAME)
    rows = {name: strip(sides.generator, some, seeds) for name, some in found.matches.items()}
    scales = {name: (some.level(SCALE[1]), some.level(SCALE[3])) for name, some in found.matches.items()}
    return methods_figure(rows, scales, item.name)
