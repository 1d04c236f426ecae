"""A file of unknown origin → a `Generator`, never executing what is inside.

One door for every family. A family is a module with ``recognise(source)`` and an opener, and one line in `FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rewrite_core.errors import FileError
from rewrite_core.generators import sequential
from rewrite_core.generators.generator import Generator
from rewrite_core.generators.source import Source
from rewrite_core.resources import resource_dir

__all__ = ["FAMILIES", "Family", "embedded_folder", "embedded_names", "open_generator", "open_source"]

DEFAULT = "anime64-dcgan"


@dataclass(frozen=True)
class Family:
    """How one family's checkpoints are told apart and opened."""

    name: str
    recognise: Callable[[Source], bool]
    open: Callable[[Source], Generator]


FAMILIES = (Family("sequential", sequential.recognise, sequential.open_stack),)


def embedded_names() -> list[str]:
    """The generators that ship with Palimpsest, the default first."""
    names = sorted(folder.name for folder in (resource_dir("data") / "models").iterdir() if folder.is_dir())
    return sorted(names, key=lambda name: name != DEFAULT)


def embedded_folder(name: str) -> Path:
    """The folder of an embedded generator: weights, licence, provenance, statistics."""
    return resource_dir("data") / "models" / name


def open_generator(model: str | Path = DEFAULT) -> Generator:
    """Open an embedded generator by name, or a file or folder by path.

    Raises:
        FileError: if it is none of these, or damaged; nothing inside is ever executed.
    """
    if isinstance(model, str) and model in embedded_names():
        return open_source(Source.at(embedded_folder(model)))
    try:
        source = Source.at(Path(model))
    except FileError as problem:
        raise FileError(
            found=problem.found,
            expected=f"an embedded model ({', '.join(embedded_names())}) or the path of a file or folder",
            remedy="Check the spelling.",
        ) from None
    return open_source(source)


def open_source(source: Source) -> Generator:
    """Open the files of `source` with the first family that recognises them."""
    for family in FAMILIES:
        if family.recognise(source):
            return family.open(source)
    raise FileError(
        found=f"{source.name}: {', '.join(source.names[:5]) or 'no files'}",
        expected="model.json with model.safetensors",
        remedy="Describe the stack in a model.json, or hand a torch.nn.Sequential to from_sequential in Python.",
    )
