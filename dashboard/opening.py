"""Opening a visitor's own generator: from a path on the server, where that is allowed, or from an upload.

A path is opened for a visitor of a loopback server, who owns the machine, or below the folder given as
``palimpsest run --models DIR`` (``PALIMPSEST_MODELS``). Everybody else uploads.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import streamlit as st

from rewrite_core.errors import FileError
from rewrite_core.generators import Generator, Source, open_source
from rewrite_core.generators.checkpoint import READERS

__all__ = ["offered_models", "open_path", "open_upload", "paths_allowed"]

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def paths_allowed() -> bool:
    """Whether any path on the server may be opened: only where server and visitor are one machine.

    A proxy in front of a loopback server gives itself away by the header it adds.
    """
    forwarded = any(name in st.context.headers for name in ("X-Forwarded-For", "Forwarded", "X-Real-Ip"))
    return st.get_option("server.address") in _LOOPBACK and not forwarded


def offered_models() -> list[str]:
    """Models below the folder that the server offers, as paths relative to it."""
    folder = _offered()
    if folder is None:
        return []
    described = {found.parent for found in folder.glob("**/model.json")}
    files = {found for found in folder.glob("**/*") if found.suffix.lower() in READERS}
    return sorted(
        str(found.relative_to(folder))
        for found in described | {f for f in files if f.parent not in described}
    )


def open_path(text: str) -> Generator:
    """Open a file or folder on the server.

    Raises:
        FileError: if it may not be opened from here, is missing, or is not a model.
    """
    folder, path = _offered(), Path(text.strip())
    if text.strip().startswith("~/"):
        path = path.expanduser()
    if folder is not None and not path.is_absolute() and (folder / path).exists():
        path = folder / path
    inside = folder is not None and path.resolve().is_relative_to(folder)
    if not (inside or paths_allowed()):
        raise FileError(
            found=f"path {text!r} outside what this server offers",
            expected="a model below the server's --models folder",
            remedy="Upload the files instead.",
        )
    return open_source(Source.at(path))


def open_upload(files: Mapping[str, bytes]) -> Generator:
    """Open uploaded files, by their names.

    Raises:
        FileError: if they are not a model; nothing inside is ever executed.
    """
    return open_source(Source("upload", dict(files)))


def _offered() -> Path | None:
    folder = os.environ.get("PALIMPSEST_MODELS")
    return Path(folder).resolve() if folder else None
