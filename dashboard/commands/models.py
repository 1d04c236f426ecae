"""`palimpsest models`: generators and their layers, and what is supported of which checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from dashboard.commands.console import report
from dashboard.commands.families import families_json, families_markdown, families_text
from dashboard.commands.options import as_json, example
from dashboard.commands.table import table
from dashboard.described import layer_rows
from dashboard.words import size

if TYPE_CHECKING:
    from rewrite_core.generators import Generator

__all__ = ["models"]

HEADER = ("layer", "kind", "in→out", "grid", "kernel", "rewritable")


@click.command(epilog=example("palimpsest models anime64-dcgan --json"))
@click.argument("paths", metavar="[MODEL]...", nargs=-1)
@click.option("--families", is_flag=True, help="List what is supported of which kind of checkpoint instead.")
@click.option("--markdown", is_flag=True, help="Write the table of --families in Markdown.")
@as_json
def models(paths: tuple[str, ...], families: bool, markdown: bool, as_json: bool) -> None:
    """List generators and their layers.

    Those at the given paths, or the embedded ones with the edits that ship as examples.
    """
    if families and paths:
        raise click.UsageError("--families is of all models: give no MODEL.")
    if markdown and (as_json or not families):
        raise click.UsageError("--markdown is of --families, and instead of --json.")
    if families:
        report(families_json(), families_markdown() if markdown else families_text(), as_json)
        return
    from rewrite_core import embedded_names, open_generator
    from rewrite_core.rules.examples import example_edits

    described = [_described(open_generator(path), example_edits(path)) for path in paths or embedded_names()]
    report(described, "\n\n".join(map(_text, described)), as_json)


def _described(generator: Generator, edits: Iterable[str]) -> dict[str, Any]:
    from rewrite_core.generators.footprint import footprint

    return {
        "name": generator.name,
        "family": generator.family,
        "resolution": generator.resolution,
        "latent_dim": generator.latent_dim,
        "fingerprint": generator.fingerprint,
        "memory": asdict(footprint(generator)),
        "default_layer": generator.default_layer,
        "layers": layer_rows(generator),
        "edits": list(edits),
    }


def _text(model: dict[str, Any]) -> str:
    head = f"{model['name']}  ({model['family']}, {model['resolution']} px, latent {model['latent_dim']})"
    edits = [f"example edits: {', '.join(model['edits'])}"] if model["edits"] else []
    rows = [_row(layer, model["default_layer"]) for layer in model["layers"]]
    memory = f"memory {size(model['memory']['weights'])} of weights, about {size(model['memory']['drawing'])} to draw"
    return "\n".join([head, f"fingerprint {model['fingerprint']}", memory, *edits, *table([HEADER, *rows])])


def _row(layer: dict[str, Any], default: str) -> Sequence[str]:
    channels = f"{layer['in_channels']}→{layer['out_channels']}"
    if not layer["rewritable"]:
        return (layer["name"], layer["kind"], channels, "", "", "no")
    grid = f"{_size(layer['key_size'])}→{_size(layer['value_size'])}"
    rewritable = "yes (default)" if layer["name"] == default else "yes"
    return (layer["name"], layer["kind"], channels, grid, _size(layer["kernel"]), rewritable)


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"
