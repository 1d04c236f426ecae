"""Figures of one unit: its sheet, and what ablating it does.

    save_figure(sheet_figure(sheet), "unit.pdf")
    save_figure(ablation_figure(strips, seeds, effects.table(), "eyes"), "ablated.pdf")

Pictures stand on the left of a page, or above in a column, each with its seed; charts stand beside or below them. The
line around a region is two pixels of print wide, so that it is seen at any size of picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dissect.paper import (
    DPI,
    GAP,
    LINE,
    TEXT,
    TITLE,
    WIDTHS,
    Width,
    fitting,
    page,
    panel,
    printed,
    put,
    shortened,
    write,
)
from dissect.plots import INK, NAME, concept_bars, styles
from dissect.sheet import OUTLINE, Range, UnitSheet
from rewrite_core.pictures import Picture, outline

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ablation_figure", "sheet_figure"]

COLUMNS: Mapping[Width, int] = {"page": 8, "column": 4}
"""Pictures beside each other."""
ROOM: Mapping[Width, int] = {"page": 1330, "column": round(WIDTHS["column"] * DPI)}
"""Pixels that they take, at most."""
BESIDE = 60
"""Between the pictures and the charts."""
LABELS = 190
"""For the names of concepts, left of a chart."""
SHOWN = 10
"""Concepts in the chart of a sheet, at most."""
ROW = 30
CHART = 190


def sheet_figure(sheet: UnitSheet, title: str | None = None, *, width: Width = "page") -> Figure:
    """The pictures of each range with the unit's region outlined, the histogram of its values, and IoU by concept.

    In a column the top pictures are four. Of many concepts the ten of the best held-out IoU are shown.
    """
    columns = COLUMNS[width]
    rows = _rows(sheet.ranges, columns)
    cell = _cell(sheet.ranges[0].pictures.shape[1:3], columns, ROOM[width])
    head, step = LINE + GAP, LINE * 2 + cell[0] + GAP
    table = sheet.concepts().sort_values("held_out_iou", ascending=False, kind="stable")[:SHOWN]
    charts = _Charts.of(width, columns * (cell[1] + GAP), head, head + len(rows) * step)
    low = charts.top + CHART + LINE * 3
    tall = len(table) * ROW
    figure, axes = page(round(WIDTHS[width] * DPI), max(head + len(rows) * step, low + tall + LINE * 2 + 24))
    for number, row in enumerate(rows):
        _put_row(axes, row, head + number * step, cell, columns)
    _histogram(panel(figure, charts.left, charts.top, charts.wide, CHART), sheet)
    chart = panel(figure, charts.left, low, charts.wide, tall)
    concept_bars(chart, table.concept, table.held_out_iou, table.baseline, 0.0)
    chart.set_xlabel("held-out IoU (tick: baseline)", fontsize=TEXT, labelpad=1)
    _title(axes, title or _said(sheet))
    return figure


def ablation_figure(
    strips: Mapping[str, Picture],
    seeds: Sequence[int],
    effects: pd.DataFrame | None = None,
    title: str | None = None,
    *,
    width: Width = "page",
) -> Figure:
    """Pictures before and after, a row for each of `strips`, and how much of each concept that takes away or adds.

    Args:
        strips: name → pictures [N, H, W, 3]; the first are those before.
        seeds: of the N pictures; as many are shown as stand beside each other.
        effects: `Effects.table()` of sets that are called as the other strips are; without it, no chart.
        title: over all of it.
        width: of a column or a page.
    """
    columns = COLUMNS[width]
    word = 36
    cell = _cell(next(iter(strips.values())).shape[1:3], columns, ROOM[width] - word)
    head = (LINE + GAP) * bool(title)
    high = head + len(strips) * (cell[0] + GAP) + LINE
    charts = _Charts.of(width, word + columns * (cell[1] + GAP), head + GAP, high)
    shown = None if effects is None else _most_changed(effects)
    tall = 0 if shown is None else ROW * shown.concept.nunique()
    below = 0 if shown is None else charts.top + tall + LINE * 3 + 24
    across = word + columns * (cell[1] + GAP) if shown is None else round(WIDTHS[width] * DPI)
    figure, axes = page(across, max(high, below))
    for level, (name, pictures) in enumerate(strips.items()):
        top = head + level * (cell[0] + GAP)
        size = fitting(name, cell[0], TEXT)
        write(axes, name, word / 2 - 3, top + cell[0] / 2, size, ha="center", va="center", rotation=90)
        for place, picture in enumerate(pictures[:columns]):
            put(axes, printed(picture, cell), (word + place * (cell[1] + GAP), top))
    for place, seed in enumerate(seeds[:columns]):
        _seed(axes, seed, word + place * (cell[1] + GAP) + cell[1] / 2, high - LINE / 2)
    if shown is not None:
        _effects(panel(figure, charts.left, charts.top, charts.wide, tall), shown)
    _title(axes, title)
    return figure


@dataclass(frozen=True)
class _Charts:
    """Where charts are, in pixels."""

    left: int
    top: int
    wide: int

    @classmethod
    def of(cls, width: Width, right: int, beside: int, below: int) -> _Charts:
        """Beside pictures that end at `right`, from `beside` down; in a column from `below` down."""
        across = round(WIDTHS[width] * DPI)
        left = right + BESIDE + LABELS if width == "page" else LABELS
        top = beside + LINE if width == "page" else below + 2 * LINE
        return cls(left, top, across - left - 12)


def _rows(ranges: Sequence[Range], columns: int) -> list[list[Range]]:
    """Ranges side by side, as many as fit into so many columns; of one that is longer only the first."""
    rows: list[list[Range]] = []
    room = 0
    for one in ranges:
        if len(one.seeds) > room:
            rows.append([])
            room = columns
        rows[-1].append(one)
        room -= len(one.seeds)
    return rows


def _cell(size: tuple[int, int], columns: int, room: int) -> tuple[int, int]:
    """Height and width that pictures of `size` are printed at: a whole factor, or reduced."""
    height, width = size
    most = max(1, room // columns - GAP)
    if most >= width:
        return most // width * height, most // width * width
    return max(1, round(most * height / width)), most


def _put_row(axes: Any, ranges: Sequence[Range], top: int, cell: tuple[int, int], columns: int) -> None:
    """Pictures of some ranges side by side, the name of each range above, the seeds below."""
    place = 0
    for one in ranges:
        left = place * (cell[1] + GAP)
        said = f"{one.name}: {one.maxima[0]:.3g} to {one.maxima[min(columns, len(one.maxima)) - 1]:.3g}"
        write(axes, said, left, top + LINE / 2, ha="left", va="center", color=INK)
        shown = list(zip(one.seeds, one.pictures, one.masks, strict=True))[:columns]
        for seed, picture, mask in shown:
            x = place * (cell[1] + GAP)
            put(axes, _outlined(picture, mask, cell), (x, top + LINE))
            _seed(axes, seed, x + cell[1] / 2, top + LINE + cell[0] + LINE / 2)
            place += 1


def _outlined(picture: Picture, mask: Any, size: tuple[int, int]) -> Picture:
    """A picture at the size that it is printed at, outlined where `mask` is."""
    shown = printed(np.stack([mask * np.uint8(255)] * 3, -1), size)[..., 0] > 127
    return outline(printed(picture, size), shown, OUTLINE, thickness=2, dim=0.5)


def _histogram(chart: Any, sheet: UnitSheet) -> None:
    """Shares of positions on a logarithmic scale, the threshold, and what lies above it."""
    edges, shares = sheet.bars.edges.numpy(), sheet.bars.shares.numpy()
    chart.bar(edges[:-1], shares, np.diff(edges), align="edge", color="#8a8a8a", lw=0)
    above = edges[:-1] >= sheet.threshold
    chart.bar(edges[:-1][above], shares[above], np.diff(edges)[above], align="edge", color="#d55e00", lw=0)
    chart.axvline(sheet.threshold, color="black", lw=0.7)
    seen = shares[shares > 0]
    if len(seen):
        chart.set_yscale("log")
        chart.set_ylim(
            10 ** math.floor(math.log10(seen.min())), 10 ** math.ceil(math.log10(seen.max()) + 0.01)
        )
    chart.minorticks_off()
    chart.set_xlim(edges[0], edges[-1])
    chart.set_ylabel("share of positions", fontsize=TEXT, labelpad=2)
    chart.set_xlabel(f"value of the {sheet.found.noun}", fontsize=TEXT, labelpad=1)
    for text in [*chart.get_yticklabels(), *chart.get_xticklabels()]:
        text.set_fontsize(TEXT)
    said = [f"above {sheet.threshold:.3g} in {sheet.density:.2%} of pixels"]
    if sheet.bars.zeros:
        said.append(f"exactly 0: {sheet.bars.zeros:.0%} of positions")
    for line, text in enumerate(said):
        chart.annotate(
            text,
            (1, 1),
            (0, 2 - line * TEXT * 1.3),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="right",
            va="bottom" if line == 0 else "top",
            fontsize=TEXT,
            color=INK,
        )


def _most_changed(effects: pd.DataFrame) -> pd.DataFrame:
    """Rows of the concepts that some set changes most, in the order of the concepts."""
    most = effects.effect.abs().groupby(effects.concept, sort=False).max()
    kept = set(most.sort_values(ascending=False, kind="stable")[:SHOWN].index)
    return effects[effects.concept.isin(kept)]


def _effects(chart: Any, effects: pd.DataFrame) -> None:
    """A row for each concept: the effect of each set with its interval, in hundredths of a picture's pixels."""
    concepts = list(dict.fromkeys(effects.concept))
    sets = list(dict.fromkeys(effects.set))
    looks = dict(zip(concepts, styles(concepts), strict=True))
    chart.axvline(0, color=INK, lw=0.4)
    for number, name in enumerate(sets):
        rows = effects[effects.set == name]
        for row in rows.itertuples():
            at = concepts.index(row.concept) + (number - (len(sets) - 1) / 2) * 0.3
            colour = looks[row.concept].line
            chart.plot([100 * row.low, 100 * row.high], [at, at], color=colour, lw=1, solid_capstyle="butt")
            chart.plot(100 * row.effect, at, "os"[number % 2], ms=2.6, mfc=colour, mec="black", mew=0.3)
    for number, name in enumerate(sets):
        chart.plot([], [], "os"[number % 2], ms=2.6, mfc="white", mec="black", mew=0.4, label=name)
    chart.legend(
        fontsize=TEXT,
        frameon=False,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=2,
        borderpad=0,
        handlelength=1,
    )
    chart.set_yticks(range(len(concepts)), [shortened(name, NAME) for name in concepts], parse_math=False)
    chart.set_ylim(len(concepts) - 0.5, -0.5)
    chart.tick_params(axis="y", length=0)
    chart.locator_params(axis="x", nbins=5)
    chart.set_xlabel("change of share, % of pixels", fontsize=TEXT, labelpad=1)


def _said(sheet: UnitSheet) -> str:
    """What a unit is, in a title."""
    what = f"detects {sheet.concept}" if sheet.detector else f"nearest to {sheet.concept}, but no detector"
    return f"{sheet.layer}, {sheet.found.noun} {sheet.unit}: {what if sheet.concept else 'meets no concept'}"


def _seed(axes: Any, seed: int, x: float, y: float) -> None:
    write(axes, str(seed), x, y, ha="center", va="center_baseline", color=INK)


def _title(axes: Any, title: str | None) -> None:
    if title:
        room = axes.get_xlim()[1]
        write(axes, title, 0, LINE / 2, fitting(title, room, TITLE), ha="left", va="center")
