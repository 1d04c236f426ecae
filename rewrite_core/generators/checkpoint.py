"""A file of unknown origin → a `Generator`, never executing what is inside.

One door for every family and kind of file: ``model.json`` with ``model.safetensors`` or another file of tensors, or a
``.safetensors``, ``.pt``, ``.pth``, NVIDIA ``.pkl`` or Keras ``.h5`` file alone. The door decodes, inside limits; a
family is a module with ``recognise(contents)`` and an opener, and one line in `FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rewrite_core.errors import FileError
from rewrite_core.files import read_json, read_safetensors
from rewrite_core.generators import described, proggan, stylegan2, stylegan2_ada, stylegan3, unnamed
from rewrite_core.generators.contents import Contents, Stored
from rewrite_core.generators.generator import Generator
from rewrite_core.generators.h5file import read_h5
from rewrite_core.generators.nvidia_description import description_of
from rewrite_core.generators.nvidia_pickle import read_network
from rewrite_core.generators.source import LARGEST_FILE, Source
from rewrite_core.generators.torchfile import read_torch
from rewrite_core.resources import resource_dir

__all__ = [
    "DESCRIPTION",
    "FAMILIES",
    "SUFFIXES",
    "Family",
    "draft_description",
    "embedded_folder",
    "embedded_names",
    "open_generator",
    "open_source",
]

DEFAULT = "anime64-dcgan"
WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"
"""What a description is called: as a file beside the tensors, or in the metadata of a safetensors file alone."""


@dataclass(frozen=True)
class Family:
    """How one family's checkpoints are told apart and opened."""

    name: str
    recognise: Callable[[Contents], bool]
    open: Callable[[Contents], Generator]


FAMILIES = (
    Family("stylegan2", stylegan2.recognise, stylegan2.open_stylegan2),
    Family("stylegan2-ada", stylegan2_ada.recognise, stylegan2_ada.open_stylegan2_ada),
    Family("stylegan3", stylegan3.recognise, stylegan3.open_stylegan3),
    Family("proggan", proggan.recognise, proggan.open_proggan),
    Family("sequential", described.recognise, described.open_stack),
    Family("dcgan", unnamed.recognise, unnamed.open_unnamed),
)


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
    """Open the files of `source` with the first family that recognises what is in them.

    Raises:
        FileError: if none does, or a file is damaged or too large; nothing inside is ever executed.
    """
    contents = _decoded(source)
    for family in FAMILIES:
        if family.recognise(contents):
            return family.open(contents)
    some = ", ".join(sorted(contents.tensors)[:3]) or "none"
    raise FileError(
        found=f"{contents.weights}: tensors of no known network ({some} …)",
        expected=f"a generator of the family {' or '.join(family.name for family in FAMILIES)}",
        remedy="Describe a stack in a model.json, or hand a torch.nn.Sequential to from_sequential in Python.",
    )


def draft_description(path: str | Path) -> str:
    """A ``model.json`` for the stack in a file without one, as far as its tensors tell; it is to be checked.

    Raises:
        FileError: if the file is damaged, or its tensors are no chain of layers.
    """
    return unnamed.draft(_decoded(Source.at(Path(path))))


def _decoded(source: Source) -> Contents:
    """What the files hold: the description, if there is one, and the tensors of the one file that has them."""
    has_description = DESCRIPTION in source.names
    files = [name for name in source.names if Path(name).suffix.lower() in READERS]
    if has_description and (WEIGHTS in files or len(files) != 1):
        files = [WEIGHTS]
    if len(files) != 1:
        raise FileError(
            found=f"{source.name}: {', '.join(files[:5] or source.names[:5]) or 'no files'}",
            expected="model.json with model.safetensors, or one .safetensors, .pt, .pth, .pkl or .h5 file",
            remedy="Choose one model's files.",
        )
    (file,) = files
    weights = file if file == source.name else f"{source.name}/{file}"
    content = source.read(file)
    stored = READERS[Path(file).suffix.lower()](content, weights)
    description = stored.description
    if has_description:
        description = read_json(source.read(DESCRIPTION), what=f"{source.name}/{DESCRIPTION}")
    name = source.name if has_description else Path(file).stem
    return Contents(name, weights, stored.tensors, description, stored.nested, stored.owned, stored.original)


def _safetensors(content: Path | bytes, what: str) -> Stored:
    tensors, metadata = read_safetensors(content, what=what, limit_bytes=LARGEST_FILE)
    description = None
    if DESCRIPTION in metadata:
        description = read_json(metadata[DESCRIPTION], what=f"{what}: {DESCRIPTION} in its metadata")
    return Stored(tensors, owned=True, description=description)


def _torch_save(content: Path | bytes, what: str) -> Stored:
    return read_torch(content, what=what, limit_bytes=LARGEST_FILE)


def _keras(content: Path | bytes, what: str) -> Stored:
    return read_h5(content, what=what, limit_bytes=LARGEST_FILE)


def _network_pickle(content: Path | bytes, what: str) -> Stored:
    network = read_network(content, what=what, limit_bytes=LARGEST_FILE)
    description = description_of(network, Path(what).stem, what)
    if isinstance(content, bytes):
        return Stored(network.tensors, owned=True, description=description)
    return Stored(network.tensors, owned=False, description=description, original=content)


READERS = {
    ".safetensors": _safetensors,
    ".pt": _torch_save,
    ".pth": _torch_save,
    ".pkl": _network_pickle,
    ".h5": _keras,
    ".hdf5": _keras,
}
SUFFIXES = tuple(READERS)
"""Endings of the files that can be opened."""
