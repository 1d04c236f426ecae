"""`palimpsest project`: a picture of one's own as a model would draw it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dashboard.commands import options
from dashboard.commands.console import progress, report
from dashboard.commands.opening import opened
from dashboard.commands.output import Output

if TYPE_CHECKING:
    from dissect.figures import Width
    from rewrite_core.generators.projection import Projection, Space

__all__ = ["project"]


@click.command(
    epilog=options.example(
        "palimpsest sample anime64-dcgan --seeds 7 --out mine/",
        "palimpsest project anime64-dcgan mine/seed0000007.png --steps 100 --out mine.safetensors",
        "palimpsest sample anime64-dcgan --latents mine.safetensors --out again.png",
    )
)
@click.argument("model")
@click.argument("picture", type=click.Path(path_type=Path))
@options.place("--out", "Latents to write (.safetensors).")
@options.out("--figure", "The picture beside what the model draws.")
@click.option(
    "--space",
    type=click.Choice(["w", "w+", "z"]),
    help="Where to search.  [default: w, or z without a mapping network]",
)
@click.option(
    "--steps", type=click.IntRange(1, 100_000), default=300, show_default=True, help="Of the search."
)
@options.label
@options.width
@options.device
@options.as_json
@options.quiet
def project(
    model: str,
    picture: Path,
    out: Path | None,
    figure: Output | None,
    space: Space | None,
    steps: int,
    label: int | None,
    width: Width,
    as_json: bool,
    quiet: bool,
) -> None:
    """Find the latents whose picture is nearest to a given one.

    PICTURE is a PNG, JPEG or WebP file; its middle is brought to the model's size.
    """
    from rewrite_core.generators.projection import project as search
    from rewrite_core.generators.projection import read_picture

    if out is None and figure is None:
        raise click.UsageError("Nothing to write: give --out, --figure or both.")
    if out is not None and out.suffix.lower() != ".safetensors":
        raise click.UsageError("--out names a file that ends in .safetensors.")
    given = read_picture(picture)
    generator = opened(model)
    with progress("Searching", quiet) as advance:
        found = search(generator, given, space=space, steps=steps, label=label, progress=advance)
    if out:
        found.save(out, generator)
    if figure:
        _draw(found, figure, width)
    files = [str(path) for path in (out, figure and figure.path) if path]
    answer = {
        "model": generator.name,
        "fingerprint": generator.fingerprint,
        "space": found.space,
        "steps": steps,
        "class": label,
        "loss_before": found.losses[0],
        "loss": found.loss,
        "difference": _difference(found),
        "files": files,
    }
    text = f"{picture.name} in {found.space} of {generator.name}: {answer['difference']:.1f} of 255 apart, "
    report(answer, text + " and ".join(files), as_json)


def _difference(found: Projection) -> float:
    """Mean absolute difference between the pictures, of 255."""
    import numpy as np

    return float(np.abs(found.picture.astype(float) - found.wanted).mean())


def _draw(found: Projection, figure: Output, width: Width) -> None:
    import numpy as np

    from dissect.figures import grid_figure, save_figure

    pictures = np.stack([found.wanted, found.picture])
    save_figure(grid_figure(pictures, ["given", "drawn"], columns=2, width=width), figure.path)
