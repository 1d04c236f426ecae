"""`palimpsest concepts distil`: concepts made into a network that sees pixels alone, and how well that went."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dashboard.commands import options
from dashboard.commands.console import progress, report
from dashboard.commands.opening import opened
from dashboard.commands.output import require_apart
from dashboard.commands.table import table

if TYPE_CHECKING:
    from dissect.concepts.held_out import HeldOut
    from rewrite_core.generators.latents import Scheme

__all__ = ["distil"]


@click.command(epilog=options.example("palimpsest concepts distil anime64-dcgan --out eyes.safetensors"))
@click.argument("model", required=False)
@click.option("--concepts", metavar="CONCEPTS", default="embedded", show_default=True, help="What to distil.")
@options.seeds("100000-101999")
@options.truncation
@options.cutoff
@options.label
@options.scheme
@click.option(
    "--steps",
    type=click.IntRange(1, 100_000),
    help="How often the network's weights are changed; more take longer, and agree better.  [default: 1000]",
)
@options.place("--out", "File to write, a .safetensors.")
@options.device
@options.as_json
@options.quiet
def distil(
    model: str | None,
    concepts: str,
    seeds: tuple[int, ...],
    truncation: float,
    cutoff: int | None,
    label: int | None,
    scheme: Scheme,
    steps: int | None,
    out: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Make concepts into a small network that sees pixels alone.

    Painted concepts know unedited samples only; the network may label edited ones too. It learns from the samples that
    --seeds names, all but the last of them: those say how far it agrees with its teacher.
    """
    from dissect.concepts import distilling
    from dissect.concepts.catalogue import open_concepts
    from rewrite_core.generators import LatentSpec

    if out is not None:
        require_apart(out, None)
    generator = opened(model)
    teacher = open_concepts(concepts, generator)
    settings = distilling.DistillingSettings(**({} if steps is None else {"steps": steps}))
    spec = LatentSpec(seeds, scheme, truncation, cutoff, label)
    started = time.perf_counter()
    with progress(f"Distilling: {teacher.title}", quiet) as advance:
        distilled = distilling.distil(generator, teacher, spec, settings, advance)
    seconds = time.perf_counter() - started
    if out is not None:
        distilled.save(out)
    found = distilled.held_out
    answer = {
        "model": generator.name,
        "fingerprint": generator.fingerprint,
        "teacher": teacher.title,
        "samples": len(distilled.header.learned_from),
        "steps": settings.steps,
        "seconds": seconds,
        "held_out": found.samples,
        "accuracy": found.accuracy,
        "mean_iou": found.mean_iou,
        "concepts": found.table().to_dict("records"),
        "files": [] if out is None else [str(out)],
    }
    kept = "not saved: --out FILE keeps the network" if out is None else f"written to {out}"
    report(answer, _text(answer, found, kept), as_json)


def _text(answer: dict[str, Any], found: HeldOut, kept: str) -> str:
    rows = [
        [name, *(f"{share:.1%}" for share in row)] for name, *row in found.table().itertuples(index=False)
    ]
    head = (
        f"{answer['teacher']}, learned from {answer['samples']:,} samples in {answer['seconds']:.0f} s",
        found.sentence,
    )
    return "\n".join([*head, *table([list(found.table().columns), *rows]), kept])
