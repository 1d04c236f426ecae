"""A ranking as a figure: how much of a concept is left when more and more units are ablated.

found = rank_units(generator, spec, "l08", "eyes", source, candidates, count=8)
save_figure(curve_figure(found), "ranking.pdf")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dissect.paper import DPI, FONT, LINE, TEXT, TITLE, WIDTHS, Width, fitting, page, write
from dissect.ranking import Ranking

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["curve_figure"]

LEFT, BOTTOM, RIGHT = 150, 120, 24
"""Pixels beside the plot, for the numbers on its axes and what they count."""
HEIGHT = 600
COLOUR, QUIET = "#2f6db3", "#777777"


def curve_figure(ranking: Ranking, *, width: Width = "column") -> Figure:
    """The share of pixels that are the concept, against how many units are ablated, with its interval.

    Under each number stands the unit that was added. The interval is the bootstrap's, over the pictures that did not
    choose.
    """
    across = round(WIDTHS[width] * DPI)
    figure, whole = page(across, HEIGHT)
    pictures = len(ranking.curve.seeds)
    title = f"{ranking.concept} left in {pictures:,} pictures, with units of {ranking.layer} ablated"
    write(whole, title, LEFT, LINE, fitting(title, across - LEFT, TITLE), va="center")
    top = 2 * LINE
    corner = (LEFT / across, BOTTOM / HEIGHT)
    size = ((across - LEFT - RIGHT) / across, (HEIGHT - top - BOTTOM) / HEIGHT)
    _plot(figure.add_axes((*corner, *size)), ranking)
    label = "units ablated, and the one that was added"
    write(whole, label, LEFT + size[0] * across / 2, HEIGHT - LINE / 2, ha="center", va="center")
    label = "share of pixels, %"
    write(whole, label, LINE / 2, top + size[1] * HEIGHT / 2, ha="center", va="center", rotation=90)
    return figure


def _plot(axes: Any, ranking: Ranking) -> None:
    table = ranking.table()
    before = float(table["before"].iloc[0])
    numbers = [0, *table["units"].tolist()]
    left, low, high = (
        [100 * before, *(100 * (before + table[name])).tolist()] for name in ("effect", "low", "high")
    )
    axes.fill_between(numbers, low, high, color=COLOUR, alpha=0.2, linewidth=0)
    axes.plot(numbers, left, color=COLOUR, linewidth=1, marker="o", markersize=2.5)
    axes.axhline(100 * before, color=QUIET, linewidth=0.5, linestyle=":")
    axes.set_ylim(0, 1.05 * max(*high, *left) or 1)
    axes.margins(x=0.03)
    names = ["0", *(f"{number}\n{unit}" for number, unit in zip(numbers[1:], ranking.units, strict=True))]
    axes.set_xticks(numbers, names)
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        text.set(fontsize=TEXT, family=FONT)
    axes.tick_params(width=0.5, length=2, pad=2)
    for side, spine in axes.spines.items():
        spine.set(visible=side in ("left", "bottom"), linewidth=0.5)
