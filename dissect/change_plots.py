"""Changes of concepts as a figure for a paper: what an intervention, a rule or another model adds and takes away.

    save_figure(changes_figure(effects.table(), "units 3, 17 of l08 ablated"), "effects.pdf")
    save_figure(changes_figure(comparison.concepts()), "changes.svg")
    save_figure(where_figure(comparison.where, names), "where.png")

Rows come from `dissect.effects` and `dissect.compare`: concept, effect, low, high. The greatest changes are on top.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from dissect.concepts.palette import colour_of
from dissect.figures import grid_figure
from dissect.paper import CHARACTER, DPI, LINE, TEXT, TITLE, WIDTHS, Width, page, panel, shortened, write
from dissect.signed import signed

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["changes_figure", "where_figure"]

NAME = 16
"""Letters of a concept's name that are printed, at most."""
ROWS, ROW = 24, 34
"""Concepts that are shown, at most, and pixels from one to the next."""
QUIET = "#777777"


def changes_figure(table: pd.DataFrame, title: str | None = None, *, width: Width = "column") -> Figure:
    """How much the share of each concept changes, in points of the pixels, with its 95 % interval."""
    order = table["effect"].abs().sort_values(ascending=False, kind="stable").index[:ROWS]
    shown = table.loc[order]
    across, left, top = round(WIDTHS[width] * DPI), NAME * CHARACTER + 12, LINE * (1 + bool(title))
    tall = max(1, len(shown)) * ROW + 10
    figure, axes = page(across, top + tall + LINE * 2)
    chart = panel(figure, left, top, across - left - 24, tall)
    points = 100 * shown[["effect", "low", "high"]].to_numpy()
    for place, (name, (effect, low, high)) in enumerate(zip(shown["concept"], points, strict=True)):
        red, green, blue = (value / 255 for value in colour_of(name))
        chart.barh(place, effect, 0.7, color=(red, green, blue), edgecolor=QUIET, linewidth=0.3)
        chart.plot([low, high], [place, place], color="black", lw=0.8)
    chart.axvline(0, color=QUIET, lw=0.5)
    chart.set_yticks(
        range(len(shown)), [shortened(name, NAME) for name in shown["concept"]], parse_math=False
    )
    chart.set_ylim(max(1, len(shown)) - 0.5, -0.5)
    chart.tick_params(axis="y", length=0)
    chart.set_xlabel("change of the share of pixels, in points", fontsize=TEXT, labelpad=1)
    if title:
        write(axes, shortened(title, (across - 24) // CHARACTER), 12, LINE / 2, TITLE, ha="left", va="center")
    return figure


def where_figure(
    where: Tensor, names: Sequence[str], title: str | None = None, *, width: Width = "column"
) -> Figure:
    """Where each concept is more often (red) or less often (blue): maps [L, H, W] on one scale, each over its name."""
    pictures = signed(where.numpy())  # [L, H, W, 3]
    return grid_figure(pictures, [shortened(name, NAME) for name in names], title, width=width)
