"""Charts of a dissection for a paper: what each layer detects, which unit is best for each concept, units × concepts.

    save_figure(detectors_figure(found), "detectors.pdf")
    save_figure(best_figure(found), "best-units.svg")
    save_figure(iou_figure(found, "l08"), "iou.png")

They stand on the pages of `dissect.paper`, as wide as a column or a page. A concept has the colour that it has
everywhere (`dissect.concepts.palette`); where two of a figure share one, the later is hatched. What does not fit is
left out by rank, and said: the rarest concepts become "others", the worst units are not shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from dissect.concepts.palette import colour_of
from dissect.paper import CHARACTER, DPI, LINE, TEXT, TITLE, WIDTHS, Width, page, panel, shortened, write
from dissect.tables import Dissection

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Style", "best_figure", "concept_bars", "detectors_figure", "iou_figure", "styles"]

CONCEPTS = 14
"""Concepts that have a colour of their own in one chart, at most."""
ROWS = 48
"""Units that a table of IoU shows, at most."""
NAME = 16
"""Letters of a concept's or a layer's name that are printed, at most."""
BESIDE = 10
"""Letters of a direction's name beside its bar, at most."""
OTHERS = "others"
GREY, INK = "#bdbdbd", "#333333"
HATCHES = ("", "/////", ".....", "xxxxx", "-----")
ROW = 30
"""Pixels from one row of a chart to the next."""


class Style(NamedTuple):
    """How a concept is drawn."""

    colour: tuple[float, float, float]
    hatch: str = ""

    @property
    def edge(self) -> Any:
        """Around an area: white, as between neighbours and in a hatch; grey where that would not be seen."""
        return GREY if self._pale else "white"

    @property
    def line(self) -> Any:
        """Of a line or an empty frame: its colour, but grey where that would not be seen on paper."""
        return GREY if self._pale else self.colour

    @property
    def _pale(self) -> bool:
        return min(self.colour) > 0.85


def styles(concepts: Sequence[str]) -> list[Style]:
    """One for each concept: its colour, hatched if one before it has the same."""
    used: dict[tuple[int, int, int], int] = {}
    found = []
    for name in concepts:
        colour = colour_of(name)
        hatch = HATCHES[used.get(colour, 0) % len(HATCHES)]
        used[colour] = used.get(colour, 0) + 1
        red, green, blue = (value / 255 for value in colour)
        found.append(Style((red, green, blue), hatch))
    return found


def detectors_figure(dissection: Dissection, title: str | None = None, *, width: Width = "column") -> Figure:
    """How many units of each layer detect each concept: a bar for each layer, stacked by concept.

    Above each bar stand the detectors among the units of the layer. Concepts that nothing detects are left out.
    """
    counts = _fewest_to_others(dissection.detectors())
    concepts = list(counts.columns)
    across, left, right, tall = round(WIDTHS[width] * DPI), 112, 10, 420
    names = [shortened(layer, NAME) for layer in counts.index]
    slot = (across - left - right) / len(names)
    upright = max(map(len, names)) * CHARACTER > slot
    under = max(map(len, names)) * CHARACTER if upright else LINE
    legend = _flow(concepts, across - left)
    top = LINE * (2 + bool(title)) + (LINE * 2 if upright else 0)
    figure, axes = page(across, top + tall + under + LINE * (2 + (legend[-1][1] if legend else 0)))
    chart = panel(figure, left, top, across - left - right, tall)
    _stack(chart, counts, styles(concepts))
    units = dissection.summary().units.to_numpy()
    totals = counts.to_numpy().sum(1)
    for place, (total, count) in enumerate(zip(totals, units, strict=True)):
        label, turned = f"{total}/{count}", {"rotation": 90} if upright else {}
        write(chart, label, place, total + max(1, totals.max()) * 0.02, ha="center", va="bottom", **turned)
    chart.set_xticks(range(len(names)), names, rotation=90 if upright else 0, parse_math=False)
    chart.set_ylim(0, max(1, totals.max()) * 1.02)
    chart.set_ylabel(f"{dissection.noun}s that detect a concept", fontsize=TEXT, labelpad=2)
    _legend(axes, concepts, legend, left, top + tall + under + LINE)
    _title(axes, title, left)
    return figure


def best_figure(dissection: Dissection, title: str | None = None, *, width: Width = "column") -> Figure:
    """For each concept the held-out IoU of its best unit, which was chosen on the other half; a tick is the baseline.

    A unit that does not beat the baseline is drawn hollow. At most `ROWS` concepts are shown, the best ones.
    """
    table = dissection.concepts()
    table = table[table.unit != ""].sort_values("held_out_iou", ascending=False, kind="stable")[:ROWS]
    across, left, right = round(WIDTHS[width] * DPI), NAME * CHARACTER + 12, 190
    top = LINE * bool(title) + 6
    tall = max(1, len(table)) * ROW
    figure, axes = page(across, top + tall + LINE * 2 + 24)
    chart = panel(figure, left, top, across - left - right, tall)
    concept_bars(chart, table.concept, table.held_out_iou, table.baseline, dissection.settings.level)
    for place, (layer, unit) in enumerate(zip(table.layer, table.unit, strict=True)):
        x, y = across - right + 12, top + (place + 0.5) * ROW
        write(axes, _best(dissection, layer, unit), x, y, ha="left", va="center", color=INK)
    chart.set_xlabel("held-out IoU", fontsize=TEXT, labelpad=1)
    _title(axes, title, left)
    return figure


def _best(dissection: Dissection, layer: str, unit: str) -> str:
    """A unit beside its bar; a direction by its name alone, for all are of one layer."""
    return f"{shortened(layer, 8)} unit {unit}" if dissection.noun == "unit" else shortened(unit, BESIDE)


def iou_figure(
    dissection: Dissection, layer: str, title: str | None = None, *, width: Width = "column", most: int = ROWS
) -> Figure:
    """Held-out IoU of the units of `layer` with each concept: the `most` best units, those of a concept together.

    A dot marks the concept that a unit detects.

    Raises:
        LayerError: `layer` was not dissected.
    """
    found = dissection.layer(layer)
    table = found.table().assign(row=range(len(found.units)), number=found.concept.numpy())
    best = table[~table.dead].sort_values("held_out_iou", ascending=False, kind="stable")[:most]
    best = best.sort_values(["number", "held_out_iou"], ascending=[True, False], kind="stable")
    shown = [column for column in range(len(found.concepts)) if found.share[column] > 0][:ROWS]
    values = np.zeros((max(1, len(best)), max(1, len(shown))))
    values[: len(best), : len(shown)] = found.held_out.numpy()[best.row.tolist()][:, shown]
    names = [shortened(found.concepts[column], NAME) for column in shown]
    units = [shortened(str(unit), NAME) for unit in best.unit]
    across, bar = round(WIDTHS[width] * DPI), 150
    left = 24 + LINE + max([3, *map(len, units)]) * CHARACTER
    cell = min(66, (across - left - bar) // max(1, len(shown)))
    above, row = max([1, *map(len, names)]) * CHARACTER + 24, 27
    top = above + LINE * bool(title)
    wide, tall = cell * max(1, len(shown)), row * len(values)
    figure, axes = page(left + wide + bar, top + tall + 24)
    chart = panel(figure, left, top, wide, tall)
    picture = chart.imshow(
        values, cmap="viridis", vmin=0, vmax=max(0.05, values.max()), aspect="auto", interpolation="none"
    )
    for place, (number, detects) in enumerate(zip(best.number, best.detector, strict=True)):
        if detects:
            chart.plot(shown.index(number), place, "o", ms=1.8, mfc="white", mec="black", mew=0.4)
    chart.set_xticks(range(len(names)), names, rotation=90, parse_math=False)
    chart.set_yticks(range(len(units)), units, parse_math=False)
    chart.xaxis.tick_top()
    chart.set_ylabel(dissection.noun, fontsize=TEXT, labelpad=1)
    scale = panel(figure, left + wide + 30, top, 18, min(tall, 300))
    figure.colorbar(picture, cax=scale).outline.set_linewidth(0.5)
    scale.set_ylabel("held-out IoU", fontsize=TEXT, labelpad=2)
    _title(axes, title, left)
    return figure


def concept_bars(
    chart: Any, names: Iterable[str], values: Iterable[float], baselines: Iterable[float], level: float
) -> None:
    """A row for each concept, the first on top: a bar, a tick at its baseline, a dotted line at the IoU `level`.

    A bar that does not reach above both is hollow and dashed.
    """
    names, values, baselines = list(names), list(values), list(baselines)
    for place, (style, value, baseline) in enumerate(zip(styles(names), values, baselines, strict=True)):
        look: dict[str, Any] = {"color": "none", "edgecolor": style.line, "linestyle": (0, (3, 1.5))}
        if value > max(baseline, level):
            look = {"color": style.colour, "edgecolor": style.edge, "hatch": style.hatch}
        chart.barh(place, value, 0.7, linewidth=0.5, **look)
        chart.plot([baseline, baseline], [place - 0.45, place + 0.45], color="black", lw=1)
    chart.axvline(level, color=INK, lw=0.4, ls=":")
    chart.set_yticks(range(len(names)), [shortened(name, NAME) for name in names], parse_math=False)
    chart.set_ylim(max(1, len(names)) - 0.5, -0.5)
    chart.set_xlim(0, max([0.05, *values, *baselines]) * 1.05)
    chart.tick_params(axis="y", length=0)


def _fewest_to_others(counts: pd.DataFrame) -> pd.DataFrame:
    """Layers × concepts with those that nothing detects left out, and all but the most frequent in one column."""
    counts = counts.loc[:, counts.sum() > 0]
    if counts.shape[1] <= CONCEPTS:
        return counts
    order = counts.sum().sort_values(ascending=False, kind="stable").index
    kept = [name for name in counts.columns if name in set(order[: CONCEPTS - 1])]
    return counts[kept].assign(**{OTHERS: counts.drop(columns=kept).sum(axis=1)})


def _stack(chart: Any, counts: pd.DataFrame, looks: Sequence[Style]) -> None:
    """One bar for each row of `counts`, its columns on top of each other."""
    below = np.zeros(len(counts))
    for (name, column), style in zip(counts.items(), looks, strict=True):
        colour = GREY if name == OTHERS else style.colour
        heights = column.to_numpy()
        look: dict[str, Any] = {"color": colour, "hatch": style.hatch, "edgecolor": style.edge, "lw": 0.3}
        chart.bar(range(len(counts)), heights, 0.75, below, **look)
        below = below + heights


def _flow(names: Sequence[str], room: int) -> list[tuple[int, int]]:
    """Where each entry of a legend starts, as (x, row), so that none sticks out of `room` pixels."""
    places, x, row = [], 0, 0
    for name in names:
        wide = 36 + len(shortened(name, NAME)) * CHARACTER + 12
        if x and x + wide > room:
            x, row = 0, row + 1
        places.append((x, row))
        x += wide
    return places


def _legend(axes: Any, names: Sequence[str], places: Sequence[tuple[int, int]], left: int, top: int) -> None:
    from matplotlib.patches import Rectangle

    for name, style, (x, row) in zip(names, styles(names), places, strict=True):
        y = top + row * LINE + LINE / 2
        colour = GREY if name == OTHERS else style.colour
        look: dict[str, Any] = {"facecolor": colour, "hatch": style.hatch, "edgecolor": style.edge, "lw": 0.3}
        axes.add_patch(Rectangle((left + x, y - 9), 24, 18, **look))
        write(axes, shortened(name, NAME), left + x + 32, y, ha="left", va="center_baseline")


def _title(axes: Any, title: str | None, left: int) -> None:
    if title:
        write(axes, title, left, LINE / 2, TITLE, ha="left", va="center")
