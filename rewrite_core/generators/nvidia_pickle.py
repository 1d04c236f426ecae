"""A network pickle of NVIDIA's → tensors by name and plain values, never executing what is inside.

The PyTorch line (StyleGAN2-ADA, StyleGAN3) pickles whole modules: a dictionary with ``G_ema``, each module a call of
``_reconstruct_persistent_obj`` with its class's name, its source text (which the original loader runs, and which is not
looked at here) and its ``__dict__``. The TensorFlow line (StyleGAN2) pickles a tuple (G, D, Gs) of ``Network`` objects;
`nvidia_tensorflow.py` gives their variables the other line's names.

The file is read as a tree of plain values (`pickletree.py`). Of the averaged generator in it, the tensors are built
(`nvidia_tensors.py`) and the constructor's scalars kept; the two other networks stay views of the file. A file on disk
is mapped, not read, so a pickle costs no more memory than its averaged generator. Because tensors are views of the
file, `rewritten` can change one in its place: the file stays one that the published code opens.
"""

from __future__ import annotations

import io
import mmap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast

from numpy.typing import NDArray
from torch import Tensor

from rewrite_core.errors import FileError
from rewrite_core.files import require_size
from rewrite_core.generators.nvidia_tensorflow import NETWORK, converted
from rewrite_core.generators.nvidia_tensors import (
    LONGEST_NAME,
    MOST_TENSORS,
    NUMPY,
    TORCH,
    array_of,
    is_array,
    stored_of,
    tensors_of,
)
from rewrite_core.generators.pickletree import Call, Refused, read_tree

__all__ = ["PickledNetwork", "read_network", "rewritten"]

_PERSISTENT = "torch_utils.persistence._reconstruct_persistent_obj"
_KNOWN = TORCH | NUMPY | {_PERSISTENT, NETWORK}
_VERSION = 6
_AVERAGED = "G_ema"
_DEEPEST, _MOST_MODULES, _MOST_PARTS, _MOST_ATTRIBUTES, _LONGEST_LIST = 8, 256, 64, 128, 64


@dataclass(frozen=True)
class PickledNetwork:
    """A generator as its pickle describes it.

    Attributes:
        class_name: of its class.
        tensors: under the names of its state dict; they may lie in the file itself.
        attributes: module's path (``synthesis.b4.conv1``; empty for the whole) → the numbers, texts and short lists of
            numbers among its attributes, such as ``conv_clamp``.
    """

    class_name: str
    tensors: Mapping[str, Tensor]
    attributes: Mapping[str, Mapping[str, Any]]


def read_network(source: Path | bytes, *, what: str, limit_bytes: int) -> PickledNetwork:
    """The averaged generator of a ``.pkl`` file or upload.

    Raises:
        FileError: there is no such file, it is too large or damaged, or holds something other than networks.
    """
    require_size(source, what=what, limit_bytes=limit_bytes)
    with _refusing(what):
        stream, data = _opened(source)
        name, views, attributes = _averaged(read_tree(stream, data, _KNOWN))
        return PickledNetwork(name, tensors_of(views, len(data)), attributes)


def rewritten(content: bytes, weights: Mapping[str, Tensor], *, what: str) -> bytes:
    """A network pickle with other numbers for some of its averaged generator's tensors, and else the same bytes.

    Args:
        content: the pickle.
        weights: by their names in the state dict (``synthesis.b16.conv1.weight``), shaped as they are.
        what: names the file in errors.

    Raises:
        FileError: it is no network pickle, has no such tensor, or (protocol 2) holds its numbers as a text.
    """
    copy = bytearray(content)
    with _refusing(what):
        _, views, _ = _averaged(read_tree(io.BytesIO(content), memoryview(copy), _KNOWN))
    for name, weight in weights.items():
        place = views.get(name)
        if place is None or place.shape != weight.shape or not place.flags.writeable:
            found = "no such tensor" if place is None else f"{list(place.shape)} there"
            raise FileError(
                found=f"{what}: '{name}' {list(weight.shape)}, {found}",
                expected="one of its tensors, in a pickle of protocol 3 or later",
                remedy="Save the generator in our own format.",
            )
        place[...] = weight.detach().cpu().numpy()
    return bytes(copy)


@contextmanager
def _refusing(what: str) -> Iterator[None]:
    """One line for whatever goes wrong with a pickle."""
    try:
        yield
    except Refused as problem:
        raise FileError(
            found=f"{what} holds more than networks ({problem})",
            expected="a network pickle of StyleGAN2, StyleGAN2-ADA or StyleGAN3",
            remedy="It was not opened, since such a file can run code: check where it comes from.",
        ) from None
    except Exception as problem:  # a damaged pickle can fail in any way at all
        reason = " ".join(str(problem).split())[:80]
        raise FileError(
            found=f"{what} is damaged or no network pickle ({reason or type(problem).__name__})",
            expected="a .pkl file of StyleGAN2, StyleGAN2-ADA or StyleGAN3",
            remedy="Save or download it again.",
        ) from None


def _opened(source: Path | bytes) -> tuple[BinaryIO, memoryview]:
    """A stream, and the same bytes to take views of: a file is mapped for as long as there are any."""
    if isinstance(source, bytes):
        return io.BytesIO(source), memoryview(source)
    with source.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # torch wants to be able to write
    return cast(BinaryIO, mapped), memoryview(mapped)


def _averaged(tree: Any) -> tuple[str, dict[str, NDArray[Any]], dict[str, dict[str, Any]]]:
    """The averaged generator in what the file holds: class, tensors as views of the file, attributes."""
    if isinstance(tree, tuple):
        return "Generator", *converted(tree)
    if not isinstance(tree, dict) or _AVERAGED not in tree:
        raise Refused(f"a {type(tree).__name__} without {_AVERAGED}")
    name, _ = _described(tree[_AVERAGED])
    states = dict(islice(_modules(tree[_AVERAGED]), _MOST_MODULES))
    values = ((path, own, value) for path, state in states.items() for own, value in _stored(state))
    views = {
        f"{path}.{own}".lstrip("."): stored_of(value) for path, own, value in islice(values, MOST_TENSORS + 1)
    }
    return name, views, {path: _plain(state) for path, state in states.items()}


def _described(value: Any) -> tuple[str, dict[str, Any]]:
    """A module's class and its ``__dict__``."""
    if not isinstance(value, Call) or value.function != _PERSISTENT:
        raise Refused(f"a {type(value).__name__} for a module")
    (meta,) = value.args
    name, state = meta["class_name"], meta["state"]
    if (meta["type"], meta["version"]) != ("class", _VERSION) or value.state is not None:
        raise Refused("a module of another form")
    if not (isinstance(name, str) and isinstance(state, dict)):
        raise Refused("a module without a name")
    if any(len(state[part]) > _MOST_PARTS for part in ("_modules", "_parameters", "_buffers")):
        raise Refused("a module of parts without end")
    return name, state


def _modules(value: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every module's path and ``__dict__``, in the order of a state dict."""
    if depth > _DEEPEST:
        raise Refused("modules in modules without end")
    _, state = _described(value)
    yield path, state
    for name, child in state["_modules"].items():
        if child is not None and _short(name):
            yield from _modules(child, f"{path}.{name}".lstrip("."), depth + 1)


def _stored(state: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """A module's own tensors: parameters, then the buffers that a state dict has."""
    passing = state.get("_non_persistent_buffers_set", set())
    if not isinstance(passing, set):
        raise Refused(f"a {type(passing).__name__} of names")
    buffers = {name: value for name, value in state["_buffers"].items() if name not in passing}
    for name, value in [*state["_parameters"].items(), *buffers.items()]:
        if value is not None and _short(name):
            yield name, value


def _plain(state: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes that are a number, a text or a short list of numbers."""
    found = {}
    for name, value in islice(state.items(), _MOST_ATTRIBUTES):
        if is_array(value):
            value = array_of(value)
            value = value.tolist() if value.size <= _LONGEST_LIST else ()
        plain = isinstance(value, list) and len(value) <= _LONGEST_LIST and all(map(_is_number, value))
        if value is None or isinstance(value, str) or _is_number(value) or plain:
            found[name] = value
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _short(name: str) -> bool:
    if len(name) > LONGEST_NAME:
        raise Refused(f"a name of {len(name):,} characters")
    return True
