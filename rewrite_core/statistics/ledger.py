"""Finished blocks on disk, so that nothing computed is lost: to a crash, a cancel, or another process.

A pass is folded from its blocks in order, ``((b0 + b1) + b2) + …``, whoever computed them. Each statistic under way
has a folder of its own with files that cover runs of blocks, ``first-end.safetensors``: a *prefix* (first = 0) may
cover many blocks, already folded; any other file covers one. The run is part of the file's key, so that a file under
another's name is not taken for it. A block is computed by the process that holds its claim, a file lock that the
system releases when the process ends, however it ends.
"""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

from filelock import FileLock, Timeout

from rewrite_core.statistics.checked import read_checked, write_checked
from rewrite_core.statistics.key import Key, name_of
from rewrite_core.statistics.statistic import Statistic
from rewrite_core.statistics.store import Store

__all__ = ["Ledger", "claim", "forget"]

S = TypeVar("S", bound=Statistic)

PATIENCE = 3
"""Times to look again for a prefix that went away between listing and reading it."""
_RUN = re.compile(r"(\d{6})-(\d{6})\.safetensors")


class Ledger(Generic[S]):
    """The blocks of one statistic under way: folded in memory as far as they follow each other, else kept apart."""

    def __init__(self, store: Store, key: Key, empty: S) -> None:
        self.store, self.key, self.empty = store, key, empty
        self.folder = store.partial / name_of(key)
        self.folded, self.end = empty, 0  # blocks 0 … end - 1
        self._loose: dict[int, S] = {}  # finished here, waiting for those before them
        self._on_disk: set[int] = set()
        self._unusable: set[int] = set()  # on disk, but damaged or unreadable
        self._saved = 0  # blocks of the prefix that are on disk
        self.refresh()

    def has(self, block: int) -> bool:
        """Whether `block` is finished, here or on disk."""
        return block < self.end or block in self._loose or block in self._on_disk

    def add(self, block: int, statistic: S) -> None:
        """Take a block that was finished here."""
        self._loose[block] = statistic
        self._fold()

    def save(self) -> None:
        """Put on disk what only this process has.

        Raises:
            FileError: if the disk is full or the folder cannot be written.
        """
        self.store.make(self.folder)
        if self.end > self._saved:
            older = self.folder / _name(0, self._saved)
            self._write(0, self.end, self.folded)
            with suppress(OSError):  # of no use any more, in nobody's way
                older.unlink(missing_ok=True)
            self._saved = self.end
        for block, statistic in self._loose.items():
            if block not in self._on_disk:
                self._write(block, block + 1, statistic)
                self._on_disk.add(block)

    def refresh(self) -> None:
        """Look at what is on disk by now; a prefix longer than ours is taken over."""
        runs = self._runs()
        for _ in range(PATIENCE):
            prefix = max((end for first, end in runs if first == 0), default=0)
            if prefix <= self.end:
                break
            if (found := self._read(0, prefix)) is not None:
                self.folded, self.end, self._saved = found, prefix, prefix
                break
            runs = self._runs()  # a longer one took its place just now, or it was damaged
        self._on_disk = {first for first, end in runs if end == first + 1} - self._unusable
        self._loose = {block: found for block, found in self._loose.items() if block >= self.end}
        self._fold()

    def finish(self, blocks: int) -> S | None:
        """All `blocks` folded, or None: one that was on disk is gone or damaged, and has to be computed again."""
        while self.end < blocks:
            block = self.end
            if block not in self._loose:
                if (found := self._read(block, block + 1)) is None:
                    self._on_disk.discard(block)
                    self._unusable.add(block)
                    return None
                self._loose[block] = found
            self._fold()
        return self.folded

    def clear(self) -> None:
        """The result is stored: the blocks are not needed any more."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _fold(self) -> None:
        while self.end in self._loose:
            self.folded = self.folded.merge(self._loose.pop(self.end))
            self.end += 1

    def _runs(self) -> list[tuple[int, int]]:
        found = (_RUN.fullmatch(name) for name in _listed(self.folder))
        return [(int(run[1]), int(run[2])) for run in found if run]

    def _read(self, first: int, end: int) -> S | None:
        return read_checked(self.folder / _name(first, end), self._key(first, end), self.empty)

    def _write(self, first: int, end: int, statistic: S) -> None:
        write_checked(self.folder / _name(first, end), self._key(first, end), statistic)

    def _key(self, first: int, end: int) -> Key:
        return {**self.key, "blocks": [first, end]}


def claim(store: Store, samples: Key, block: int) -> FileLock | None:
    """The claim on a block of these samples, or None: another process (or job) is computing it.

    Raises:
        OSError: the folder cannot be written, so nobody else can be computing in it either.
    """
    folder = _claims(store, samples)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{block:06d}.lock")
    try:
        lock.acquire(blocking=False)
    except (Timeout, FileNotFoundError):  # claimed; or a pass that ended took the folder with it: look again
        return None
    return lock


def forget(store: Store, samples: Key) -> None:
    """Delete the claims of a pass that is over, except those that another process still holds."""
    folder = _claims(store, samples)
    for name in _listed(folder):
        with suppress(OSError, Timeout), FileLock(folder / name).acquire(blocking=False):
            (folder / name).unlink()
    with suppress(OSError):  # some are held, or it is gone
        folder.rmdir()


def _claims(store: Store, samples: Key) -> Path:
    return store.partial / f"claims-{name_of(samples)}"


def _listed(folder: Path) -> list[str]:
    """The names in `folder`; none if it does not exist, or not any more."""
    try:
        return [path.name for path in folder.iterdir()]
    except OSError:
        return []


def _name(first: int, end: int) -> str:
    return f"{first:06d}-{end:06d}.safetensors"
