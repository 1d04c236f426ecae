"""Folders that hold pictures in bulk: how each kind is laid out, written, and found whole again.

* ``png``: a file for each picture, ``seed0000042.png``.
* ``tar``: shards of up to 1,000 pictures, ``shard-000007.tar``, whose members are called as the files above; what
  WebDataset reads. Nothing in a header depends on when, where or by whom it was written.
* ``npy``: ``pictures.npy``, uint8 [N, H, W, 3] in the order of the seeds, which numpy can map into memory; beside it
  ``pictures.done.npy``, uint8 [N], is 1 for each picture that is there.

The pictures are cut into *parts* of whole micro-batches. A part is written by one process at a time, in order; a name
that begins with a dot and ends in ``.tmp`` is what an interrupted process left, and is written over by the next one.
"""

from __future__ import annotations

import io
import math
import os
import shutil
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar, Literal

import numpy as np

from rewrite_core.errors import FileError
from rewrite_core.generators.latents import LatentSpec
from rewrite_core.pictures import Picture, encode_png

__all__ = ["FORMATS", "Format", "FormatName", "Part", "Writer", "writing"]

FormatName = Literal["png", "tar", "npy"]

SHARD = 1000
"""Pictures in a tar file, at most."""
SHORT = 4
"""Micro-batches in a part where a part need not be one file."""

_PNG_HEAD = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB\x60\x82"


@dataclass(frozen=True)
class Part:
    """A run of the pictures that is claimed and written as one: its number, its first picture's place, the pictures."""

    index: int
    first: int
    spec: LatentSpec


class Writer:
    """Takes the pictures of one part in their order; `encode` may run in any thread, the rest in one."""

    def encode(self, seed: int, picture: Picture) -> bytes:
        """What `add` will want of a picture [H, W, 3]: the slow half of writing it."""
        raise NotImplementedError

    def add(self, place: int, seed: int, encoded: bytes) -> None:
        """Put the picture at `place` among all."""

    def close(self) -> None:
        """All are there."""

    def abandon(self) -> None:
        """No more will come; what is not whole is taken away."""


class Format(ABC):
    """Pictures of `spec`, each of `size` (height, width), in `folder`."""

    name: ClassVar[FormatName]
    patterns: ClassVar[tuple[str, ...]]
    """What such a folder's files are called."""

    def __init__(self, folder: Path, spec: LatentSpec, size: tuple[int, int]) -> None:
        self.folder, self.spec, self.size = folder, spec, size

    def prepare(self) -> None:  # noqa: B027 - most have nothing to prepare
        """Called once, by the process that begins the folder."""

    def parts(self, micro_batch: int) -> list[Part]:
        """The pictures in parts of whole micro-batches."""
        length = self._length(micro_batch)
        return [Part(index, index * length, block) for index, block in enumerate(self.spec.blocks(length))]

    def _length(self, micro_batch: int) -> int:
        return SHORT * micro_batch

    @abstractmethod
    def missing(self, part: Part) -> frozenset[int]:
        """The seeds of the part whose pictures are not there, or not whole."""

    @abstractmethod
    def begin(self, part: Part) -> Writer:
        """Write what is missing of a part."""

    @abstractmethod
    def files(self, micro_batch: int) -> Iterator[Path]:
        """Every file of the finished folder."""


class PNGFolder(Format):
    """A file for each picture."""

    name = "png"
    patterns = ("seed*.png",)

    def missing(self, part: Part) -> frozenset[int]:
        """A file counts if it starts and ends as a PNG of the right size does."""
        return frozenset(seed for seed in part.spec.seeds if not self._whole(self.folder / _named(seed)))

    def begin(self, part: Part) -> Writer:
        """A file each."""
        return _PNGWriter(self.folder)

    def files(self, micro_batch: int) -> Iterator[Path]:
        """In the order of the seeds."""
        return (self.folder / _named(seed) for seed in self.spec.seeds)

    def _whole(self, path: Path) -> bool:
        with suppress(OSError), path.open("rb") as file:
            head = file.read(24)
            file.seek(-len(_PNG_END), os.SEEK_END)
            width, height = int.from_bytes(head[16:20]), int.from_bytes(head[20:24])
            return head[:16] == _PNG_HEAD and (height, width) == self.size and file.read() == _PNG_END
        return False


class _PNGWriter(Writer):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def encode(self, seed: int, picture: Picture) -> bytes:
        path = self.folder / _named(seed)
        with writing(path):
            with _opened(path) as file:
                file.write(encode_png(picture))
            _temporary(path).replace(path)
        return b""


class TarShards(Format):
    """WebDataset-like tar files."""

    name = "tar"
    patterns = ("shard-*.tar",)

    def _length(self, micro_batch: int) -> int:
        return max(1, SHARD // micro_batch) * micro_batch

    def missing(self, part: Part) -> frozenset[int]:
        """A shard counts if all its members are there; it is never written in place."""
        names = [_named(seed) for seed in part.spec.seeds]
        with suppress(OSError, tarfile.TarError), tarfile.open(self._path(part.index)) as shard:
            if shard.getnames() == names:
                return frozenset()
        return frozenset(part.spec.seeds)

    def begin(self, part: Part) -> Writer:
        """The whole shard."""
        return _TarWriter(self._path(part.index))

    def files(self, micro_batch: int) -> Iterator[Path]:
        """In the order of the seeds."""
        return (self._path(part.index) for part in self.parts(micro_batch))

    def _path(self, index: int) -> Path:
        return self.folder / f"shard-{index:06d}.tar"


class _TarWriter(Writer):
    def __init__(self, path: Path) -> None:
        self.path = path
        with writing(path):
            self.file = _opened(path)
            self.tar = tarfile.TarFile(fileobj=self.file, mode="w", format=tarfile.USTAR_FORMAT)

    def encode(self, seed: int, picture: Picture) -> bytes:
        return encode_png(picture)

    def add(self, place: int, seed: int, encoded: bytes) -> None:
        member = tarfile.TarInfo(_named(seed))  # time, owner and group 0, mode 0644
        member.size = len(encoded)
        with writing(self.path):
            self.tar.addfile(member, io.BytesIO(encoded))

    def close(self) -> None:
        with writing(self.path):
            self.tar.close()
            self.file.flush()
            os.fsync(self.file.fileno())
            self.file.close()
            _temporary(self.path).replace(self.path)

    def abandon(self) -> None:
        with suppress(OSError):
            self.file.close()
            _temporary(self.path).unlink(missing_ok=True)


class NumpyArray(Format):
    """One array that can be mapped into memory."""

    name = "npy"
    patterns = ("pictures.npy", "pictures.done.npy")

    def prepare(self) -> None:
        """Make both arrays, full of zeros.

        Raises:
            FileError: if there is not enough room on the disk.
        """
        shape = (len(self.spec), *self.size, 3)
        free, needed = shutil.disk_usage(self.folder).free, math.prod(shape) + len(self.spec)
        if needed > free:
            raise FileError(
                found=f"{self.folder}: {free:,} bytes free",
                expected=f"room for {needed:,}",
                remedy="Free some space, choose another place, or name fewer pictures.",
            )
        try:
            for path, extent in zip(self._paths, (shape, shape[:1]), strict=True):
                with writing(path):
                    np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=extent).flush()
        except FileError:  # what is left of it would be taken for another's pictures
            for path in self._paths:
                path.unlink(missing_ok=True)
            raise

    def missing(self, part: Part) -> frozenset[int]:
        """What the second array says."""
        pictures, done = self._open()
        there = done[part.first : part.first + len(part.spec)]
        del pictures
        return frozenset(seed for seed, known in zip(part.spec.seeds, there, strict=True) if not known)

    def begin(self, part: Part) -> Writer:
        """The rows that are missing."""
        pictures, done = self._open()
        return _NumpyWriter(*self._paths, pictures.offset, done.offset)

    def files(self, micro_batch: int) -> Iterator[Path]:
        """The pictures, and which are there."""
        return iter(self._paths)

    @property
    def _paths(self) -> tuple[Path, Path]:
        return self.folder / "pictures.npy", self.folder / "pictures.done.npy"

    def _open(self) -> tuple[np.memmap, np.memmap]:
        """Both arrays, to be read.

        Raises:
            FileError: if they are not what `prepare` made.
        """
        shape = (len(self.spec), *self.size, 3)
        arrays = []
        for path, extent in zip(self._paths, (shape, shape[:1]), strict=True):
            try:
                array = np.lib.format.open_memmap(path, mode="r")
                fits = array.shape == extent and array.dtype == np.uint8 and array.flags.c_contiguous
            except (OSError, ValueError):
                fits = False
            if not fits:
                raise FileError(
                    found=f"{path}, which is missing or damaged",
                    expected=f"uint8 {list(extent)}, as sample.json beside it says",
                    remedy="Delete the folder and begin again.",
                )
            arrays.append(array)
        return arrays[0], arrays[1]


class _NumpyWriter(Writer):
    """Writes by offset: a full disk is then an error, where a map into memory would end the process."""

    def __init__(self, pictures: Path, done: Path, start: int, done_start: int) -> None:
        self.path, self.start, self.done_start = pictures, start, done_start
        self.written: list[int] = []
        with writing(pictures):
            self.pictures, self.done = os.open(pictures, os.O_WRONLY), os.open(done, os.O_WRONLY)

    def encode(self, seed: int, picture: Picture) -> bytes:
        return picture.tobytes()

    def add(self, place: int, seed: int, encoded: bytes) -> None:
        with writing(self.path):
            done = 0
            while done < len(encoded):  # one call may take less than all
                done += os.pwrite(self.pictures, encoded[done:], self.start + place * len(encoded) + done)
        self.written.append(place)

    def close(self) -> None:
        with writing(self.path):
            os.fsync(self.pictures)  # the pictures before the word that they are there
            for place in self.written:
                os.pwrite(self.done, b"\x01", self.done_start + place)
        self.abandon()

    def abandon(self) -> None:
        for descriptor in (self.pictures, self.done):
            os.close(descriptor)


FORMATS: dict[FormatName, type[Format]] = {kind.name: kind for kind in (PNGFolder, TarShards, NumpyArray)}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what goes wrong while writing `path` into one line.

    Raises:
        FileError: the disk is full, the folder is gone or read-only.
    """
    try:
        yield
    except OSError as problem:
        raise FileError(
            found=f"{path} cannot be written ({problem.strerror or problem})",
            expected="a folder that may be written to and has room",
            remedy="Free some space or choose another place.",
        ) from None


def _named(seed: int) -> str:
    return f"seed{seed:07d}.png"


def _temporary(path: Path) -> Path:
    return path.parent / f".{path.name}.tmp"


def _opened(path: Path) -> BinaryIO:
    """The temporary file of `path`, new: what an interrupted process left goes, and a link there is not followed."""
    _temporary(path).unlink(missing_ok=True)
    return _temporary(path).open("xb")
