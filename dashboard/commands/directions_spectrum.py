"""`palimpsest directions spectrum` and `overlap`: what samples know of a layer's keys; what directions share."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dashboard.commands import options
from dashboard.commands.console import progress, report, warn
from dashboard.commands.directions_opening import given, made_for, statistics_of
from dashboard.commands.opening import opened
from dashboard.commands.output import make_folder, write_figure, write_table
from dashboard.commands.table import table
from rewrite_core.errors import ModelMismatch, RequestError

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from dissect.figures import Width
    from rewrite_core.directions import Direction
    from rewrite_core.directions.spectrum import Spectrum
    from rewrite_core.generators.latents import Scheme

__all__ = ["overlap", "spectrum"]


@click.command(epilog=options.example("palimpsest directions spectrum anime64-dcgan --out spectrum/"))
@click.argument("model", required=False)
@click.option(
    "--layer", "layers", metavar="LAYER", multiple=True, help="Which layer; may be repeated.  [default: all]"
)
@options.seeds("0-999")
@options.truncation
@options.cutoff
@options.label
@options.scheme
@options.place("--out", "Folder for a figure and tables.", folder=True)
@options.width
@options.device
@options.as_json
@options.quiet
def spectrum(
    model: str | None,
    layers: tuple[str, ...],
    seeds: tuple[int, ...],
    truncation: float,
    cutoff: int | None,
    label: int | None,
    scheme: Scheme,
    out: Path | None,
    width: Width,
    as_json: bool,
    quiet: bool,
) -> None:
    """Say how many directions of key space a layer uses, and whether the samples were enough to know them."""
    from rewrite_core.directions.spectrum import spectra
    from rewrite_core.generators import LatentSpec

    generator = opened(model)
    names = list(dict.fromkeys(generator.layer(name).name for name in layers)) or list(generator.layers)
    spec = LatentSpec(seeds, scheme, truncation, cutoff, label)
    with progress("Gathering statistics", quiet) as advance:
        found = spectra(generator, names, spec, progress=advance)
    for one in found.values():
        if one.warning:
            warn(one.warning)
    answer: dict[str, Any] = {
        "model": generator.name,
        "fingerprint": generator.fingerprint,
        "samples": len(seeds),
        "layers": [_summary(one) for one in found.values()],
        "files": [] if out is None else _spectra_written(out, found, width),
    }
    header = ["layer", "units", "alive", "effective rank", "condition", "sound", "enough"]
    rows = [
        [
            row["layer"],
            str(row["units"]),
            str(row["alive"]),
            f"{row['effective_rank']:.1f}",
            "infinite" if row["condition"] is None else f"{row['condition']:.3g}",
            f"{row['stable']} of {row['rank']}",
            "yes" if row["enough"] else "no",
        ]
        for row in answer["layers"]
    ]
    kept = [] if out is None else [f"figure and tables in {out}"]
    report(
        answer,
        "\n".join([f"{generator.name}, {len(seeds):,} samples", *table([header, *rows]), *kept]),
        as_json,
    )


def _summary(one: Spectrum) -> dict[str, Any]:
    return {
        "layer": one.layer,
        "units": one.units,
        "alive": one.alive,
        "rank": len(one.eigenvalues),
        "positions": one.positions,
        "effective_rank": one.effective_rank,
        "condition": one.condition if math.isfinite(one.condition) else None,
        "stable": one.stable,
        "enough": one.enough,
        "warning": one.warning,
    }


def _spectra_written(out: Path, found: Mapping[str, Spectrum], width: Width) -> list[str]:
    import pandas as pd

    from dissect.direction_plots import spectrum_figure

    folder = make_folder(out)
    tables = [one.table().assign(layer=layer) for layer, one in found.items()]
    return [
        *write_figure(folder / "spectrum", spectrum_figure(found, width=width)),
        write_table(folder / "eigenvalues", pd.concat(tables, ignore_index=True)),
        write_table(folder / "layers", pd.DataFrame([_summary(one) for one in found.values()]).fillna("")),
    ]


@click.command(epilog=options.example("palimpsest directions overlap eyes hair --out overlaps/"))
@click.argument("files", metavar="FILE|CONTEXT...", nargs=-1, required=True)
@options.model
@options.place("--out", "Folder for a figure and tables.", folder=True)
@options.width
@options.device
@options.force
@options.as_json
@options.quiet
def overlap(
    files: tuple[str, ...],
    model: str | None,
    out: Path | None,
    width: Width,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Say how much directions of one layer have in common.

    As queries: do they match the same places? As keys: were they made from the same contexts? Two rules at directions
    that overlap are likely to change each other's pictures.
    """
    from rewrite_core.directions.overlap import interference, key_overlap, query_overlap

    first = given(files[0], model, force, quiet)
    generator = first.generator
    others = [given(text, model, force, quiet) for text in files[1:]]
    for other in others:
        if other.generator.fingerprint != generator.fingerprint:
            raise ModelMismatch(
                found=f"directions of {generator.name} and of {other.generator.name}",
                expected="directions of one model",
                remedy="Compare those of each model by themselves.",
            )
    directions = made_for(generator, [first.direction, *(other.direction for other in others)], force)
    names = _names(directions)
    _require_one_layer(directions)
    moment = statistics_of(generator, directions[0].layer, quiet).second_moment
    found = {
        "queries": query_overlap(directions, moment),
        "keys": key_overlap(directions, moment),
        "interference": interference(directions, moment),
    }
    answer = {
        "model": generator.name,
        "fingerprint": generator.fingerprint,
        "layer": directions[0].layer,
        "directions": names,
        **{what: matrix.tolist() for what, matrix in found.items()},
        "close": _close(names, found),
        "files": [] if out is None else _overlaps_written(out, names, found, width),
    }
    report(answer, _overlaps_text(answer, out), as_json)


def _require_one_layer(directions: Sequence[Direction]) -> None:
    """Refuse directions of several layers, before statistics of one of them are gathered."""
    layers = list(dict.fromkeys(direction.layer for direction in directions))
    if len(layers) > 1:
        raise RequestError(
            found=f"directions of {', '.join(layers)}",
            expected="directions of one layer",
            remedy="Compare those of a layer at a time.",
        )


def _names(directions: Sequence[Direction]) -> list[str]:
    """A name for each, told apart by number where two are the same."""
    names = [direction.name or direction.method for direction in directions]
    return [name if names.count(name) == 1 else f"{name} ({number})" for number, name in enumerate(names, 1)]


def _close(names: Sequence[str], found: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """The pairs that are likely to collide, in the order in which they were given; of either way, the stronger."""
    from rewrite_core.directions.overlap import CLOSE

    pairs = []
    for i, j in itertools.combinations(range(len(names)), 2):
        shared = {
            what: max(float(matrix[i, j]), float(matrix[j, i]), key=abs) for what, matrix in found.items()
        }
        if max(map(abs, shared.values())) > CLOSE:
            pairs.append({"one": names[i], "other": names[j], **shared})
    return pairs


def _overlaps_written(
    out: Path, names: Sequence[str], found: Mapping[str, Tensor], width: Width
) -> list[str]:
    from dissect.direction_plots import overlap_figure

    folder = make_folder(out)
    figure = overlap_figure(names, found["queries"].numpy(), found["keys"].numpy(), width=width)
    return [
        *write_figure(folder / "overlaps", figure),
        *(write_table(folder / what, _matrix(names, matrix)) for what, matrix in found.items()),
    ]


def _matrix(names: Sequence[str], matrix: Tensor) -> pd.DataFrame:
    """A row and a column for each direction."""
    import pandas as pd

    return pd.DataFrame(matrix.numpy(), columns=list(names)).assign(direction=list(names))[
        ["direction", *names]
    ]


def _overlaps_text(answer: Mapping[str, Any], out: Path | None) -> str:
    names = answer["directions"]
    lines = [f"{answer['layer']} of {answer['model']}"]
    for what in ("queries", "keys", "interference"):
        rows = [
            [name, *(f"{value:+.2f}" for value in row)] for name, row in zip(names, answer[what], strict=True)
        ]
        lines += ["", *table([[what, *names], *rows])]
    lines += [f"likely to collide: {pair['one']} and {pair['other']}" for pair in answer["close"]]
    return "\n".join([*lines, *([] if out is None else [f"figure and tables in {out}"])])
