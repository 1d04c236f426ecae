"""Charts of directions for a paper: spectra, scores, precision and recall, overlaps, and the channels written to.

    save_figure(spectrum_figure(spectra(generator, layers, spec, store=store)), "spectra.pdf")
    save_figure(scores_figure(matches(generator, layer, direction.vectors[0], spec)), "scores.svg")
    save_figure(curves_figure(comparison.curves, comparison.precision), "curves.pdf")
    save_figure(overlap_figure(names, query_overlap(tray, C), key_overlap(tray, C)), "overlaps.pdf")
    save_figure(channels_figure(output_channels(written)), "channels.pdf")

They stand on the pages of `dissect.paper`, as wide as a column or a page. Lines have the colours of Okabe and Ito
(2008), which readers with any colour blindness tell apart, and a dash each; signed numbers have those of
`dissect.signed`. Figures with pictures are in `dissect.direction_figures`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from dissect.paper import (
    CHARACTER,
    DPI,
    LINE,
    TEXT,
    TITLE,
    WIDTHS,
    Width,
    fitting,
    page,
    panel,
    shortened,
    write,
)
from dissect.plots import INK, NAME
from dissect.signed import signed
from rewrite_core.errors import RequestError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from rewrite_core.directions.matches import Matches
    from rewrite_core.directions.spectrum import Spectrum

__all__ = [
    "channels_figure",
    "curves_figure",
    "overlap_figure",
    "scores_figure",
    "spectrum_figure",
]

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)), (0, (7, 2)))
QUIET, FILL = "#8a8a8a", "#d9d9d9"

TALL = 420
"""Pixels that a single chart is high."""
SMALL = 300
"""And one of several."""
LEFT, RIGHT, UNDER = 130, 24, 3 * LINE
"""Pixels left, right and below of a chart, for the numbers on its axes and what they count."""
POINTS = 400
"""Points of a line, at most: more than print resolves."""
BINS = 80
ROW = 30
NUMBERED = 14
"""Directions in a matrix whose cells hold their numbers, at most."""


def spectrum_figure(
    spectra: Mapping[str, Spectrum], title: str | None = None, *, width: Width = "column"
) -> Figure:
    """The eigenvalues of each layer's second moment as shares of their sum, descending; a chart for each layer.

    A line marks the effective rank. Shaded are the eigenvectors whose power another sample would not confirm.
    """
    grid = _Multiples.of(len(spectra), width, bool(title), head=4 * LINE)
    figure = grid.figure(title)
    shares = {name: one.eigenvalues.numpy() / float(one.eigenvalues.sum()) for name, one in spectra.items()}
    floor = min(float(share[share > 0].min()) for share in shares.values())
    for place, (name, one) in enumerate(spectra.items()):
        chart, count = grid.chart(figure, place), len(shares[name])
        chart.axvspan(one.stable + 0.5, max(count, one.stable) + 0.5, color=FILL, lw=0)
        chart.plot(range(1, count + 1), _positive(shares[name]), color=COLOURS[0], lw=1)
        chart.axvline(one.effective_rank, color=COLOURS[1], lw=0.8, ls=DASHES[1])
        chart.set_yscale("log")
        chart.set_xlim(1, max(2, count))
        chart.set_ylim(10 ** math.floor(math.log10(floor)), 1)
        chart.minorticks_off()
        few = "" if one.enough else " (too few samples)"
        said = {
            f"{shortened(name, NAME)}: {one.units:,} units": INK,
            f"effective rank {one.effective_rank:.1f}": COLOURS[1],
            f"stable: {one.stable} of {count}{few}": "#666666",
        }
        _say_above(chart, said)
        if grid.begins_row(place):
            chart.set_ylabel("eigenvalue ÷ sum", fontsize=TEXT, labelpad=2)
        chart.set_xlabel("eigenvector", fontsize=TEXT, labelpad=1)
    return figure


def scores_figure(
    matches: Matches,
    quantiles: Sequence[float] = (0.99, 0.999),
    title: str | None = None,
    *,
    width: Width = "column",
) -> Figure:
    """How the heat of all positions is distributed, and the scores of all pictures, each its greatest heat.

    Lines mark quantiles of the heat over all positions: the levels above which a match is outlined.
    """
    heat, scores = matches.heat.flatten().numpy(), matches.scores.numpy()
    below, chart, axes, figure = _single(width, title, len(quantiles) + 2)
    edges = np.linspace(heat.min(), max(heat.max(), heat.min() + 1e-12), BINS + 1)
    shares = [np.histogram(values, edges)[0] / len(values) for values in (heat, scores)]
    chart.stairs(shares[0], edges, fill=True, color=FILL)
    chart.stairs(shares[1], edges, color=COLOURS[0], lw=0.9)
    chart.set_yscale("log")
    chart.set_ylim(10 ** math.floor(math.log10(1 / len(heat))), 1)
    chart.minorticks_off()
    chart.set_xlim(edges[0], edges[-1])
    _entry(axes, below, 0, f"all {len(heat):,} positions", color=FILL, lw=5)
    _entry(
        axes, below, 1, f"{len(scores):,} pictures by score, their greatest heat", color=COLOURS[0], lw=0.9
    )
    for number, quantile in enumerate(sorted(quantiles)):
        level = matches.level(quantile)
        look: dict[str, Any] = {"color": COLOURS[1], "lw": 0.8, "ls": DASHES[1 + number % 4]}
        chart.axvline(level, **look)
        above = float((scores > level).mean())
        _entry(
            axes,
            below,
            2 + number,
            f"{quantile:g} quantile, {level:.3g}: {above:.1%} of pictures above",
            **look,
        )
    chart.set_xlabel("heat", fontsize=TEXT, labelpad=1)
    chart.set_ylabel("share in each bin", fontsize=TEXT, labelpad=2)
    return figure


def curves_figure(
    curves: pd.DataFrame, precision: pd.DataFrame, title: str | None = None, *, width: Width = "column"
) -> Figure:
    """Precision against recall of each method; the dotted line is chance, the share that the concept covers.

    Args:
        curves: method, recall, precision, a row for each point.
        precision: method, average_precision, low, high, share, a row for each method.
        title: over all of it.
        width: of a column or a page.

    Raises:
        RequestError: no method was judged.
    """
    if not len(precision):
        raise RequestError(
            found="no method that was judged",
            expected="at least one, with its average precision",
            remedy="Choose a concept to judge the methods by.",
        )
    best = precision.sort_values("average_precision", ascending=False, kind="stable")
    below, chart, axes, figure = _single(width, title, len(best) + 1)
    methods = list(dict.fromkeys(curves["method"]))  # a method's colour does not depend on how good it is
    for line, row in enumerate(best.itertuples()):
        look = {**_look(methods.index(row.method)), "lw": 1}
        recall, precise = _thinned(curves[curves["method"] == row.method])
        chart.plot(recall, precise, drawstyle="steps-pre", **look)  # average precision is the area below
        said = f"{shortened(str(row.method), NAME)}: AP {row.average_precision:.3f} ({row.low:.3f} to {row.high:.3f})"
        _entry(axes, below, line, said, **look)
    chance = float(precision["share"].iloc[0])
    chart.axhline(chance, color=QUIET, lw=0.7, ls=":")
    _entry(axes, below, len(best), f"chance: {chance:.3f}", color=QUIET, lw=0.7, ls=":")
    chart.set_xlim(0, 1)
    chart.set_ylim(0, 1.02)
    chart.set_xlabel("recall", fontsize=TEXT, labelpad=1)
    chart.set_ylabel("precision", fontsize=TEXT, labelpad=2)
    return figure


def overlap_figure(
    names: Sequence[str],
    queries: ArrayLike,
    keys: ArrayLike,
    title: str | None = None,
    *,
    width: Width = "page",
) -> Figure:
    """How far directions overlap as queries and as keys, two matrices [M, M] of cosines side by side.

    Of up to fourteen directions the numbers stand in the cells.
    """
    shown = [shortened(name, NAME) for name in names]
    across, bar = round(WIDTHS[width] * DPI), 130
    longest = max([6, *map(len, shown)]) * CHARACTER + 12
    left, top = longest + 24, longest + 6 + LINE * bool(title)
    cell = min(110, max(1, (across - left - bar - 36) // (2 * max(1, len(shown)))))
    side = cell * max(1, len(shown))
    figure, axes = page(left + 2 * side + 36 + bar, top + side + LINE + 12)
    for place, (what, matrix) in enumerate({"as queries": queries, "as keys": keys}.items()):
        x = left + place * (side + 36)
        chart = panel(figure, x, top, side, side)
        _matrix(chart, np.asarray(matrix, dtype=np.float64), cell if len(shown) <= NUMBERED else 0)
        chart.set_xticks(range(len(shown)), shown, rotation=90, parse_math=False)
        chart.xaxis.tick_top()
        chart.set_yticks(range(len(shown)), shown if not place else [""] * len(shown), parse_math=False)
        chart.tick_params(length=0)
        write(axes, what, x + side / 2, top + side + LINE / 2 + 3, ha="center", va="center", color=INK)
    _scale(panel(figure, left + 2 * side + 36 + 24, top, 18, min(side, 300)))
    _title(axes, title)
    return figure


def channels_figure(
    channels: pd.DataFrame, title: str | None = None, *, count: int = 12, width: Width = "column"
) -> Figure:
    """The output channels to which each direction writes most, a chart for each direction.

    Args:
        channels: direction, channel, norm, share; the strongest of a direction first.
        title: over all of it.
        count: channels that are shown of each direction, at most.
        width: of a column or a page.
    """
    groups = {
        f"direction {name + 1}" if isinstance(name, int) else str(name): rows[:count]
        for name, rows in channels.sort_values("norm", ascending=False, kind="stable").groupby("direction")
    }
    tall = ROW * max(1, *(len(rows) for rows in groups.values()))
    grid = _Multiples.of(len(groups), width, bool(title), tall=tall, head=LINE + 12)
    figure = grid.figure(title)
    greatest = max(float(rows["share"].max()) for rows in groups.values())
    for place, (name, rows) in enumerate(groups.items()):
        chart = grid.chart(figure, place)
        chart.barh(range(len(rows)), 100 * rows["share"], 0.75, color=COLOURS[0], lw=0)
        chart.set_yticks(range(len(rows)), [str(channel) for channel in rows["channel"]])
        chart.set_ylim(max(1, tall / ROW) - 0.5, -0.5)
        chart.set_xlim(0, 105 * greatest or 1)
        chart.tick_params(axis="y", length=0)
        chart.locator_params(axis="x", nbins=4)
        chart.set_xlabel("share of what is written, %", fontsize=TEXT, labelpad=1)
        if grid.begins_row(place):
            chart.set_ylabel("output channel", fontsize=TEXT, labelpad=2)
        _say_above(chart, {shortened(name, NAME): INK} if len(groups) > 1 else {})
    return figure


@dataclass(frozen=True)
class _Multiples:
    """Where small charts of one kind stand, row by row, in pixels."""

    columns: int
    rows: int
    across: int
    top: int
    tall: int
    head: int

    @classmethod
    def of(
        cls, count: int, width: Width, titled: bool, tall: int | None = None, head: int = 12
    ) -> _Multiples:
        """As many beside each other as stay legible: two in a column, four on a page."""
        most = {"column": 2, "page": 4}[width]
        rows = math.ceil(max(1, count) / most)
        columns = math.ceil(max(1, count) / rows)
        tall = tall or (TALL if count == 1 else SMALL)
        return cls(columns, rows, round(WIDTHS[width] * DPI), LINE * titled, tall, head)

    def figure(self, title: str | None) -> Figure:
        """The page that they stand on, its title written."""
        figure, axes = page(self.across, self.top + self.rows * (self.head + self.tall + UNDER))
        _title(axes, title)
        return figure

    def chart(self, figure: Figure, place: int) -> Any:
        row, column = divmod(place, self.columns)
        step = self.across / self.columns
        top = self.top + self.head + row * (self.head + self.tall + UNDER)
        return panel(figure, column * step + LEFT, top, step - LEFT - RIGHT, self.tall)

    def begins_row(self, place: int) -> bool:
        return place % self.columns == 0


def _look(place: int) -> dict[str, Any]:
    """Colour and dash of a line: no two of the first 35 alike."""
    return {"color": COLOURS[place % len(COLOURS)], "ls": DASHES[place % len(DASHES)]}


def _positive(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """`values`, those that a logarithmic scale cannot show left out."""
    return np.where(values > 0, values, np.nan)


def _thinned(curve: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Recall and precision at some points of a curve, evenly over its recall, both ends among them."""
    points = curve.sort_values("recall", kind="stable")
    recall, precision = (points[name].to_numpy(dtype=np.float64) for name in ("recall", "precision"))
    if len(recall) <= POINTS:
        return recall, precision
    wanted = np.linspace(recall[0], recall[-1], POINTS)
    kept = np.unique([0, *np.searchsorted(recall, wanted).clip(max=len(recall) - 1), len(recall) - 1])
    return recall[kept], precision[kept]


def _matrix(chart: Any, values: NDArray[np.float64], cell: int) -> None:
    """Cosines as colours; in cells of some pixels also as numbers."""
    chart.imshow(signed(values, 1.0), interpolation="none", aspect="auto")
    for spine in chart.spines.values():
        spine.set_visible(False)
    if not cell:
        return
    size = fitting("-.00", cell - 6, TEXT)
    for (row, column), value in np.ndenumerate(values):
        colour = "white" if abs(value) > 0.7 else "black"
        write(chart, _brief(value), column, row, size, ha="center", va="center", color=colour)


def _brief(value: float) -> str:
    """A cosine with two digits and without its leading zero."""
    text = f"{value:.2f}"
    return "0" if float(text) == 0 else text.replace("0.", ".").replace("-", "−")


def _scale(axes: Any) -> None:
    """The colours of cosines from −1 to 1, upright."""
    axes.imshow(
        signed(np.linspace(1, -1, 101)[:, None], 1.0),
        extent=(0, 1, -1, 1),
        aspect="auto",
        interpolation="none",
    )
    axes.set_xticks([])
    axes.set_yticks([-1, 0, 1], ["−1", "0", "1"])
    axes.yaxis.tick_right()
    axes.yaxis.set_label_position("right")
    axes.set_ylabel("cosine", fontsize=TEXT, labelpad=1)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _say_above(chart: Any, lines: Mapping[str, str]) -> None:
    """Lines of text over a chart, each in its colour, and as small as it takes to stay over it."""
    for number, (text, colour) in enumerate(reversed(list(lines.items()))):
        chart.annotate(
            text,
            (0, 1),
            (0, 3 + number * TEXT * 1.3),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="left",
            va="bottom",
            fontsize=fitting(text, chart.bbox.width, TEXT),
            color=colour,
            parse_math=False,
        )


def _single(width: Width, title: str | None, entries: int) -> tuple[int, Any, Any, Figure]:
    """A page with one chart over a legend: where that begins, the chart, axes of the page, and the page."""
    across, top = round(WIDTHS[width] * DPI), LINE // 2 + LINE * bool(title)
    below = top + TALL + UNDER
    figure, axes = page(across, below + LINE * entries + 6)
    _title(axes, title)
    return below, panel(figure, LEFT, top, across - LEFT - RIGHT, TALL), axes, figure


def _entry(axes: Any, top: int, number: int, text: str, **look: Any) -> None:
    """An entry of a legend that begins at `top`: a piece of the line, and what it is."""
    y = top + LINE * (number + 0.5)
    axes.plot([LEFT, LEFT + 90], [y, y], solid_capstyle="butt", **look)
    write(axes, text, LEFT + 106, y, ha="left", va="center_baseline")


def _title(axes: Any, title: str | None) -> None:
    if title:
        room = axes.get_xlim()[1] - 24
        write(axes, title, 12, LINE / 2, fitting(title, room, TITLE), ha="left", va="center")
