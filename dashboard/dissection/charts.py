"""Charts of a dissection: detectors a layer, the values of a unit, its concepts, and what ablating it changes.

Every concept has its colour of `dissect.concepts.palette`. Lines and marks that no concept owns are grey, which both
themes leave legible.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

import altair as alt
import pandas as pd

from dissect.concepts.palette import colour_of
from dissect.tables import Dissection
from rewrite_core.statistics.histogram import Bars

__all__ = [
    "NOTHING",
    "PICK",
    "concepts_chart",
    "detectors_chart",
    "dot",
    "effects_chart",
    "hex_of",
    "legend",
    "values_chart",
]

PICK = "pick"
"""The selection of `detectors_chart`: points with `layer` and `concept`."""
NOTHING = "no concept"
"""What units stand for that detect nothing."""

Layered = alt.LayerChart | alt.FacetChart
"""What altair takes a layered chart for."""

_GREY = "#8a8f9c"
_FAINT = "#8a8f9c38"
_EDGE: dict[str, Any] = {"stroke": _GREY, "strokeWidth": 0.5}


def hex_of(concept: str) -> str:
    """The colour of a concept, as ``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*colour_of(concept))


def detectors_chart(found: Dissection) -> alt.Chart:
    """The share of each layer's units that detect each concept, a bar a layer; a click picks layer and concept."""
    counts = found.detectors()
    units = found.summary().set_index("layer")
    counts[NOTHING] = units["units"] - units["detectors"]
    rows = counts.reset_index().melt("layer", var_name="concept", value_name="units")
    rows = rows[rows["units"] > 0]
    rows["order"] = rows["concept"].map({name: place for place, name in enumerate(counts.columns)})
    names = [name for name in counts.columns if name in set(rows["concept"])]
    colours = [_FAINT if name == NOTHING else hex_of(name) for name in names]
    pick = alt.selection_point(name=PICK, fields=["layer", "concept"])
    chart: alt.Chart = (
        alt.Chart(rows)
        .mark_bar(cursor="pointer", **_EDGE)
        .encode(
            x=alt.X("units:Q", stack="normalize", axis=alt.Axis(title=None, format="%", grid=False)),
            y=alt.Y("layer:N", sort=list(counts.index), title=None, scale=alt.Scale(paddingInner=0.25)),
            color=alt.Color("concept:N", scale=alt.Scale(domain=names, range=colours), legend=None),
            order=alt.Order("order:Q"),
            opacity=alt.condition(pick, alt.value(1.0), alt.value(0.35)),
            tooltip=["layer", "concept", "units"],
        )
        .add_params(pick)
        .properties(height=30 + len(counts) * (24 if len(counts) <= 10 else 17))
    )
    return chart


def legend(concepts: Iterable[str]) -> str:
    """What the colours of `concepts` stand for, as HTML in a few lines."""
    entries = (
        f'<span style="white-space:nowrap"><span style="{dot(name)}margin-right:.35em"></span>'
        f"{html.escape(name)}</span>"
        for name in concepts
    )
    return (
        '<div style="display:flex;flex-wrap:wrap;gap:.1em 1em;font-size:.82rem;opacity:.85">'
        f"{''.join(entries)}</div>"
    )


def dot(concept: str) -> str:
    """The style of an inline element that shows the colour of a concept; `NOTHING` has that of its bars."""
    fill = _FAINT if concept == NOTHING else hex_of(concept)
    shape = "display:inline-block;width:.72em;height:.72em;border-radius:50%;"
    return f"{shape}background:{fill};border:1px solid {_GREY};"


def values_chart(bars: Bars, threshold: float, concept: str) -> Layered:
    """How the values of a unit are distributed, with its threshold; exact zeros are left to words."""
    edges = bars.edges.tolist()
    rows = pd.DataFrame({"low": edges[:-1], "high": edges[1:], "share": bars.shares.tolist()})
    colour = hex_of(concept) if concept else _GREY
    above = alt.datum.high > threshold
    drawn = (
        alt.Chart(rows)
        .mark_bar(**_EDGE)
        .encode(
            x=alt.X("low:Q", title="value", scale=alt.Scale(nice=False), axis=alt.Axis(grid=False)),
            x2="high:Q",
            y2=alt.datum(0),
            y=alt.Y(
                "share:Q",
                title=None,
                axis=alt.Axis(format="%", tickCount=4),
                scale=alt.Scale(type="sqrt"),
            ),
            color=alt.condition(above, alt.value(colour), alt.value(_FAINT)),
            tooltip=[alt.Tooltip(name, format=".3g") for name in ("low", "high", "share")],
        )
    )
    line = alt.Chart(pd.DataFrame({"threshold": [threshold]})).mark_rule(
        color=_GREY, strokeDash=[4, 3], size=1.5
    )
    marked = line.encode(x="threshold:Q", tooltip=[alt.Tooltip("threshold", format=".3g")])
    return alt.layer(drawn, marked).properties(height=198)


def concepts_chart(rows: pd.DataFrame) -> Layered:
    """Held-out IoU with each concept as a bar, the IoU at the set threshold as a dot, the baseline as a tick."""
    names = rows.sort_values("held_out_iou", ascending=False)["concept"].head(12).tolist()
    shown = rows[rows["concept"].isin(names)]
    y = alt.Y(
        "concept:N",
        sort=names,
        title=None,
        axis=alt.Axis(labelOverlap=False, labelFlush=False, labelBound=False),
    )
    numbers = ("held_out_iou", "baseline", "iou", "precision", "recall")
    tooltip: list[Any] = ["concept", *(alt.Tooltip(name, format=".3f") for name in numbers)]
    base = alt.Chart(shown).encode(y=y, tooltip=tooltip)
    axis = alt.Axis(title="IoU", grid=False, tickCount=5)
    held = base.mark_bar(**_EDGE).encode(x=alt.X("held_out_iou:Q", axis=axis), color=_coloured(names))
    chosen = base.mark_point(color=_GREY, filled=False, size=32).encode(x="iou:Q")
    baseline = base.mark_tick(color=_GREY, thickness=2.5, size=15).encode(x="baseline:Q")
    return alt.layer(held, chosen, baseline).properties(height=max(190, 62 + 17 * len(names)))


def effects_chart(rows: pd.DataFrame) -> Layered:
    """How much of each concept there is more after than before, with its interval."""
    names = rows.reindex(rows["effect"].abs().sort_values(ascending=False).index)["concept"].head(12).tolist()
    shown = rows[rows["concept"].isin(names)]
    numbers: list[Any] = [alt.Tooltip(name, format="+.3%") for name in ("effect", "low", "high")]
    shares: list[Any] = [alt.Tooltip(name, format=".2%") for name in ("before", "after")]
    base = alt.Chart(shown).encode(
        y=alt.Y(
            "concept:N",
            sort=names,
            title=None,
            axis=alt.Axis(labelOverlap=False, labelFlush=False, labelBound=False),
        ),
        tooltip=["concept", *numbers, *shares],
    )
    axis = alt.Axis(title="change of the share of pixels", format="+.1%", tickCount=5)
    bars = base.mark_bar(**_EDGE).encode(x=alt.X("effect:Q", axis=axis), color=_coloured(names))
    interval = base.mark_rule(color=_GREY, size=2).encode(x="low:Q", x2="high:Q")
    return alt.layer(bars, interval).properties(height=62 + 19 * len(names))


def _coloured(names: list[str]) -> alt.Color:
    scale = alt.Scale(domain=names, range=[hex_of(name) for name in names])
    return alt.Color("concept:N", scale=scale, legend=None)
