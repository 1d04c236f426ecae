"""The chart of a map of keys: points or patches, coloured by concept or by heat, with a box to brush.

The browser is given each patch once, as a WebP file of some hundred bytes: a thousand take about a quarter of a
megabyte, and a brush sends nothing but its box.
"""

from __future__ import annotations

import base64
import io
from collections import Counter
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from dashboard.directions.choices import Box, Marks
from dashboard.dissection.charts import NOTHING, hex_of
from dissect.key_map import KeyMap
from rewrite_core.pictures import Picture

__all__ = ["BRUSH", "keys_chart", "patch_urls"]

BRUSH = "brush"
"""The selection of `keys_chart`: the interval of `x` and of `y`."""
_GREY, _ACCENT = "#8a8f9c", "#5661cc"  # legible in both themes
_HEAT = ["#8a8f9c", "#3b528b", "#21918c", "#5ec962", "#fde725"]
"""Viridis as over pictures, where its low end is clear: here grey."""
_MARGIN = 0.04
_PATCH, _FRAME = 24, 2
"""Pixels of a patch on screen, about, and of the colour around it."""
_QUALITY = 75
_TOOLTIP = ["image:N", "concept:N", "picture:Q", "row:Q", "column:Q"]
"""A field called `image` is shown as one."""
_NO_PADDING = {"left": 0, "right": 0, "top": 0, "bottom": 0}

Layered = alt.LayerChart | alt.FacetChart
"""What altair takes a layered chart for."""


def keys_chart(
    found: KeyMap, heat: NDArray[np.float64] | None, marks: Marks, box: Box | None, side: int
) -> Layered:
    """The points of a map, `side` pixels wide or high; dragging over it brushes a box, which begins as `box`.

    Coloured by `heat` [k] from 0 to 1 if it is given, else by concept. What is rare or hot lies on top. As patches
    those are shown that do not cover each other, the rare or hot first; the others stay points.
    """
    low, high = _bounds(found.points)
    scale = side / float((high - low).max())  # pixels a unit, the same in both directions
    width, height = (round(scale * float(size)) for size in high - low)
    x, y = (
        alt.Scale(domain=[*map(float, ends)], nice=False, zero=False) for ends in zip(low, high, strict=True)
    )
    rows = _rows(found, heat)
    patch = max(1, round(_PATCH / found.patches.shape[1])) * found.patches.shape[1]
    step = (patch + 2 * _FRAME + 1) / scale
    shown = _apart(rows[["x", "y"]].to_numpy(), step) if marks == "Patches" else np.zeros(len(rows), bool)
    begun: dict[str, Any] = {"value": {"x": list(box[:2]), "y": list(box[2:])}} if box else {}
    brush = alt.selection_interval(
        name=BRUSH,
        encodings=["x", "y"],
        mark=alt.BrushConfig(fill=_ACCENT, fillOpacity=0.2, stroke=_ACCENT, strokeOpacity=1, strokeWidth=1.5),
        **begun,
    )

    def layer(part: pd.DataFrame) -> alt.Chart:
        encoded: alt.Chart = alt.Chart(part).encode(
            x=alt.X("x:Q", scale=x, axis=None), y=alt.Y("y:Q", scale=y, axis=None)
        )
        return encoded

    colour = _colour(rows, heat is not None)
    small = marks == "Patches"
    points = (
        layer(rows[~shown])
        .mark_circle(size=16 if small else 46, opacity=0.5 if small else 0.85)
        .encode(color=colour, tooltip=_TOOLTIP)
        .add_params(brush)
    )
    layers = [points]
    if small:
        framed = layer(rows[shown])
        frame = framed.mark_square(size=(patch + 2 * _FRAME) ** 2, opacity=1).encode(color=colour)
        picture = framed.mark_image(width=patch, height=patch, smooth=False)
        layers += [frame, picture.encode(url="image:N", tooltip=_TOOLTIP)]
    chart: Layered = alt.layer(*layers).properties(width=width, height=height, padding=_NO_PADDING)
    return chart


def patch_urls(patches: Picture) -> list[str]:
    """Patches [k, s, s, 3] as data URLs, each a few hundred bytes."""
    urls = []
    for patch in patches:
        file = io.BytesIO()
        Image.fromarray(patch).save(file, format="WEBP", quality=_QUALITY, method=4)
        urls.append(f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode('ascii')}")
    return urls


def _rows(found: KeyMap, heat: NDArray[np.float64] | None) -> pd.DataFrame:
    """A row for each point, what is to lie on top last."""
    rows = found.table().rename(columns={"seed": "picture"})
    rows[["x", "y"]] = rows[["x", "y"]].astype(np.float32)
    rows["concept"] = rows["concept"].where(rows["concept"] != "", NOTHING)
    rows["image"] = patch_urls(found.patches)
    if heat is None:
        counts = Counter(rows["concept"])
        order = rows["concept"].map(lambda name: -len(rows) if name == NOTHING else -counts[name])
    else:
        rows["heat"] = heat.astype(np.float32)
        order = rows["heat"]
    return rows.iloc[np.argsort(order.to_numpy(), kind="stable")].reset_index(drop=True)


def _colour(rows: pd.DataFrame, hot: bool) -> alt.Color:
    if hot:
        return alt.Color("heat:Q", scale=alt.Scale(domain=[0, 1], range=_HEAT), legend=None)
    names = sorted(set(rows["concept"]))
    colours = [_GREY if name == NOTHING else hex_of(name) for name in names]
    return alt.Color("concept:N", scale=alt.Scale(domain=names, range=colours), legend=None)


def _apart(points: NDArray[np.floating], step: float) -> NDArray[np.bool_]:
    """Which of the points [k, 2] are kept, from the last on, so that none is nearer than `step` in both axes: [k]."""
    kept, chosen = np.zeros(len(points), bool), np.empty((0, 2))
    for row in range(len(points) - 1, -1, -1):
        if not (np.abs(chosen - points[row]).max(1, initial=0) < step).any():
            kept[row], chosen = True, np.concatenate([chosen, points[row][None]])
    return kept


def _bounds(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower left and upper right of the map, [2] each, with a margin; neither side is less than half of the other."""
    low, high = points.min(0), points.max(0)
    longer = float((high - low).max()) or 1.0
    half = np.maximum(high - low, longer / 2) / 2 + _MARGIN * longer
    middle = (low + high) / 2
    return middle - half, middle + half
