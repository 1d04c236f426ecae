"""Where visitors' work is kept in case their page or this server ends: files of the server's cache, one a visitor.

    shelter = default_shelter()
    saver = Autosaver(shelter)
    name = new_name()
    saver.put(name, workspace)        # returns at once; written within a second, the newest alone
    shelter.load(name)                # (the workspace, when it was written), or None

A name is 128 random bits: nobody can guess another visitor's, and no name is ever listed. Files are called by the
SHA-256 of their names, so that who sees the folder does not know the names either. Kept are the newest `MOST`, up to
`ROOM` bytes, for `DAYS` days. Nothing here raises into a page: what could not be written is the saver's `problem`.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from rewrite_core.errors import PalimpsestError
from rewrite_core.files import make_folder, write_bytes
from rewrite_core.rules.workspace import LARGEST, Workspace

__all__ = ["DAYS", "MOST", "ROOM", "Autosaver", "Shelter", "default_shelter", "new_name"]

MOST, ROOM, DAYS = 1000, 1 << 30, 30
"""Files, bytes of all of them, and the age at which one is deleted."""
DELAY = 0.5
"""Seconds for which changes are gathered before they are written."""
SUFFIX = ".json"
_NAME = re.compile(r"[A-Za-z0-9_-]{22}")


def new_name() -> str:
    """A name that nobody can guess: 128 random bits in 22 characters."""
    return secrets.token_urlsafe(16)


@dataclass(frozen=True)
class Shelter:
    """The files of one folder, which need not exist yet."""

    folder: Path
    most: int = MOST
    room: int = ROOM
    days: float = DAYS

    def save(self, name: str, workspace: Workspace) -> None:
        """Write `workspace` under `name`, and delete what is too much or too old.

        Raises:
            FileError: it is too large, or the folder cannot be made or written.
        """
        content = workspace.to_bytes()
        make_folder(self.folder)
        write_bytes(self._path(name), content)
        self.prune()

    def load(self, name: str) -> tuple[Workspace, float] | None:
        """What is kept under `name`, and when it was written, in seconds since 1970; None if there is nothing.

        Raises:
            PalimpsestError: what is there is damaged.
        """
        if not _NAME.fullmatch(name):
            return None
        path = self._path(name)
        try:
            written = path.stat().st_mtime
        except OSError:
            return None
        if time.time() - written > self.days * 86_400 or path.stat().st_size > LARGEST:
            return None
        return Workspace.load(path.read_bytes(), "what was kept of your work"), written

    def prune(self) -> None:
        """Delete files that are too old, and the oldest of those that are too many or too large together."""
        found: list[tuple[float, int, Path]] = []
        with suppress(OSError):
            for path in self.folder.glob(f"*{SUFFIX}"):
                with suppress(OSError):  # another process deletes too
                    there = path.stat()
                    found.append((there.st_mtime, there.st_size, path))
        oldest, taken = time.time() - self.days * 86_400, 0
        for place, (written, size, path) in enumerate(sorted(found, reverse=True)):
            taken += size
            if place >= self.most or written < oldest or (place and taken > self.room):
                with suppress(OSError):
                    path.unlink()

    def _path(self, name: str) -> Path:
        return self.folder / (hashlib.sha256(name.encode()).hexdigest()[:32] + SUFFIX)


class Autosaver:
    """Writes workspaces to a shelter from a thread of its own: a page never waits for the disk."""

    def __init__(self, shelter: Shelter, delay: float = DELAY) -> None:
        self.shelter, self.delay = shelter, delay
        self.problem = ""
        self._waiting: dict[str, Workspace] = {}
        self._busy = False
        self._changed = threading.Condition()

    def put(self, name: str, workspace: Workspace) -> None:
        """Write `workspace` under `name` soon, in place of one of that name that waits still."""
        with self._changed:
            self._waiting[name] = workspace
            if not self._busy:
                self._busy = True
                threading.Thread(target=self._write, name="autosave", daemon=True).start()

    def load(self, name: str) -> tuple[Workspace, float] | None:
        """What was put under `name` last, written or not; errors as `Shelter.load`."""
        with self._changed:
            waiting = self._waiting.get(name)
        return (waiting, time.time()) if waiting else self.shelter.load(name)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all is written; whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._busy, timeout)

    def _write(self) -> None:
        while True:
            time.sleep(self.delay)
            with self._changed:
                work = dict(self._waiting)
                if not work:
                    self._busy = False
                    self._changed.notify_all()
                    return
            for name, workspace in work.items():
                self._save(name, workspace)

    def _save(self, name: str, workspace: Workspace) -> None:
        try:
            self.shelter.save(name, workspace)
            self.problem = ""
        except (PalimpsestError, OSError) as problem:
            self.problem = str(problem)
        finally:
            with self._changed:
                if self._waiting.get(name) is workspace:
                    del self._waiting[name]


def default_shelter() -> Shelter:
    """The folder ``sessions`` of the cache, which ``PALIMPSEST_CACHE`` may name."""
    folder = os.environ.get("PALIMPSEST_CACHE") or platformdirs.user_cache_dir("palimpsest", appauthor=False)
    return Shelter(Path(folder) / "sessions")
