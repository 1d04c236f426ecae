"""What the store of statistics holds, as a page shows it: rows of a table, what a result depends on, verifying."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pandas as pd

from dashboard.session import Session, embedded
from dashboard.words import counted, size
from rewrite_core.generators import embedded_names
from rewrite_core.jobs import Progress
from rewrite_core.statistics.entry import Entry
from rewrite_core.statistics.key import Key
from rewrite_core.statistics.store import Store

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

__all__ = ["depends_on", "digest", "model_names", "numbers", "table", "total", "verifying"]


def model_names(visitor: Session) -> dict[str, str]:
    """Fingerprint → name of the generators that this visitor knows: the embedded ones and the open one."""
    opened = visitor.generator.pristine
    return {opened.fingerprint: opened.name} | {embedded(name).fingerprint: name for name in embedded_names()}


def table(entries: Iterable[Entry], names: Mapping[str, str], problems: Mapping[str, str]) -> Styler:
    """One row a result; `problems` are what verifying found (name → what is wrong, empty where nothing is).

    Sizes are numbers, by which the table sorts, and look like those beside it.
    """
    rows = [
        {
            "model": _model(entry.key, names),
            "layer": entry.key.get("layer", "?"),
            "statistic": _words(entry.key.get("statistic", "?")),
            "samples": entry.samples,
            "size": entry.bytes,
            "last used": datetime.fromtimestamp(entry.used, UTC),
            "state": _state(entry, problems),
        }
        for entry in entries
    ]
    return pd.DataFrame(rows).style.format({"size": _size})


def depends_on(entry: Entry, names: Mapping[str, str]) -> list[tuple[str, str]]:
    """What a result depends on, in words: the parts of its key."""
    key = entry.key
    if not key:
        return [("file", entry.path.name)]
    parameters = ", ".join(f"{_words(name)} {value}" for name, value in key.get("parameters", {}).items())
    kind = "" if key.get("label") is None else f", class {key['label']}"
    numbered = "by row" if key.get("scheme") == "rows" else "by seed"
    return [
        ("model", f"{_model(key, names)}, {key.get('family')}, {str(key.get('fingerprint'))[:16]}…"),
        ("layer", str(key.get("layer"))),
        ("statistic", f"{_words(key.get('statistic', '?'))}, version {key.get('version')} of its code"),
        ("parameters", parameters or "none"),
        ("samples", f"{_seeds(entry)}, numbered {numbered}, truncation {key.get('truncation')}{kind}"),
        (
            "computed",
            f"{key.get('micro_batch')} pictures at a time in blocks of {key.get('block')}, "
            f"{key.get('dtype')} on {key.get('device')}",
        ),
        ("file", entry.path.name),
    ]


def total(entries: Sequence[Entry]) -> str:
    """``3 results, 12.3 MB``."""
    return f"{counted(len(entries), 'result')}, {size(sum(entry.bytes for entry in entries))}"


def numbers(entries: Sequence[Entry]) -> str:
    """``3 results, 10 shipped``: those that take room here, and those that came with the embedded generators."""
    shipped = sum(entry.shipped for entry in entries)
    return f"{counted(len(entries) - shipped, 'result')}, {shipped} shipped"


def digest(entries: Sequence[Entry]) -> str:
    """A name for this list in this order: rows selected in one list mean nothing in another."""
    return sha256("\n".join(entry.name for entry in entries).encode()).hexdigest()[:12]


def verifying(store: Store, entries: Sequence[Entry]) -> Callable[[Progress], dict[str, str]]:
    """Work that reads every file whole: name → what is wrong with it, empty where nothing is."""

    def work(progress: Progress) -> dict[str, str]:
        found = {}
        for done, entry in enumerate(entries):
            progress(done, len(entries))
            found[entry.name] = store.verify(entry)
        return found

    return work


def _size(cell: Any) -> str:
    """Bytes in a cell, as `size` says them."""
    return size(cell)


def _state(entry: Entry, problems: Mapping[str, str]) -> str:
    problem = entry.problem or problems.get(entry.name)
    if problem:
        return problem
    if entry.name in problems:
        return "intact"
    return "shipped" if entry.shipped else ""


def _model(key: Key, names: Mapping[str, str]) -> str:
    fingerprint = str(key.get("fingerprint", "?"))
    return names.get(fingerprint, fingerprint[:8])


def _seeds(entry: Entry) -> str:
    seeds: Any = entry.key.get("seeds", [])
    numbers = f"{seeds[0]}, …, {seeds[-1]}" if isinstance(seeds, list) and len(seeds) > 1 else seeds
    return f"{entry.samples or 0:,} ({numbers})".replace("..", " to ")


def _words(name: str) -> str:
    return name.replace("_", " ")
