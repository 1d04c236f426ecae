"""`palimpsest directions dictionary`: a sparse dictionary of a layer, learned and kept."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dashboard.commands import options
from dashboard.commands.console import progress, report
from dashboard.commands.opening import opened
from dashboard.commands.output import require_apart
from dashboard.commands.table import table
from dashboard.ranges import format_ranges

if TYPE_CHECKING:
    from rewrite_core.directions.dictionary import Dictionary
    from rewrite_core.generators.latents import Scheme

__all__ = ["dictionary"]

SHOWN = 12
"""Features that are named, at most."""


@click.command(
    epilog=options.example("palimpsest directions dictionary anime64-dcgan --steps 200 --out l08.safetensors")
)
@click.argument("model", required=False)
@click.option("--layer", metavar="LAYER", help="Of which layer.  [default: the model's default]")
@click.option(
    "--features",
    type=click.IntRange(1, 65_536),
    help="How many features there are.  [default: four for each unit of the layer]",
)
@click.option(
    "--active",
    type=click.IntRange(1, 4096),
    help="How many make up one key.  [default: one for each 16 units, at least 4]",
)
@click.option(
    "--steps",
    type=click.IntRange(1, 1_000_000),
    help="How often the dictionary is changed; more take longer, and explain more.  [default: 2000]",
)
@options.seeds("0-999")
@options.truncation
@options.cutoff
@options.label
@options.scheme
@options.place("--out", "File to write, a .safetensors.")
@options.device
@options.as_json
@options.quiet
def dictionary(
    model: str | None,
    layer: str | None,
    features: int | None,
    active: int | None,
    steps: int | None,
    seeds: tuple[int, ...],
    truncation: float,
    cutoff: int | None,
    label: int | None,
    scheme: Scheme,
    out: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Learn a sparse dictionary of a layer: many features, few of which at a time make up any key.

    `palimpsest directions find --origin dictionary --from FILE` makes directions of its features.
    """
    from rewrite_core.directions.dictionary import DictionarySettings, learn_dictionary
    from rewrite_core.directions.layer_keys import layer_keys
    from rewrite_core.generators import LatentSpec

    if out is not None:
        require_apart(out, None)
    generator = opened(model)
    name = generator.layer(layer or generator.default_layer).name
    given = {"features": features, "active": active, "steps": steps}
    settings = DictionarySettings(**{key: value for key, value in given.items() if value is not None})
    spec = LatentSpec(seeds, scheme, truncation, cutoff, label)
    with progress("Gathering keys", quiet) as advance:
        keys = layer_keys(generator, name, spec, progress=advance)
    started = time.perf_counter()
    with progress("Learning", quiet) as advance:
        learned = learn_dictionary(keys, settings, advance)
    seconds = time.perf_counter() - started
    if out is not None:
        learned.save(out)
    answer = {
        "model": generator.name,
        "fingerprint": generator.fingerprint,
        "layer": name,
        "samples": format_ranges(seeds),
        "seconds": seconds,
        **_quality(learned),
        "best": learned.features().head(SHOWN).to_dict("records"),
        "files": [] if out is None else [str(out)],
    }
    report(answer, _text(answer, out), as_json)


def _quality(learned: Dictionary) -> dict[str, Any]:
    quality, settings = learned.quality, learned.settings
    return {
        "features": len(learned.encoder),
        "active": settings.active,
        "steps": settings.steps,
        "keys": quality.keys,
        "held_out": quality.held_out,
        "explained": quality.explained,
        "principal": quality.principal,
        "single": quality.single,
        "dead": int(quality.dead.sum()),
        "density": float(quality.density.mean()),
    }


def _text(answer: Mapping[str, Any], out: Path | None) -> str:
    header = ["feature", "explains", "active in", "nearest unit", "cosine"]
    rows = [
        [
            str(row["feature"]),
            f"{row['explained']:.2%}",
            f"{row['density']:.2%}",
            str(row["unit"]),
            f"{row['cosine']:+.2f}",
        ]
        for row in answer["best"]
    ]
    return "\n".join(
        [
            f"{answer['features']:,} features of {answer['layer']} of {answer['model']}, {answer['active']} active, "
            f"learned in {answer['seconds']:.0f} s",
            f"  explains {answer['explained']:.1%} of the variance of {answer['held_out']:,} held-out keys; as many "
            f"principal components {answer['principal']:.1%}, single units {answer['single']:.1%}",
            f"  {answer['dead']:,} features are dead; on average one is active in {answer['density']:.2%} of the keys",
            *table([header, *rows]),
            "not saved: --out FILE keeps it" if out is None else f"written to {out}",
        ]
    )
