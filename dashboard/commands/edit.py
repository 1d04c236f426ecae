"""`palimpsest edit`: from a request to a rule."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dashboard.commands import options
from dashboard.commands.console import progress, report
from dashboard.commands.directions_opening import load_direction
from dashboard.commands.output import Output, draw
from dashboard.commands.requests import SETTINGS, generator_for, load_edit, setting_options

if TYPE_CHECKING:
    from dissect.figures import Width
    from rewrite_core import Edit, EditRequest, Generator

__all__ = ["edit"]


@click.command(
    epilog=options.example("palimpsest edit blue-eyes --rule blue-eyes.safetensors --pairs pairs.png")
)
@click.argument("edit", metavar="EDIT")
@options.model
@setting_options(*SETTINGS)
@click.option(
    "--direction",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Directions that take the context's place: the rule acts where they match.",
)
@click.option("--name", default="", help="What to call the rule.  [default: as the file]")
@options.place("--rule", "Rule file to write (.safetensors).")
@options.out("--pairs", "Figure of pictures before and after, or a folder of them.", folder=True)
@options.seeds("1000-1015")
@options.width
@options.device
@options.force
@options.as_json
@options.quiet
def edit(
    edit: str,
    model: str | None,
    direction: Path | None,
    name: str,
    rule: Path | None,
    pairs: Output | None,
    seeds: tuple[int, ...],
    width: Width,
    force: bool,
    as_json: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Solve an edit for its rule.

    EDIT is a file saved by the app or by the published interface, or the name of an example. Its settings hold unless
    an option gives another. With --direction, a paste needs no context.
    """
    request = load_edit(edit, settings)
    if direction:
        request = request.model_copy(update={"given": load_direction(direction)})
    generator, request = generator_for(request, model, force)
    solved = _solved(generator, request, name or Path(edit).stem, quiet)
    written = []
    if rule:
        solved.rule.save(rule)
        written.append(str(rule))
    if pairs:
        strips = {"before": generator, "after": generator.with_rules(solved.rule)}
        written += draw(pairs, strips, request.latents.spec(seeds), width, quiet)
    answer = {**_summary(solved), "rule": str(rule) if rule else None, "files": written}
    report(answer, _text(answer, pairs), as_json)


def _solved(generator: Generator, request: EditRequest, name: str, quiet: bool) -> Edit:
    from rewrite_core import layer_statistics, rewrite
    from rewrite_core.rules.rewrite import completed

    layer = str(completed(request, generator).layer)
    with progress("Gathering statistics", quiet) as advance:
        statistics = layer_statistics(generator, layer, progress=advance)
    with progress("Solving", quiet) as advance:
        return rewrite(generator, request, statistics=statistics, name=name, progress=advance)


def _summary(edit: Edit) -> dict[str, Any]:
    rule = edit.rule
    return {
        "name": rule.name,
        "model": rule.provenance.model,
        "fingerprint": rule.provenance.fingerprint,
        "layer": rule.layer,
        "rank": rule.rank,
        **edit.solved.summary(),
    }


def _text(answer: Mapping[str, Any], pairs: Output | None) -> str:
    return "\n".join(
        [
            f"{answer['name']}: layer {answer['layer']} of {answer['model']}, rank {answer['rank']}",
            f"  loss {answer['loss']:.3g} (was {answer['loss_before']:.3g}), change elsewhere "
            f"{answer['elsewhere']:.1%}, {answer['iterations']} iterations in {answer['seconds']:.2f} s",
            f"  rule in {answer['rule']}" if answer["rule"] else "  not saved: --rule FILE keeps the rule",
            *([f"  pairs in {pairs.path}"] if pairs else []),
        ]
    )
