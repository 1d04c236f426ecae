"""The door for our own files: safetensors and JSON, read with suspicion and written whole or not at all.

Reading takes a path or the bytes of an upload; `what` names the thing in errors ("hat.safetensors"). Nothing
is ever executed: a pickle or an archive under a `.safetensors` name is recognised by its first bytes and
refused. Sizes are limited before anything is decoded. JSON is strict: no NaN, no infinity, no key twice.

Writing goes to a temporary file in the target's own folder, is flushed to the disk, and then takes the
target's name in one step: readers see the old file or the new one, never half of either, and a failure leaves
nothing behind.

Every failure is a `FileError` of one line.
"""

from __future__ import annotations

import errno
import json
import math
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from rewrite_core.errors import FileError

__all__ = [
    "make_folder",
    "map_safetensors",
    "read_bytes",
    "read_json",
    "read_header",
    "read_metadata",
    "read_safetensors",
    "require_finite",
    "require_size",
    "to_safetensors_bytes",
    "write_bytes",
    "write_json",
    "write_safetensors",
]

JSON_LIMIT = 32 * 2**20
SAFETENSORS_LIMIT = 4 * 2**30
HEADER_LIMIT = 100 * 2**20  # what safetensors itself allows
MOST_TENSORS = 10_000
"""In one file: a training checkpoint of the largest generators has some thousands."""

# What else turns up under a `.safetensors` name, by its first bytes.
_UNSAFE = {b"\x80": "a Python pickle", b"PK": "a zip archive, as torch.save and numpy write them"}
_OTHER = {
    b"\x1f\x8b": "a gzip archive",
    b"\x89PNG": "a PNG picture",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a numpy array",
    b"version https://git-lfs": "a Git LFS pointer in place of the file itself",
    b"{": "JSON text",
    b"<": "a web page",
}


def read_bytes(source: Path | bytes, *, what: str, limit_bytes: int) -> bytes:
    """The content of a file or an upload, refused unread when it is larger than `limit_bytes`.

    Raises:
        FileError: there is no such file, it cannot be read, or it is too large.
    """
    require_size(source, what=what, limit_bytes=limit_bytes)
    if isinstance(source, bytes):
        return source
    try:
        return source.read_bytes()
    except OSError as problem:
        raise _unreadable(source, what, problem.strerror) from None


def require_size(source: Path | bytes, *, what: str, limit_bytes: int) -> None:
    """Refuse a file or an upload that is larger than `limit_bytes`; nothing of it is read.

    Raises:
        FileError: there is no such file, or it is too large.
    """
    size = len(source) if isinstance(source, bytes) else _file_size(source, what)
    if size > limit_bytes:
        raise FileError(
            found=f"{what} is {size:,} bytes large",
            expected=f"at most {limit_bytes:,} bytes",
            remedy="Check that it is the right file.",
        )


def read_safetensors(
    source: Path | bytes, *, what: str, limit_bytes: int = SAFETENSORS_LIMIT
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file by name, each with memory of its own, and the file's metadata.

    Raises:
        FileError: see `read_bytes`; or it is not safetensors, is damaged, or holds a type that torch lacks.
    """
    data = read_bytes(source, what=what, limit_bytes=limit_bytes)
    try:
        if _count(data) > MOST_TENSORS:
            raise ValueError(f"more than {MOST_TENSORS:,} tensors")
        tensors = load(data)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as problem:
        raise _not_safetensors(data, what, problem) from None
    return tensors, dict(_header(data).get("__metadata__", {}))


def map_safetensors(path: Path, *, what: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """As `read_safetensors`, of a file that is mapped into memory: what is not looked at is not read.

    The tensors are on the CPU and stay what they are when the file is deleted or replaced. To write to one changes
    this process's copy, not the file.

    Raises:
        FileError: as `read_safetensors`.
    """
    require_size(path, what=what, limit_bytes=SAFETENSORS_LIMIT)
    try:
        with safe_open(path, "pt") as file:
            names = list(file.keys())
            if len(names) > MOST_TENSORS:
                raise ValueError(f"more than {MOST_TENSORS:,} tensors")
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except OSError as problem:
        raise _unreadable(path, what, problem.strerror or str(problem)) from None
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as problem:
        raise _not_safetensors(b"", what, problem) from None


def read_metadata(path: Path, *, what: str) -> dict[str, str]:
    """The metadata of a safetensors file; its tensors are not read.

    Raises:
        FileError: there is no such file, it cannot be read, or it does not start as safetensors does.
    """
    return read_header(path, what=what)[0]


def read_header(path: Path, *, what: str) -> tuple[dict[str, str], int]:
    """The metadata of a safetensors file, and how many bytes its header says that it has; its tensors are not read.

    Raises:
        FileError: as `read_metadata`.
    """
    _file_size(path, what)
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > HEADER_LIMIT:
                raise ValueError(f"a header of {length:,} bytes")
            header = json.loads(file.read(length))
        metadata = {str(name): str(text) for name, text in dict(header["__metadata__"]).items()}
        ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
        return metadata, 8 + length + max(ends, default=0)
    except OSError as problem:
        raise _unreadable(path, what, problem.strerror) from None
    except (LookupError, TypeError, ValueError, RecursionError) as problem:
        raise _not_safetensors(b"", what, problem) from None


def to_safetensors_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file as bytes; the same tensors and metadata always give the same bytes."""
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    data = save(own, dict(metadata))
    header, body = _header(data), data[8 + _header_length(data) :]
    header["__metadata__"] = dict(sorted(metadata.items()))  # safetensors itself writes these in random order
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + body


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, whole or not at all; errors as `write_bytes`."""
    write_bytes(path, to_safetensors_bytes(tensors, metadata))


def require_finite(tensors: Mapping[str, Tensor], what: str) -> None:
    """Refuse NaN and infinities.

    Raises:
        FileError: naming the first tensor that holds any, and how many.
    """
    for name, tensor in tensors.items():
        number = tensor.float() if tensor.dtype.itemsize == 1 else tensor  # isfinite lacks 8-bit floats
        if not number.numel() or _bounded(number):
            continue
        wrong = int((~torch.isfinite(number)).sum())
        if wrong:
            raise FileError(
                found=f"{what}: {wrong:,} of {tensor.numel():,} numbers in {name!r} are NaN or infinite",
                expected="finite numbers",
                remedy="The file is damaged or its training diverged: use another copy.",
            )


def _bounded(number: Tensor) -> bool:
    """Whether its least and its greatest number are finite: no copy is made of a large tensor that is sound."""
    return not number.is_complex() and all(bool(torch.isfinite(end)) for end in torch.aminmax(number))


def read_json(source: Path | bytes | str, *, what: str, limit_bytes: int = JSON_LIMIT) -> Any:
    """Decoded JSON from a file, the bytes of an upload, or a text.

    Raises:
        FileError: see `read_bytes`; or it is not JSON in UTF-8, is nested too deeply, has a key twice or a
            number that is not finite.
    """
    encoded = source.encode("utf-8", "surrogatepass") if isinstance(source, str) else source
    data = read_bytes(encoded, what=what, limit_bytes=limit_bytes)
    try:
        return json.loads(
            data.decode("utf-8-sig"), object_pairs_hook=_distinct, parse_constant=_refuse, parse_float=_finite
        )
    except RecursionError:
        raise _not_json(what, "is nested too deeply") from None
    except UnicodeDecodeError:
        raise _not_json(what, "is not text in UTF-8") from None
    except ValueError as problem:
        raise _not_json(what, f"cannot be read as JSON ({problem})") from None


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all; errors as `write_bytes`."""
    write_bytes(path, json.dumps(value, indent=1, allow_nan=False).encode())


def make_folder(path: Path) -> Path:
    """The folder at `path`, made if need be.

    Raises:
        FileError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise FileError(
            found=f"{path} cannot be made a folder ({problem.strerror})",
            expected="a folder, or a name that is free",
            remedy="Choose another name.",
        ) from None
    return path


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all: an older file of that name stays until the new one is on the disk.

    Raises:
        FileError: the folder is missing or read-only, the disk is full, the name is a folder's or a device's.
    """
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "a folder or a device")
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, ValueError) as problem:
        raise FileError(
            found=f"{path} cannot be written ({getattr(problem, 'strerror', None) or problem})",
            expected="a folder that exists, may be written to and has room",
            remedy="Choose another place or free some space.",
        ) from None
    finally:
        with suppress(OSError, ValueError):
            temporary.unlink(missing_ok=True)


def _file_size(path: Path, what: str) -> int:
    try:
        if not path.exists():
            raise _unreadable(path, what, "there is no such file")
        if not path.is_file():
            raise _unreadable(path, what, "it is not a file")
        return path.stat().st_size
    except (OSError, ValueError) as problem:
        raise _unreadable(path, what, getattr(problem, "strerror", None) or str(problem)) from None


def _unreadable(path: Path, what: str, reason: str | None) -> FileError:
    return FileError(
        found=f"{what} cannot be read from {path} ({reason or 'unknown reason'})",
        expected="a file that may be read",
        remedy="Check the path.",
    )


def _header_length(data: bytes) -> int:
    return int.from_bytes(data[:8], "little")


def _header(data: bytes) -> dict[str, Any]:
    header: dict[str, Any] = json.loads(data[8 : 8 + _header_length(data)])
    return header


def _count(data: bytes) -> int:
    """Tensors that a header lists; 0 where it cannot be read, which `load` says better."""
    try:
        return len(_header(data))
    except (ValueError, TypeError, RecursionError):
        return 0


def _not_safetensors(data: bytes, what: str, problem: Exception) -> FileError:
    reason = str(problem).partition("\n")[0].removeprefix("Error while deserializing: ")
    found, remedy = f"a damaged or foreign file ({reason})", "Save or download it again."
    for magic, name in (_UNSAFE | _OTHER).items():
        if data.startswith(magic):
            found = name
            if magic in _UNSAFE:
                remedy = "It was not opened, since such a file can run code: save it as safetensors."
    return FileError(found=f"{what} is {found}", expected="a safetensors file", remedy=remedy)


def _not_json(what: str, problem: str) -> FileError:
    return FileError(
        found=f"{what} {problem}", expected="JSON", remedy="Check that it is the right, whole file."
    )


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} appears twice")
    return result


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"the number {text[:20]} is too large")
    return number
