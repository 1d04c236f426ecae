"""A file written by ``torch.save`` → its tensors by name, through torch's weights-only loader: nothing is executed.

The loader builds tensors, plain containers and numbers, and refuses everything else. What is taken of the result is the
tensors of its top dictionary and of the dictionaries in it, under joined names: ``{"g_ema": {"input.input": …}}`` gives
``g_ema.input.input``. Optimiser states, step counts and arguments lie deeper or are no tensors, and are left out.

Before anything is loaded, its pickle is walked, as text: a tuple that unfolds to more than a tensor ever needs is
refused. A kilobyte can hold one of 2^100 elements (each refers twice to the one before), and hashing it would not end.
So is a pickle of more steps, or of deeper ones, than tensors in dictionaries take.

A large file on disk in the present (zip) format is mapped, not read: only what is copied later is ever loaded, so the
generator of a training checkpoint costs no more than twice its own size. Smaller files are read once and not copied.
"""

from __future__ import annotations

import argparse
import io
import pickle
import pickletools
import re
import threading
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from rewrite_core.errors import FileError
from rewrite_core.files import require_size
from rewrite_core.generators.contents import Stored

__all__ = ["read_torch"]

# Training scripts store their parsed arguments beside the weights: an object of attributes, without behaviour.
_HARMLESS: list[Any] = [argparse.Namespace]
_OLD_START = pickle.dumps(torch.serialization.MAGIC_NUMBER, protocol=2)
_OLD_PICKLES = 5  # magic number, protocol, system, objects, storage keys; then the numbers
LARGEST_TUPLE = 256
"""Elements of a tuple, with those of the tuples in it. A tensor takes about 20: its storage, size and strides."""
MOST_STEPS, DEEPEST_STACK = 200_000, 20_000
"""Of a pickle. A tensor takes about 40 steps; the stack holds the thousand entries that a dictionary gets at a time."""
MAPPED = 256 << 20
"""Bytes of a file from which on it is mapped."""
_loading = threading.Lock()  # the list of what is harmless is the process's own, and put back after each file


def read_torch(source: Path | bytes, *, what: str, limit_bytes: int) -> Stored:
    """The tensors of a ``.pt`` or ``.pth`` file or upload by name, on the CPU, perhaps still in the file.

    Raises:
        FileError: there is no such file, it is too large or damaged, or holds something other than tensors.
    """
    require_size(source, what=what, limit_bytes=limit_bytes)
    try:
        mapped = isinstance(source, Path) and source.stat().st_size > MAPPED
        loaded = _loaded(source, what, mapped)
    except FileError:
        raise
    except Exception as problem:  # a damaged pickle can fail in any way at all
        raise _refused(what, problem) from None
    if not isinstance(loaded, Mapping):
        raise FileError(
            found=f"{what} holds a {type(loaded).__name__}",
            expected="tensors by name",
            remedy="Save the network's state_dict().",
        )
    nested = frozenset(name for name, value in _named(loaded) if isinstance(value, Mapping))
    return Stored(dict(_tensors(loaded)), not mapped, nested)


def _loaded(source: Path | bytes, what: str, mapped: bool) -> Any:
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        start = file.read(len(_OLD_START))
        zipped = start.startswith(b"PK\3\4")  # what torch goes by
        if zipped:
            _require_stored(file, what)
        elif start != _OLD_START:
            raise ValueError("of no known format")
        file.seek(0)
        _require_small_tuples(file, zipped, what)
        file.seek(0)
        mapped &= zipped
        with _loading, torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of another pickle protocol: what it cannot read, it refuses
            return torch.load(
                str(source) if mapped else file, map_location="cpu", weights_only=True, mmap=mapped
            )


def _require_stored(file: IO[bytes], what: str) -> None:
    """Refuse a zip that would grow when it is read: torch stores records as they are."""
    with zipfile.ZipFile(file) as archive:
        records = archive.infolist()
    size = file.seek(0, io.SEEK_END)
    if any(record.compress_type for record in records) or sum(record.file_size for record in records) > size:
        raise FileError(
            found=f"{what} is a compressed zip archive",
            expected="a file as torch.save writes it",
            remedy="Unpack it, and open the file inside.",
        )


def _require_small_tuples(file: IO[bytes], zipped: bool, what: str) -> None:
    pickles = io.BytesIO(torch._C.PyTorchFileReader(file).get_record("data.pkl")) if zipped else file
    for _ in range(1 if zipped else _OLD_PICKLES):
        if not _has_small_tuples(pickles):
            raise FileError(
                found=f"{what} holds more than tensors (tuples in tuples, or too much beside them)",
                expected="a file of tensors",
                remedy="Save the network's state_dict() alone.",
            )


# The operations of a pickle that torch's loader knows, with what each takes off the stack; None: down to the last mark.
_TUPLES: dict[str, int | None] = {"TUPLE": None, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_CALLS: dict[str, int | None] = {"REDUCE": 2, "NEWOBJ": 2}
_FILLS: dict[str, int | None] = {"APPEND": 1, "APPENDS": None, "SETITEM": 2, "SETITEMS": None, "BUILD": 1}
_PLAIN: dict[str, int | None] = dict.fromkeys(
    ("NONE", "NEWFALSE", "NEWTRUE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "GLOBAL",
     "SHORT_BINSTRING", "EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"),
    0,
)  # fmt: skip
_TAKEN = {**_TUPLES, **_CALLS, **_FILLS, **_PLAIN, "BINPERSID": 1}


def _has_small_tuples(file: IO[bytes]) -> bool:
    """Follow one pickle with the size of each value in place of the value, in linear time; functions have size 0.

    At an operation that torch's loader does not know it stops, as will the loader.
    """
    stack: list[int] = []
    marks: list[int] = []
    memo: dict[Any, int] = {}
    for step, (operation, argument, _) in enumerate(pickletools.genops(file)):
        if step > MOST_STEPS or len(stack) > DEEPEST_STACK:
            return False
        match operation.name:
            case "MARK":
                marks.append(len(stack))
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case name if name in _TAKEN:
                count = _TAKEN[name]
                start = marks.pop() if count is None else len(stack) - count
                values, stack[start:] = stack[start:], []
                size = _size(name, values)
                if size > LARGEST_TUPLE or (name in _CALLS and values[0] != 0):
                    return False  # a call of anything but a function: the loader would spell it out
                if name not in _FILLS:
                    stack.append(size)
            case "PROTO" | "STOP":
                pass
            case _:
                break
    return True


def _size(operation: str, values: list[int]) -> int:
    """Of what an operation makes of values of these sizes."""
    if operation in _TUPLES or operation in _CALLS:
        return 1 + sum(max(1, value) for value in values)
    return 0 if operation == "GLOBAL" else 1


def _tensors(loaded: Mapping[Any, Any]) -> Iterator[tuple[str, Tensor]]:
    for name, value in _named(loaded):
        inner = _named(value) if isinstance(value, Mapping) else []
        leaves = [(name, value), *((f"{name}.{key}", leaf) for key, leaf in inner)]
        for path, leaf in leaves:
            if isinstance(leaf, Tensor) and leaf.layout is torch.strided and leaf.device.type == "cpu":
                yield path, leaf


def _named(values: Mapping[Any, Any]) -> list[tuple[str, Any]]:
    """What has a text for its key; numbers and tuples stand for no tensor of a network."""
    return [(key, value) for key, value in values.items() if isinstance(key, str)]


def _refused(what: str, problem: Exception) -> FileError:
    code = re.search(r"GLOBAL ([\w.]+)", str(problem))
    if code:
        return FileError(
            found=f"{what} holds more than tensors ({code.group(1)})",
            expected="a file of tensors",
            remedy="It was not opened, since such a file can run code: save the network's state_dict() alone.",
        )
    reason = str(problem).rpartition("WeightsUnpickler error:")[2].strip().partition("\n")[0][:100]
    return FileError(
        found=f"{what} is damaged or not from torch.save ({reason or 'cut short'})",
        expected="a .pt or .pth file of tensors",
        remedy="Save or download it again.",
    )
