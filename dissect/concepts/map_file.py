"""One label map from the bytes of a file: whole numbers [H, W], or a mask for each label [L, H, W].

* ``.png`` with a palette, or grey of 1 to 16 bits: the numbers are those in the file, whatever colours they show.
* ``.npy``, or ``.npz`` with one array or one called ``labels``: whole numbers [H, W]; or [L, H, W], bool, or float from
  0 to 1.

Nothing is executed: arrays of objects are refused, and sizes are looked at before anything is unpacked.
"""

from __future__ import annotations

import io
import math
import zipfile

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rewrite_core.errors import FileError
from rewrite_core.pictures import MASK_PIXELS

__all__ = ["LARGEST_FILE", "SUFFIXES", "decode"]

SUFFIXES = (".png", ".npy", ".npz")
LARGEST_FILE = 64 << 20
"""Bytes of a map as it is stored."""
LARGEST_MAP = 256 << 20
"""Bytes of its numbers."""

_NUMBERS = "whole numbers [H, W], or [L, H, W] as bool or as float from 0 to 1"
_BIT_DEPTH, _COLOUR_TYPE, _GREY = 24, 25, 0  # where a PNG's header has them


def decode(content: bytes, what: str) -> NDArray[np.generic]:
    """The map in a file's content: int64 [H, W], bool [L, H, W] or float32 [L, H, W].

    Raises:
        FileError: it is none, damaged, or too large; `what` names it.
    """
    try:
        if content.startswith(b"\x89PNG"):
            return _from_png(content, what)
        return _checked(_from_numpy(content, what), what)
    except FileError:
        raise
    except Exception as problem:  # whatever damaged content makes Pillow, zipfile or numpy raise
        reason = " ".join(str(problem).split())[:100] or type(problem).__name__
        raise _unfit(what, f"no label map, or a damaged one ({reason})", "a PNG, .npy or .npz file") from None


def _from_png(content: bytes, what: str) -> NDArray[np.int64]:
    """The numbers in a PNG [H, W]."""
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        if image.width * image.height > MASK_PIXELS:
            raise _unfit(what, f"{image.height} × {image.width} pixels", f"at most {MASK_PIXELS:,}")
        if image.mode not in ("P", "L", "1", "I", "I;16"):
            raise _unfit(what, f"a picture in colour ({image.mode})", "numbers: a palette, or grey")
        numbers = np.asarray(image).astype(np.int64)
    depth = content[_BIT_DEPTH]
    if content[_COLOUR_TYPE] == _GREY and depth in (2, 4):
        numbers //= 255 // (2**depth - 1)  # Pillow stretches these to whole bytes
    return numbers


def _from_numpy(content: bytes, what: str) -> NDArray[np.generic]:
    """The array of an ``.npy``, or the one of an ``.npz``."""
    if not content.startswith(b"PK"):
        return _array(content, what)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        if len(members) != 1 and "labels" not in members:
            names = ", ".join(sorted(members)[:5]) or "none"
            raise _unfit(what, f"the arrays {names}", "one array, or one called 'labels'")
        info = members["labels"] if "labels" in members else next(iter(members.values()))
        if info.file_size > LARGEST_MAP:
            raise _unfit(what, f"{info.file_size:,} bytes once unpacked", f"at most {LARGEST_MAP:,}")
        with archive.open(info) as member:
            return _array(member.read(LARGEST_MAP), what)


def _array(content: bytes, what: str) -> NDArray[np.generic]:
    """An array of numbers in numpy's own format; no more than the content's own size is allocated."""
    file = io.BytesIO(content)
    first = np.lib.format.read_magic(file) == (1, 0)
    read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
    shape, fortran, kind = read(file)
    if kind.kind not in "biuf":
        raise _unfit(what, f"an array of {kind} {list(shape)}", _NUMBERS)
    body = memoryview(content)[file.tell() :]
    if len(body) != math.prod(shape) * kind.itemsize:
        raise ValueError(f"{len(body):,} bytes for {kind} {list(shape)}")
    array: NDArray[np.generic] = np.frombuffer(body, kind).reshape(shape, order="F" if fortran else "C")
    return array


def _checked(array: NDArray[np.generic], what: str) -> NDArray[np.generic]:
    """The array as one of the three types that a map may have."""
    if array.ndim not in (2, 3) or not array.size or math.prod(array.shape[-2:]) > MASK_PIXELS:
        raise _unfit(what, f"an array {list(array.shape)}", _NUMBERS)
    if array.ndim == 2 and array.dtype.kind in "biu":
        return array.astype(np.int64)
    if array.ndim == 3 and array.dtype == np.bool_:
        return array
    if array.ndim == 3 and array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite, and is refused
            soft = array.astype(np.float32)
        if not ((soft >= 0) & (soft <= 1)).all():  # NaN is neither
            raise _unfit(what, "numbers below 0, above 1 or NaN", "float from 0 to 1")
        return soft
    raise _unfit(what, f"an array of {array.dtype} {list(array.shape)}", _NUMBERS)


def _unfit(what: str, found: str, expected: str) -> FileError:
    return FileError(found=f"{what}: {found}", expected=expected, remedy="Write the label map again.")
