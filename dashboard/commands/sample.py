"""`palimpsest sample`: pictures of a generator, few in a figure or many in a folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from dashboard.commands import options
from dashboard.commands.console import progress, report, warn
from dashboard.commands.latents import draw_latents, pair
from dashboard.commands.opening import opened, under
from dashboard.commands.output import Output, draw

if TYPE_CHECKING:
    from dissect.figures import Width
    from rewrite_core import Generator, LatentSpec, Rule
    from rewrite_core.generators.bulk_formats import FormatName
    from rewrite_core.generators.latents import Scheme

__all__ = ["sample"]


@click.command(
    epilog=options.example(
        'palimpsest sample anime64-dcgan --seeds "0-31, 40" --out samples.png',
        "palimpsest sample anime64-dcgan --seeds 0-99 --format tar --out samples/",
    )
)
@click.argument("model", required=False)
@options.seeds("0-31")
@options.truncation
@options.cutoff
@options.label
@options.scheme
@click.option(
    "--latents",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Draw latents w or z from a file instead.",
)
@click.option("--mix", metavar="SEED,SEED", callback=pair, help="Mix the styles of two pictures instead.")
@click.option(
    "--crossover",
    type=click.IntRange(0),
    help="How many of the first styles are the first picture's.  [default: each number of them in turn]",
)
@options.rules
@options.out("--out", "A labelled grid, or a folder that may hold very many.", folder=True, required=True)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["png", "tar", "npy"]),
    help="Of a folder: a file each, tar files of 1,000, or one array.  [default: png]",
)
@options.width
@options.device
@options.half
@options.force
@options.as_json
@options.quiet
def sample(
    model: str | None,
    seeds: tuple[int, ...],
    truncation: float,
    cutoff: int | None,
    label: int | None,
    scheme: Scheme,
    latents: Path | None,
    mix: tuple[int, int] | None,
    crossover: int | None,
    rules: tuple[Path, ...],
    out: Output,
    format_: FormatName | None,
    width: Width,
    half: bool,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Draw pictures of a generator.

    MODEL is the name of an embedded one or the path of a file or folder. The pictures become a labelled grid, or a
    folder of files named by their seeds. A folder is filled by any number of processes at once, and the same command
    goes on where it was interrupted.
    """
    from rewrite_core import LatentSpec, Rule

    _require_consistent(out, format_, latents, mix, crossover)
    loaded = [Rule.load(path) for path in rules]
    generator = opened(model, loaded[0].provenance.model if loaded else "", half=half)
    view = under(generator, loaded, force)
    spec = LatentSpec(seeds, scheme, truncation, cutoff, label)
    answer: dict[str, Any] = {
        "model": generator.name,
        "fingerprint": view.fingerprint,
        "truncation": truncation,
        "cutoff": cutoff,
        "class": label,
    }
    if latents or mix:
        answer |= draw_latents(view, latents, mix, crossover, spec, out, width, force, quiet)
        report(answer, f"{generator.name} in {out.path}: {len(answer['pictures']):,} drawn", as_json)
        return
    answer |= {"seeds": seeds, "scheme": scheme}
    if out.figure:
        answer["files"] = draw(out, {"": view}, spec, width, quiet)
        report(answer, f"{generator.name} in {out.path}: {len(seeds):,} drawn", as_json)
        return
    answer |= _fill(view, spec, out.path, format_ or "png", loaded, quiet or not _first())
    if _first():
        found = f", {answer['found']:,} there already" if answer["found"] else ""
        report(answer, f"{generator.name} in {out.path}: {answer['drawn']:,} drawn{found}", as_json)


def _require_consistent(
    out: Output,
    format_: str | None,
    latents: Path | None,
    mix: tuple[int, int] | None,
    crossover: int | None,
) -> None:
    """Refuse options that contradict each other."""
    seeds = click.get_current_context().get_parameter_source("seeds")
    named = [seeds is ParameterSource.COMMANDLINE, latents is not None, mix is not None]
    if sum(named) > 1:
        raise click.UsageError("--seeds, --latents and --mix each say which pictures: give one.")
    if format_ and (out.figure or latents or mix):
        raise click.UsageError("--format is of a folder of seeds.")
    if crossover is not None and not mix:
        raise click.UsageError("--crossover is of --mix.")


def _fill(
    view: Generator, spec: LatentSpec, folder: Path, format_: FormatName, rules: list[Rule], quiet: bool
) -> dict[str, Any]:
    """Draw into the folder what is missing there, and describe it."""
    from rewrite_core.generators.bulk import write_samples
    from rewrite_core.generators.bulk_manifest import RuleRecord

    records = [
        RuleRecord(name=rule.name, layer=rule.layer, strength=rule.strength, digest=rule.digest)
        for rule in rules
    ]
    with progress("Drawing", quiet) as advance:
        try:
            written = write_samples(view, spec, folder, format=format_, rules=records, progress=advance)
        except KeyboardInterrupt:
            warn(f"stopped; what is drawn stays in {folder}, and the same command goes on from there")
            raise
    return {
        "format": format_,
        "drawn": written.drawn,
        "found": written.found,
        "files": list(map(str, written.files())),
    }


def _first() -> bool:
    """Whether this process is the one that speaks: the only one, or the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"
