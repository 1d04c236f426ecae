"""The example edits and example contexts that ship with the embedded generators."""

from __future__ import annotations

from pathlib import Path

from rewrite_core.errors import RequestError
from rewrite_core.generators import embedded_folder, embedded_names
from rewrite_core.rules.request import EditRequest

__all__ = ["all_examples", "example_contexts", "example_edit", "example_edits"]


def example_edits(model: str) -> dict[str, Path]:
    """Name → file of every example that ships for the embedded generator `model`; none for another generator."""
    return _shipped(model, "edits")


def example_contexts(model: str) -> dict[str, Path]:
    """Name → file of every painted context that ships for the embedded generator `model`; none for another generator.

    Each is an `EditRequest` with a context and nothing to copy: what a direction is made from.
    """
    return _shipped(model, "contexts")


def all_examples() -> dict[str, Path]:
    """Name → file of every example that ships, whichever embedded generator it is for."""
    return {name: path for model in embedded_names() for name, path in example_edits(model).items()}


def example_edit(name: str) -> EditRequest:
    """The example called `name`, whichever embedded generator it is for.

    Raises:
        RequestError: listing the examples there are.
    """
    found = all_examples()
    if name not in found:
        raise RequestError(
            found=f"no example '{name}'", expected=f"one of {', '.join(found)}", remedy="Choose one of these."
        )
    return EditRequest.load(found[name])


def _shipped(model: str, folder: str) -> dict[str, Path]:
    """Name → file of the requests in one folder of an embedded generator."""
    if model not in embedded_names():
        return {}
    return {path.stem: path for path in sorted((embedded_folder(model) / folder).glob("*.json"))}
