"""`palimpsest search`: the pictures that show a context most."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from dashboard.commands import options
from dashboard.commands.console import progress, report
from dashboard.commands.output import Output
from dashboard.commands.requests import generator_for, load_edit, setting_options

if TYPE_CHECKING:
    from dissect.figures import Width
    from rewrite_core import EditRequest, Generator, Matches

__all__ = ["search"]


@click.command(epilog=options.example("palimpsest search blue-eyes --top 24 --out matches.png"))
@click.argument("edit", metavar="EDIT")
@options.model
@setting_options("layer", "method", "ridge", "contrast", "protect", "truncation", "cutoff", "class")
@options.seeds("0-999")
@click.option(
    "--top", type=click.IntRange(1, 256), default=24, show_default=True, help="How many pictures to name."
)
@options.out("--out", "Figure of these pictures, with what matches outlined.")
@options.width
@options.device
@options.force
@options.as_json
@options.quiet
def search(
    edit: str,
    model: str | None,
    seeds: tuple[int, ...],
    top: int,
    out: Output | None,
    width: Width,
    force: bool,
    as_json: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Find the pictures that show a context most.

    EDIT is a file whose context is to be looked for, or the name of an example. The best match comes first.
    The first search over some pictures keeps an index of them, which the next ones read.
    """
    request = load_edit(edit, settings)
    generator, request = generator_for(request, model, force)
    layer = request.layer or generator.default_layer
    found = _found(generator, request, layer, seeds, top, quiet)
    best = [(seed, float(found.of(seed).max())) for seed in found.top(top)]
    if out:
        _draw(out, generator, found, best, width, quiet)
    answer = {
        "model": generator.name,
        "fingerprint": generator.fingerprint,
        "layer": layer,
        "level": found.outline,
        "error": found.error,
        "matches": [{"seed": seed, "score": score} for seed, score in best],
        "files": [str(out.path)] if out else [],
    }
    report(answer, "\n".join(f"{seed:>10}  {score:.4f}" for seed, score in best), as_json)


def _found(
    generator: Generator, request: EditRequest, layer: str, seeds: tuple[int, ...], top: int, quiet: bool
) -> Matches:
    from rewrite_core import layer_statistics
    from rewrite_core.directions import matches
    from rewrite_core.rules.rewrite import direction_of
    from rewrite_core.statistics import default_store

    request.painted("key")
    spec = request.latents.spec(seeds)
    with progress("Gathering statistics", quiet) as advance:
        statistics = layer_statistics(generator, layer, progress=advance)
    query = direction_of(generator, request, statistics).vectors[0]
    with progress("Searching", quiet) as advance:
        return matches.search(
            generator, layer, query, spec, store=default_store(), ranks=top, progress=advance
        )


def _draw(
    out: Output,
    generator: Generator,
    found: Matches,
    best: list[tuple[int, float]],
    width: Width,
    quiet: bool,
) -> None:
    """The best pictures, what exceeds the level outlined and the rest dimmed."""
    import numpy as np

    from dissect.figures import grid_figure, save_figure
    from rewrite_core.pictures import overlay_heat

    seeds = [seed for seed, _ in best]
    with progress("Drawing", quiet) as advance:
        pictures = generator.draw(replace(found.spec, seeds=tuple(seeds)), advance)
    level = found.outline
    shown = [
        overlay_heat(picture, found.of(seed), level) for seed, picture in zip(seeds, pictures, strict=True)
    ]
    save_figure(grid_figure(np.stack(shown), seeds, width=width), out.path)
