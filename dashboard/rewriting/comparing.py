"""The view Compare: the same request by the baselines, beside ours: numbers, and the same pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import streamlit as st

from dashboard.background import show_work
from dashboard.errors import shown
from dashboard.gallery import Picture, gallery
from dashboard.rewriting.compared import COMPARING, OURS, SHOWN, Compared, Question, Side, compared_of
from dashboard.rewriting.measuring import interval, measured_choice, percentage
from dashboard.rewriting.taking import pairs_command, take_away
from dashboard.rewriting.viewing import look, viewing
from dashboard.session import Session
from dashboard.solving import keep_rules, ready
from dashboard.taking import headed
from dashboard.text import plain
from dashboard.words import duration
from dissect.provenance import INTERVALS, measured
from rewrite_core.rules.baselines import BASELINES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["comparing"]

SIDE = 62
"""Pixels of a picture on screen."""
HELP = (
    "All of the pristine network, each alone. Loss: the share that is left, recomputed from the weights that are kept. "
    "Inside and outside: the mean change of fresh pictures where the context matches, and elsewhere. Compare changes "
    "outside at like changes inside: an edit that does little also disturbs little."
)


def comparing(visitor: Session) -> None:
    """A button that begins; then a table, and a row of pictures for each side."""
    menu = headed("The same request by other means", HELP)
    missing = ready(visitor)
    if missing:
        st.caption(f"A complete edit can be compared. {plain(missing)}")
        return
    with shown():
        question = Question.of(visitor)
        with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
            measured_choice(visitor, "compare")
            if viewing(visitor).comparison != question.key:
                st.button(
                    "Compare",
                    key="compare",
                    type="primary",
                    on_click=lambda: look(visitor, comparison=question.key),
                )
        if viewing(visitor).comparison != question.key:
            _announced()
            return
        found = compared_of(visitor, question)
        if found is None:
            show_work(visitor, COMPARING)
            return
        with menu:
            _take_away(visitor, question, found)
        _table(found)
        _rows(visitor, found)


def _announced() -> None:
    """What a comparison would hold ours against."""
    st.markdown("\n".join(f"* **{one.title}**: {one.about}" for one in BASELINES.values()))
    st.caption(
        "It takes about a minute on the embedded models, and goes on while you look at something else."
    )


def _table(found: Compared) -> None:
    column = st.column_config
    sides = [(side, side.effect) for side in found.sides.values() if side.effect]
    rows = [
        {
            "method": side.title,
            "loss": 100 * side.share,
            "inside": f"{percentage(effect.inside)} ({interval(effect.inside)})",
            "outside": f"{percentage(effect.outside)} ({interval(effect.outside)})",
            "ratio": effect.inside.value / effect.outside.value if effect.outside.value else 0.0,
            "took": 100 * effect.took_effect.value,
            "seconds": side.seconds,
        }
        for side, effect in sides
    ]
    st.dataframe(
        pd.DataFrame(rows),
        key="compare-table",
        hide_index=True,
        width="content",
        column_config={
            "method": column.TextColumn(width=136),
            "loss": _share_column("loss left", "Of pixels for overfit, else of the layer's values."),
            "inside": column.TextColumn(width=146, help=INTERVALS),
            "outside": column.TextColumn(width=126, help=INTERVALS),
            "ratio": column.NumberColumn("in ÷ out", width=62, format="%.1f"),
            "took": _share_column("took effect", "Of the pictures with a context."),
            "seconds": column.NumberColumn(width=66, format="%.2f"),
        },
    )
    for side in found.sides.values():
        if side.problem:
            st.caption(f"{side.title}: {plain(side.problem)}")


def _share_column(title: str, about: str) -> Any:
    return st.column_config.ProgressColumn(
        title, width=96, help=about, min_value=0, max_value=100, format="%.0f %%"
    )


def _rows(visitor: Session, found: Compared) -> None:
    """The same pictures: as they are, then under each side."""
    seeds = found.spec.seeds[:SHOWN]
    _row(visitor, "before", "Before", [Picture(*pair) for pair in zip(seeds, found.before, strict=True)])
    for name, side in found.sides.items():
        if side.pictures is not None:
            pictures = [Picture(*pair) for pair in zip(seeds, side.pictures, strict=True)]
            _row(visitor, name, side.title, pictures, side)


def _row(visitor: Session, name: str, title: str, pictures: list[Picture], side: Side | None = None) -> None:
    key = name.replace(" ", "-")
    about, row = st.columns([1.2, 6.4], gap="small", vertical_alignment="center")
    with about, st.container(gap=None):
        st.markdown(f"**{title}**", help=side.about if side else None)
        if side:
            st.button(
                "Keep",
                icon=":material/check:",
                type="tertiary",
                key=f"compare-keep-{key}",
                help=f"Puts it on the rule stack, in place of what is being tried; made in {duration(side.seconds)}.",
                on_click=keep_rules,
                args=(visitor, side.rules),
            )
    with row:
        picked = gallery(
            pictures, key=f"compare-row-{key}", selected=visitor.selected, size=SIDE, columns=SHOWN
        )
    visitor.select(picked)


def _take_away(visitor: Session, question: Question, found: Compared) -> None:
    from dissect.figures import grid_figure

    drawn = {side.title: side.pictures for side in found.sides.values() if side.pictures is not None}

    def figure() -> Figure:
        rows = {"before": found.before, **drawn}
        labels = [f"{seed}" for _ in rows for seed in found.spec.seeds[:SHOWN]]
        return grid_figure(np.concatenate(list(rows.values())), labels, ", ".join(rows), columns=SHOWN)

    caption = measured(
        f"One request at {question.request.layer} by several methods, in rows of the same fresh pictures: as they are, "
        f"then {', '.join(drawn)}. {INTERVALS}.",
        question.generator,
        found.spec,
    )
    shown_spec = question.request.latents.spec(found.spec.seeds[:SHOWN])
    line = pairs_command(visitor, found.sides[OURS].rules, shown_spec)
    take_away(visitor, "compared", {"compared": found.table()}, {"pictures": figure}, line, caption)
