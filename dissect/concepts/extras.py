"""Packages that some concept sources need and Palimpsest does without: imported when such a source is opened."""

from __future__ import annotations

import importlib
from typing import Any

from rewrite_core.errors import PalimpsestError

__all__ = ["extra_module"]


def extra_module(name: str, *, extra: str, what: str) -> Any:
    """The module `name`, which ``pip install 'palimpsest[extra]'`` brings and `what` needs.

    Raises:
        PalimpsestError: it is not installed, or it cannot be loaded on this machine.
    """
    root = name.partition(".")[0]
    package = root.replace("_", "-")
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as problem:  # OSError: a library of the system is missing
        missing = isinstance(problem, ModuleNotFoundError) and (problem.name or "").partition(".")[0] == root
        reason = "" if missing else f" that can be loaded ({' '.join(str(problem).split())[:100]})"
        raise PalimpsestError(
            found=f"no {package}{reason}",
            expected=f"{package}, which {what} needs",
            remedy=f"Install it with: pip install 'palimpsest[{extra}]'",
        ) from None
