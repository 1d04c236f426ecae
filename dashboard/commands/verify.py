"""`palimpsest verify`: whether a model was opened right."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dashboard.commands import options
from dashboard.commands.console import progress, report
from dashboard.commands.opening import opened, require_half
from dashboard.verified import agreement_row, described_agreement, verified, with_other_noise
from dashboard.words import size
from rewrite_core.errors import FileError

if TYPE_CHECKING:
    from rewrite_core import Generator, LatentSpec

__all__ = ["verify"]


@click.command(
    epilog=options.example(
        "palimpsest sample anime64-dcgan --seeds 0-7 --out pictures/",
        "palimpsest verify anime64-dcgan --against pictures/",
    )
)
@click.argument("model", required=False)
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    metavar="FILE|FOLDER",
    help="Pictures made elsewhere: .npz, .npy, or a folder of PNG files called by their seeds.",
)
@click.option("--array", default="", help="Which array of an .npz holds the pictures, if there are several.")
@click.option(
    "--batch", type=click.IntRange(1), help="Pictures to draw at a time.  [default: the model's own, then 1]"
)
@options.truncation
@options.cutoff
@options.label
@options.half
@options.device
@options.as_json
@options.quiet
def verify(
    model: str | None,
    against: Path | None,
    array: str,
    batch: int | None,
    truncation: float,
    cutoff: int | None,
    label: int | None,
    half: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Look at a model's weights and samples, and compare it with pictures made elsewhere.

    Ends with status 1 if the pictures differ.
    """
    from rewrite_core import LatentSpec

    if against is None and (truncation, cutoff, label, batch) != (1.0, None, None, None):
        raise click.UsageError(
            "--truncation, --cutoff, --class and --batch say how to draw what --against compares."
        )
    like = LatentSpec((), "seed", truncation, cutoff, label)
    generator = opened(model)
    if half:
        require_half(generator.device)
    with progress("Drawing", quiet) as advance:
        answer: dict[str, Any] = {
            "model": generator.name,
            "family": generator.family,
            "resolution": generator.resolution,
            "fingerprint": generator.fingerprint,
            "device": str(generator.device),
            **verified(generator, advance),
        }
    answer["half"] = _half(generator) if half else None
    answer["agreement"] = None
    if against:
        answer["agreement"] = _compared(generator, against, array, batch, like, quiet)
    report(answer, _text(answer), as_json)
    if against and answer["agreement"]["verdict"] == "different":
        raise FileError(
            found=f"{generator.name} does not draw the pictures in {against}",
            expected="pictures that differ by less than a byte shows",
            remedy=_remedy(answer["agreement"]["reason"]),
        )


def _compared(
    generator: Generator, against: Path, array: str, batch: int | None, like: LatentSpec, quiet: bool
) -> dict[str, Any]:
    from rewrite_core.generators.agreement import agreement
    from rewrite_core.generators.reference import read_reference

    reference = read_reference(against, array=array, like=like)
    with progress("Comparing", quiet) as advance:
        found = agreement(with_other_noise(generator), reference, batch=batch, progress=advance)
    return agreement_row(found, reference)


def _half(generator: Generator) -> float:
    """How far samples in half precision are from those in float32, as a share of their largest number."""
    from rewrite_core.generators.fidelity import PROBED

    full, half = generator.sample(PROBED), generator.in_half().sample(PROBED)
    return float((full - half).abs().max() / full.abs().max())


def _remedy(reason: str) -> str:
    if reason:
        return f"They would agree, but {reason}."
    return "Check seeds, truncation and scheme, and whether noise was drawn at random."


def _text(answer: dict[str, Any]) -> str:
    tensors, drawn, memory = answer["weights"], answer["samples"], answer["memory"]
    refused = answer["not_truncated_because"]
    lines = [
        f"{answer['model']}  ({answer['family']}, {answer['resolution']} px, {answer['device']})",
        f"  fingerprint  {answer['fingerprint']}",
        f"  weights      {tensors['numbers']:,} in {tensors['tensors']} tensors, root mean square {tensors['rms']:.3g}",
        f"  memory       {size(memory['weights'])} of weights, about {size(memory['drawing'])} to draw",
        f"  truncation   {f'refused: {refused}' if refused else 'yes'}",
        f"  noise        {answer['noise'] or 'none'}",
        f"  samples      mean {drawn['mean']:+.2f}, contrast {drawn['contrast']:.2f}, variety {drawn['variety']:.2f}, "
        f"{drawn['clipped']:.1%} clipped",
        *([f"  assumed      {answer['assumed']}"] if answer["assumed"] else []),
        *(f"  unusual      {found['where']}: {found['what']}" for found in answer["findings"]),
    ]
    if answer["half"] is not None:
        lines.append(f"  half         at most {answer['half']:.2g} of the largest number from float32")
    if answer["agreement"]:
        lines.append(f"  pictures     {described_agreement(answer['agreement'])}")
    return "\n".join(lines)
