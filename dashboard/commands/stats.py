"""`palimpsest stats`: statistics on disk, looked at, checked, deleted and computed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dashboard.commands import options
from dashboard.commands.console import report
from dashboard.commands.stats_compute import compute, in_words
from dashboard.commands.table import table
from dashboard.words import ago, size
from rewrite_core.errors import PalimpsestError

if TYPE_CHECKING:
    from rewrite_core.statistics import Store
    from rewrite_core.statistics.entry import Entry

__all__ = ["stats"]

HEADER = ("name", "model", "layer", "statistic", "samples", "size", "last used", "")
NAME = 12
"""Characters of a name that are shown: enough to tell results apart, and to be asked for by."""


@click.group(epilog=options.example("palimpsest stats list"))
def stats() -> None:
    """Look after the statistics that are kept on disk.

    They lie in the cache folder, or came with an embedded model.
    """


stats.add_command(compute)


@stats.command("list", epilog=options.example("palimpsest stats list --json"))
@options.as_json
def list_(as_json: bool) -> None:
    """List what is stored, the last used first."""
    from rewrite_core.statistics import default_store

    store = default_store()
    rows = _described(store, store.entries())
    answer = {
        "folder": str(store.folder),
        "bytes": store.size(),
        "limit_bytes": store.limit_bytes,
        "blocks": len(list(store.blocks())),
        "statistics": rows,
    }
    report(answer, "\n".join([*table([HEADER, *map(_row, rows)]), "", _total(answer)]), as_json)


@stats.command(epilog=options.example("palimpsest stats show 33e8bcdc8782"))
@click.argument("name")
@options.as_json
def show(name: str, as_json: bool) -> None:
    """Show what a stored statistic depends on, and what it says.

    NAME is the beginning of its name, as `palimpsest stats list` shows it.
    """
    from rewrite_core.statistics import default_store

    store = default_store()
    entry = store.find(name)
    (row,) = _described(store, [entry])
    answer = {**row, "problem": _wrong(store, entry), "file": str(entry.path), "key": dict(entry.key)}
    answer["summary"] = None if answer["problem"] else _summary(entry)
    report(answer, _page(answer), as_json)


@stats.command(epilog=options.example("palimpsest stats verify"))
@click.argument("names", metavar="[NAME]...", nargs=-1)
@options.as_json
@click.pass_context
def verify(context: click.Context, names: tuple[str, ...], as_json: bool) -> None:
    """Read stored statistics whole and check them.

    Those of the given names, or all, and the blocks of those under way. Exit status 1 says that some are damaged;
    they are computed again when they are needed.
    """
    from rewrite_core.statistics import default_store

    store = default_store()
    entries = list(map(store.find, names)) if names else [*store.entries(), *store.blocks()]
    checked = [(entry, _wrong(store, entry)) for entry in entries]
    there = [(entry, problem) for entry, problem in checked if not problem or entry.path.exists()]
    wrong = [(entry, problem) for entry, problem in there if problem]
    lines = [f"{entry.path}: {problem}" for entry, problem in wrong]
    lines.append(f"{len(there):,} files checked, {len(wrong):,} cannot be served")
    found = [{"file": str(entry.path), "problem": problem} for entry, problem in wrong]
    report({"checked": len(there), "wrong": found}, "\n".join(lines), as_json)
    damaged = any(not _is_newer(entry) for entry, _ in wrong)
    context.exit(1 if damaged else 0)


@stats.command(epilog=options.example("palimpsest stats prune --keep 5GB"))
@options.size("--keep", "How much may stay, such as 500MB; what was used least recently goes first.")
@click.option("--all", "everything", is_flag=True, help="Delete everything in the folder.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@options.as_json
def prune(keep: int | None, everything: bool, dry_run: bool, as_json: bool) -> None:
    """Delete stored statistics.

    With --keep, blocks of a statistic under way stay until they have been idle for a day. What came with an embedded
    model always stays.
    """
    if (keep is None) != everything:
        raise click.UsageError("Say how much to keep with --keep, or delete everything with --all.")
    from rewrite_core.statistics import default_store

    store = default_store()
    sizes = _sizes(store)
    if keep is None:
        gone = list(sizes)
        if not dry_run:
            store.clear()
    else:
        gone = store.prune(keep, dry_run=dry_run)
    freed = sum(sizes.get(path, 0) for path in gone)
    left = sum(sizes.values()) - freed
    answer = {"deleted": [str(path) for path in gone], "bytes": freed, "left": left}
    done = "would be deleted" if dry_run else "deleted"
    summary = f"{size(freed)} {done}, {size(left)} left in {store.folder}"
    report(answer, "\n".join([*map(str, gone), summary]), as_json)


# What is stored


def _described(store: Store, entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """One object for each entry, as `stats list --json` gives it."""
    models = _models(store)
    return [
        {
            "name": entry.name,
            "model": models.get(str(entry.key.get("fingerprint"))),
            "fingerprint": entry.key.get("fingerprint"),
            "layer": entry.key.get("layer"),
            "statistic": entry.key.get("statistic"),
            "samples": entry.samples,
            "bytes": entry.bytes,
            "used": datetime.fromtimestamp(entry.used, UTC).isoformat(timespec="seconds"),
            "shipped": entry.shipped,
            "problem": entry.problem,
        }
        for entry in entries
    ]


def _models(store: Store) -> dict[str, str]:
    """Fingerprint → name of the embedded models, whose own statistics lie in a folder of theirs."""
    return {
        str(entry.key.get("fingerprint")): entry.path.parent.parent.name
        for entry in store.entries()
        if entry.shipped
    }


def _row(found: dict[str, Any]) -> list[str]:
    samples = found["samples"]
    return [
        found["name"][:NAME],
        found["model"] or str(found["fingerprint"] or "")[:8],
        str(found["layer"] or ""),
        str(found["statistic"] or ""),
        "" if samples is None else f"{samples:,}",
        size(found["bytes"]),
        ago((datetime.now(UTC) - datetime.fromisoformat(found["used"])).total_seconds()),
        found["problem"] or ("came with the model" if found["shipped"] else ""),
    ]


def _total(answer: dict[str, Any]) -> str:
    blocks = f", {answer['blocks']:,} of them blocks of statistics under way" if answer["blocks"] else ""
    return f"{size(answer['bytes'])} of at most {size(answer['limit_bytes'])} in {answer['folder']}{blocks}"


def _page(answer: dict[str, Any]) -> str:
    """A stored statistic, line by line."""
    key = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in answer["key"].items()]
    said = answer["problem"] or (in_words(answer["summary"]) if answer["summary"] else "")
    file = f"{answer['file']}: {size(answer['bytes'])}, last used {_row(answer)[-2]}"
    return "\n".join([answer["name"], *filter(None, [said]), file, "", *key])


def _summary(entry: Entry) -> Mapping[str, Any] | None:
    """What an intact file says; None where nothing can be said without what it was asked for with."""
    from rewrite_core.statistics import STATISTICS
    from rewrite_core.statistics.checked import read_checked
    from rewrite_core.statistics.key import canonical

    try:
        empty = STATISTICS[entry.key["statistic"]](**entry.key["parameters"])
    except (KeyError, TypeError, ValueError, PalimpsestError):  # of another release, or it needs a labeller
        return None
    asked = (entry.key.get("version"), canonical(entry.key["parameters"]))
    if (empty.version, canonical(empty.parameters())) != asked:
        return None
    found = read_checked(entry.path, entry.key, empty, set_aside=False)
    return None if found is None else found.summary()


def _wrong(store: Store, entry: Entry) -> str:
    """What reading the whole file finds wrong with it; its name is said elsewhere."""
    return store.verify(entry).removeprefix(f"{entry.path.name}: ")


def _is_newer(entry: Entry) -> bool:
    """Whether a newer release wrote it, which reads it where this one cannot."""
    from rewrite_core.statistics.key import FORMAT

    written = entry.key.get("format")
    return isinstance(written, int) and written > FORMAT


# What may go


def _sizes(store: Store) -> dict[Path, int]:
    """Every file in the folder, with its size."""
    found = {}
    for folder, _, names in os.walk(store.folder):
        for path in (Path(folder, name) for name in names):
            with suppress(OSError):  # another process was first to delete it
                found[path] = path.stat().st_size
    return dict(sorted(found.items()))
