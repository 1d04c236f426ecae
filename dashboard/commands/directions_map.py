"""`palimpsest directions map`: a layer's keys in the plane, what is alike to the layer side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dashboard.commands import options
from dashboard.commands.console import progress, report
from dashboard.commands.opening import opened
from dashboard.commands.output import Output, make_folder, write_figure, write_table
from dashboard.ranges import format_ranges

if TYPE_CHECKING:
    from dissect.figures import Width
    from dissect.key_map import KeyMap
    from rewrite_core.generators.latents import Scheme

__all__ = ["map_"]

PLACED = {"pca": "PCA", "t-sne": "t-SNE"}


@click.command(
    "map",
    epilog=options.example(
        "palimpsest directions map anime64-dcgan --layer l08 --concepts embedded --points 500 --out map.png"
    ),
)
@click.argument("model", required=False)
@click.option("--layer", metavar="LAYER", help="Of which layer.  [default: the model's default]")
@click.option(
    "--method",
    type=click.Choice(list(PLACED)),
    default="pca",
    show_default=True,
    help="How keys are placed: by principal components at once, or by their neighbours (t-sne).",
)
@click.option(
    "--points", type=click.IntRange(1, 2000), default=1000, show_default=True, help="Keys on the map."
)
@options.concepts("What colours the points.  [default: nothing]")
@click.option("--thumbnails", is_flag=True, help="Draw a patch of the picture in place of each point.")
@options.seeds("0-999")
@options.truncation
@options.cutoff
@options.label
@options.scheme
@options.out("--out", "Figure of the map, or a folder for it and the points.", folder=True)
@options.width
@options.device
@options.as_json
@options.quiet
def map_(
    model: str | None,
    layer: str | None,
    method: str,
    points: int,
    concepts: str | None,
    thumbnails: bool,
    seeds: tuple[int, ...],
    truncation: float,
    cutoff: int | None,
    label: int | None,
    scheme: Scheme,
    out: Output | None,
    width: Width,
    as_json: bool,
    quiet: bool,
) -> None:
    """Map a sample of a layer's whitened keys into the plane.

    With concepts the answer says how far neighbours on the map are of one concept.
    """
    from dissect.concepts.catalogue import open_concepts
    from dissect.key_map import METHODS, key_map
    from rewrite_core.directions.layer_keys import layer_keys
    from rewrite_core.generators import LatentSpec

    generator = opened(model)
    name = generator.layer(layer or generator.default_layer).name
    source = open_concepts(concepts, generator) if concepts else None
    spec = LatentSpec(seeds, scheme, truncation, cutoff, label)
    with progress("Gathering keys", quiet) as advance:
        keys = layer_keys(generator, name, spec, progress=advance)
    (placed,) = (one for one in METHODS if one == PLACED[method])
    with progress("Placing", quiet) as advance:
        found = key_map(generator, keys, method=placed, points=points, source=source, progress=advance)
    purity = found.purity() if source is not None else None
    answer = {
        "model": generator.name,
        "fingerprint": generator.fingerprint,
        "layer": name,
        "method": found.method,
        "points": len(found.points),
        "samples": format_ranges(seeds),
        "concepts": None if source is None else source.title,
        "purity": None if purity is None else {"share": purity.share, "chance": purity.chance},
        "files": [] if out is None else _written(out, found, thumbnails, width),
    }
    lines = [f"{len(found.points):,} keys of {name} of {generator.name}, placed by {found.method}"]
    if purity is not None:
        lines.append(
            f"of the ten nearest {purity.share:.0%} share a point's concept ({purity.chance:.0%} by chance)"
        )
    report(answer, "\n".join([*lines, *([f"written to {out.path}"] if out else [])]), as_json)


def _written(out: Output, found: KeyMap, thumbnails: bool, width: Width) -> list[str]:
    from dissect.figures import save_figure
    from dissect.map_plots import map_figure

    figure = map_figure(found, thumbnails=thumbnails, width=width)
    if out.figure:
        save_figure(figure, out.path)
        return [str(out.path)]
    folder = make_folder(out.path)
    return [*write_figure(folder / "map", figure), write_table(folder / "points", found.table())]
