"""What lies in a store, as the headers of its files tell; their tensors are not read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rewrite_core.errors import FileError
from rewrite_core.files import read_metadata
from rewrite_core.statistics.key import FORMAT, Key, name_of

__all__ = ["Entry", "block_of", "entry_at"]

_PARTS: Mapping[str, type | tuple[type, ...]] = {
    "fingerprint": str,
    "family": str,
    "layer": str,
    "statistic": str,
    "parameters": dict,
    "seeds": (str, list),
}
"""What readers of an `Entry` may take for granted of the parts of its key; a newer release may write others."""


@dataclass(frozen=True)
class Entry:
    """One file of a store, as its header tells.

    Attributes:
        name: its file's name without the ending.
        key: what the statistic depends on; empty where the header cannot be read.
        bytes: its size.
        used: when it was last written or read, in seconds since 1970.
        shipped: whether it lies in a read-only folder that came with an embedded generator.
        problem: why it cannot be served, in a few words; empty where nothing is known against it.
    """

    path: Path
    name: str
    key: Key
    bytes: int
    used: float
    shipped: bool = False
    problem: str = ""

    @property
    def samples(self) -> int | None:
        """How many samples it is over; None where the key does not say."""
        seeds = self.key.get("seeds")
        if isinstance(seeds, list):
            return len(seeds)
        run = re.fullmatch(r"(\d{1,10})\.\.(\d{1,10})", str(seeds))
        return max(0, int(run[2]) - int(run[1]) + 1) if run else None


def entry_at(path: Path, shipped: bool) -> Entry | None:
    """What the header of `path` tells; None if the file is gone by now."""
    try:
        there = path.stat()
    except OSError:
        return None
    key, problem = _key_in(path)
    return Entry(path, path.stem, key, there.st_size, there.st_mtime, shipped, problem)


def block_of(entry: Entry) -> Entry:
    """A finished block, which lies in the folder that is named after the whole result's key."""
    whole = {name: value for name, value in entry.key.items() if name != "blocks"}
    return replace(entry, problem="") if whole and name_of(whole) == entry.path.parent.name else entry


def _key_in(path: Path) -> tuple[dict[str, Any], str]:
    try:
        header = read_metadata(path, what=path.name)
        key = json.loads(header["key"])
        name = name_of(key)
    except (FileError, KeyError, ValueError, RecursionError):
        return {}, "not a statistic, or damaged"
    if not isinstance(key, dict):
        return {}, "not a statistic, or damaged"
    known = {part: value for part, value in key.items() if isinstance(value, _PARTS.get(part, object))}
    written = key.get("format")
    if isinstance(written, int) and written > FORMAT:
        return known, f"written by a newer release (format {written})"
    if known != key:
        return {}, "not a statistic, or damaged"
    return key, "" if name == path.stem else "written by another release, or renamed"
