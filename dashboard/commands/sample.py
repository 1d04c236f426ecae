"""`palimpsest sample`: pictures of a generator."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dashboard.commands import options
from dashboard.commands.console import report
from dashboard.commands.opening import opened
from dashboard.commands.output import Output, draw

if TYPE_CHECKING:
    from dashboard.figures import Width
    from rewrite_core.generators.latents import Scheme

__all__ = ["sample"]


@click.command(epilog=options.example('palimpsest sample anime64-dcgan --seeds "0-31, 40" --out samples.png'))
@click.argument("model", required=False)
@options.seeds("0-31")
@options.truncation
@options.scheme
@options.out("--out", "A labelled grid, or a folder of PNG files.", folder=True, required=True)
@options.width
@options.as_json
@options.quiet
def sample(
    model: str | None,
    seeds: tuple[int, ...],
    truncation: float,
    scheme: Scheme,
    out: Output,
    width: Width,
    as_json: bool,
    quiet: bool,
) -> None:
    """Draw pictures of a generator.

    MODEL is the name of an embedded one or the path of a file or folder. The pictures become a labelled grid, or a
    folder of files named by their seeds.
    """
    from rewrite_core import LatentSpec

    generator = opened(model)
    files = draw(out, {"": generator}, LatentSpec(seeds, scheme, truncation), width, quiet)
    answer = {
        "model": generator.name,
        "fingerprint": generator.fingerprint,
        "seeds": seeds,
        "scheme": scheme,
        "truncation": truncation,
        "files": files,
    }
    report(answer, f"{generator.name} in {out.path}: {len(seeds):,} drawn", as_json)
