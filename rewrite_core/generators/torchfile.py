"""A file written by ``torch.save`` → its tensors by name, through torch's weights-only loader: nothing is executed.

The loader builds tensors, plain containers and numbers, and refuses everything else. What is taken of the result is the
tensors of its top dictionary and of the dictionaries in it, under joined names: ``{"g_ema": {"input.input": …}}`` gives
``g_ema.input.input``. Optimiser states, step counts and arguments lie deeper or are no tensors, and are left out.

A file on disk in the present (zip) format is mapped, not read: only what is copied later is ever loaded, so the
generator of a training checkpoint costs no more than its own size. Files from before torch 1.6 are read whole.
"""

from __future__ import annotations

import argparse
import io
import pickle
import re
import threading
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from rewrite_core.errors import FileError
from rewrite_core.files import require_size

__all__ = ["read_torch"]

# Training scripts store their parsed arguments beside the weights: an object of attributes, without behaviour.
_HARMLESS: list[Any] = [argparse.Namespace]
_OLD_START = pickle.dumps(torch.serialization.MAGIC_NUMBER, protocol=2)
_loading = threading.Lock()  # the list of what is harmless is the process's own, and put back after each file


def read_torch(source: Path | bytes, *, what: str, limit_bytes: int) -> dict[str, Tensor]:
    """The tensors of a ``.pt`` or ``.pth`` file or upload by name, on the CPU, perhaps still in the file.

    Raises:
        FileError: there is no such file, it is too large or damaged, or holds something other than tensors.
    """
    require_size(source, what=what, limit_bytes=limit_bytes)
    try:
        loaded = _loaded(source, what)
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
    return dict(_tensors(loaded))


def _loaded(source: Path | bytes, what: str) -> Any:
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        start = file.read(len(_OLD_START))
        zipped = zipfile.is_zipfile(file)
        if zipped:
            _require_stored(file, what)
        elif start != _OLD_START:
            raise ValueError("of no known format")
        file.seek(0)
        mapped = zipped and isinstance(source, Path)
        with _loading, torch.serialization.safe_globals(_HARMLESS):
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


def _tensors(loaded: Mapping[Any, Any]) -> Iterator[tuple[str, Tensor]]:
    for name, value in loaded.items():
        inner = value if isinstance(value, Mapping) else {}
        leaves = [(str(name), value), *((f"{name}.{key}", leaf) for key, leaf in inner.items())]
        for path, leaf in leaves:
            if isinstance(leaf, Tensor) and leaf.layout is torch.strided and leaf.device.type == "cpu":
                yield path, leaf


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
