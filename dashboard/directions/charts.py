"""Charts of a direction: its strengths, the scores of pictures, and a picture whose positions can be clicked.

Lines and marks that stand for nothing in particular are grey, which both themes leave legible.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from dashboard.directions.choices import Place
from rewrite_core.pictures import Picture, encode_png

__all__ = ["CELL", "positions_chart", "scale_bar", "scores_chart", "strengths_chart"]

CELL = "cell"
"""The selection of `positions_chart`: points with `row` and `column`."""
CELLS = 48
"""Rows and columns that can be clicked, at most; cells of a finer grid are joined."""

_GREY, _FAINT = "#8a8f9c", "#8a8f9c70"
_ACCENT, _MARK = "#5661cc", "#ff2d78"  # between the accents of both themes; as what is painted
_COLOURS = "#44015400,#3b528b33,#21918c66,#5ec96299,#fde725cc"
"""Of `rewrite_core.pictures.blend_heat`: viridis, ever more opaque."""
_BINS, _STRENGTHS = 40, 16
_NO_PADDING = {"left": 0, "right": 0, "top": 0, "bottom": 0}
_PADDING = {"left": 0, "right": 4, "top": 4, "bottom": 5}
"""Of a chart, in pixels: Streamlit leaves twenty below."""
_QUIET: dict[str, Any] = {"grid": False, "domain": False, "ticks": False}

Layered = alt.LayerChart | alt.FacetChart
"""What altair takes a layered chart for."""


def strengths_chart(strengths: Tensor, rank: int) -> alt.Chart:
    """The first singular values [K] as shares of the greatest, those that the rank takes in full colour."""
    values = (strengths[:_STRENGTHS] / strengths[0].clamp(min=1e-30)).tolist()
    rows = pd.DataFrame({"number": range(1, len(values) + 1), "share": values})
    chart: alt.Chart = (
        alt.Chart(rows)
        .mark_bar(cornerRadiusEnd=2)
        .encode(
            x=alt.X("number:O", title=None, axis=alt.Axis(labelAngle=0, **_QUIET)),
            y=alt.Y("share:Q", title=None, axis=None, scale=alt.Scale(domain=[0, 1])),
            color=alt.condition(alt.datum.number <= rank, alt.value(_ACCENT), alt.value(_FAINT)),
            tooltip=["number", alt.Tooltip("share:Q", format=".3f", title="of the greatest")],
        )
        .properties(height=80, padding=_PADDING)
    )
    return chart


def scores_chart(scores: NDArray[np.floating], level: float, score: float | None) -> Layered:
    """How the scores of pictures [N] are distributed; dashed the level of the outline, a mark for one picture's score.

    A picture is outlined somewhere where its score is above the level.
    """
    counts, edges = np.histogram(scores, bins=_BINS)
    rows = pd.DataFrame({"low": edges[:-1], "high": edges[1:], "pictures": counts})
    bars = (
        alt.Chart(rows)
        .mark_bar(stroke=None)
        .encode(
            x=alt.X(
                "low:Q",
                title="score: greatest heat",
                scale=alt.Scale(nice=False, domain=[min(edges[0], level), max(edges[-1], level)]),
                axis=alt.Axis(grid=False, tickCount=5),
            ),
            x2="high:Q",
            y=alt.Y("pictures:Q", title="pictures", axis=alt.Axis(tickCount=3, **_QUIET)),
            y2=alt.datum(0),
            color=alt.condition(alt.datum.low >= level, alt.value(_ACCENT), alt.value(_FAINT)),
            tooltip=[
                alt.Tooltip("low:Q", format=".3g", title="from"),
                alt.Tooltip("high:Q", format=".3g", title="to"),
                "pictures",
            ],
        )
    )
    line = (
        alt.Chart(pd.DataFrame({"at": [level]}))
        .mark_rule(color=_GREY, strokeDash=[4, 3])
        .encode(x="at:Q", tooltip=alt.Tooltip("at:Q", format=".4g", title="outlined above"))
    )
    layers = [bars, line]
    if score is not None:
        mark = alt.Chart(pd.DataFrame({"at": [score]})).mark_point(
            shape="triangle-down", filled=True, size=90, color=_ACCENT, opacity=1, yOffset=-4
        )
        layers.append(
            mark.encode(x="at:Q", y=alt.datum(0), tooltip=alt.Tooltip("at:Q", format=".4g", title="shown"))
        )
    chart: Layered = alt.layer(*layers).properties(height=150, padding=_PADDING)
    return chart


def positions_chart(
    picture: Picture, heat: Tensor, quantiles: NDArray[np.floating], place: Place | None, side: int
) -> Layered:
    """A picture [H, W, 3] whose positions answer: hovering tells the heat [h, w] and its quantile, a click picks one.

    On a grid finer than `CELLS` neighbours are joined, and stand for the one among them of the greatest heat.
    """
    (rows, columns), (height, width) = heat.shape, picture.shape[:2]
    size = {
        "width": round(side * width / max(height, width)),
        "height": round(side * height / max(height, width)),
    }
    x = alt.Scale(domain=[0, columns], nice=False)
    y = alt.Scale(domain=[rows, 0], nice=False)
    url = f"data:image/png;base64,{base64.b64encode(encode_png(picture)).decode('ascii')}"
    under = (
        alt.Chart(pd.DataFrame({"x": [columns / 2], "y": [rows / 2], "url": [url]}))
        .mark_image(**size, aspect=False)
        .encode(x=alt.X("x:Q", scale=x, axis=None), y=alt.Y("y:Q", scale=y, axis=None), url="url:N")
    )
    pick = alt.selection_point(name=CELL, fields=["row", "column"], empty=False)
    cells = (
        alt.Chart(_cells(heat, quantiles))
        .mark_rect(fill="#ffffff", fillOpacity=0, stroke=_MARK, strokeWidth=0, cursor="crosshair")
        .encode(
            x=alt.X("left:Q", scale=x, axis=None),
            x2="right:Q",
            y=alt.Y("top:Q", scale=y, axis=None),
            y2="bottom:Q",
            tooltip=[
                "row",
                "column",
                alt.Tooltip("heat:Q", format=".4g"),
                alt.Tooltip("quantile:Q", format=".5f", title="quantile"),
            ],
        )
        .add_params(pick)
    )
    layers = [under, cells]
    if place is not None:
        _, row, column = place
        layers.append(_ring(row, column, x, y, rows / min(rows, CELLS)))
    chart: Layered = alt.layer(*layers).properties(**size, padding=_NO_PADDING).configure_view(stroke=None)
    return chart


def _ring(row: int, column: int, x: alt.Scale, y: alt.Scale, wide: float) -> alt.Chart:
    """A box around the cell that is chosen, at least as wide as a cell that can be clicked."""
    spare = (wide - 1) / 2
    box = {
        "left": [column - spare],
        "right": [column + 1 + spare],
        "top": [row - spare],
        "bottom": [row + 1 + spare],
    }
    ring: alt.Chart = (
        alt.Chart(pd.DataFrame(box))
        .mark_rect(fillOpacity=0, stroke=_MARK, strokeWidth=2.5, tooltip=None)
        .encode(
            x=alt.X("left:Q", scale=x, axis=None),
            x2="right:Q",
            y=alt.Y("top:Q", scale=y, axis=None),
            y2="bottom:Q",
        )
    )
    return ring


def _cells(heat: Tensor, quantiles: NDArray[np.floating]) -> pd.DataFrame:
    """A row a cell that can be clicked: its box, and row, column, heat and quantile of its hottest position."""
    values = heat.double().cpu().numpy()  # [h, w]
    height, width = values.shape
    down, across = -(-height // CELLS), -(-width // CELLS)
    rows = []
    for top in range(0, height, down):
        for left in range(0, width, across):
            block = values[top : top + down, left : left + across]
            row, column = np.unravel_index(int(block.argmax()), block.shape)
            at = (top + int(row), left + int(column))
            rows.append(
                {
                    "top": top,
                    "bottom": min(top + down, height),
                    "left": left,
                    "right": min(left + across, width),
                    "row": at[0],
                    "column": at[1],
                    "heat": float(values[at]),
                    "quantile": float(quantiles[at]),
                }
            )
    return pd.DataFrame(rows)


def scale_bar(quantiles: Sequence[float]) -> str:
    """The colours of a heat map as HTML, with the quantiles of the heat that stand at even steps of them."""
    last = len(quantiles) - 1
    shifts = {0: "0", last: "-100%"}
    marks = "".join(
        f'<span style="position:absolute;top:9px;left:{100 * place / last:.1f}%;'
        f'transform:translateX({shifts.get(place, "-50%")})">{quantile:g}</span>'
        for place, quantile in enumerate(quantiles)
    )
    return (
        '<div style="position:relative;height:26px;font-size:.72rem;opacity:.85">'
        f'<div style="height:8px;border-radius:2px;border:1px solid {_FAINT};background:linear-gradient(90deg,'
        f'{_COLOURS})"></div>{marks}</div>'
    )
