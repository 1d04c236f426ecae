"""Figures for papers: pictures by seed, and pairs before and after, as PNG, SVG or PDF.

    figure = pair_figure(before, after, seeds)  # uint8 [N, H, W, 3] twice, and N seeds
    save_figure(figure, "pairs.pdf")            # or "pdf", for its bytes alone

A figure is at most as wide as a column (3.35 in) or a page (6.9 in) of a two-column paper, so it goes in at its own
size and its text at the size of a caption. It is laid out in whole pixels at 300 to the inch: a small picture is
enlarged by a whole factor, so each of its pixels is a square, in print and on screen; a picture too large for its
place is reduced. SVG keeps text as text, PDF embeds its fonts as TrueType (Type 42), as publishers ask. The same
pictures give the same bytes.

matplotlib's objects are used without pyplot, so figures can be made in any thread; it is imported on first use.
"""

from __future__ import annotations

import io
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from rewrite_core.errors import RequestError
from rewrite_core.files import write_bytes
from rewrite_core.pictures import Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["DPI", "FORMATS", "WIDTHS", "Width", "grid_figure", "pair_figure", "save_figure"]

Width = Literal["column", "page"]

DPI = 300
WIDTHS: dict[Width, float] = {"column": 3.35, "page": 6.9}
"""In inches."""
FORMATS = ("png", "svg", "pdf")

# In pixels at 300 to the inch.
SMALLEST, LARGEST = 120, 450  # sides that pictures are printed at, where their own resolution allows
GAP = 6  # between neighbours, at least
LINE = 33  # a line of text
MARGIN = 36  # for the words at row starts

TEXT, TITLE = 6.0, 7.5  # in points
FONT = ["DejaVu Sans", "sans-serif"]  # matplotlib brings the first along: the same figure everywhere
GLYPH = 0.66  # of the font size: the width of a digit, and a little more than that of most letters

_STYLE: dict[Any, Any] = {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "palimpsest"}
_UNDATED: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
}
_saving = threading.Lock()  # the style of files is a setting of the process


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


def save_figure(figure: Figure, target: str | Path) -> bytes:
    """The figure as a file's content, the same bytes for the same figure; written where `target` is a path.

    Args:
        figure: what to save.
        target: the path of a file that ends in one of `FORMATS`, or such an ending alone, "pdf".

    Raises:
        RequestError: it is another ending.
        FileError: it cannot be written there.
    """
    import matplotlib as mpl

    path = Path(target)
    kind = (path.suffix or path.name).removeprefix(".").lower()
    if kind not in FORMATS:
        raise RequestError(
            found=f"a figure called '{target}'",
            expected=f"one of {', '.join(f'.{kind}' for kind in FORMATS)}",
            remedy="Choose one of these endings.",
        )
    file = io.BytesIO()
    with _saving, mpl.rc_context(_STYLE):
        figure.savefig(file, format=kind, dpi=DPI, metadata=_UNDATED[kind])
    if path.suffix:
        write_bytes(path, file.getvalue())
    return file.getvalue()


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
    figure, axes = _page(layout)
    for level, pictures in enumerate(strips.values()):
        for index, picture in enumerate(pictures):
            _put(axes, _printed(picture, layout.size), layout.corner(index, level))
    _write(axes, layout, captions, list(filter(None, strips)), title)
    return figure


def _page(layout: _Layout) -> tuple[Figure, Any]:
    """An empty figure, and axes over all of it that count pixels from the upper left."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height = (math.nextafter(pixels / DPI, math.inf) for pixels in (layout.width, layout.height))
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")  # rounding never costs a pixel
    FigureCanvasAgg(figure)
    figure.suppressComposite = True  # each picture stays one, to be taken out of a vector file again
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, layout.width), ylim=(layout.height, 0))
    axes.set_axis_off()
    return figure, axes


def _put(axes: Any, picture: Picture, corner: tuple[int, int]) -> None:
    (left, top), (height, width) = corner, picture.shape[:2]
    extent = (left, left + width, top + height, top)
    axes.imshow(picture, extent=extent, interpolation="none", aspect="auto")


def _write(
    axes: Any, layout: _Layout, captions: Sequence[str], words: Sequence[str], title: str | None
) -> None:
    """Captions under the stacks, words upright before the rows, and the title."""
    height, width = layout.size
    plain: dict[str, Any] = {"family": FONT, "parse_math": False}
    size = _fitting(max(captions, key=len), width, TEXT)
    for index, caption in enumerate(captions):
        left, top = layout.corner(index)
        x, y = left + width / 2, top + layout.stack + LINE / 2
        axes.text(x, y, caption, fontsize=size, ha="center", va="center_baseline", color="#333333", **plain)
    for row, (level, word) in product(range(layout.rows), enumerate(words)):
        _, top = layout.corner(row * layout.columns, level)
        x, y, size = MARGIN / 2 - 3, top + height / 2, _fitting(word, height, TEXT)
        axes.text(x, y, word, fontsize=size, ha="center", va="center", rotation=90, **plain)
    if title:
        size = _fitting(title, layout.width - layout.left, TITLE)
        axes.text(layout.left, LINE / 2 + GAP, title, fontsize=size, ha="left", va="center", **plain)


def _fitting(text: str, room: float, points: float) -> float:
    """The size in points, at most `points`, at which `text` takes no more than `room` pixels."""
    return min(points, room * 72 / DPI / (GLYPH * max(1, len(text))))


def _printed(picture: Picture, size: tuple[int, int]) -> Picture:
    """A picture at the (height, width) it is printed at: each pixel repeated, or all of it reduced."""
    height, width = picture.shape[:2]
    if size[1] >= width:
        return picture.repeat(size[0] // height, axis=0).repeat(size[1] // width, axis=1)
    return np.asarray(Image.fromarray(picture).resize((size[1], size[0]), Image.Resampling.LANCZOS))
