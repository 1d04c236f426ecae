"""Pictures that no seed names: of latents from a file, or mixed of two pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dashboard.commands.console import progress
from dashboard.commands.opening import excuse
from dashboard.commands.output import MOST, Output, make_folder, require_free
from dashboard.ranges import parse_ranges
from rewrite_core.errors import ModelMismatch, RequestError

if TYPE_CHECKING:
    from dissect.figures import Width
    from rewrite_core.generators import Generator, Latents, LatentSpec

__all__ = ["draw_latents", "pair"]


def pair(_context: click.Context, _option: click.Parameter, text: str | None) -> tuple[int, int] | None:
    """The two seeds of ``3,7``."""
    if text is None:
        return None
    first, comma, second = text.partition(",")
    seeds = [*parse_ranges(first), *parse_ranges(second)] if comma else []
    if len(seeds) != 2:
        raise RequestError(found=f"'{text}' to mix", expected="two seeds such as 3,7", remedy="Name two.")
    return seeds[0], seeds[1]


def draw_latents(
    generator: Generator,
    file: Path | None,
    mix: tuple[int, int] | None,
    crossover: int | None,
    like: LatentSpec,
    out: Output,
    width: Width,
    force: bool,
    quiet: bool,
) -> dict[str, Any]:
    """Draw the latents in `file`, or the mixtures, and describe them: a picture is called by its number."""
    if file:
        latents = _read(file, generator, like, force)
        numbers = list(range(len(latents)))
    else:
        from rewrite_core.generators.wspace import mixed

        assert mix, "a file or a mixture"
        numbers = list(range(generator.styles + 1)) if crossover is None else [crossover]
        latents = mixed(generator, *mix, numbers, like=like)
    files = _drawn(generator, latents, numbers, out, width, force, quiet)
    return {"latents": str(file) if file else None, "mix": mix, "pictures": numbers, "files": files}


def _read(file: Path, generator: Generator, like: LatentSpec, force: bool) -> Latents:
    from rewrite_core.generators.wspace import read_latents

    try:
        return read_latents(file, generator, like=like)
    except ModelMismatch as problem:
        excuse(problem, force)
        return read_latents(file, generator, like=like, force=True)


def _drawn(
    generator: Generator,
    latents: Latents,
    numbers: list[int],
    out: Output,
    width: Width,
    force: bool,
    quiet: bool,
) -> list[str]:
    """The files with the pictures, a figure or one each."""
    from rewrite_core.files import write_bytes
    from rewrite_core.pictures import encode_png

    if len(latents) > MOST:
        raise RequestError(
            found=f"{len(latents):,} latents", expected=f"at most {MOST:,}", remedy="Name fewer."
        )
    paths = [out.path / f"latent{number:05d}.png" for number in numbers]
    if not out.figure:
        require_free(paths, force)
    with progress("Drawing", quiet) as advance:
        pictures = generator.draw(latents, advance)
    if out.figure:
        from dissect.figures import grid_figure, save_figure

        save_figure(grid_figure(pictures, numbers, width=width), out.path)
        return [str(out.path)]
    make_folder(out.path)
    for path, picture in zip(paths, pictures, strict=True):
        write_bytes(path, encode_png(picture))
    return list(map(str, paths))
