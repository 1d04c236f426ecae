"""Which of the units most like a concept cause it: the greedy ranking by effect, and its curve."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import altair as alt
import pandas as pd
import streamlit as st

from dashboard.budget import Budget
from dashboard.dissection.asking import fresh, on_request
from dashboard.dissection.charts import hex_of
from dashboard.dissection.exporting import rank_command
from dashboard.dissection.probe import BY_NUMBER
from dashboard.dissection.state import identity_of, judge_of
from dashboard.dissection.taking import headed, take_away
from dashboard.dissection.units_choice import concept_of, probing
from dashboard.session import Session
from dashboard.text import plain
from dissect.choosing import best_units
from dissect.concepts import ConceptSource
from dissect.provenance import INTERVALS, measured
from dissect.ranking import Ranking, rank_units
from dissect.units import Dissection
from rewrite_core.jobs import Progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["curve_chart", "ranked"]

RANKING = "ranking"
CANDIDATES, COUNT = 8, 4
"""Units that are tried, and how many of them are ranked."""
CHOOSING = 48
"""Pictures: one half chooses, the other measures."""

_ranked: Budget[Ranking] = Budget(16 << 20, lambda found: found.single.after.nbytes)


def ranked(visitor: Session, found: Dissection) -> None:
    """Units in the order in which they take most of a concept away, and the curve, on request."""
    judge, generator, concept = judge_of(visitor), visitor.edited(), concept_of(visitor, found)
    layer, spec = visitor.layer, fresh(visitor, CHOOSING)
    candidates = best_units(found.layers[layer], concept, CANDIDATES)
    menu = headed(
        "Ranked by what they cause",
        f"Of the {len(candidates)} units most like {plain(concept)}, the one is taken whose ablation leaves least "
        f"of the concept; then the one that leaves least together with it, and so on. Half of {CHOOSING} pictures "
        "choose, the other half measures the curve; the band is a 95 % bootstrap interval.",
    )
    if not candidates:
        st.caption(f"No unit of layer {plain(layer)} ever meets {plain(concept)}.")
        return
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        judged = _judged(visitor, judge, concept)
        key = (generator.fingerprint, spec, layer, candidates, judged, identity_of(judge))
        count = min(COUNT, len(candidates))

        def work(progress: Progress) -> Ranking:
            return rank_units(generator, spec, layer, judged, judge, candidates, count, progress)

        label = f"Ranking {len(candidates)} units by {judged}"
        ranking = on_request(visitor, RANKING, key, _ranked, label, work, "Rank")
    if ranking is not None:
        _shown(visitor, ranking)
        with menu:
            line = rank_command(visitor, ranking.concept, candidates, len(ranking.units), spec)
            figures = {"ranking": partial(_figure, ranking)}
            text = f"Units of {layer} ranked by what their ablation leaves of {judged}, {INTERVALS}."
            words = measured(text, generator, spec, judge.title)
            take_away(visitor, "ranking", {"ranking": ranking.table()}, figures, line, words)


def _judged(visitor: Session, judge: ConceptSource, concept: str) -> str:
    """The concept that is counted: that of the panel, or one of the judge's, if that does not know it."""
    if concept in judge.names:
        return concept
    judged = visitor.probe.judged if visitor.probe.judged in judge.names else judge.names[0]
    key = f"probe-judged-{plain(judge.title)}"
    st.selectbox(
        f"Concept of {plain(judge.title)}",
        judge.names,
        index=judge.names.index(judged),
        width=200,
        key=key,
        on_change=lambda: probing(visitor, judged=st.session_state[key]),
    )
    return judged


def _shown(visitor: Session, ranking: Ranking) -> None:
    """The curve, and taking over its units."""
    numbers = ", ".join(map(str, ranking.units))
    st.altair_chart(curve_chart(ranking.table(), ranking.concept), key="curve-chart")
    st.button(
        f"Use units {numbers}",
        key="probe-use",
        on_click=lambda: probing(visitor, by=BY_NUMBER, numbers=numbers),
    )


def curve_chart(table: pd.DataFrame, concept: str) -> alt.LayerChart:
    """The change of the concept's share against how many units are ablated, with its interval and who was added."""
    colour = hex_of(concept)
    numbers: list[Any] = [alt.Tooltip(name, format="+.3%") for name in ("effect", "low", "high")]
    shares: list[Any] = [alt.Tooltip(name, format=".2%") for name in ("before", "after")]
    base = alt.Chart(table).encode(
        x=alt.X(
            "units:O",
            axis=alt.Axis(title="units ablated, and the one that was added", labelAngle=0, grid=False),
        ),
        tooltip=["units", "added", *numbers, *shares],
    )
    axis = alt.Axis(title=f"change of {concept}", format="+.1%", tickCount=4)
    band = base.mark_area(color=colour, opacity=0.22).encode(y=alt.Y("low:Q", axis=axis), y2="high:Q")
    line = base.mark_line(color=colour, point={"filled": True, "size": 46, "color": colour}).encode(
        y="effect:Q"
    )
    added = base.mark_text(dy=-13, fontWeight="bold", color="#8a8f9c").encode(y="effect:Q", text="added:N")
    return alt.LayerChart(layer=[band, line, added], height=200)


def _figure(ranking: Ranking) -> Figure:
    from dissect.effect_plots import curve_figure

    return curve_figure(ranking)
