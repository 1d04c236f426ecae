"""`palimpsest sweep`: one edit at several layers and ranks, to choose from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dashboard.commands import options
from dashboard.commands.console import progress, report
from dashboard.commands.output import make_folder, write_figure, write_table
from dashboard.commands.requests import SETTINGS, generator_for, load_edit, setting_options
from dashboard.commands.table import table

if TYPE_CHECKING:
    from dissect.figures import Width
    from rewrite_core import EditRequest, Generator
    from rewrite_core.rules.sweeping import Cell, Sweep

__all__ = ["sweep"]

HEADER = ("layer", "rank", "loss", "left", "elsewhere", "others", "seconds", "")
RANKS = "1,3,10"


@click.command(
    epilog=options.example("palimpsest sweep blue-eyes --layers l05,l08 --ranks 1,3,10 --out sweep/")
)
@click.argument("edit", metavar="EDIT")
@options.model
@click.option(
    "--layers", metavar="NAMES", help="Layers to try, such as l05,l08.  [default: all that can be rewritten]"
)
@click.option("--ranks", metavar="NUMBERS", default=RANKS, show_default=True, help="Ranks to try.")
@setting_options(*(name for name in SETTINGS if name not in ("layer", "rank")))
@click.option(
    "--picture",
    metavar="N",
    type=click.IntRange(0),
    help="Picture of the figure.  [default: the one that is pasted into]",
)
@options.place("--out", "Folder for the table, the figure, and the rule of every cell.", folder=True)
@options.width
@options.device
@options.force
@options.as_json
@options.quiet
def sweep(
    edit: str,
    model: str | None,
    layers: str | None,
    ranks: str,
    picture: int | None,
    out: Path | None,
    width: Width,
    force: bool,
    as_json: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Solve an edit at every one of several layers by every one of several ranks.

    EDIT is as `palimpsest edit` takes it. Each rule is the one that `palimpsest edit` solves at that layer and rank.
    For each there is the share of the loss that is left, the change elsewhere, and under "others" how much of the
    example's change it makes in the other painted contexts.
    """
    request = load_edit(edit, settings)
    generator, request = generator_for(request, model, force)
    named = [name.strip() for name in layers.split(",")] if layers else list(generator.layers)
    found = _found(generator, request, named, _numbers(ranks), Path(edit).stem, quiet)
    written = _write(generator, found, picture, out, width) if out else []
    answer = {
        "name": Path(edit).stem,
        "model": generator.name,
        "fingerprint": generator.fingerprint,
        "contexts": found.contexts,
        "cells": [_cell(cell) for cell in found.cells],
        "files": written,
    }
    report(answer, "\n".join([*table([HEADER, *map(_row, found.cells)]), *written]), as_json)


def _numbers(text: str) -> list[int]:
    from dashboard.ranges import parse_ranges

    return list(parse_ranges(text, noun="rank"))


def _found(
    generator: Generator, request: EditRequest, layers: list[str], ranks: list[int], name: str, quiet: bool
) -> Sweep:
    from rewrite_core.rules import sweeping

    with progress("Sweeping", quiet) as advance:
        return sweeping.sweep(generator, request, layers, ranks, name=name, progress=advance)


def _write(generator: Generator, found: Sweep, picture: int | None, folder: Path, width: Width) -> list[str]:
    """The table, the figure and every rule in a folder; the names of the files."""
    from dissect.sweep_figure import shown_first, sweep_figure, swept_pictures

    make_folder(folder)
    image = shown_first(found.request) if picture is None else picture
    before, after = swept_pictures(generator, found, image)
    figure = sweep_figure(found, before, after, width=width)
    written = [write_table(folder / "sweep", found.table()), *write_figure(folder / "sweep", figure)]
    for cell in found.cells:
        if cell.edit:
            path = folder / f"{cell.layer}-rank{cell.rank}.safetensors"
            cell.edit.rule.save(path)
            written.append(str(path))
    return written


def _cell(cell: Cell) -> dict[str, Any]:
    """One object for each cell; of one that cannot be, only where it is and why."""
    if cell.edit is None:
        return {"layer": cell.layer, "rank": cell.rank, "problem": cell.problem}
    return {
        "layer": cell.layer,
        "rank": cell.rank,
        "loss_before": cell.edit.solved.loss_before,
        "loss": cell.edit.solved.loss,
        "share": cell.share,
        "elsewhere": cell.edit.solved.elsewhere,
        "generalisation": cell.generalisation,
        "seconds": cell.seconds,
        "digest": cell.edit.rule.digest,
    }


def _row(cell: Cell) -> list[str]:
    if cell.edit is None:
        return [cell.layer, str(cell.rank), "", "", "", "", "", cell.problem]
    solved = cell.edit.solved
    numbers = [
        f"{solved.loss:.3g}",
        f"{cell.share:.0%}",
        f"{solved.elsewhere:.1%}",
        f"{cell.generalisation:.0%}",
    ]
    return [cell.layer, str(cell.rank), *numbers, f"{cell.seconds:.2f}", ""]
