"""The chart of methods: precision against recall, each method in its colour."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import numpy as np
import pandas as pd

__all__ = ["COLOURS", "colour_of", "curves_chart"]

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442")
"""The theme's categories: Okabe and Ito's, black left out."""
_GREY = "#8a8f9c"
_POINTS = 160
"""Points of a line, at most: more than a screen resolves."""

Layered = alt.LayerChart | alt.FacetChart
"""What altair takes a layered chart for."""


def colour_of(methods: Sequence[str], method: str) -> str:
    """The colour of a method among all that are compared, which does not depend on how good it is."""
    return COLOURS[list(methods).index(method) % len(COLOURS)]


def curves_chart(curves: pd.DataFrame, methods: Sequence[str], chance: float) -> Layered:
    """Precision against recall (method, recall, precision, a row a point); dashed is chance."""
    thinned = pd.concat([_thinned(curves[curves["method"] == method]) for method in methods])
    lines = (
        alt.Chart(thinned)
        .mark_line(interpolate="step-before", strokeWidth=1.8)
        .encode(
            x=alt.X("recall:Q", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(grid=False, tickCount=5)),
            y=alt.Y(
                "precision:Q",
                title="precision",
                scale=alt.Scale(domain=[0, 1]),
                axis=alt.Axis(tickCount=5, ticks=False, domain=False),
            ),
            color=alt.Color(
                "method:N",
                scale=alt.Scale(
                    domain=list(methods), range=[colour_of(methods, method) for method in methods]
                ),
                legend=None,
            ),
            tooltip=[
                "method",
                alt.Tooltip("recall:Q", format=".2f"),
                alt.Tooltip("precision:Q", format=".2f"),
            ],
        )
    )
    rule = (
        alt.Chart(pd.DataFrame({"chance": [chance]}))
        .mark_rule(color=_GREY, strokeDash=[4, 3])
        .encode(y=alt.Y("chance:Q", title="precision"), tooltip=alt.Tooltip("chance:Q", format=".3f"))
    )
    padding = {"left": 0, "right": 6, "top": 6, "bottom": 0}
    chart: Layered = alt.layer(rule, lines).properties(height=252, padding=padding)
    return chart


def _thinned(curve: pd.DataFrame) -> pd.DataFrame:
    """Some points of a curve, evenly over its recall, both ends among them."""
    if len(curve) <= _POINTS:
        return curve
    recall = curve["recall"].to_numpy()
    wanted = np.searchsorted(recall, np.linspace(recall[0], recall[-1], _POINTS)).clip(max=len(recall) - 1)
    return curve.iloc[np.unique([0, *wanted, len(recall) - 1])]
