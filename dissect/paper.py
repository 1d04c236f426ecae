"""A figure's page: at most a column or a page of a paper wide, laid out in whole pixels, saved to the same bytes.

    figure, axes = page(width, height)          # in pixels at 300 to the inch, from the upper left
    put(axes, printed(picture, size), corner)   # a picture at that place, each of its pixels a square
    save_figure(figure, "figure.pdf")           # or "pdf", for its bytes alone

A column of a two-column paper is 3.35 in wide and a page 6.9 in, so a figure goes in at its own size and its text at
the size of a caption. SVG keeps text as text, PDF embeds its fonts as TrueType (Type 42), as publishers ask. The same
figure gives the same bytes. Every figure of Palimpsest stands on such a page (`dissect.figures`, `dissect.plots`,
`dissect.sheet_plots`).

matplotlib's objects are used without pyplot, so figures can be made in any thread; it is imported on first use.
"""

from __future__ import annotations

import io
import math
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from rewrite_core.errors import RequestError
from rewrite_core.files import write_bytes
from rewrite_core.pictures import Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "CHARACTER",
    "DPI",
    "FONT",
    "FORMATS",
    "GAP",
    "LINE",
    "TEXT",
    "TITLE",
    "WIDTHS",
    "Width",
    "fitting",
    "page",
    "panel",
    "printed",
    "put",
    "save_figure",
    "shortened",
    "write",
]

Width = Literal["column", "page"]

DPI = 300
WIDTHS: dict[Width, float] = {"column": 3.35, "page": 6.9}
"""In inches."""
FORMATS = ("png", "svg", "pdf")

GAP = 6
"""Pixels between neighbours, at least."""
LINE = 33
"""Pixels that a line of text takes."""
TEXT, TITLE = 6.0, 7.5
"""Sizes of text, in points."""
FONT = ["DejaVu Sans", "sans-serif"]
"""matplotlib brings the first along: the same figure everywhere."""
CHARACTER = 17
"""Pixels that a letter of `TEXT` takes, about; for room to be left."""
GLYPH = 0.66  # of the font size: the width of a digit, and a little more than that of most letters

_STYLE: dict[Any, Any] = {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "palimpsest"}
_UNDATED: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
}
_saving = threading.Lock()  # the style of files is a setting of the process


def page(width: int, height: int) -> tuple[Figure, Any]:
    """An empty figure of so many pixels, and axes over all of it that count them from the upper left."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    across, down = (math.nextafter(pixels / DPI, math.inf) for pixels in (width, height))
    figure = Figure(figsize=(across, down), dpi=DPI, facecolor="white")  # rounding never costs a pixel
    FigureCanvasAgg(figure)
    figure.suppressComposite = True  # each picture stays one, to be taken out of a vector file again
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    return figure, axes


def panel(figure: Figure, left: float, top: float, width: float, height: float) -> Any:
    """Axes for a chart at a place of the page, in pixels from the upper left: thin lines, small text, open above."""
    across, down = figure.get_size_inches() * DPI
    place = (left / across, 1 - (top + height) / down, width / across, height / down)
    axes = figure.add_axes(place, facecolor="none")
    axes.tick_params(labelsize=TEXT, width=0.5, length=2, pad=2, labelfontfamily=FONT[0])
    for side, spine in axes.spines.items():
        spine.set_linewidth(0.5)
        spine.set_visible(side in ("left", "bottom"))
    return axes


def put(axes: Any, picture: Picture, corner: tuple[int, int]) -> None:
    """A picture [H, W, 3] on the page, its left and top at `corner`, a pixel of it a pixel of the page."""
    (left, top), (height, width) = corner, picture.shape[:2]
    extent = (left, left + width, top + height, top)
    axes.imshow(picture, extent=extent, interpolation="none", aspect="auto")


def write(axes: Any, text: str, x: float, y: float, points: float = TEXT, **options: Any) -> None:
    """Plain text at a place of the page; nothing in it is taken for markup."""
    axes.text(x, y, text, fontsize=points, family=FONT, parse_math=False, **options)


def fitting(text: str, room: float, points: float) -> float:
    """The size in points, at most `points`, at which `text` takes no more than `room` pixels."""
    return min(points, room * 72 / DPI / (GLYPH * max(1, len(text))))


def shortened(text: str, most: int) -> str:
    """`text` with its middle left out, if it has more than `most` letters."""
    if len(text) <= most:
        return text
    head = most // 2
    return f"{text[:head]}…{text[len(text) - (most - head - 1) :]}"


def printed(picture: Picture, size: tuple[int, int]) -> Picture:
    """A picture at the (height, width) it is printed at: each pixel repeated, or all of it reduced."""
    height, width = picture.shape[:2]
    if size[1] >= width:
        return picture.repeat(size[0] // height, axis=0).repeat(size[1] // width, axis=1)
    return np.asarray(Image.fromarray(picture).resize((size[1], size[0]), Image.Resampling.LANCZOS))


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
