"""Files with a statistic, its key and a checksum: safetensors, written beside their place and renamed into it.

What is damaged, or of another key than it should be, is set aside (``….damaged``) and never served.

There are two checksums. SHA-256 is for files that are read. It takes a second for one or two gigabytes, so a file that
is mapped into memory (`Statistic.mapped`) is checked by *sums* of its 64-bit words, a `PIECE` at a time: as fast as
memory is read, and anything but deliberate damage shows. `checked` looks at both.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from rewrite_core.errors import FileError
from rewrite_core.files import map_safetensors, read_header, read_safetensors, write_safetensors
from rewrite_core.statistics.key import Key, canonical
from rewrite_core.statistics.statistic import Statistic

__all__ = ["checked", "holds", "read_checked", "write_checked"]

S = TypeVar("S", bound=Statistic)
log = logging.getLogger(__name__)

PIECE = 1 << 20
"""Bytes that share a sum; a multiple of 8."""


def write_checked(path: Path, key: Key, statistic: Statistic) -> None:
    """Write `statistic` with its key and a checksum in the header.

    Raises:
        FileError: if the disk is full or the folder cannot be written.
    """
    tensors = {name: tensor.cpu().contiguous() for name, tensor in statistic.state().items()}
    header = {"key": canonical(key), "checksum": _checksum(tensors)}
    write_safetensors(path, tensors, header | ({"sums": _sums(tensors)} if statistic.mapped else {}))


def holds(path: Path, key: Key) -> bool:
    """Whether `path` is of this key and as long as its header says; nothing else of it is read.

    Damage among its numbers shows, as everything else that is wrong with it does, when it is read.
    """
    try:
        header, length = read_header(path, what=path.name)
        return header.get("key") == canonical(key) and path.stat().st_size == length
    except (FileError, OSError):
        return False


def read_checked(path: Path, key: Key, empty: S, *, set_aside: bool = True) -> S | None:
    """The statistic in `path`, or None: there is no such file, or it cannot be read, is damaged or of another key.

    A damaged or foreign file is set aside; one that merely cannot be read (permissions, too many open files) is not.
    """
    try:
        if not path.is_file():
            return None
        with path.open("rb"):
            pass
    except (OSError, ValueError) as problem:
        log.warning("%s cannot be read: %s", path, getattr(problem, "strerror", None) or problem)
        return None
    try:
        return empty.restore(_mapped(path, key) if empty.mapped else checked(path, key))
    except (FileError, KeyError, ValueError, TypeError, RuntimeError) as problem:
        if set_aside:
            _set_aside(path, problem)
        else:
            log.warning("%s is not used: %s", path, problem)
        return None


def _set_aside(path: Path, problem: Exception) -> None:
    if path.exists():  # else another process was first to set it aside or to delete it
        reason = " ".join(str(problem).split())
        log.warning("%s is set aside and computed again: %s", path, reason)
        with suppress(OSError):  # the folder is read-only
            path.replace(path.with_suffix(".damaged"))


def checked(path: Path, key: Key) -> dict[str, Tensor]:
    """The tensors in `path`.

    Raises:
        FileError: if it is damaged, or of another key.
    """
    tensors, header = read_safetensors(path, what=path.name)
    _require(path, "key", header, canonical(key))
    _require(path, "checksum", header, _checksum(tensors))
    if "sums" in header:
        _require(path, "sums", header, _sums(tensors))
    return tensors


def _mapped(path: Path, key: Key) -> dict[str, Tensor]:
    """As `checked`, by sums alone."""
    tensors, header = map_safetensors(path, what=path.name)
    _require(path, "key", header, canonical(key))
    _require(path, "sums", header, _sums(tensors))
    return tensors


def _require(path: Path, name: str, header: Mapping[str, str], expected: str) -> None:
    if header.get(name) != expected:
        raise FileError(
            found=f"{path.name}: {'another key' if name == 'key' else f'wrong {name}'}",
            expected="the key in its name" if name == "key" else "an intact file",
            remedy="It is recomputed.",
        )


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _sums(tensors: Mapping[str, Tensor]) -> str:
    """The SHA-256 of the tensors' names, types and shapes, and of the sum of each piece of their bytes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        data = tensor.flatten().view(torch.uint8).numpy()
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        for start in range(0, len(data), PIECE):
            piece = data[start : start + PIECE]
            whole = len(piece) // 8 * 8
            digest.update(piece[:whole].view("<u8").sum(dtype=np.uint64).tobytes() + piece[whole:].tobytes())
    return digest.hexdigest()
