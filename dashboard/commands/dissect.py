"""`palimpsest dissect`: which units of which layers detect which concepts, as tables, figures and a report to read."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dashboard.commands import options
from dashboard.commands.console import progress, report, warn
from dashboard.commands.directions_opening import load_directions, made_for
from dashboard.commands.intervening import open_judge
from dashboard.commands.opening import opened, under
from dashboard.commands.table import table
from dashboard.ranges import format_ranges
from rewrite_core.errors import RequestError

if TYPE_CHECKING:
    from dissect.concepts import ConceptSource
    from dissect.report import Report
    from dissect.settings import Settings
    from dissect.tables import Dissection
    from rewrite_core.directions import Direction
    from rewrite_core.generators import Generator, LatentSpec
    from rewrite_core.generators.latents import Scheme

__all__ = ["dissect"]

ALL = "all"
SHEETS = 24


def _grid(_context: click.Context, _option: click.Parameter, text: str | None) -> tuple[int, int] | None:
    """``64`` or ``64x48`` (height × width)."""
    if text is None:
        return None
    sides = text.lower().replace("×", "x").split("x")
    if len(sides) > 2 or not all(side.isdecimal() and 0 < int(side) <= 4096 for side in sides):
        raise click.BadParameter("such as 64, or 64x48 for height and width; at most 4096")
    return int(sides[0]), int(sides[-1])


@click.command(
    epilog=options.example(
        "palimpsest dissect anime64-dcgan --out report/",
        "palimpsest dissect my-gan --layers l05,l08 --concepts colours --seeds 0-1999 --out colours/",
    )
)
@click.argument("model", required=False)
@click.option(
    "--layers",
    metavar="LAYERS",
    default=ALL,
    show_default=True,
    help='Which layers, such as "l05,l08", or "all".',
)
@click.option(
    "--direction",
    "directions",
    metavar="FILE",
    multiple=True,
    help="Dissect this direction of its layer in place of units; may be repeated, for directions of one layer.",
)
@options.concepts(
    "Where concepts come from: colours, faces, embedded, a file or folder, segmenter:FOLDER.  "
    "[default: embedded, else colours]"
)
@click.option(
    "--judge",
    metavar="CONCEPTS",
    help="Concepts that see pixels alone, to measure ablations by.  "
    "[default: --concepts if they do, else those distilled for the model, else colours]",
)
@options.seeds("0-999")
@options.truncation
@options.cutoff
@options.label
@options.scheme
@options.rules
@click.option("--quantile", type=float, default=0.99, show_default=True, help="A unit fires above it.")
@click.option(
    "--level", type=float, default=0.04, show_default=True, help="A detector's held-out IoU is above it."
)
@click.option(
    "--grid",
    metavar="SIZE",
    callback=_grid,
    help="Grid that masks are compared on, such as 64.  [default: the concepts' own]",
)
@click.option(
    "--sheets",
    type=click.IntRange(0),
    default=SHEETS,
    show_default=True,
    help="Concepts whose best unit is shown, at most.",
)
@options.place("--out", "Folder for the report, its tables and figures.", folder=True, required=True)
@click.option("--force", is_flag=True, help="Write over files that are there.")
@options.device
@options.as_json
@options.quiet
def dissect(
    model: str | None,
    layers: str,
    directions: tuple[str, ...],
    concepts: str | None,
    judge: str | None,
    seeds: tuple[int, ...],
    truncation: float,
    cutoff: int | None,
    label: int | None,
    scheme: Scheme,
    rules: tuple[Path, ...],
    quantile: float,
    level: float,
    grid: tuple[int, int] | None,
    sheets: int,
    out: Path,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Find which units, or directions, detect which concepts.

    MODEL is the name of an embedded one or the path of a file or folder. The folder gets tables, figures and a report
    to read. Interrupted, the same command goes on from what is finished; several at once, on any machines that share
    the cache, share the work.
    """
    from dissect.directions import stacked
    from dissect.report import require_writable
    from dissect.settings import Settings
    from rewrite_core import Rule
    from rewrite_core.generators import LatentSpec

    require_writable(out, force)
    settings = Settings(quantile, level, grid)
    spec = LatentSpec(seeds, scheme, truncation, cutoff, label)
    if directions and layers != ALL:
        raise click.UsageError("--layers are for units: directions have a layer of their own.")
    loaded, given = [Rule.load(path) for path in rules], load_directions(directions)
    models = [rule.provenance.model for rule in loaded] + [direction.model for direction in given]
    generator = under(opened(model, next(iter(models), "")), loaded)
    given = made_for(generator, given)
    names = [stacked(given).layer] if given else _layers(generator, layers)
    source = _concepts(concepts, generator)
    judging = source if judge is None and source.pixels_only else open_judge(judge, generator)
    started = time.perf_counter()
    try:
        found = _dissected(generator, spec, names, given, source, settings, quiet)
        counted = time.perf_counter()
        command = _command(model or generator.pristine.name, out)
        written = _written(generator, found, given, out, judging, command, sheets, force, quiet)
    except KeyboardInterrupt:
        warn("stopped. What is finished is kept; the same command goes on from there.")
        raise
    seconds = {"dissecting": counted - started, "reporting": time.perf_counter() - counted}
    for warning in found.warnings:
        warn(warning)
    answer = _answer(found, written, judging, seconds)
    report(answer, _text(answer, found.noun), as_json)


def _layers(generator: Generator, text: str) -> list[str]:
    """The layers named.

    Raises:
        LayerError: there is no such layer.
        RequestError: none is named.
    """
    if text.strip() == ALL:
        return list(generator.layers)
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise RequestError(
            found="no layer", expected=f"some, such as {generator.default_layer}", remedy=f"Or give {ALL}."
        )
    return [generator.layer(name).name for name in names]


def _concepts(text: str | None, generator: Generator) -> ConceptSource:
    """The concepts at `text`; without it what ships with the model, else colours."""
    from dissect.concepts.catalogue import embedded_concepts, open_concepts

    return open_concepts(text or ("embedded" if embedded_concepts(generator) else "colours"), generator)


def _dissected(
    generator: Generator,
    spec: LatentSpec,
    layers: list[str],
    directions: Sequence[Direction],
    source: ConceptSource,
    settings: Settings,
    quiet: bool,
) -> Dissection:
    from dissect.directions import stacked
    from dissect.sheet import ALSO
    from dissect.units import dissect as dissected
    from dissect.units import dissect_directions

    with progress("Dissecting", quiet) as advance:
        if directions:
            put = stacked(directions)
            return dissect_directions(
                generator, spec, put.layer, put.rows, put.names, source, settings, also=ALSO, progress=advance
            )
        return dissected(generator, spec, layers, source, settings, also=ALSO, progress=advance)


def _written(
    generator: Generator,
    found: Dissection,
    directions: Sequence[Direction],
    out: Path,
    judge: ConceptSource,
    command: str,
    most: int,
    force: bool,
    quiet: bool,
) -> Report:
    from dissect.report import write_report

    with progress("Reporting", quiet) as advance:
        return write_report(
            generator,
            found,
            out,
            directions=directions,
            judge=judge,
            command=command,
            most=most,
            force=force,
            progress=advance,
        )


def _command(model: str, out: Path) -> str:
    """The command line that makes the same: what was given, all of it but what changes no byte of the report."""
    context = click.get_current_context()
    parts = ["palimpsest", "dissect", model]
    for option in context.command.params:
        value = context.params.get(option.name or "")
        flag = option.opts[0]
        if flag in ("model", "--out", "--force", "--json", "--quiet") or value in (None, option.default):
            continue
        if option.name in ("rules", "directions"):
            parts += [word for path in value for word in (flag, str(path))]
            continue
        if option.name == "seeds":
            value = format_ranges(value)
        elif option.name == "grid":
            value = "x".join(map(str, value))
        parts += [flag, str(value)]
    return shlex.join([*parts, "--out", out.name])


# The answer


def _answer(
    found: Dissection, written: Report, judge: ConceptSource, seconds: dict[str, float]
) -> dict[str, Any]:
    return {
        "model": found.model,
        "fingerprint": found.fingerprint,
        "samples": len(found.spec),
        "source": found.source,
        "judge": judge.title,
        "layers": found.summary().to_dict("records"),
        "concepts": found.concepts().to_dict("records"),
        "warnings": found.warnings,
        "seconds": seconds,
        "report": str(written.page),
        "files": [str(written.folder / name) for name in written.files],
    }


def _text(answer: dict[str, Any], noun: str) -> str:
    layers = [["layer", f"{noun}s", "detectors", "concepts", "dead"]] + [
        [
            row["layer"],
            f"{row['units']:,}",
            f"{row['detectors']:,} ({row['interpretable']:.0%})",
            str(row["concepts"]),
            str(row["dead"]),
        ]
        for row in answer["layers"]
    ]
    concepts = [["concept", "share", "detectors", f"best {noun}", "held-out IoU", "baseline"]] + [
        [
            row["concept"],
            f"{row['share']:.1%}",
            str(row["detectors"]),
            f"{row['layer']} {noun} {row['unit']}" if row["unit"] else "none",
            f"{row['held_out_iou']:.3f}",
            f"{row['baseline']:.3f}",
        ]
        for row in answer["concepts"]
    ]
    seconds = sum(answer["seconds"].values())
    head = f"{answer['model']}, {answer['samples']:,} samples, {answer['source']}, {seconds:.1f} s"
    return "\n".join(
        [head, "", *table(layers), "", *table(concepts), "", f"The report is {answer['report']}"]
    )
