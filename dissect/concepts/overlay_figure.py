"""Labels over pictures as a figure, with the colours explained beneath.

    figure = overlay_figure(labelled(generator, spec, source))
    save_figure(figure, "overlay.pdf")

The labels are painted by `dissect.concepts.overlay.overlay`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dissect.concepts.overlay import Labelled, overlay
from dissect.concepts.palette import colours_of
from dissect.figures import grid_figure
from dissect.paper import DPI, GAP, LINE, TEXT, Width, write
from rewrite_core.pictures import Colour

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["overlay_figure"]

LETTER = math.ceil(0.66 * TEXT * DPI / 72)
"""Pixels that a letter takes, a little more than most do."""


def overlay_figure(found: Labelled, *, width: Width = "page") -> Figure:
    """Every picture with its labels, over its seed; the source's title above, a legend of the concepts below.

    Raises:
        RequestError: there is no picture.
    """
    colours = colours_of(found.names)
    pictures = overlay(found.pictures, found.labels, colours)
    figure = grid_figure(pictures, found.spec.seeds, found.title, width=width)
    _explain(figure, found.names, colours)
    return figure


def _explain(figure: Figure, names: Sequence[str], colours: Sequence[Colour]) -> None:
    """Make room below, and put there a swatch and a name for each concept."""
    across, down = (round(inches * DPI) for inches in figure.get_size_inches())
    places, rows = _places(names, across)
    room = rows * LINE + 2 * GAP
    whole = down + room
    (pictures,) = figure.axes
    figure.set_size_inches(math.nextafter(across / DPI, math.inf), math.nextafter(whole / DPI, math.inf))
    pictures.set_position((0, room / whole, 1, down / whole))
    axes = figure.add_axes((0, 0, 1, room / whole), xlim=(0, across), ylim=(room, 0))
    axes.set_axis_off()
    side = LINE - 2 * GAP
    for name, colour, (left, row) in zip(names, colours, places, strict=True):
        top = GAP + row * LINE + (LINE - side) / 2
        corners = [left, left + side, left + side, left], [top, top, top + side, top + side]
        axes.fill(*corners, facecolor=[part / 255 for part in colour], edgecolor="#777777", linewidth=0.3)
        write(axes, name, left + side + GAP, top + side / 2, va="center_baseline")


def _places(names: Sequence[str], across: int) -> tuple[list[tuple[int, int]], int]:
    """Left and row of each entry of the legend, as many in a row as fit; and how many rows there are."""
    places: list[tuple[int, int]] = []
    left = row = 0
    for name in names:
        wide = LINE + len(name) * LETTER + 2 * GAP
        if left and left + wide > across:
            left, row = 0, row + 1
        places.append((left, row))
        left += wide
    return places, row + 1
