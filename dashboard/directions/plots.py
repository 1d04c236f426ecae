"""Charts of what a direction does, of what directions share, and of a layer's spectrum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rewrite_core.directions.spectrum import SPREAD, Spectrum
from rewrite_core.pictures import Picture

__all__ = [
    "channels_chart",
    "cumulative_chart",
    "effect_bar",
    "effect_picture",
    "eigenvalues_chart",
    "greatest",
    "matrix_chart",
]

_GREY, _FAINT, _ACCENT = "#8a8f9c", "#8a8f9c38", "#5661cc"  # legible in both themes
_VIRIDIS = ("#440154", "#3b528b", "#21918c", "#5ec962", "#fde725")
_DIVERGING = ["#7f3b08", "#b35806", "#e08214", "#fdb863", "#fee0b6", "#f4f4f4"]
_DIVERGING += ["#d1e5f0", "#92c5de", "#4393c3", "#2166ac", "#053061"]
"""The theme's, with white between: brown for minus one, blue for one."""
_QUIET: dict[str, Any] = {"grid": False, "domain": False, "ticks": False}
_PADDING = {"left": 0, "right": 4, "top": 4, "bottom": 6}
_POINTS = 400
"""Points of a line, at most: more than a screen resolves."""
_LABELS, _NUMBERED = 90, 34
"""Pixels for names beside a matrix, and of a cell that has room for its number."""

Layered = alt.LayerChart | alt.FacetChart
"""What altair takes a layered chart for."""


# What a direction does


def greatest(*maps: NDArray[np.floating]) -> float:
    """The end of a scale for `maps` [H, W] of changes: their greatest, rounded up to one digit."""
    most = max((float(one.max()) for one in maps if one.size), default=0.0)
    if most <= 0:
        return 0.01
    digit = 10.0 ** math.floor(math.log10(most))
    return min(1.0, math.ceil(most / digit) * digit)


def effect_picture(effect: NDArray[np.floating], most: float) -> Picture:
    """A map [H, W] of changes from 0 to `most` in colours, [H, W, 3]."""
    stops = np.array([[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in _VIRIDIS])  # [S, 3]
    places = np.clip(effect / most, 0, 1) * (len(stops) - 1)  # [H, W]
    channels = [np.interp(places, range(len(stops)), channel) for channel in stops.T]
    return np.stack(channels, axis=-1).astype(np.uint8)


def effect_bar(most: float) -> str:
    """The colours of `effect_picture` as HTML, from 0 to `most`."""
    ends = f"<span>0</span><span>mean change</span><span>{100 * most:g} %</span>"
    return (
        '<div style="font-size:.72rem;opacity:.85">'
        f'<div style="height:8px;border-radius:2px;background:linear-gradient(90deg,{",".join(_VIRIDIS)})"></div>'
        f'<div style="display:flex;justify-content:space-between">{ends}</div></div>'
    )


def channels_chart(channels: pd.DataFrame) -> alt.Chart:
    """The output channels that a direction writes to: channel, norm, share, strongest first."""
    chart: alt.Chart = (
        alt.Chart(channels)
        .mark_bar(cornerRadiusEnd=2, color=_ACCENT)
        .encode(
            x=alt.X("share:Q", title=None, axis=alt.Axis(format="~%", tickCount=3, **_QUIET)),
            y=alt.Y(
                "channel:N",
                sort=None,
                title=None,
                axis=alt.Axis(labelOverlap=False, labelFlush=False, **_QUIET),
            ),
            tooltip=[
                "channel",
                alt.Tooltip("norm:Q", format=".3g", title="norm of the value"),
                alt.Tooltip("share:Q", format=".1%", title="of the squared norm"),
            ],
        )
        .properties(height=17 * len(channels) + 24, padding=_PADDING)
    )
    return chart


# What directions share


def matrix_chart(names: Sequence[str], matrix: NDArray[np.floating], side: int) -> Layered:
    """A matrix [M, M] of shares from -1 to 1, rows and columns called by `names`, at most `side` pixels wide."""
    cells = pd.DataFrame(
        [
            {"row": one, "column": other, "value": float(matrix[i, j])}
            for i, one in enumerate(names)
            for j, other in enumerate(names)
        ]
    )
    cell = min(64, (side - _LABELS) // max(1, len(names)))
    colour = alt.Color("value:Q", scale=alt.Scale(domain=[-1, 1], clamp=True, range=_DIVERGING), legend=None)
    look: dict[str, Any] = {
        "ticks": False,
        "domain": False,
        "labelLimit": 84,
        "labelOverlap": False,
        "labelBound": False,
    }
    base = alt.Chart(cells).encode(
        x=alt.X("column:N", sort=None, title=None, axis=alt.Axis(orient="top", labelAngle=-40, **look)),
        y=alt.Y("row:N", sort=None, title=None, axis=alt.Axis(**look)),
        tooltip=["row", "column", alt.Tooltip("value:Q", format=".3f")],
    )
    layers = [base.mark_rect(stroke=_FAINT).encode(color=colour)]
    if cell >= _NUMBERED:
        dark = (alt.datum.value > 0.6) | (alt.datum.value < -0.6)
        layers.append(
            base.mark_text(fontSize=12).encode(
                text=alt.Text("value:Q", format=".2f"),
                color=alt.condition(dark, alt.value("#ffffff"), alt.value("#1f2430")),
            )
        )
    size = _LABELS + cell * len(names)  # the names are within it
    chart: Layered = alt.layer(*layers).properties(width=size, height=size, padding=0)
    return chart


# The spectrum


def eigenvalues_chart(spectrum: Spectrum) -> Layered:
    """Eigenvalues on a logarithmic scale; dashed the effective rank, grey what another sample would not confirm."""
    rows = _rows(spectrum)
    stable = alt.condition(alt.datum.stable, alt.value(_ACCENT), alt.value(_GREY))
    marks = (
        alt.Chart(rows)
        .mark_point(filled=True, size=22, opacity=1)
        .encode(
            x=_numbers(spectrum, "eigenvector"),
            y=alt.Y(
                "eigenvalue:Q",
                title="eigenvalue",
                scale=alt.Scale(type="log"),
                axis=alt.Axis(format="~g", values=_powers(spectrum), ticks=False, domain=False),
            ),
            color=stable,
            tooltip=[
                alt.Tooltip("number:Q", title="eigenvector"),
                alt.Tooltip("eigenvalue:Q", format=".3g"),
                alt.Tooltip("share:Q", format=".2%"),
                alt.Tooltip("cumulative:Q", format=".1%"),
                alt.Tooltip("ratio:Q", format=".3g", title="second half ÷ first"),
            ],
        )
    )
    chart: Layered = alt.layer(marks, _rank_rule(spectrum)).properties(height=230, padding=_PADDING)
    return chart


def cumulative_chart(spectrum: Spectrum) -> Layered:
    """The share of the power in the first eigenvectors together."""
    rows = _rows(spectrum)
    line = (
        alt.Chart(rows)
        .mark_area(line={"color": _ACCENT}, color=_ACCENT, opacity=0.14)
        .encode(
            x=_numbers(spectrum, "eigenvectors"),
            y=alt.Y(
                "cumulative:Q",
                title="share of power",
                scale=alt.Scale(domain=[0, 1]),
                axis=alt.Axis(format="%", tickCount=4, ticks=False, domain=False),
            ),
            tooltip=[
                alt.Tooltip("number:Q", title="first eigenvectors"),
                alt.Tooltip("cumulative:Q", format=".1%", title="of the power"),
            ],
        )
    )
    chart: Layered = alt.layer(line, _rank_rule(spectrum)).properties(height=230, padding=_PADDING)
    return chart


def _rows(spectrum: Spectrum) -> pd.DataFrame:
    table = spectrum.table()
    stable = table["ratio"].between(1 / (1 + SPREAD), 1 + SPREAD)
    rows = table.assign(number=table["index"] + 1, stable=stable)
    step = -(-len(rows) // _POINTS)
    return rows if step <= 1 else rows.iloc[::step]


def _numbers(spectrum: Spectrum, title: str) -> alt.X:
    last = max(2, len(spectrum.eigenvalues))
    return alt.X(
        "number:Q",
        title=title,
        scale=alt.Scale(domain=[1, last], nice=False),
        axis=alt.Axis(grid=False, ticks=False, tickCount=6),
    )


def _powers(spectrum: Spectrum) -> list[float]:
    """The powers of ten that the eigenvalues span, a few of them."""
    low, high = (math.floor(math.log10(float(value))) for value in spectrum.eigenvalues[[-1, 0]])
    return [10.0**power for power in range(low, high + 2, max(1, (high - low) // 5))]


def _rank_rule(spectrum: Spectrum) -> alt.Chart:
    rule: alt.Chart = (
        alt.Chart(pd.DataFrame({"number": [spectrum.effective_rank]}))
        .mark_rule(color=_GREY, strokeDash=[4, 3])
        .encode(x="number:Q", tooltip=alt.Tooltip("number:Q", format=".1f", title="effective rank"))
    )
    return rule
