"""The effect of an edit on a page of a paper: which pictures change most and least, where, and by how much.

    found = edit_effect(generator, edited, edit.direction, spec, request=request)
    save_figure(effect_figure(found, *extremes(generator, edited, found)), "effect.pdf")
    effect_caption(generator, found)

On top the pictures that change most, outlined where the context matches, and those that change least. Below them the
mean change at each pixel; the numbers of an `EditEffect` with their intervals; and, where there is room, how many of
the pictures in which the context matches change by how much there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dissect.edit_effect import EditEffect, Estimate
from dissect.edit_figures import BESIDE, LARGEST, SIDE, SMALLEST, fitted, label, some, word_over
from dissect.edit_pictures import Pairs, outlined
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
from dissect.plots import INK
from dissect.provenance import INTERVALS, measured
from rewrite_core.generators import Generator
from rewrite_core.pictures import Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["effect_caption", "effect_figure"]

WORD, BAR, NUMBERS, NAME = 39, 24, 640, 24
"""Pixels for the words before rows, of a bar, and across the numbers; letters of what was protected, at most."""
BINS = 20
INSIDE, OUTSIDE, KEPT = "#b5384c", "#5b7a99", "#7a9a5b"


def effect_figure(
    effect: EditEffect, most: Pairs, least: Pairs, title: str | None = None, *, width: Width = "page"
) -> Figure:
    """The pairs that change most and least, the average change, and the numbers with their intervals.

    Raises:
        RequestError: there is no pair.
    """
    across, top = round(WIDTHS[width] * DPI), (LINE + GAP) * bool(title)
    size = (some(most).before.shape[1], most.before.shape[2])
    most, least = (_leading(pairs, (across - WORD + GAP) // (SMALLEST + GAP)) for pairs in (most, least))
    count = max(len(most.seeds), len(least.seeds))
    cell = fitted(size, min(LARGEST, (across - WORD + GAP) // count - GAP))
    gap = min(cell[1] // 3, (across - WORD - count * cell[1]) // max(1, count - 1))
    side = fitted(size, min(LARGEST, round(SIDE * across)))
    step = 2 * (LINE + GAP + cell[0]) + GAP
    below = top + 2 * step
    figure, axes = page(across, below + LINE + side[0] + 3 * GAP + 2 * LINE)
    if title:
        write(axes, title, 0, LINE / 2, fitting(title, across, TITLE), ha="left", va="center")
    _stacks(axes, most, "most changed", cell, gap, top)
    _stacks(axes, least, "least changed", cell, gap, top + step)
    _map(axes, effect.average_map.numpy(), side, (WORD, below))
    left = WORD + side[1] + 2 * BESIDE
    _numbers(figure, axes, effect, (left, below), min(across - left, NUMBERS))
    beside = left + NUMBERS + 3 * BESIDE
    if across - beside > NUMBERS // 2 and effect.took_effect.pictures:
        _distribution(figure, axes, effect, (beside, below), (across - beside, side[0]))
    return figure


def _leading(pairs: Pairs, count: int) -> Pairs:
    """As many as stand beside each other."""
    regions = None if pairs.regions is None else pairs.regions[:count]
    return Pairs(pairs.seeds[:count], pairs.before[:count], pairs.after[:count], regions)


def _stacks(axes: Any, pairs: Pairs, word: str, cell: tuple[int, int], gap: int, top: int) -> None:
    """Pictures before, outlined where the context matches, over those after, each over its seed."""
    (height, width), there = cell, pairs.regions is not None and bool(pairs.regions.any())
    said = f"{word}; outlined: where the context matches" if there else word
    write(axes, said, WORD, top + LINE / 2, ha="left", va="center", color=INK)
    size = fitting("before", height, TEXT)
    for level, (name, pictures) in enumerate({"before": pairs.before, "after": pairs.after}.items()):
        y = top + LINE + level * (height + GAP)
        at = (WORD / 2 - 3, y + height / 2)
        write(axes, name, *at, size, ha="center", va="center", rotation=90, color=INK)
        for place, picture in enumerate(pictures):
            shown = printed(picture, cell)
            if pairs.regions is not None and not level:
                shown = outlined(picture, pairs.regions[place], cell)
            put(axes, shown, (WORD + place * (width + gap), y))
    for place, seed in enumerate(pairs.seeds):
        x = WORD + place * (width + gap) + width / 2
        label(axes, seed, x, top + LINE + 2 * (height + GAP) - GAP, width)


def _map(axes: Any, change: NDArray[np.float64], size: tuple[int, int], corner: tuple[int, int]) -> None:
    """The mean change [H, W] at each pixel as colours, and their scale below it."""
    (left, top), (height, width), greatest = corner, size, float(change.max())
    word_over(axes, "average change", left + width / 2, top, width)
    put(axes, printed(_viridis(change / (greatest or 1.0)), size), (left, top + LINE))
    y = top + LINE + height + GAP
    put(axes, _viridis(np.broadcast_to(np.linspace(0, 1, width), (12, width))), (left, y))
    for text, x, side in (("0", left, "left"), (f"{greatest:.1%}", left + width, "right")):
        write(axes, text, x, y + 12 + LINE / 2, ha=side, va="center_baseline", color=INK)


def _numbers(figure: Figure, axes: Any, effect: EditEffect, corner: tuple[int, int], room: int) -> None:
    """A bar for the change inside the context, outside it, and in what was protected; then how often it took effect."""
    left, top = corner
    rows = [("inside the context", effect.inside, INSIDE), ("outside it", effect.outside, OUTSIDE)]
    if effect.kept:
        rows.append((f"in {', '.join(effect.kept)}", effect.protected, KEPT))
    write(axes, "mean change", left, top + LINE / 2, ha="left", va="center", color=INK)
    greatest = max(each.high for _, each, _ in rows) or 1.0
    y = top + LINE
    for name, each, colour in rows:
        _line(axes, f"{shortened(name, NAME)}: {_percent(each)}", left, y, room)
        chart = panel(figure, left, y + LINE, room, BAR)
        chart.barh(0, each.value, 1.0, color=colour)
        chart.plot([each.low, each.high], [0, 0], color="black", lw=0.8, solid_capstyle="butt")
        chart.set(xlim=(0, greatest), ylim=(-0.5, 0.5), xticks=[], yticks=[])
        chart.set_axis_off()
        y += LINE + BAR + GAP
    for said in _took(effect):
        _line(axes, said, left, y + GAP, room)
        y += LINE


def _distribution(
    figure: Figure, axes: Any, effect: EditEffect, corner: tuple[int, int], size: tuple[int, int]
) -> None:
    """How many of the pictures in which the context matches change by how much there; dashed: from where it took."""
    (left, top), (width, height) = corner, size
    table = effect.pictures()
    changed = table["inside"][table["region"] > 0]
    word_over(axes, "pictures in which the context matches", left + width / 2, top, width)
    chart = panel(figure, left, top + LINE + GAP, width, height - LINE)
    greatest = max(float(changed.max()), effect.bar) or 1.0
    chart.hist(100 * changed, bins=np.linspace(0, 100 * greatest, BINS + 1), color=INSIDE)
    chart.axvline(100 * effect.bar, color=INK, lw=0.6, ls="--")
    chart.set_xlim(0, 100 * greatest)
    chart.yaxis.get_major_locator().set_params(integer=True)
    chart.set_xlabel("change there in %; dashed: took effect from here on", fontsize=TEXT, labelpad=1)


def _line(axes: Any, said: str, left: int, top: int, room: int) -> None:
    write(axes, said, left, top + LINE / 2, fitting(said, room, TEXT), ha="left", va="center", color=INK)


def _took(effect: EditEffect) -> list[str]:
    took, every = effect.took_effect, f"{len(effect.spec):,} pictures"
    if not took.pictures:
        return [f"the context matches in none of {every}"]
    return [
        f"took effect in {_percent(took)}",
        f"of the {took.pictures:,} of {every} that match:",
        f"a change of at least {effect.bar:.1%} there",
    ]


def effect_caption(generator: Generator, effect: EditEffect, text: str = "") -> str:
    """What a figure of the effect says: how everything in it was measured, of whom, over which pictures."""
    said = (
        text
        or "What an edit changes: the pictures that change most and least, by seed; the mean change at each pixel."
    )
    example = (
        "that of the tenth of the regions that change most (their median)"
        if effect.example is None
        else "that of the painted example"
    )
    kept = f"; protected: {', '.join(effect.kept)}" if effect.kept else ""
    return measured(
        f"{said} Change: mean |difference| of red, green and blue, in units of their range. Context: heat of the "
        f"direction {effect.direction.digest} above {effect.level:.4g} at {effect.direction.layer}{kept}. "
        f"It took effect where the change of a picture's regions is at least half of {example}. {INTERVALS}.",
        generator,
        effect.spec,
    )


def _percent(each: Estimate) -> str:
    return f"{each.value:.1%} ({100 * each.low:.1f} to {100 * each.high:.1f})"


def _viridis(share: NDArray[np.floating]) -> Picture:
    """Shares [..., H, W] from 0 to 1 as colours, [..., H, W, 3]."""
    from matplotlib import colormaps

    colours: Picture = colormaps["viridis"](share, bytes=True)[..., :3]
    return np.ascontiguousarray(colours)
