"""Where a checkpoint's files come from: a folder, one file, or an upload held in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rewrite_core.errors import FileError

__all__ = ["LARGEST_FILE", "Source"]

LARGEST_FILE = 4 << 30
"""Bytes. A training checkpoint of a 1024-pixel StyleGAN2, optimisers included, has about a third of it."""


@dataclass(frozen=True)
class Source:
    """Named files, each a path or its content."""

    name: str
    contents: Mapping[str, Path | bytes]

    @classmethod
    def at(cls, path: Path) -> Source:
        """A folder's files; a ``model.json`` or ``model.safetensors`` stands for its folder; else the one file.

        Raises:
            FileError: if there is nothing, or it may not be read.
        """
        try:
            if path.is_file() and path.name in ("model.json", "model.safetensors"):
                path = path.parent
            files = [path] if path.is_file() else sorted(child for child in path.iterdir() if child.is_file())
        except (OSError, ValueError) as problem:
            raise FileError(
                found=f"{str(path)[:200]} cannot be read ({getattr(problem, 'strerror', problem)})",
                expected="a model file or folder",
                remedy="Check the path.",
            ) from None
        return cls(path.resolve().name, {file.name: file for file in files})

    @property
    def names(self) -> tuple[str, ...]:
        """The files' names."""
        return tuple(self.contents)

    def read(self, name: str) -> Path | bytes:
        """The file called `name`, for a reader that takes a path or bytes.

        Raises:
            FileError: if there is none.
        """
        if name not in self.contents:
            there = ", ".join(self.names[:5]) or "no file"
            raise FileError(
                found=f"{self.name}: {there}",
                expected=f"{name} among the files",
                remedy=f"Add {name} and open again.",
            )
        return self.contents[name]
