"""An edit on a page of a paper: what was painted, and what came of it.

    pairs = edited_pairs(generator, edited, LatentSpec.of(range(2000, 2010)))
    save_figure(edit_figure(painted_edit(generator, request), pairs), "edit.pdf")
    edit_caption(generator, edit.rule, LatentSpec.of(range(2000, 2010)))

It has the layout in which Bau et al., *Rewriting a Deep Generative Model* (ECCV 2020), show an edit: what is copied at
the left, and at the right where it is pasted, as the layer draws it there; the context between them; and below them
pictures before and after. What was painted is outlined. What an edit changes, in numbers: `dissect.edit_effect_figure`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dissect.edit_pictures import PaintedEdit, Pairs, Panel, outlined
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
    printed,
    put,
    write,
)
from dissect.plots import INK
from dissect.provenance import measured
from rewrite_core.errors import RequestError
from rewrite_core.generators import Generator, LatentSpec
from rewrite_core.rules.rule import Rule

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["edit_caption", "edit_figure", "fitted", "label", "some", "word_over"]

SMALLEST, LARGEST = 120, 450
"""Pixels that a picture is wide in print, where its own resolution allows."""
SIDE, TALLER = 0.3, 1.3
"""Of the width: what is copied, and where it is pasted. Times as high the context may be."""
BESIDE, BETWEEN = 36, 24
"""Pixels between the parts of a figure, and between pairs."""


# The edit


def edit_figure(
    painted: PaintedEdit, pairs: Pairs, title: str | None = None, *, width: Width = "page"
) -> Figure:
    """What is copied, the context and where it is pasted, over pictures before and after, each pair over its seed.

    Raises:
        RequestError: there is no pair, or nothing was painted.
    """
    across, top = round(WIDTHS[width] * DPI), (LINE + GAP) * bool(title)
    head = _Head.of(painted, across)
    rows = _PairRows.of(pairs, across)
    below = top + head.height + BETWEEN
    figure, axes = page(across, below + rows.height)
    if title:
        write(axes, title, 0, LINE / 2, fitting(title, across, TITLE), ha="left", va="center")
    head.draw(axes, painted, top)
    rows.draw(axes, pairs, below)
    return figure


@dataclass(frozen=True)
class _Head:
    """Where the painted pictures are: one at either side, those of the context in a grid between them.

    Attributes:
        across: pixels of the page.
        height: of all of it.
        side: height and width of the outer pictures.
        cell: of a picture of the context.
        columns, shown: pictures of the context beside each other, and in all.
    """

    across: int
    height: int
    side: tuple[int, int]
    cell: tuple[int, int]
    columns: int
    shown: int

    @classmethod
    def of(cls, painted: PaintedEdit, across: int) -> _Head:
        """The largest pictures of the context with which all of them fit in; else as many as are legible."""
        outer = [one for one in (painted.copy, painted.paste) if one]
        every = [*outer, *painted.context]
        if not every:
            raise RequestError(
                found="an edit with nothing painted", expected="a region", remedy="Paint what to copy."
            )
        size = (every[0].picture.shape[0], every[0].picture.shape[1])
        side = fitted(size, min(LARGEST, round(SIDE * across)))
        room, count = across - len(outer) * (side[1] + BESIDE), len(painted.context)
        tall = round(TALLER * (side[0] + LINE))
        for width in range(side[1], 0, -1):
            cell = fitted(size, width)
            rows, beside = (tall + GAP) // (cell[0] + LINE + GAP), (room + GAP) // (cell[1] + GAP)
            if rows * beside >= count or (rows and width <= SMALLEST):
                break
        columns = max(1, min(beside, math.ceil(count / max(1, rows))))
        shown = min(count, rows * columns)
        grid = math.ceil(shown / columns) * (cell[0] + LINE + GAP) - GAP
        return cls(across, LINE + max(grid, side[0] + LINE), side, cell, columns, shown)

    def draw(self, axes: Any, painted: PaintedEdit, top: int) -> None:
        """Put all of them on the page."""
        left, right = 0, self.across
        if painted.copy:
            self._outer(axes, painted.copy, "copy", 0, top)
            left = self.side[1] + BESIDE
        if painted.paste:
            self._outer(axes, painted.paste, painted.operation, right - self.side[1], top)
            right -= self.side[1] + BESIDE
        if painted.context:
            self._context(axes, painted, (left + right) / 2, top, right - left)

    def _outer(self, axes: Any, one: Panel, word: str, left: int, top: int) -> None:
        word_over(axes, word, left + self.side[1] / 2, top + (self.height - self.side[0]) // 2 - LINE)
        _put(axes, one, self.side, (left, top + (self.height - self.side[0]) // 2))

    def _context(self, axes: Any, painted: PaintedEdit, middle: float, top: int, room: int) -> None:
        """The grid in the middle of its room."""
        count, (height, width) = len(painted.context), self.cell
        said = f"context: {_counted(painted.regions, 'region')} in {_counted(count, 'picture')}"
        if self.shown < count:
            said += f", {self.shown} of them shown"
        word_over(axes, said, middle, top, room)
        rows, step = math.ceil(self.shown / self.columns), height + LINE + GAP
        first = top + LINE + (self.height - LINE + GAP - rows * step) // 2
        for place, one in enumerate(painted.context[: self.shown]):
            row, column = divmod(place, self.columns)
            here = min(
                self.columns, self.shown - row * self.columns
            )  # a last row that is not full is centred
            left = round(middle - (here * (width + GAP) - GAP) / 2)
            _put(axes, one, self.cell, (left + column * (width + GAP), first + row * step))


@dataclass(frozen=True)
class _PairRows:
    """Where pairs are: so many beside each other, before at the left of each and after at its right."""

    columns: int
    rows: int
    cell: tuple[int, int]
    across: int

    @classmethod
    def of(cls, pairs: Pairs, across: int) -> _PairRows:
        count, height, width, _ = some(pairs).before.shape
        smallest = min(LARGEST, math.ceil(SMALLEST / width) * width)
        most = max(1, (across + BETWEEN) // (2 * smallest + GAP + BETWEEN))
        rows = math.ceil(count / most)
        columns = math.ceil(count / rows)
        room = ((across + BETWEEN) // columns - BETWEEN - GAP) // 2
        return cls(columns, rows, fitted((height, width), min(LARGEST, room)), across)

    @property
    def height(self) -> int:
        return LINE + self.rows * (self.cell[0] + LINE + GAP) - GAP

    def draw(self, axes: Any, pairs: Pairs, top: int) -> None:
        height, width = self.cell
        spare = self.across - self.columns * (2 * width + GAP)
        between = min(spare / max(1, self.columns - 1), 2 * width) if self.columns > 1 else 0
        start = 0 if self.columns > 1 else spare / 2
        for place, seed in enumerate(pairs.seeds):
            row, column = divmod(place, self.columns)
            left = round(start + column * (2 * width + GAP + between))
            y, second = top + LINE + row * (height + LINE + GAP), left + width + GAP
            put(axes, printed(pairs.before[place], self.cell), (left, y))
            put(axes, printed(pairs.after[place], self.cell), (second, y))
            label(axes, seed, left + width + GAP / 2, y + height, 2 * width)
            if row == 0:
                word_over(axes, "before", left + width / 2, top, width)
                word_over(axes, "after", second + width / 2, top, width)


# Captions


def edit_caption(generator: Generator, rule: Rule, spec: LatentSpec, text: str = "") -> str:
    """What a figure of an edit says, for `rule`, over the pictures of `spec`."""
    said = text or (
        "An edit: copied (left), pasted (right) as the layer draws it there, wherever there is the context (middle); "
        "below, pictures before and after it. Numbers are seeds."
    )
    return measured(f"{said} {_rule(rule)}", generator, spec)


def _rule(rule: Rule) -> str:
    return f"Rule {rule.digest[:12]} at {rule.layer}, rank {rule.rank}, strength {rule.strength:g}."


# Small parts


def some(pairs: Pairs) -> Pairs:
    """The pairs, if there are any.

    Raises:
        RequestError: there are none.
    """
    if not len(pairs.seeds):
        raise RequestError(found="no pictures", expected="at least one", remedy="Name some seeds.")
    return pairs


def fitted(size: tuple[int, int], room: int) -> tuple[int, int]:
    """The (height, width) at which pictures of `size` are printed `room` wide at most: by a whole factor if larger."""
    height, width = size
    room = max(1, room)
    factor = room // width
    return (factor * height, factor * width) if factor else (max(1, round(room * height / width)), room)


def _put(axes: Any, one: Panel, size: tuple[int, int], corner: tuple[int, int]) -> None:
    """A painted picture, outlined, over its label."""
    put(axes, outlined(one.picture, one.mask, size), corner)
    label(axes, one.label, corner[0] + size[1] / 2, corner[1] + size[0], size[1])


def label(axes: Any, text: object, middle: float, top: float, room: float) -> None:
    """What a picture is called, below it."""
    size = fitting(str(text), room, TEXT)
    write(axes, str(text), middle, top + LINE / 2, size, ha="center", va="center_baseline", color=INK)


def word_over(axes: Any, text: str, middle: float, top: float, room: float = math.inf) -> None:
    """A word over a part of the figure."""
    write(axes, text, middle, top + LINE / 2, fitting(text, room, TEXT), ha="center", va="center", color=INK)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
