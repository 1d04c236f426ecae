"""A map of keys as a figure for a paper: points in the colours of their concepts, or the patches themselves.

    save_figure(map_figure(found), "map.pdf")
    save_figure(map_figure(found, thumbnails=True, width="page"), "map-patches.pdf")

Two concepts that share a colour have different marks. The axes of a map have no meaning of their own, so none are
drawn; both have one scale.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dissect.key_map import KeyMap
from dissect.paper import (
    CHARACTER,
    DPI,
    LINE,
    TITLE,
    WIDTHS,
    Width,
    fitting,
    page,
    printed,
    put,
    shortened,
    write,
)
from dissect.plots import GREY, HATCHES, INK, NAME, Style, styles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["map_figure"]

MARKS = "os^Dv"
"""Of concepts that share a colour, in this order."""
TALLEST = 1400
"""Pixels that a map is high, at most."""
EDGE = 24
PATCH = 60
"""Pixels that a patch is wide, about."""
FRAME = 4
"""Pixels of a concept's colour around a patch."""
NONE = "no concept"


def map_figure(
    found: KeyMap, title: str | None = None, *, thumbnails: bool = False, width: Width = "column"
) -> Figure:
    """The points of a map, each in the colour of its concept, the rarer on top; how many of each stand below.

    With `thumbnails` there are patches in place of points, framed in that colour: as many as fit without covering
    each other, those of rare concepts first.
    """
    counts = Counter(name for name in found.concepts if name)
    names = [name for name, _ in counts.most_common()]
    looks = dict(zip(names, styles(names), strict=True))
    said = {name: f"{shortened(name, NAME)}: {count:,}" for name, count in counts.most_common()}
    if names and (rest := len(found.concepts) - counts.total()):
        said[NONE] = f"{NONE}: {rest:,}"
    across, top = round(WIDTHS[width] * DPI), LINE * bool(title)
    places = _flow(list(said.values()), across - 2 * EDGE)
    side = (PATCH if thumbnails else 12) / 2 + FRAME + EDGE
    points, tall = _placed(found.points, across, side)  # [k, 2] in pixels
    points[:, 1] += top
    legend = top + tall + 6
    figure, axes = page(across, legend + LINE * (places[-1][1] + 1 if places else 0) + 6)
    order = sorted(range(len(points)), key=lambda row: -counts.get(found.concepts[row], len(points)))
    if thumbnails:
        _patches(axes, found, points, order[::-1], looks)
    else:
        for name in ["", *names]:
            rows = [row for row in order if found.concepts[row] == name]
            axes.plot(*points[rows].T, ls="", **_mark(looks.get(name)))
    for (name, text), (x, row) in zip(said.items(), places, strict=True):
        y = legend + (row + 0.5) * LINE
        axes.plot(EDGE + x + 6, y, **_mark(looks.get(name)))
        write(axes, text, EDGE + x + 22, y, ha="left", va="center_baseline", color=INK)
    if title:
        write(axes, title, 12, LINE / 2, fitting(title, across - 24, TITLE), ha="left", va="center")
    return figure


def _placed(points: NDArray[np.float64], across: int, edge: float) -> tuple[NDArray[np.float64], int]:
    """Points [k, 2] in pixels from the upper left of a page so wide, y upward as ever, and how high that is."""
    low, size = points.min(0), np.maximum(np.ptp(points, axis=0), 1e-12)
    scale = float(min((across - 2 * edge) / size[0], (TALLEST - 2 * edge) / size[1]))
    tall = round(scale * size[1] + 2 * edge)
    x = across / 2 + scale * (points[:, 0] - low[0] - size[0] / 2)
    y = tall - edge - scale * (points[:, 1] - low[1])
    return np.stack([x, y], 1), tall


def _mark(style: Style | None) -> dict[str, Any]:
    """How a point of a concept is drawn; of none, in grey."""
    if style is None:
        return {"marker": "o", "ms": 1.6, "mfc": GREY, "mew": 0}
    mark = MARKS[HATCHES.index(style.hatch)]
    return {"marker": mark, "ms": 2.4, "mfc": style.colour, "mec": style.edge, "mew": 0.2}


def _patches(
    axes: Any,
    found: KeyMap,
    points: NDArray[np.float64],
    order: Sequence[int],
    looks: Mapping[str, Style],
) -> None:
    """Patches at their points, in an order of which the first are sure to be seen."""
    native = found.patches.shape[1]
    side = max(1, PATCH // native) * native if native <= PATCH else PATCH
    step = side + 2 * FRAME + 2
    kept = np.empty((0, 2))
    for row in order:
        point = points[row]
        if (np.abs(kept - point).max(1, initial=0) < step).any() if len(kept) else False:
            continue
        kept = np.concatenate([kept, point[None]])
        x, y = (round(float(value) - side / 2) for value in point)
        style = looks.get(found.concepts[row])
        colour = np.array([189, 189, 189] if style is None else [round(255 * part) for part in style.colour])
        frame = np.broadcast_to(colour.astype(np.uint8), (side + 2 * FRAME, side + 2 * FRAME, 3)).copy()
        frame[FRAME:-FRAME, FRAME:-FRAME] = printed(found.patches[row], (side, side))
        put(axes, frame, (x - FRAME, y - FRAME))


def _flow(texts: Sequence[str], room: int) -> list[tuple[int, int]]:
    """Where each entry of a legend starts, as (x, line), so that none sticks out of `room` pixels."""
    places, x, line = [], 0, 0
    for text in texts:
        wide = 22 + len(text) * CHARACTER + 18
        if x and x + wide > room:
            x, line = 0, line + 1
        places.append((x, line))
        x += wide
    return places
