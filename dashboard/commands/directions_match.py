"""`palimpsest directions match`: where a direction matches, over many pictures, or what is like one place."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from dashboard.commands import options
from dashboard.commands.console import progress, report
from dashboard.commands.directions_opening import described, given
from dashboard.commands.opening import opened
from dashboard.commands.output import Output, make_folder, require_drawable, write_figure, write_table
from dashboard.ranges import format_ranges

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dissect.figures import Width
    from rewrite_core.directions import Direction
    from rewrite_core.directions.matches import Matches
    from rewrite_core.generators import Generator, LatentSpec
    from rewrite_core.generators.latents import Scheme
    from rewrite_core.pictures import Picture

__all__ = ["match"]

SIDES = 12
"""Pictures that are named of the middle and of the bottom, at most."""


def _place(
    _context: click.Context, _option: click.Parameter, text: str | None
) -> tuple[int, tuple[int, int]] | None:
    """``5:7,8``: a picture's number, and row and column of a cell of the layer's grid."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,10}):(\d{1,5}),(\d{1,5})", text.replace(" ", ""))
    if not found or int(found[1]) >= 2**32:
        raise click.BadParameter("such as 5:7,8 for row 7 and column 8 of picture 5")
    return int(found[1]), (int(found[2]), int(found[3]))


@click.command(epilog=options.example("palimpsest directions match eyes --seeds 1000-1999 --out eyes.png"))
@click.argument("file", metavar="[FILE|CONTEXT]", required=False)
@options.model
@click.option(
    "--near",
    metavar="SEED:ROW,COLUMN",
    callback=_place,
    help="Instead of a direction: what the layer treats as it does this cell of its grid in picture SEED.",
)
@click.option(
    "--layer", metavar="LAYER", help="Of --near without a direction.  [default: the model's default]"
)
@options.seeds("0-999")
@options.truncation
@options.cutoff
@options.label
@options.scheme
@click.option(
    "--top", type=click.IntRange(1, 256), default=24, show_default=True, help="How many pictures to name."
)
@click.option(
    "--quantile",
    type=click.FloatRange(0, 1),
    default=0.999,
    show_default=True,
    help="What is above this quantile of the heat is outlined.",
)
@options.out(
    "--out", "Figure of the best, middle and worst pictures, or a folder for figures and tables.", folder=True
)
@options.width
@options.device
@options.force
@options.as_json
@options.quiet
def match(
    file: str | None,
    model: str | None,
    near: tuple[int, tuple[int, int]] | None,
    layer: str | None,
    seeds: tuple[int, ...],
    truncation: float,
    cutoff: int | None,
    label: int | None,
    scheme: Scheme,
    top: int,
    quantile: float,
    out: Output | None,
    width: Width,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Find where a direction matches.

    The best match comes first. The folder gets the pictures with what matches outlined, the distribution of scores, the
    average of the best patches, and a row for each picture.
    """
    from rewrite_core.generators import LatentSpec

    if (file is None) == (near is None):
        raise click.UsageError("Give a direction or a context, or a place with --near.")
    if layer is not None and near is None:
        raise click.UsageError("--layer is of --near: a direction has a layer of its own.")
    require_drawable(top + 2 * min(top, SIDES))
    spec = LatentSpec(seeds, scheme, truncation, cutoff, label)
    direction = None
    if file is not None:
        asked = given(file, model, force, quiet)
        generator, direction = asked.generator, asked.direction
        found = _searched(generator, direction, spec, top, quiet)
        title = direction.name or direction.method
    else:
        assert near is not None
        generator = opened(model)
        layer = generator.layer(layer or generator.default_layer).name
        found = _near(generator, layer, near, spec, top, quiet)
        title = f"like row {near[1][0]}, column {near[1][1]} of {near[0]}"
    layer = direction.layer if direction else str(layer)
    few = min(top, SIDES)
    rows = {"top": found.top(top), "middle": found.middle(few), "bottom": found.bottom(few)}
    level = found.level(quantile)
    answer: dict[str, Any] = {
        "model": generator.name,
        "fingerprint": generator.fingerprint,
        "layer": layer,
        "direction": described(direction) if direction else None,
        "near": None if near is None else {"seed": near[0], "row": near[1][0], "column": near[1][1]},
        "samples": format_ranges(seeds),
        "truncation": truncation,
        "cutoff": cutoff,
        "class": label,
        "scheme": scheme,
        "exact": found.exact,
        "error": found.error,
        "quantile": quantile,
        "level": level,
        **{name: _scores(found, some) for name, some in rows.items()},
    }
    answer["files"] = _written(out, generator, found, rows, level, title, answer, width)
    report(answer, _text(answer, title, out), as_json)


def _searched(
    generator: Generator, direction: Direction, spec: LatentSpec, ranks: int, quiet: bool
) -> Matches:
    from rewrite_core.directions.matches import search
    from rewrite_core.statistics import default_store

    with progress("Searching", quiet) as advance:
        return search(
            generator,
            direction.layer,
            direction.vectors[0],
            spec,
            store=default_store(),
            ranks=ranks,
            progress=advance,
        )


def _near(
    generator: Generator,
    layer: str,
    near: tuple[int, tuple[int, int]],
    spec: LatentSpec,
    ranks: int,
    quiet: bool,
) -> Matches:
    from rewrite_core.directions.matches import nearest
    from rewrite_core.statistics import default_store

    seed, place = near
    with progress("Searching", quiet) as advance:
        return nearest(
            generator, layer, seed, place, spec, store=default_store(), ranks=ranks, progress=advance
        )


def _scores(found: Matches, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Of some pictures the score, and where in them it is."""
    rows = []
    for seed in seeds:
        row, column = found.best(seed)
        rows.append({"seed": seed, "score": float(found.of(seed).max()), "row": row, "column": column})
    return rows


# What is written


def _written(
    out: Output | None,
    generator: Generator,
    found: Matches,
    rows: Mapping[str, Sequence[int]],
    level: float,
    title: str,
    answer: Mapping[str, Any],
    width: Width,
) -> list[str]:
    """One figure of the pictures, or a folder of everything; the names of the files."""
    if out is None:
        return []
    from dissect.direction_figures import matches_figure, patches_figure, strip
    from dissect.direction_plots import scores_figure
    from dissect.figures import save_figure
    from rewrite_core.files import write_json

    strips = {name: strip(generator, found, seeds) for name, seeds in rows.items()}
    pictures = matches_figure(strips, level, title, width=width)
    if out.figure:
        save_figure(pictures, out.path)
        return [str(out.path)]
    folder = make_folder(out.path)
    crops = _patches(strips["top"].pictures, found, rows["top"])
    files = [
        *write_figure(folder / "matches", pictures),
        *write_figure(folder / "scores", scores_figure(found, title=title)),
        *write_figure(folder / "patches", patches_figure(crops, rows["top"], title, width=width)),
        write_table(folder / "scores", found.table()),
    ]
    write_json(folder / "match.json", {**answer, "files": files})
    return [*files, str(folder / "match.json")]


def _patches(pictures: Picture, found: Matches, seeds: Sequence[int]) -> Picture:
    """The place of the greatest heat of each picture, cropped."""
    import numpy as np

    from dissect.patches import patches

    places: NDArray[np.int64] = np.array([found.best(seed) for seed in seeds])  # [N, 2]
    grid = (found.heat.shape[1], found.heat.shape[2])
    return patches(pictures, places, grid)


def _text(answer: Mapping[str, Any], title: str, out: Output | None) -> str:
    layer, level, quantile = answer["layer"], answer["level"], answer["quantile"]
    head = f"{title}, {layer} of {answer['model']}; the {quantile:g} quantile is {level:.4f}"
    best = [
        f"{one['seed']:>10}  {one['score']:.4f}  row {one['row']}, column {one['column']}"
        for one in answer["top"]
    ]
    return "\n".join([head, *best, *([f"written to {out.path}"] if out else [])])
