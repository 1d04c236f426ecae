"""Statistics on disk, named by everything they depend on.

A result's name is the SHA-256 of its *key*: the generator's fingerprint and family, layer, latent spec, micro-batch,
statistic, its parameters and the version of its code, dtype and kind of device. So a stale answer cannot be served;
there is no invalidation. Files are safetensors with the key and a checksum in the header, written beside their place
and renamed into it. A damaged or foreign file is set aside (``….damaged``) and the statistic computed again.

The folder follows the platform's convention, or ``PALIMPSEST_CACHE``. Under it lies a read-only layer in ``data/``, so
that the embedded generators start warm.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import platformdirs
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from rewrite_core.errors import FileError
from rewrite_core.files import read_safetensors, write_safetensors
from rewrite_core.generators import (
    Generator,
    LatentSpec,
    Progress,
    embedded_folder,
    embedded_names,
)
from rewrite_core.statistics.statistic import Statistic
from rewrite_core.statistics.sweep import sweep

__all__ = ["Store", "default_store", "key_of"]

S = TypeVar("S", bound=Statistic)
log = logging.getLogger(__name__)

PATIENCE = 0.2
"""Seconds between two looks at whether another process has finished."""


def key_of(generator: Generator, layer: str, spec: LatentSpec, statistic: Statistic) -> dict[str, Any]:
    """Everything that the statistic of these samples depends on, as JSON values."""
    return {
        "fingerprint": generator.fingerprint,
        "family": generator.family,
        "layer": layer,
        "seeds": _compact(spec.seeds),
        "scheme": spec.scheme,
        "truncation": spec.truncation,
        "micro_batch": generator.micro_batch,
        "statistic": statistic.kind,
        "version": statistic.version,
        "parameters": dict(statistic.parameters()),
        "dtype": "float32",
        "device": generator.device.type,
    }


class Store:
    """A folder of statistics, over read-only folders looked at when it has no answer."""

    def __init__(self, folder: Path, beneath: tuple[Path, ...] = ()) -> None:
        self.folder = folder
        self.beneath = beneath

    def get(self, key: Mapping[str, Any], empty: S) -> S | None:
        """The stored statistic of this key, or None; `empty` says of which kind and parameters."""
        name = _name(key)
        for folder in (self.folder, *self.beneath):
            path = folder / name
            if path.exists():
                try:
                    return empty.restore(_checked(path, key))
                except (FileError, KeyError, ValueError) as problem:
                    self._set_aside(path, problem)
        return None

    def put(self, key: Mapping[str, Any], statistic: Statistic) -> Path:
        """Store `statistic` under `key`; whole or not at all.

        Raises:
            FileError: if the disk is full or the folder cannot be written.
        """
        tensors = {name: tensor.cpu().contiguous() for name, tensor in statistic.state().items()}
        path = self.folder / _name(key)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise FileError(
                found=f"cache folder {self.folder}: {problem.strerror}",
                expected="a folder that can be written",
                remedy="Set PALIMPSEST_CACHE to another folder.",
            ) from None
        write_safetensors(path, tensors, {"key": _canonical(key), "checksum": _checksum(tensors)})
        return path

    def fetch(
        self, generator: Generator, layer: str, spec: LatentSpec, empty: S, progress: Progress | None = None
    ) -> S:
        """The statistic `empty` of `layer` over `spec`: from disk, or computed now and stored.

        Processes that ask for the same one at the same time wait for the first. If it cannot be stored, it is served
        all the same and the reason is logged.

        Raises:
            LayerError: if there is no such layer.
            Cancelled: from `progress`, which is called while waiting, too.
        """
        generator.layer(layer)
        key = key_of(generator, layer, spec, empty)
        if (found := self.get(key, empty)) is not None:
            return found
        with self._lock(key, lambda: progress(0, len(spec)) if progress else None):
            if (found := self.get(key, empty)) is not None:
                return found
            result = sweep(generator, spec, {layer: [empty]}, progress)[layer][0]
            assert isinstance(result, type(empty))
            try:
                self.put(key, result)
            except FileError as problem:
                log.warning("statistic not stored: %s", problem)
            return result

    @contextmanager
    def _lock(self, key: Mapping[str, Any], waiting: Callable[[], None]) -> Iterator[None]:
        """Held by one process and thread at a time; `waiting` is called every `PATIENCE` seconds until then."""
        path = self.folder / f"{_name(key)}.lock"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            path.touch()
        except OSError:  # where nothing can be stored, there is nothing to wait for
            yield
            return
        lock = FileLock(path, timeout=PATIENCE)
        while not lock.is_locked:
            try:
                lock.acquire()
            except Timeout:
                waiting()
        try:
            yield
        finally:
            lock.release()

    def _set_aside(self, path: Path, problem: Exception) -> None:
        log.warning("%s is set aside and computed again: %s", path, problem)
        if path.parent == self.folder:
            with suppress(OSError):  # the folder is read-only, or another process was first
                path.replace(path.with_suffix(".damaged"))


def default_store() -> Store:
    """The user's cache over the statistics that ship with the embedded generators."""
    folder = os.environ.get("PALIMPSEST_CACHE") or platformdirs.user_cache_dir("palimpsest", appauthor=False)
    shipped = tuple(embedded_folder(name) / "statistics" for name in embedded_names())
    return Store(Path(folder) / "statistics", shipped)


def _checked(path: Path, key: Mapping[str, Any]) -> dict[str, Tensor]:
    tensors, header = read_safetensors(path, what=path.name)
    if header.get("key") != _canonical(key):
        raise FileError(
            found=f"{path.name}: another key", expected="the key in its name", remedy="It is recomputed."
        )
    if header.get("checksum") != _checksum(tensors):
        raise FileError(
            found=f"{path.name}: wrong checksum", expected="an intact file", remedy="It is recomputed."
        )
    return tensors


def _canonical(key: Mapping[str, Any]) -> str:
    return json.dumps(key, sort_keys=True, separators=(",", ":"))


def _name(key: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical(key).encode()).hexdigest()[:32] + ".safetensors"


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _compact(seeds: tuple[int, ...]) -> list[int] | str:
    """A run of seeds as ``first..last``, which keeps keys short."""
    if len(seeds) > 2 and seeds == tuple(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]}..{seeds[-1]}"
    return list(seeds)
