"""Files with a statistic, its key and a checksum: safetensors, written beside their place and renamed into it.

What is damaged, or of another key than it should be, is set aside (``….damaged``) and never served.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from rewrite_core.errors import FileError
from rewrite_core.files import read_header, read_safetensors, write_safetensors
from rewrite_core.statistics.key import Key, canonical
from rewrite_core.statistics.statistic import Statistic

__all__ = ["checked", "holds", "read_checked", "write_checked"]

S = TypeVar("S", bound=Statistic)
log = logging.getLogger(__name__)


def write_checked(path: Path, key: Key, statistic: Statistic) -> None:
    """Write `statistic` with its key and a checksum in the header.

    Raises:
        FileError: if the disk is full or the folder cannot be written.
    """
    tensors = {name: tensor.cpu().contiguous() for name, tensor in statistic.state().items()}
    write_safetensors(path, tensors, {"key": canonical(key), "checksum": _checksum(tensors)})


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
        return empty.restore(checked(path, key))
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
    if header.get("key") != canonical(key):
        raise FileError(
            found=f"{path.name}: another key", expected="the key in its name", remedy="It is recomputed."
        )
    if header.get("checksum") != _checksum(tensors):
        raise FileError(
            found=f"{path.name}: wrong checksum", expected="an intact file", remedy="It is recomputed."
        )
    return tensors


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
