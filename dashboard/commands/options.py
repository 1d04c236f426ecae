"""Options and arguments that several commands share, and the example that ends each help text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from dashboard.commands.opening import DEVICE
from dashboard.commands.output import Output, require_folder, require_place
from dashboard.ranges import parse_ranges
from dashboard.sizes import parse_size

__all__ = [
    "ENVIRONMENT",
    "as_json",
    "concepts",
    "device",
    "cutoff",
    "devices",
    "example",
    "force",
    "half",
    "label",
    "model",
    "out",
    "place",
    "quiet",
    "rules",
    "scheme",
    "seeds",
    "size",
    "truncation",
    "width",
]

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

ENVIRONMENT = "PALIMPSEST_DEVICE"
"""The variable that stands for a device not named otherwise."""
MOST = 1_000_000
"""Pictures named in one command, at most."""

as_json = click.option("--json", "as_json", is_flag=True, help="Answer in JSON, for scripts.")
quiet = click.option("--quiet", "-q", is_flag=True, help="Show no progress.")
force = click.option(
    "--force",
    is_flag=True,
    help="Go on although it was made for another model, and replace files that are there.",
)
model = click.option(
    "--model", metavar="MODEL", help="Name of an embedded model, or path of a file or folder."
)
truncation = click.option("--truncation", type=float, default=1.0, show_default=True, help="0 to 2.")
cutoff = click.option(
    "--cutoff",
    type=click.IntRange(0),
    help="How many styles are truncated, from the first on.  [default: all]",
)
label = click.option(
    "--class",
    "label",
    metavar="N",
    type=click.IntRange(0),
    help="Class of all pictures, of a conditional model.  [default: each its own, from its seed]",
)
scheme = click.option(
    "--scheme",
    type=click.Choice(["seed", "rows"]),
    default="seed",
    show_default=True,
    help="A number is a seed, or a row of the one matrix that published edits count in.",
)
device = click.option(
    "--device",
    metavar="DEVICE",
    expose_value=False,
    callback=lambda context, _option, name: context.meta.update({DEVICE: name}),
    help="Where to compute: auto, cpu, cuda:0 … or mps.  [default: PALIMPSEST_DEVICE, else cpu]",
)
devices = click.option(
    "--device",
    metavar="DEVICE",
    envvar=ENVIRONMENT,
    default="auto",
    help="Where to compute; auto and cuda take every GPU.  [default: PALIMPSEST_DEVICE, else auto]",
)
half = click.option("--half", is_flag=True, help="Draw in half precision; on a GPU alone.")
rules = click.option(
    "--rule",
    "rules",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A rule that holds in the generator; may be repeated.",
)
width = click.option(
    "--width",
    type=click.Choice(["column", "page"]),
    default="page",
    show_default=True,
    help="How wide a figure may be: one column of a paper (3.35 in) or the page (6.9 in).",
)


def seeds(default: str) -> Decorator:
    """``--seeds "0-31, 40"``: numbers and ranges, in that order."""
    return click.option(
        "--seeds",
        metavar="RANGES",
        default=default,
        show_default=True,
        callback=lambda _context, _option, text: parse_ranges(text, MOST),
        help='Pictures by number, such as "0-31, 40".',
    )


def out(name: str, meaning: str, *, folder: bool = False, required: bool = False) -> Decorator:
    """A figure to write, or with `folder` a folder of pictures; refused before any work if it cannot be."""
    return click.option(
        name,
        metavar="FIGURE|FOLDER" if folder else "FIGURE",
        required=required,
        callback=lambda _context, _option, text: None if text is None else Output.at(text, folder),
        help=meaning,
    )


def concepts(meaning: str, *, default: str | None = None, required: bool = False) -> Decorator:
    """``--concepts TEXT``, as `dissect.concepts.catalogue` understands it."""
    return click.option(
        "--concepts", metavar="CONCEPTS", default=default, show_default=True, required=required, help=meaning
    )


def place(name: str, meaning: str, *, folder: bool = False, required: bool = False) -> Decorator:
    """A file to write, or with `folder` a folder; refused before any work if it cannot be."""

    def checked(_context: click.Context, _option: click.Parameter, path: Path | None) -> Path | None:
        if path is not None:
            (require_folder if folder else require_place)(path)
        return path

    kind = click.Path(path_type=Path)
    metavar = "FOLDER" if folder else "FILE"
    return click.option(name, type=kind, metavar=metavar, required=required, callback=checked, help=meaning)


def size(name: str, meaning: str) -> Decorator:
    """An amount of bytes, such as ``500MB``."""

    def counted(_context: click.Context, _option: click.Parameter, text: str | None) -> int | None:
        return None if text is None else parse_size(text)

    return click.option(name, metavar="SIZE", callback=counted, help=meaning)


def example(*lines: str) -> str:
    """The end of a help text, kept as it stands."""
    return "\n".join(["\b", "Example:", *(f"  {line}" for line in lines)])
