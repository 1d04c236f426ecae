"""Errors a visitor can act on: one line that says what was found, what was expected, and what to do."""

from __future__ import annotations

__all__ = [
    "Cancelled",
    "FileError",
    "LayerError",
    "MaskError",
    "ModelMismatch",
    "PalimpsestError",
    "RequestError",
]


class PalimpsestError(Exception):
    """Anything wrong with what came from outside; its text is one line, fit for a terminal and for a page."""

    def __init__(self, *, found: str, expected: str, remedy: str) -> None:
        self.found, self.expected, self.remedy = found, expected, remedy
        super().__init__(" ".join(f"{found}; expected {expected}. {remedy}".split()))


class FileError(PalimpsestError):
    """A file that is missing, damaged, too large, or not what its name says."""


class RequestError(PalimpsestError):
    """An edit request that cannot be carried out."""


class MaskError(RequestError):
    """A mask that is empty, unreadable, or not a picture."""


class LayerError(PalimpsestError):
    """A layer that the generator does not have or cannot rewrite."""


class ModelMismatch(PalimpsestError):
    """A rule or a file that was made for another generator."""


class Cancelled(Exception):
    """Raised by a progress callback to stop the work that called it."""
