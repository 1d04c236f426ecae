"""A library of rules: a folder of rule files, one a rule, for every generator that they were made for.

    library = default_library()
    library.save(rule)                        # blue-eyes.safetensors, or blue-eyes-2.safetensors
    for shelved in library.entries():         # the newest first
        print(shelved.name, shelved.title, shelved.layer, shelved.problem)
    rule = library.load("blue-eyes")

The folder is the platform's for user data, or ``PALIMPSEST_RULES``; files put there by hand count. A file is called
after its rule, in letters, digits and hyphens, and none is ever overwritten. `entries` reads every file whole (they are
kilobytes) and raises for none of them: what is damaged, or is no rule, is listed with its problem.

No thumbnails are kept: they are drawn by whoever shows them, from the generator that is open.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import platformdirs

from rewrite_core.errors import FileError
from rewrite_core.files import make_folder, write_bytes
from rewrite_core.rules.rule import Rule

__all__ = ["Library", "Shelved", "default_library", "file_stem"]

SUFFIX = ".safetensors"
LONGEST = 60
"""Letters of a file's name, its number and ending apart."""
MOST = 1000
"""Rules of one name."""


@dataclass(frozen=True)
class Shelved:
    """A file of the library: the rule in it, or the problem with it.

    Attributes:
        name: the file's, without its ending: what `load` and `delete` take.
        title: what the rule's maker called it.
        model, fingerprint: of the generator that it was made for.
        saved: when the file was written.
        bytes: its size.
        problem: why it cannot be loaded, in one line, or empty; then title, layer, model and fingerprint are empty.
    """

    name: str
    path: Path
    saved: datetime
    bytes: int
    title: str = ""
    layer: str = ""
    rank: int = 0
    strength: float = 0.0
    model: str = ""
    fingerprint: str = ""
    digest: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Library:
    """The rule files of one folder, which need not exist yet."""

    folder: Path

    def entries(self) -> list[Shelved]:
        """What there is, the newest first; only files whose names end in ``.safetensors``."""
        found = []
        with suppress(OSError):  # no folder yet, or none that may be looked into
            for path in sorted(self.folder.iterdir()):
                if path.suffix == SUFFIX and not path.name.startswith("."):
                    with suppress(OSError):  # deleted meanwhile, or a link that leads nowhere
                        found.append(_shelved(path))
        return sorted(found, key=lambda one: one.saved, reverse=True)

    def save(self, rule: Rule) -> Path:
        """Put a rule there, under a name that was free.

        Raises:
            FileError: the folder cannot be made or written, the disk is full, or a thousand rules have this name.
        """
        content = rule.to_bytes()
        path = self._claim(file_stem(rule.name))
        try:
            write_bytes(path, content)
        except FileError:
            path.unlink(missing_ok=True)
            raise
        return path

    def load(self, name: str) -> Rule:
        """The rule in the file of this name.

        Raises:
            FileError: there is none, or it is no rule file, damaged or not finite.
        """
        return Rule.load(self.path(name))

    def delete(self, name: str) -> None:
        """Delete the file of this name, whether or not it is sound.

        Raises:
            FileError: there is none, or it cannot be deleted.
        """
        path = self.path(name)
        try:
            path.unlink()
        except OSError as problem:
            raise FileError(
                found=f"{path} cannot be deleted ({problem.strerror})",
                expected="a file in a folder that can be written",
                remedy="Check its permissions.",
            ) from None

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return _bare(name) and os.path.lexists(self.folder / f"{name}{SUFFIX}")

    def path(self, name: str) -> Path:
        """The file of this name.

        Raises:
            FileError: there is none.
        """
        if not self.has(name):
            raise FileError(
                found=f"no rule '{name}' in {self.folder}",
                expected="the name of a file there, without its ending",
                remedy="`palimpsest rules list` shows their names.",
            )
        return self.folder / f"{name}{SUFFIX}"

    def _claim(self, stem: str) -> Path:
        """An empty file of a new name: no other process can take the name as well."""
        make_folder(self.folder)
        for number in range(1, MOST + 1):
            path = self.folder / f"{stem}{f'-{number}' if number > 1 else ''}{SUFFIX}"
            try:
                path.open("xb").close()
            except FileExistsError:
                continue
            except OSError as problem:
                raise FileError(
                    found=f"{path} cannot be written ({problem.strerror})",
                    expected="a folder that may be written to and has room",
                    remedy="Set PALIMPSEST_RULES to another folder.",
                ) from None
            return path
        raise FileError(
            found=f"{MOST:,} rules called '{stem}' in {self.folder}",
            expected="a name that is free",
            remedy="Give the rule another name.",
        )


def default_library() -> Library:
    """The user's library: the folder that ``PALIMPSEST_RULES`` names, else the platform's."""
    folder = os.environ.get("PALIMPSEST_RULES")
    return Library(Path(folder) if folder else platformdirs.user_data_path("palimpsest", False) / "rules")


def file_stem(name: str) -> str:
    """A file's name for what is called `name`, without an ending: letters, digits and hyphens, no quotes needed."""
    return re.sub(r"[^A-Za-z0-9_]+", "-", name)[:LONGEST].strip("-").lower() or "rule"


def _bare(name: str) -> bool:
    """Whether it is one file's name, and no path that leads elsewhere."""
    return (
        bool(name)
        and name.isprintable()
        and not any(mark in name for mark in "/\\")
        and name not in (".", "..")
    )


def _shelved(path: Path) -> Shelved:
    there = path.stat()
    return _read(path, there.st_mtime_ns, there.st_size)


@lru_cache(maxsize=512)
def _read(path: Path, saved_ns: int, size: int) -> Shelved:
    """What is in a file of this age and size: it is read again only once it has changed."""
    saved = datetime.fromtimestamp(saved_ns / 1e9, UTC)
    try:
        rule = Rule.load(path)
    except FileError as problem:
        return Shelved(path.stem, path, saved, size, problem=str(problem))
    return Shelved(
        name=path.stem,
        path=path,
        saved=saved,
        bytes=size,
        title=rule.name,
        layer=rule.layer,
        rank=rule.rank,
        strength=rule.strength,
        model=rule.provenance.model,
        fingerprint=rule.provenance.fingerprint,
        digest=rule.digest,
    )
