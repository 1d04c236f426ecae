"""`palimpsest directions find`: directions of every origin, kept as files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dashboard.commands import options
from dashboard.commands.console import progress, report, warn
from dashboard.commands.directions_opening import described
from dashboard.commands.directions_origins import (
    CONTEXT,
    DICTIONARY,
    DIFFERENCE,
    FINDERS,
    KEYS,
    PAINTED,
    RULE,
    UNIT,
    Wanted,
)
from dashboard.commands.output import make_folder, require_apart, require_folder, require_place
from dashboard.commands.requests import setting_options
from dashboard.commands.table import table
from rewrite_core.errors import RequestError

if TYPE_CHECKING:
    from rewrite_core.directions import Direction
    from rewrite_core.generators import Generator

__all__ = ["COUNT", "find"]

NEEDS = {
    **dict.fromkeys((CONTEXT, *PAINTED, DIFFERENCE), "--context"),
    UNIT: "--unit",
    RULE: "--rule",
    DICTIONARY: "--from",
}
"""The option without which an origin has nothing to work on; a dictionary can be learned anew."""
COUNT = 8
ENDING = ".safetensors"
"""Of a direction's file; any other name is a folder's."""


@click.command(
    epilog=options.example(
        "palimpsest directions find --context eyes --out eyes.safetensors",
        "palimpsest directions find anime64-dcgan --origin pca --layer l08 --count 4 --out pca/",
    )
)
@click.argument("model", required=False)
@click.option(
    "--origin",
    type=click.Choice([*PAINTED, DIFFERENCE, UNIT, RULE, *KEYS, DICTIONARY]),
    help="Where directions come from: a painted context by one of five methods, two contexts, a unit, a rule, "
    "or the layer's keys alone.  [default: --context, by the method of its file]",
)
@click.option("--context", metavar="CONTEXT", help="Painted: a JSON file, or the name of one that ships.")
@click.option(
    "--not", "against", metavar="CONTEXT", help="Of a difference: the context that it is to be told from."
)
@click.option("--unit", type=click.IntRange(0), metavar="N", help="Number of the unit.")
@click.option(
    "--rule", type=click.Path(path_type=Path), metavar="FILE", help="Rule whose directions to take."
)
@click.option(
    "--from",
    "dictionary",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Dictionary that `palimpsest directions dictionary` learned; --number names its feature.",
)
@click.option(
    "--count",
    type=click.IntRange(1, 4096),
    help=f"Of pca, ica, k-means and a dictionary: how many.  [default: {COUNT}]",
)
@click.option(
    "--number",
    type=click.IntRange(0),
    metavar="N",
    help="Only this one of pca, ica and k-means, from 1 on; with --from the feature of that number.",
)
@click.option("--layer", metavar="LAYER", help="Of which layer.  [default: the context's, else the model's]")
@setting_options("rank", "ridge", "contrast", "protect")
@options.seeds("0-999")
@click.option("--name", default="", help="What to call it.  [default: as the context, or by its origin]")
@click.option(
    "--out", metavar="FILE|FOLDER", help=f"Direction file to write ({ENDING}), or a folder for several."
)
@options.device
@options.force
@options.as_json
@options.quiet
def find(
    model: str | None,
    origin: str | None,
    context: str | None,
    against: str | None,
    unit: int | None,
    rule: Path | None,
    dictionary: Path | None,
    count: int | None,
    number: int | None,
    layer: str | None,
    seeds: tuple[int, ...],
    name: str,
    out: str | None,
    force: bool,
    as_json: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Find directions of a layer, and say how far they can be trusted.

    A painted context gives one direction, of the rank that is asked for; its singular values tell how many are worth
    having. pca, ica, k-means and a dictionary give several. The halves of the samples that --seeds names say which rest
    on noise.
    """
    from rewrite_core.generators import LatentSpec

    origin = origin or CONTEXT
    _require_material(origin, context, against, unit, rule, dictionary)
    _require_fitting(origin, count, number, settings)
    wanted = Wanted(
        origin=origin,
        model=model,
        context=context,
        against=against,
        unit=unit,
        rule=rule,
        dictionary=dictionary,
        count=count or max(COUNT, number or 0),
        number=number,
        layer=layer,
        name=name,
        spec=LatentSpec.of(seeds),
        settings={"layer": layer, **settings},
        force=force,
        quiet=quiet,
    )
    place = None if out is None else _place(out, wanted.several)
    generator, found = FINDERS[origin](wanted)
    told = [
        {**described(direction), "singular_values": direction.singular_values.tolist()} for direction in found
    ]
    _judge(generator, found, told, wanted)
    answer = {
        "model": generator.name,
        "fingerprint": generator.fingerprint,
        "samples": len(seeds),
        "directions": told,
        "files": _written(found, place, wanted.several),
    }
    report(answer, _text(answer, out), as_json)


def _require_material(
    origin: str,
    context: str | None,
    against: str | None,
    unit: int | None,
    rule: Path | None,
    dictionary: Path | None,
) -> None:
    """Refuse an origin without what it is made of, and what other origins are made of."""
    given = {"--context": context, "--unit": unit, "--rule": rule, "--from": dictionary}
    needed = NEEDS.get(origin, "")
    if needed and given[needed] is None and origin != DICTIONARY:
        raise click.UsageError(f"{_said(origin)} needs {needed}.")
    for flag, value in given.items():
        if value is not None and flag != needed:
            raise click.UsageError(f"{_said(origin)} does not take {flag}.")
    if (against is None) == (origin == DIFFERENCE):
        raise click.UsageError("--not is for --origin difference, which needs it.")


def _require_fitting(origin: str, count: int | None, number: int | None, settings: Mapping[str, Any]) -> None:
    """Refuse options that would say nothing."""
    painted = origin in (CONTEXT, *PAINTED, DIFFERENCE)
    told = {f"--{name}": value for name, value in settings.items()} if not painted else {}
    if origin not in (*KEYS, DICTIONARY):
        told |= {"--count": count, "--number": number}
    for flag, value in told.items():
        if value is not None:
            raise click.UsageError(f"{_said(origin)} does not take {flag}.")
    if origin == DIFFERENCE and settings["rank"] is not None:
        raise click.UsageError("A difference is one direction: it does not take --rank.")


def _said(origin: str) -> str:
    """How an origin was asked for."""
    return "find without --origin" if origin == CONTEXT else f"--origin {origin}"


def _place(out: str, several: bool) -> Path:
    """Where directions go, which can be written.

    Raises:
        FileError: it cannot, or it belongs to Palimpsest.
        RequestError: it is one file for several directions.
    """
    path = Path(out)
    require_apart(path, None)
    if several and path.suffix.lower() == ENDING:
        raise RequestError(
            found=f"one file, {path.name}, for several directions",
            expected="a folder",
            remedy="Leave out the ending, or name one of them with --number.",
        )
    if path.suffix.lower() == ENDING:
        require_place(path)
    else:
        require_folder(path)
    return path


# The answer


def _judge(
    generator: Generator, found: Sequence[Direction], told: Sequence[dict[str, Any]], wanted: Wanted
) -> None:
    """Say of each direction how well the halves of the samples agree on it, and warn of those that rest on noise."""
    from rewrite_core.directions.spectrum import halves_of, noise_warning, stability

    with progress("Comparing halves", wanted.quiet) as advance:
        halves = halves_of(generator, found[0].layer, wanted.spec, progress=advance)
    for direction, answer in zip(found, told, strict=True):
        answer["stability"] = stability(direction, halves).tolist()
        answer["warning"] = noise_warning(direction, halves)
        if answer["warning"]:
            warn(answer["warning"])


def _written(found: Sequence[Direction], place: Path | None, several: bool) -> list[str]:
    """Save the directions, and name the files: one, or in a folder those called by number and name."""
    if place is None:
        return []
    if place.suffix.lower() == ENDING:
        found[0].save(place)
        return [str(place)]
    paths = [
        make_folder(place)
        / f"{f'{number:02d}-' if several else ''}{_slug(direction.name or direction.method)}{ENDING}"
        for number, direction in enumerate(found, 1)
    ]
    for direction, path in zip(found, paths, strict=True):
        direction.save(path)
    return list(map(str, paths))


def _slug(name: str) -> str:
    """Of a name, what may stand in the name of a file anywhere."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:32] or "direction"


def _text(answer: Mapping[str, Any], out: str | None) -> str:
    header = ["name", "origin", "layer", "rank", "stability", "singular values"]
    rows = [
        [
            one["name"],
            one["origin"],
            one["layer"],
            str(one["rank"]),
            " ".join(f"{value:.2f}" for value in one["stability"][:8]),
            " ".join(f"{value:.3g}" for value in one["singular_values"][:8]),
        ]
        for one in answer["directions"]
    ]
    kept = f"written to {out}" if out else "not saved: --out FILE keeps it"
    return "\n".join([f"{answer['model']}:", *table([header, *rows]), kept])
