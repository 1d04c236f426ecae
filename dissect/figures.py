"""Figures for papers: pictures by seed, and pairs before and after, as PNG, SVG or PDF.

    figure = pair_figure(before, after, seeds)  # uint8 [N, H, W, 3] twice, and N seeds
    save_figure(figure, "pairs.pdf")            # or "pdf", for its bytes alone

A figure is at most as wide as a column or a page of a paper (`dissect.paper`, where `save_figure` is from). A small
picture is enlarged by a whole factor, so each of its pixels is a square, in print and on screen; a picture too large
for its place is reduced.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from dissect.paper import (
    DPI,
    FORMATS,
    GAP,
    LINE,
    TEXT,
    TITLE,
    WIDTHS,
    Width,
    fitting,
    page,
    printed,
    put,
    save_figure,
    write,
)
from rewrite_core.errors import RequestError
from rewrite_core.pictures import Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["DPI", "FORMATS", "WIDTHS", "Width", "grid_figure", "pair_figure", "save_figure"]

# In pixels at 300 to the inch.
SMALLEST, LARGEST = 120, 450  # sides that pictures are printed at, where their own resolution allows
MARGIN = 36  # for the words at row starts


def pair_figure(
    before: Picture,
    after: Picture,
    labels: Sequence[object],
    title: str | None = None,
    *,
    columns: int | None = None,
    width: Width = "page",
) -> Figure:
    """Pictures `before` [N, H, W, 3] over those `after`, each pair over its label."""
    captions = [str(label) for label in labels]
    return _figure({"before": before, "after": after}, captions, title, columns, width)


def grid_figure(
    pictures: Picture,
    labels: Sequence[object],
    title: str | None = None,
    *,
    columns: int | None = None,
    width: Width = "page",
) -> Figure:
    """Pictures [N, H, W, 3] row by row, each over its label."""
    return _figure({"": pictures}, [str(label) for label in labels], title, columns, width)


@dataclass(frozen=True)
class _Layout:
    """Where things are, in pixels from the upper left: stacks of pictures, row by row, each over a caption."""

    columns: int
    rows: int
    size: tuple[int, int]  # (height, width) that pictures are printed at
    stacked: int
    gap: int
    left: int
    top: int

    @property
    def width(self) -> int:
        return self.left + self.columns * (self.size[1] + self.gap) - self.gap

    @property
    def height(self) -> int:
        return self.top + self.rows * (self.stack + LINE + self.gap) - self.gap

    @property
    def stack(self) -> int:
        """The height of one stack without its caption."""
        return self.stacked * (self.size[0] + GAP) - GAP

    def corner(self, index: int, level: int = 0) -> tuple[int, int]:
        """Left and top of a picture: stack number `index`, counted from the top at `level`."""
        row, column = divmod(index, self.columns)
        across, down = self.size[1] + self.gap, self.stack + LINE + self.gap
        return self.left + column * across, self.top + row * down + level * (self.size[0] + GAP)


def _layout(
    count: int, size: tuple[int, int], words: bool, title: bool, stacked: int, columns: int | None, limit: int
) -> _Layout:
    """As many columns as leave pictures legible, rows of equal length, and pictures as large as these permit."""
    height, width = size
    left, top = MARGIN * words, (LINE + GAP * 2) * title
    room = limit - left
    if columns is None:
        smallest = max(1, math.ceil(SMALLEST / width)) * width
        most = max(1, (room + GAP) // (min(smallest, LARGEST) + GAP))
        columns = math.ceil(count / math.ceil(count / most))
    cell = max(1, (room + GAP) // columns - GAP)
    if cell >= width:
        factor = min(cell // width, max(1, LARGEST // width))
        printed = (factor * height, factor * width)
    else:
        printed = (max(1, round(cell * height / width)), cell)
    spare = (room - columns * printed[1]) // max(1, columns - 1)
    gap = max(GAP, min(spare, printed[1] // 8))
    return _Layout(columns, math.ceil(count / columns), printed, stacked, gap, left, top)


def _figure(
    strips: dict[str, Picture], captions: Sequence[str], title: str | None, columns: int | None, width: Width
) -> Figure:
    """Stacks of pictures, one from each strip [N, H, W, 3], with the strip's word at row starts."""
    count, height, across, _ = next(iter(strips.values())).shape
    if not count:
        raise RequestError(found="no pictures", expected="at least one", remedy="Name some seeds.")
    layout = _layout(
        count, (height, across), any(strips), bool(title), len(strips), columns, round(WIDTHS[width] * DPI)
    )
    figure, axes = page(layout.width, layout.height)
    for level, pictures in enumerate(strips.values()):
        for index, picture in enumerate(pictures):
            put(axes, printed(picture, layout.size), layout.corner(index, level))
    _write(axes, layout, captions, list(filter(None, strips)), title)
    return figure


def _write(
    axes: Any, layout: _Layout, captions: Sequence[str], words: Sequence[str], title: str | None
) -> None:
    """Captions under the stacks, words upright before the rows, and the title."""
    height, width = layout.size
    size = fitting(max(captions, key=len), width, TEXT)
    for index, caption in enumerate(captions):
        left, top = layout.corner(index)
        x, y = left + width / 2, top + layout.stack + LINE / 2
        write(axes, caption, x, y, size, ha="center", va="center_baseline", color="#333333")
    for row, (level, word) in product(range(layout.rows), enumerate(words)):
        _, top = layout.corner(row * layout.columns, level)
        x, y, size = MARGIN / 2 - 3, top + height / 2, fitting(word, height, TEXT)
        write(axes, word, x, y, size, ha="center", va="center", rotation=90)
    if title:
        size = fitting(title, layout.width - layout.left, TITLE)
        write(axes, title, layout.left, LINE / 2 + GAP, size, ha="left", va="center")
