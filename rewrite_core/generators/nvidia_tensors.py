"""Tensors and arrays in the tree of a network pickle (`pickletree.py`): from records of calls to numbers.

A parameter is ``_rebuild_parameter(_rebuild_tensor_v2(storage, offset, size, stride, …), …)``. Its storage is
``_load_from_bytes(bytes)``: a file of its own, as ``torch.save`` wrote them before 1.6, and as untrusted as the one
around it. It is read as five pickles (magic number, protocol, system, one persistent id, keys), of which no name but
the storage's type may occur, a count, and exactly so many numbers. Arrays of numpy, and its scalars, are bytes with a
type and a shape; a type is one of a list.

A tensor may hold no more numbers than its storage: strides of 0 would ask for any amount of memory. Nothing of the tree
is printed or compared before its type is known: a tuple of tuples can unfold without end.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rewrite_core.generators.pickletree import PERSISTENT, Call, Name, Refused, read_tree

__all__ = [
    "LONGEST_NAME",
    "MOST_TENSORS",
    "NUMPY",
    "TORCH",
    "array_of",
    "is_array",
    "number_of",
    "stored_of",
    "tensors_of",
]

_PARAMETER, _TENSOR = "torch._utils._rebuild_parameter", "torch._utils._rebuild_tensor_v2"
_STORAGE = "torch.storage._load_from_bytes"
_DTYPE, _SCALAR, _NDARRAY = "numpy.dtype", "numpy.core.multiarray.scalar", "numpy.ndarray"
_RECONSTRUCT, _FROM_BUFFER = "numpy.core.multiarray._reconstruct", "numpy.core.numeric._frombuffer"

TORCH = frozenset({_PARAMETER, _TENSOR, _STORAGE})
NUMPY = frozenset({_DTYPE, _SCALAR, _NDARRAY, _RECONSTRUCT, _FROM_BUFFER})
"""Names that tensors and arrays need."""

_STORAGES = {
    "torch.FloatStorage": "<f4",
    "torch.DoubleStorage": "<f8",
    "torch.HalfStorage": "<f2",
    "torch.LongStorage": "<i8",
    "torch.IntStorage": "<i4",
    "torch.ShortStorage": "<i2",
    "torch.CharStorage": "i1",
    "torch.ByteStorage": "u1",
    "torch.BoolStorage": "b1",
}
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_LONGEST_HEAD, _LONGEST_PART = (
    4096,
    64,
)  # bytes before a storage's numbers, operations of a pickle there: 350, 30
_MOST_AXES = 8
MOST_TENSORS = 1024
"""A network of 1024 pixels has 170."""
LONGEST_NAME = 200
"""Characters of a module's or a tensor's name: names are joined, and a pickle can use one name many times."""

_CODE = re.compile("b1|[iu][1248]|f[248]")


def tensors_of(values: Mapping[str, NDArray[Any]], budget: int) -> dict[str, Tensor]:
    """Tensors of arrays that are views of a file, perhaps views still; `budget` is the file's size in bytes.

    Raises:
        Refused: there are more than any network has, or they are larger together than the file.
    """
    size = sum(value.nbytes for value in values.values())
    if len(values) > MOST_TENSORS or size > budget:
        raise Refused(f"{len(values):,} tensors of {size:,} bytes in a file of {budget:,}")
    return {name: torch.from_numpy(_native(value)) for name, value in values.items()}


def _native(value: NDArray[Any]) -> NDArray[Any]:
    """The array, or a copy where torch could not use it: not writable, reversed, or of the other byte order."""
    usable = value.flags.writeable and min(value.strides, default=0) >= 0 and value.dtype.isnative
    return value if usable else np.array(value, value.dtype.newbyteorder("="), order="C")


def stored_of(value: Any) -> NDArray[Any]:
    """The numbers of a tensor or a parameter, as a view of the file.

    Raises:
        Refused: it is something else, or larger than its storage.
    """
    call = _call(value, _PARAMETER, _TENSOR)
    if call.function == _PARAMETER:
        call = _call(call.args[0], _TENSOR)
    storage, offset, size, stride, _, _, *metadata = call.args
    if any(metadata) or call.state is not None:
        raise Refused("a tensor with metadata")
    shape, steps, (start,) = _sizes(size), _sizes(stride), _sizes([offset])
    stored = _storage(_call(storage, _STORAGE))
    last = start + sum((length - 1) * step for length, step in zip(shape, steps, strict=True))
    count = _count(shape)
    if count > len(stored) or (count and last >= len(stored)):
        raise Refused(f"a tensor {shape} of {len(stored):,} numbers")
    if not count:
        return np.empty(shape, stored.dtype)
    bytes_apart = [
        step * stored.itemsize if length > 1 else 0 for length, step in zip(shape, steps, strict=True)
    ]
    return np.lib.stride_tricks.as_strided(stored[start:], shape, bytes_apart)


def array_of(value: Any) -> NDArray[Any]:
    """An array of numpy's, or a scalar as one without axes, as a view of the file.

    Raises:
        Refused: it is something else, of a type that is no number, or not as large as its bytes.
    """
    shape: Any
    call = _call(value, _SCALAR, _RECONSTRUCT, _FROM_BUFFER)
    if call.function == _SCALAR:
        (dtype, data), shape, order = call.args, (), "C"
    elif call.function == _FROM_BUFFER:
        data, dtype, shape, order = call.args
    else:
        _, shape, dtype, fortran, data = call.state
        order = "F" if fortran else "C"
    kind, content, shape = _dtype(dtype), _bytes(data), tuple(_sizes(shape))
    if kind.itemsize * _count(shape) != len(content) or order not in ("C", "F"):
        raise Refused(f"an array {list(shape)} of {len(content):,} bytes")
    return np.frombuffer(content, kind).reshape(shape, order="F" if order == "F" else "C")


def is_array(value: Any) -> bool:
    """Whether it is what `array_of` reads."""
    return isinstance(value, Call) and value.function in (_SCALAR, _RECONSTRUCT, _FROM_BUFFER)


def number_of(value: Any) -> int | float | bool:
    """A number, in Python's own form or in numpy's.

    Raises:
        Refused: it is something else.
    """
    if is_array(value):
        value = array_of(value)
        value = value.item() if value.size == 1 else None
    if not isinstance(value, int | float):
        raise Refused(f"a {type(value).__name__} for a number")
    return value


def _storage(call: Call) -> NDArray[Any]:
    """The numbers of a nested file, as a view of it."""
    (data,) = call.args
    content = _bytes(data)
    stream = io.BytesIO(content[:_LONGEST_HEAD])
    known = {PERSISTENT, *_STORAGES}
    magic, protocol, system, stored, keys = (
        read_tree(stream, content, known, longest=_LONGEST_PART) for _ in range(5)
    )
    (identity,) = _call(stored, PERSISTENT).args
    word, kind, key, _, count, view = identity
    if (magic, protocol, word, view) != (_MAGIC, _PROTOCOL, "storage", None) or not isinstance(kind, Name):
        raise Refused("a storage of another form")
    if system["little_endian"] is not True or not isinstance(key, str) or keys != [key]:
        raise Refused("a storage of another machine")
    dtype, body = np.dtype(_STORAGES[kind.text]), content[stream.tell() :]
    written = int.from_bytes(body[:8], "little")
    if type(count) is not int or count != written or len(body) != 8 + written * dtype.itemsize:
        raise Refused(f"a storage of {written:,} numbers in {len(body):,} bytes")
    return np.frombuffer(body[8:], dtype)


def _sizes(value: Any) -> list[int]:
    """Whole numbers that are not negative, one for each axis."""
    if not isinstance(value, tuple | list) or len(value) > _MOST_AXES:
        raise Refused("sizes that are none")
    if any(type(size) is not int or not 0 <= size < 1 << 62 for size in value):
        raise Refused("sizes that are no counts")
    return list(value)


def _count(shape: Iterable[int]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count


def _dtype(value: Any) -> np.dtype[Any]:
    call = _call(value, _DTYPE)
    code = call.args[0]
    order = call.state[1] if call.state is not None else "="
    if not isinstance(code, str) or not _CODE.fullmatch(code) or order not in ("<", ">", "|", "="):
        raise Refused(f"an array of the type {code[:20] if isinstance(code, str) else type(code).__name__}")
    return np.dtype(order.replace("|", "=") + code)


def _bytes(value: Any) -> memoryview:
    if not isinstance(value, memoryview):
        raise Refused("numbers that are no bytes")
    return value


def _call(value: Any, *functions: str) -> Call:
    if not isinstance(value, Call) or value.function not in functions:
        name = value.function if isinstance(value, Call) else type(value).__name__
        raise Refused(f"{name} where {functions[0]} belongs")
    return value
