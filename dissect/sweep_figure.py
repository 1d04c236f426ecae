"""A sweep on a page of a paper: a row for each layer, a column for each rank, and what each of them makes of a picture.

    found = sweep(generator, request, ["l05", "l08"], [1, 3, 10])
    before, after = swept_pictures(generator, found, request.painted("paste").image)
    save_figure(sweep_figure(found, before, after), "sweep.pdf")

Each cell is a picture before and after, over the loss that is left, the change elsewhere, and generalisation
(`rewrite_core.rules.sweeping`). A cell that cannot be is left empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dissect.edit_figures import fitted
from dissect.paper import DPI, GAP, LINE, TEXT, TITLE, WIDTHS, Width, fitting, page, printed, put, write
from rewrite_core.errors import RequestError
from rewrite_core.generators import Generator
from rewrite_core.generators.own import PictureId
from rewrite_core.pictures import Picture, to_uint8
from rewrite_core.rules.painted import latents_of
from rewrite_core.rules.request import EditRequest
from rewrite_core.rules.sweeping import Cell, Sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["numbers", "shown_first", "sweep_caption", "sweep_figure", "swept_pictures"]

LARGEST, WORD, APART = 160, 60, 18
"""Pixels of a picture at most, of the names of layers, and between cells."""
SMALLEST = 40
"""Of a picture at least: more ranks than leave that much go into no figure."""
Place = tuple[str, int]


def shown_first(request: EditRequest) -> PictureId:
    """The picture that tells most: what is pasted into, or the first of the context; 0 where directions stand alone."""
    if request.operation == "paste":
        return request.pairs[0].paste.image
    return request.key[0].image if request.key else 0


def swept_pictures(
    generator: Generator, found: Sweep, image: PictureId
) -> tuple[Picture, dict[Place, Picture]]:
    """One picture [H, W, 3] without rules, and by (layer, rank) under the rule of each cell alone that has one."""
    pristine = generator.pristine
    latents = latents_of(pristine, found.request, image)
    after = {
        (cell.layer, cell.rank): to_uint8(pristine.with_rules(cell.edit.rule).pictures(latents))[0]
        for cell in found.cells
        if cell.edit
    }
    return to_uint8(pristine.pictures(latents))[0], after


def numbers(cell: Cell, contexts: int) -> list[str]:
    """What is written under a cell that has a rule, a line each; of generalisation only where there is any context."""
    if cell.edit is None:
        return []
    lines = [f"loss {100 * cell.share:.0f} %", f"elsewhere {100 * cell.edit.solved.elsewhere:.0f} %"]
    return [*lines, f"others {100 * cell.generalisation:.0f} %"] if contexts else lines


def sweep_figure(
    found: Sweep,
    before: Picture,
    after: dict[Place, Picture],
    title: str | None = None,
    *,
    width: Width = "page",
) -> Figure:
    """The matrix of cells; `before` and `after` are `swept_pictures`.

    Raises:
        RequestError: there are more ranks than have room.
    """
    size = _size(found, before, width)
    down = size[0] + (3 if found.contexts else 2) * LINE + APART
    across = 2 * size[1] + GAP + APART
    top, wide = (LINE + GAP) * (1 + bool(title)), WORD + len(found.ranks) * across - APART
    figure, axes = page(wide, top + len(found.layers) * down - APART)
    if title:
        write(axes, title, 0, LINE / 2, fitting(title, wide, TITLE), ha="left", va="center")
    for column, rank in enumerate(found.ranks):
        middle = WORD + column * across + (across - APART) / 2
        write(axes, f"rank {rank}", middle, top - GAP - LINE / 2, ha="center", va="center")
    for row, layer in enumerate(found.layers):
        y = top + row * down
        points = fitting(layer, WORD - GAP, TEXT)
        write(axes, layer, WORD / 2, y + size[0] / 2, points, ha="center", va="center")
        for column, rank in enumerate(found.ranks):
            left, cell = WORD + column * across, found.at(layer, rank)
            _cell(axes, cell, found.contexts, (before, after.get((layer, rank))), size, (left, y))
    return figure


def sweep_caption(generator: Generator, found: Sweep, image: object) -> str:
    """What the figure shows, and how it was made."""
    edit = next((cell.edit for cell in found.cells if cell.edit), None)
    named = f" of “{edit.rule.name}”" if edit and edit.rule.name else ""
    others = (
        f", and others the change in {found.contexts} other painted contexts over that of the example"
        if found.contexts
        else ""
    )
    return (
        f"Picture {image} of {generator.pristine.name} without and with the rule{named}, solved at each layer (rows) "
        f"by each rank (columns). Loss is the share that is left of it, elsewhere the relative change of the layer's "
        f"response over everything the generator draws{others}."
    )


def _size(found: Sweep, before: Picture, width: Width) -> tuple[int, int]:
    """The (height, width) that pictures are printed at."""
    count = len(found.ranks)
    room = (round(WIDTHS[width] * DPI) - WORD - (count - 1) * APART) // count
    if (room - GAP) // 2 < SMALLEST:
        raise RequestError(
            found=f"{count} ranks in one figure",
            expected=f"as many as leave each picture {SMALLEST} pixels",
            remedy="Sweep fewer ranks.",
        )
    return fitted((before.shape[0], before.shape[1]), min(LARGEST, (room - GAP) // 2))


def _cell(
    axes: Any,
    cell: Cell,
    contexts: int,
    pair: tuple[Picture, Picture | None],
    size: tuple[int, int],
    corner: tuple[int, int],
) -> None:
    """A pair over its numbers; a dash where there is none."""
    (left, top), (before, after) = corner, pair
    middle, room = left + size[1] + GAP / 2, 2 * size[1] + GAP
    if after is None:
        write(axes, "—", middle, top + size[0] / 2, ha="center", va="center")
        return
    put(axes, printed(before, size), (left, top))
    put(axes, printed(after, size), (left + size[1] + GAP, top))
    for number, line in enumerate(numbers(cell, contexts)):
        y = top + size[0] + (number + 0.5) * LINE
        write(axes, line, middle, y, fitting(line, room, TEXT), ha="center", va="center")
