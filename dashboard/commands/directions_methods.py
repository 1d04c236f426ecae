"""`palimpsest directions methods`: the same context by every method, and how well each finds the concept meant."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dashboard.commands import options
from dashboard.commands.console import progress, report
from dashboard.commands.directions_opening import open_context, statistics_of
from dashboard.commands.output import make_folder, write_figure, write_table
from dashboard.commands.requests import setting_options
from dashboard.commands.table import table
from dashboard.ranges import format_ranges

if TYPE_CHECKING:
    from dissect.figures import Width
    from dissect.methods import MethodComparison
    from rewrite_core.generators import Generator

__all__ = ["methods"]

PICTURES = 8
"""That are drawn with the heat of each method."""
CLEAR, FULL = 0.9, 0.999
"""Quantiles of a method's heat between which its colour rises."""


@click.command(
    epilog=options.example(
        "palimpsest directions methods eyes --concept eyes --concepts embedded --out methods/"
    )
)
@click.argument("context", metavar="CONTEXT")
@options.model
@click.option("--concept", metavar="NAME", help="What the context is to find, by a name of --concepts.")
@options.concepts(
    "Where it is told from: colours, faces, embedded, a file or folder, segmenter:FOLDER.  "
    "[default: with --concept, embedded]"
)
@click.option("--layer", metavar="LAYER", help="Of which layer.  [default: the context's, else the model's]")
@setting_options("ridge", "contrast", "protect", "truncation", "cutoff", "class")
@options.seeds("0-999")
@options.place("--out", "Folder for figures and tables.", folder=True)
@options.width
@options.device
@options.force
@options.as_json
@options.quiet
def methods(
    context: str,
    model: str | None,
    concept: str | None,
    concepts: str | None,
    layer: str | None,
    seeds: tuple[int, ...],
    out: Path | None,
    width: Width,
    force: bool,
    as_json: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Compare the directions that every method makes of a context.

    The answer says how well each finds a concept (average precision, with a 95 % interval over pictures), and how far
    they agree on the best pictures. Pictures that were painted on are left out.
    """
    from dissect.concepts.catalogue import open_concepts
    from dissect.methods import compare_methods

    if concepts is not None and concept is None:
        raise click.UsageError("--concepts needs a --concept to look for among them.")
    asked = open_context(context, model, force, {"layer": layer, **settings})
    source = None if concept is None else open_concepts(concepts or "embedded", asked.generator)
    statistics_of(asked.generator, asked.layer, quiet)
    spec = asked.request.latents.spec(seeds)
    with progress("Comparing methods", quiet) as advance:
        found = compare_methods(
            asked.generator, asked.layer, asked.request, spec, source, concept or "", progress=advance
        )
    answer = {
        "model": asked.generator.name,
        "fingerprint": asked.generator.fingerprint,
        "layer": found.layer,
        "context": asked.name,
        "samples": format_ranges(found.spec.seeds),
        "concept": found.concept or None,
        "source": found.source or None,
        "precision": found.precision.to_dict("records"),
        "top_overlap": [
            {"method": name, "shared": dict(zip(row.index, row.tolist(), strict=True))}
            for name, row in found.top_overlap.iterrows()
        ],
        "rankings": {name: some.top(found.top) for name, some in found.matches.items()},
        "files": [] if out is None else _written(out, asked.generator, found, asked.name, width),
    }
    report(answer, _text(answer, out), as_json)


def _written(out: Path, generator: Generator, found: MethodComparison, title: str, width: Width) -> list[str]:
    from dissect.direction_figures import methods_figure, strip
    from dissect.direction_plots import curves_figure

    folder = make_folder(out)
    seeds = next(iter(found.matches.values())).top(PICTURES)
    rows = {name: strip(generator.pristine, some, seeds) for name, some in found.matches.items()}
    scales = {name: (some.level(CLEAR), some.level(FULL)) for name, some in found.matches.items()}
    files = write_figure(folder / "heat", methods_figure(rows, scales, title, width=width))
    if found.judged:
        figure = curves_figure(found.curves, found.precision, title)
        files += write_figure(folder / "curves", figure)
        files.append(write_table(folder / "curves", found.curves))
        files.append(write_table(folder / "precision", found.precision))
    overlaps = found.top_overlap.rename_axis("method").reset_index()
    return [
        *files,
        write_table(folder / "rankings", found.rankings),
        write_table(folder / "overlaps", overlaps),
    ]


def _text(answer: Mapping[str, Any], out: Path | None) -> str:
    lines = [f"{answer['context']}, {answer['layer']} of {answer['model']}"]
    if answer["precision"]:
        header = [
            "method",
            "average precision",
            "95 % interval",
            f"of the best {answer['precision'][0]['top']}",
        ]
        rows = [
            [
                row["method"],
                f"{row['average_precision']:.3f}",
                f"{row['low']:.3f} to {row['high']:.3f}",
                str(row["hits"]),
            ]
            for row in answer["precision"]
        ]
        chance = answer["precision"][0]
        lines += [f"judged by '{answer['concept']}' of {answer['source']}", *table([header, *rows])]
        lines.append(f"chance {chance['share']:.3f}; where it mostly is {chance['place_alone']:.3f}")
    names = [row["method"] for row in answer["top_overlap"]]
    shared = [
        [row["method"], *(f"{row['shared'][name]:.2f}" for name in names)] for row in answer["top_overlap"]
    ]
    lines += ["", *table([["shared of the best pictures", *names], *shared])]
    return "\n".join([*lines, *([] if out is None else [f"figures and tables in {out}"])])
