"""`palimpsest apply`: a generator under rules."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dashboard.commands import options
from dashboard.commands.console import report
from dashboard.commands.opening import opened, under
from dashboard.commands.output import Output, draw, make_folder, require_apart, require_free

if TYPE_CHECKING:
    from dissect.figures import Width
    from rewrite_core import Generator, Rule
    from rewrite_core.generators import Form
    from rewrite_core.generators.latents import Scheme

__all__ = ["apply"]


@click.command(
    epilog=options.example(
        "palimpsest edit blue-eyes --rule blue-eyes.safetensors",
        "palimpsest apply blue-eyes.safetensors --pairs --out pairs.pdf",
        "palimpsest apply blue-eyes.safetensors --weights blue-eyed-anime/",
    )
)
@click.argument("rules", metavar="RULE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@options.model
@click.option("--strength", type=float, help="Of every rule: 1 as solved, 0 nothing, negative the opposite.")
@options.out("--out", "A labelled grid, or a folder of PNG files.", folder=True)
@options.place("--weights", "Folder for the edited model.", folder=True)
@click.option(
    "--layout",
    type=click.Choice(["safetensors", "own", "delta"]),
    default="safetensors",
    show_default=True,
    help="Of --weights: model.json and safetensors, as the file that it came in, or what the rules add.",
)
@click.option("--pairs", is_flag=True, help="Draw each picture before and after.")
@options.seeds("0-15")
@options.truncation
@options.cutoff
@options.label
@options.scheme
@options.width
@options.device
@options.force
@options.as_json
@options.quiet
def apply(
    rules: tuple[Path, ...],
    model: str | None,
    strength: float | None,
    out: Output | None,
    weights: Path | None,
    layout: Form,
    pairs: bool,
    seeds: tuple[int, ...],
    truncation: float,
    cutoff: int | None,
    label: int | None,
    scheme: Scheme,
    width: Width,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Draw or save a generator under rules.

    Each RULE is a file; they are put on the generator in their order.
    """
    from rewrite_core import LatentSpec, Rule

    if out is None and weights is None:
        raise click.UsageError("Nothing to write: give --out, --weights or both.")
    if weights:
        require_apart(weights, model)
    loaded = [Rule.load(path) for path in rules]
    if strength is not None:
        loaded = [rule.with_strength(strength) for rule in loaded]
    generator = opened(model, loaded[0].provenance.model)
    view = under(generator, loaded, force)
    files = []
    if out:
        strips = {"before": generator, "after": view} if pairs else {"": view}
        files += draw(out, strips, LatentSpec(seeds, scheme, truncation, cutoff, label), width, quiet)
    if weights:
        files += _save(view, loaded, weights, layout, force)
    answer = {
        "model": generator.name,
        "fingerprint": view.fingerprint,
        "rules": [_summary(rule) for rule in loaded],
        "files": files,
    }
    places = " and ".join(str(place) for place in (out and out.path, weights) if place)
    report(answer, f"{', '.join(rule.name for rule in loaded)} on {generator.name}: {places}", as_json)


def _save(view: Generator, rules: Sequence[Rule], folder: Path, layout: Form, force: bool) -> list[str]:
    from rewrite_core.files import write_bytes
    from rewrite_core.generators import exported
    from rewrite_core.rules.record import record_of

    files = exported(view, layout, record_of(view, rules))  # before there is a folder for what cannot be
    require_free([folder / name for name in files], force)
    make_folder(folder)
    for name, content in files.items():
        write_bytes(folder / name, content)
    return [str(folder / name) for name in files]


def _summary(rule: Rule) -> dict[str, str | int | float]:
    return {
        "name": rule.name,
        "layer": rule.layer,
        "rank": rule.rank,
        "strength": rule.strength,
        "digest": rule.digest,
    }
