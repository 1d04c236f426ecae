"""Statistics on disk, named by everything they depend on (`rewrite_core.statistics.key`).

A file is safetensors with the key and a checksum in its header, written beside its place and renamed into it, so
that several processes share a folder safely. A damaged or foreign file is set aside (``….damaged``) and the
statistic computed again; one written by a newer release has another name and is left alone.

    statistics/<name>.safetensors           results
    statistics/partial/<name>/…             finished blocks of results under way (`rewrite_core.statistics.ledger`)

The folder follows the platform's convention, or ``PALIMPSEST_CACHE``. Under it lies a read-only layer in ``data/``, so
that the embedded generators start warm. The folder is held under a size by deleting what was used least recently.
"""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import platformdirs

from rewrite_core.errors import FileError, RequestError
from rewrite_core.generators import embedded_folder, embedded_names
from rewrite_core.statistics.checked import checked, holds, read_checked, write_checked
from rewrite_core.statistics.entry import Entry, block_of, entry_at
from rewrite_core.statistics.key import Key, name_of
from rewrite_core.statistics.statistic import Statistic

__all__ = ["LIMIT_BYTES", "Store", "default_store"]

S = TypeVar("S", bound=Statistic)

LIMIT_BYTES = 20 * 10**9
"""What a folder may hold, unless ``PALIMPSEST_CACHE_LIMIT`` (in GB) says otherwise."""


class Store:
    """A folder of statistics, over read-only folders looked at when it has no answer."""

    def __init__(
        self, folder: Path, beneath: tuple[Path, ...] = (), *, limit_bytes: int = LIMIT_BYTES
    ) -> None:
        self.folder = folder
        self.beneath = beneath
        self.limit_bytes = limit_bytes

    @property
    def partial(self) -> Path:
        """Where the finished blocks of results under way lie."""
        return self.folder / "partial"

    def get(self, key: Key, empty: S) -> S | None:
        """The stored statistic of this key, or None; `empty` says of which kind and parameters."""
        name = f"{name_of(key)}.safetensors"
        if (found := read_checked(self.folder / name, key, empty)) is not None:
            with suppress(OSError):  # a read-only folder
                os.utime(self.folder / name)
            return found
        for folder in self.beneath:
            if (found := read_checked(folder / name, key, empty, set_aside=False)) is not None:
                return found
        return None

    def has(self, key: Key) -> bool:
        """Whether `get` has an answer, as far as headers tell: one that is damaged among its numbers counts.

        To ask is not to use: what is pruned first stays what it is.
        """
        name = f"{name_of(key)}.safetensors"
        return any(holds(folder / name, key) for folder in (self.folder, *self.beneath))

    def put(self, key: Key, statistic: Statistic) -> Path:
        """Store `statistic` under `key`, whole or not at all, and make room for it if need be.

        Raises:
            FileError: if the disk is full or the folder cannot be written.
        """
        self.make(self.folder)
        path = self.folder / f"{name_of(key)}.safetensors"
        write_checked(path, key, statistic)
        self.prune(self.limit_bytes, keep=path)
        return path

    def make(self, folder: Path) -> None:
        """Make a folder of the store.

        Raises:
            FileError: if it cannot be made.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise FileError(
                found=f"cache folder {folder}: {problem.strerror}",
                expected="a folder that can be written",
                remedy="Set PALIMPSEST_CACHE to another folder.",
            ) from None

    # What there is.

    def entries(self, *, shipped: bool = True) -> list[Entry]:
        """Every result, most recently used first; only headers are read."""
        folders = [(self.folder, False), *((folder, True) for folder in self.beneath if shipped)]
        found = [
            entry
            for folder, read_only in folders
            for path in sorted(folder.glob("*.safetensors"))
            if (entry := entry_at(path, read_only))
        ]
        return sorted(found, key=lambda entry: entry.used, reverse=True)

    def blocks(self) -> list[Entry]:
        """The finished blocks of results under way; each belongs to the key that its folder is named after."""
        return [
            block_of(entry) for folder in sorted(self.partial.glob("*/")) for entry in Store(folder).entries()
        ]

    def find(self, start: str) -> Entry:
        """The one result whose name starts with `start`.

        Raises:
            RequestError: if there is none, or more than one.
        """
        found = [entry for entry in self.entries() if entry.name.startswith(start)]
        if len({entry.name for entry in found}) != 1:
            raise RequestError(
                found=f"{len(found)} stored statistics whose name starts with '{start}'",
                expected="exactly one",
                remedy="`palimpsest stats list` shows their names.",
            )
        return found[0]

    def verify(self, entry: Entry) -> str:
        """Read the whole file: what is wrong with it, in a few words, or nothing."""
        if entry.problem:
            return entry.problem
        try:
            checked(entry.path, entry.key)
        except FileError as problem:
            return problem.found
        return ""

    def delete(self, entry: Entry) -> None:
        """Delete one result.

        Raises:
            RequestError: if it came with an embedded generator.
            FileError: if it cannot be deleted.
        """
        if entry.shipped:
            raise RequestError(
                found=f"{entry.name}, which came with an embedded generator",
                expected="a result of this machine",
                remedy="It takes no room in the cache.",
            )
        try:
            entry.path.unlink(missing_ok=True)
        except OSError as problem:
            raise FileError(
                found=f"{entry.path} cannot be deleted ({problem.strerror})",
                expected="a folder that can be written",
                remedy="Check its permissions.",
            ) from None

    def size(self) -> int:
        """Bytes of everything in the folder: results, blocks under way, and what was set aside."""
        return sum(size for _, size, _ in _files(self.folder))

    def prune(self, limit_bytes: int, keep: Path | None = None, *, dry_run: bool = False) -> list[Path]:
        """Delete what was used least recently until the folder holds at most `limit_bytes`; says what went.

        With `dry_run` it only says what would go.

        What was set aside as damaged goes first. Blocks of a pass that has been idle for a day, and files that a
        process left half written, count as old; those of one under way stay. `keep` stays whatever its size.
        """
        files = _files(self.folder)
        total, gone = sum(size for _, size, _ in files), []
        idle = time.time() - 86_400
        files.sort(key=lambda file: (file[0].suffix != ".damaged", file[2]))
        for path, size, used in files:
            if total <= limit_bytes:
                break
            under_way = used > idle and (self.partial in path.parents or path.suffix == ".tmp")
            if path == keep or under_way or path.suffix not in (".damaged", ".safetensors", ".tmp", ".lock"):
                continue
            with suppress(OSError):  # another process was first
                if not dry_run:
                    path.unlink()
                gone.append(path)
                total -= size
        return gone

    def clear(self) -> None:
        """Delete everything in the folder (which may be a link), shipped statistics excepted."""
        folder = self.folder.resolve()
        shutil.rmtree(folder, ignore_errors=True)
        if self.folder.is_symlink():
            self.make(folder)


def default_store() -> Store:
    """The user's cache over the statistics that ship with the embedded generators.

    Raises:
        RequestError: if ``PALIMPSEST_CACHE_LIMIT`` is not a number.
    """
    folder = os.environ.get("PALIMPSEST_CACHE") or platformdirs.user_cache_dir("palimpsest", appauthor=False)
    shipped = tuple(embedded_folder(name) / "statistics" for name in embedded_names())
    return Store(Path(folder) / "statistics", shipped, limit_bytes=_limit())


def _limit() -> int:
    text = os.environ.get("PALIMPSEST_CACHE_LIMIT") or ""
    try:
        limit = float(text) * 1e9 if text else LIMIT_BYTES
    except ValueError:
        limit = -1
    if not 0 <= limit < 1e18:
        raise RequestError(
            found=f"PALIMPSEST_CACHE_LIMIT={text}",
            expected="a number of GB, such as 20",
            remedy="Correct the variable, or unset it.",
        )
    return int(limit)


def _files(folder: Path) -> list[tuple[Path, int, float]]:
    """Every file below `folder` with its size and when it was last used."""
    found = []
    for parent, _, names in os.walk(folder):  # passes over what is deleted meanwhile
        for path in (Path(parent, name) for name in names):
            with suppress(OSError):
                there = path.lstat()
                found.append((path, there.st_size, there.st_mtime))
    return found
