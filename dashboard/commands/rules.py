"""`palimpsest rules`: the library of rules, looked at and looked after; several rules merged into one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dashboard.commands import options
from dashboard.commands.console import report
from dashboard.commands.table import table
from dashboard.words import ago, counted, size

if TYPE_CHECKING:
    from rewrite_core import Rule
    from rewrite_core.rules.library import Shelved

__all__ = ["rules"]

HEADER = ("name", "rule", "layer", "rank", "strength", "model", "size", "saved", "")
SHOWN = 12
"""Characters of a digest that are printed."""


@click.group(epilog=options.example("palimpsest rules list"))
def rules() -> None:
    """Look after the library of rules: a folder of rule files, which the app offers too.

    It is the platform's folder for user data, or that of PALIMPSEST_RULES. A RULE is the name of a file in it, without
    its ending, or the path of any other.
    """


@rules.command("list", epilog=options.example("palimpsest rules list --json"))
@options.as_json
def list_(as_json: bool) -> None:
    """List what is in the library.

    The newest comes first. A damaged file is listed with its problem.
    """
    from rewrite_core.rules.library import default_library

    library = default_library()
    found = library.entries()
    answer = {"folder": str(library.folder), "rules": [_described(one) for one in found]}
    lines = table([HEADER, *map(_row, found)]) if found else []
    report(answer, "\n".join([*lines, f"{counted(len(found), 'rule')} in {library.folder}"]), as_json)


@rules.command(epilog=options.example("palimpsest rules show blue-eyes"))
@click.argument("rule", metavar="RULE")
@options.as_json
def show(rule: str, as_json: bool) -> None:
    """Say what a rule is, and how it was made."""
    found = _found(rule)
    answer = {
        **_summary(found),
        "fingerprint": found.provenance.fingerprint,
        "beneath": list(found.provenance.beneath),
        "merged": list(found.provenance.merged),
        "result": dict(found.provenance.result),
        "made_with": dict(found.provenance.made_with),
    }
    report(answer, _page(found), as_json)


@rules.command(epilog=options.example("palimpsest rules add blue-eyes.safetensors"))
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@options.as_json
def add(files: tuple[Path, ...], as_json: bool) -> None:
    """Put rule files into the library.

    None that is there is overwritten.
    """
    from rewrite_core import Rule
    from rewrite_core.rules.library import default_library

    library = default_library()
    loaded = [Rule.load(path) for path in files]  # all, before the first is written
    written = [str(library.save(rule)) for rule in loaded]
    report({"files": written}, "\n".join(written), as_json)


@rules.command(epilog=options.example("palimpsest rules remove blue-eyes"))
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@options.as_json
def remove(names: tuple[str, ...], as_json: bool) -> None:
    """Delete rules from the library, damaged files included."""
    from rewrite_core.rules.library import default_library

    library = default_library()
    paths = [library.path(name) for name in names]  # all, before the first is deleted
    for name in dict.fromkeys(names):
        library.delete(name)
    deleted = list(map(str, dict.fromkeys(paths)))
    report({"deleted": deleted}, "\n".join(f"{path} deleted" for path in deleted), as_json)


@rules.command(epilog=options.example("palimpsest rules merge blue-eyes orange-hair --out both.safetensors"))
@click.argument("parts", metavar="RULE...", nargs=-1, required=True)
@click.option("--name", help="What it is called.  [default: the names of the parts]")
@options.place("--out", "File to write; without it the rule goes into the library.")
@options.as_json
def merge(parts: tuple[str, ...], name: str | None, out: Path | None, as_json: bool) -> None:
    """Merge rules of one layer into one.

    It does what all of them do, at the strengths that they have.
    """
    from rewrite_core.rules.library import default_library
    from rewrite_core.rules.merging import merged

    found = [_found(part) for part in parts]
    rule = merged(found, name or " + ".join(part.name for part in found))
    if out:
        rule.save(out)
    path = out or default_library().save(rule)
    answer = {**_summary(rule), "merged": list(rule.provenance.merged), "files": [str(path)]}
    report(answer, f"{_line(rule)}\n{path}", as_json)


def _found(text: str) -> Rule:
    """A rule of the library, or else the one in a file."""
    from rewrite_core import Rule
    from rewrite_core.rules.library import default_library

    library = default_library()
    return Rule.load(text) if Path(text).exists() and not library.has(text) else library.load(text)


def _described(found: Shelved) -> dict[str, Any]:
    """One object for each file, as `rules list --json` gives it."""
    return {
        "name": found.name,
        "title": found.title,
        "layer": found.layer,
        "rank": found.rank,
        "strength": found.strength,
        "model": found.model,
        "fingerprint": found.fingerprint,
        "digest": found.digest,
        "bytes": found.bytes,
        "saved": found.saved.isoformat(timespec="seconds"),
        "problem": found.problem,
    }


def _row(found: Shelved) -> list[str]:
    age = ago((datetime.now(UTC) - found.saved).total_seconds())
    if found.problem:
        return [found.name, "", "", "", "", "", size(found.bytes), age, found.problem]
    numbers = [str(found.rank), f"{found.strength:g}"]
    return [found.name, found.title, found.layer, *numbers, found.model, size(found.bytes), age, ""]


def _summary(rule: Rule) -> dict[str, Any]:
    return {
        "title": rule.name,
        "model": rule.provenance.model,
        "layer": rule.layer,
        "rank": rule.rank,
        "strength": rule.strength,
        "digest": rule.digest,
    }


def _line(rule: Rule) -> str:
    name = rule.name or "without a name"
    return (
        f"{name}: layer {rule.layer} of {rule.provenance.model}, rank {rule.rank}, strength {rule.strength:g}"
    )


def _page(rule: Rule) -> str:
    """A rule, line by line."""
    origin = rule.provenance
    told: dict[str, Sequence[str]] = {
        "merged from": [digest[:SHOWN] for digest in origin.merged],
        "on top of": [digest[:SHOWN] for digest in origin.beneath],
        "solved with": [f"{name} {_short(value)}" for name, value in origin.result.items()],
        "made with": [f"{name} {version}" for name, version in origin.made_with.items()],
    }
    lines = [f"  {what} {', '.join(words)}" for what, words in told.items() if words]
    return "\n".join(
        [_line(rule), f"  digest {rule.digest[:SHOWN]}, for {origin.fingerprint[:SHOWN]}", *lines]
    )


def _short(value: float | int | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
