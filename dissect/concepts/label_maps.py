"""Label maps on disk as a concept source: pictures that were labelled elsewhere, by hand or by a program.

A folder holds a map for each picture, called by its seed as bulk sampling calls pictures (``seed0000042.png``) or by
the bare number, zeros in front or not (``42.png``, ``0042.npz``); `dissect.concepts.map_file` says what may be in one.
Beside them a ``legend.json`` says what the numbers mean, see `dissect.concepts.legend`. Other files are passed over.

    maps = open_label_maps(Path("hair-and-eyes"))
    maps.check(generator)
    labels = maps(scene)  # [N, L, H, W], on the maps' own grid, which may be finer or coarser than the pictures

The maps know unedited samples alone, so they cannot judge an edit. All are of one size, in the proportions of the
pictures.

Stored statistics depend on the seeds, the contents of all maps, and the names: each file is read once when the folder
is opened, and again only when its size or times changed since (in one process). Neither asking for the identity nor
opening the folder again reads it anew; copying the folder elsewhere keeps what was stored. A map that changes after
the folder was opened is refused when its turn comes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dissect.concepts.legend import LEGEND, Legend
from dissect.concepts.map_file import LARGEST_FILE, SUFFIXES, decode
from rewrite_core.errors import FileError, ModelMismatch, PalimpsestError, RequestError
from rewrite_core.files import read_bytes
from rewrite_core.generators import Generator, LatentSpec
from rewrite_core.statistics import Scene

__all__ = ["LabelMaps", "MapFile", "open_label_maps"]

LARGEST_MASKS = 1 << 28
"""Pixels of all concepts' masks of one picture, a byte each: 256 concepts on 1024 × 1024 pixels."""
SETTLED = 2 * 10**9
"""Nanoseconds after which a change must show in a file's times; a younger file is read again, to be sure."""
_NAME = re.compile(rf"(?:seed)?([0-9]{{1,10}})({'|'.join(map(re.escape, SUFFIXES))})", re.IGNORECASE)


@dataclass(frozen=True)
class MapFile:
    """A map's place, and the SHA-256 of its content."""

    path: Path
    digest: str


@dataclass(frozen=True, eq=False)
class LabelMaps:
    """A concept source (`dissect.concepts.source`) of maps by seed.

    Attributes:
        folder: where they are.
        legend: what they mean.
        files: seed → its map, by rising seed.
        size: height and width of every map.
    """

    folder: Path
    legend: Legend
    files: Mapping[int, MapFile]
    size: tuple[int, int]

    layers: ClassVar[tuple[str, ...]] = ()
    pixels_only: ClassVar[bool] = False
    version: ClassVar[int] = 1
    """Raised whenever the same files would give other labels."""

    @property
    def title(self) -> str:
        """What it is called on screen."""
        return f"label maps: {self.folder.resolve().name}"

    @property
    def names(self) -> tuple[str, ...]:
        """The concepts, by rising number."""
        return self.legend.names

    @property
    def seeds(self) -> tuple[int, ...]:
        """The pictures that have a map."""
        return tuple(self.files)

    def identity(self) -> Mapping[str, Any]:
        """A digest of the names and of every map's seed and content."""
        whole = [list(self.legend.labels.items()), [(seed, file.digest) for seed, file in self.files.items()]]
        digest = hashlib.sha256(json.dumps(whole).encode()).hexdigest()
        return {"labeller": "label maps", "version": self.version, "maps": digest}

    def check(self, generator: Generator) -> None:
        """See that the maps are of what `generator` draws, without rules, and in the proportions of its pictures.

        Raises:
            ModelMismatch: the legend names another generator, or this one has rules.
            PalimpsestError: the maps are of other proportions.
        """
        made_for = self.legend.model
        if generator.pristine is not generator:
            raise ModelMismatch(
                found=f"{generator.pristine.name} with rules",
                expected="the generator without rules, since label maps know unedited samples only",
                remedy="Switch the rules off, or use a source that sees pixels alone.",
            )
        if made_for is not None and made_for.fingerprint != generator.fingerprint:
            raise ModelMismatch(
                found=f"{self.folder}: label maps of {made_for.name} ({made_for.fingerprint[:12]})",
                expected=f"those of {generator.name} ({generator.fingerprint[:12]})",
                remedy="Open the generator whose pictures were labelled.",
            )
        (height, width), (rows, columns) = generator.picture_size, self.size
        if rows * width != columns * height:
            raise PalimpsestError(
                found=f"{self.folder}: maps of {rows} × {columns}",
                expected=f"the proportions of the pictures, {height} × {width}",
                remedy="Label the whole picture, or choose the maps of this generator.",
            )

    def require(self, spec: LatentSpec) -> None:
        """See that there is a map for every picture of `spec`.

        Raises:
            RequestError: there is none for a seed, or the maps are of pictures drawn otherwise.
        """
        drawn = self.legend.latents
        if drawn.spec(()) != replace(spec, seeds=()):
            names = ("scheme", "truncation", "cutoff", "label")
            differ = [name for name in names if getattr(drawn, name) != getattr(spec, name)]
            raise RequestError(
                found=f"pictures with {', '.join(f'{name} {getattr(spec, name)}' for name in differ)}",
                expected=f"{', '.join(f'{name} {getattr(drawn, name)}' for name in differ)}, as in {self.folder}",
                remedy=f"Draw them so, or write how they were drawn in {LEGEND} under 'latents'.",
            )
        for seed in spec.seeds:
            if seed not in self.files:
                raise RequestError(
                    found=f"no label map of seed {seed} in {self.folder}",
                    expected=f"one of the {len(self.files):,} pictures that have one, such as {self.seeds[0]}",
                    remedy="Choose among these seeds, or label that picture too.",
                )

    def __call__(self, scene: Scene) -> Tensor:
        """Labels [N, L, H, W] on the maps' grid: bool, or float32 where a map is soft.

        Raises:
            RequestError: see `require`.
            FileError: a map is damaged, has changed, or disagrees with the legend or with the others' size.
        """
        if scene.latents.w is not None:
            raise RequestError(
                found="a picture drawn from a w of its own",
                expected="pictures that a seed names, as label maps are",
                remedy="Use a source that sees pixels alone.",
            )
        self.require(scene.latents.spec)
        labels = np.stack([self._labels(seed) for seed in scene.latents.spec.seeds])  # [N, L, H, W]
        return torch.from_numpy(labels).to(scene.pictures.device)

    def _labels(self, seed: int) -> NDArray[np.generic]:
        """Labels [L, H, W] of one picture."""
        file = self.files[seed]
        what = str(file.path)
        content = read_bytes(file.path, what=what, limit_bytes=LARGEST_FILE)
        if hashlib.sha256(content).hexdigest() != file.digest:
            raise _wrong(what, "changed since the folder was opened", "the map as it was", "Open it again.")
        numbers = decode(content, what)
        size = numbers.shape[-2:]
        if size != self.size:
            expected = f"{self.size[0]} × {self.size[1]}, as {next(iter(self.files.values())).path.name} is"
            raise _wrong(what, f"{size[0]} × {size[1]}", expected, "Bring all maps to one size.")
        return self._split(numbers, what) if numbers.ndim == 2 else self._picked(numbers, what)

    def _split(self, numbers: NDArray[np.generic], what: str) -> NDArray[np.generic]:
        """Numbers [H, W] → a mask for each concept [L, H, W]."""
        known = np.fromiter(self.legend.labels, np.int64)
        wrong = ~np.isin(numbers, known)
        if wrong.any():
            found, expected = f"the number {numbers[wrong][0]}", f"one of {_some(known.tolist())}"
            raise _wrong(what, found, f"{expected}, which {LEGEND} names", f"Add it to {LEGEND}.")
        masks: NDArray[np.bool_] = numbers == np.array(self.legend.numbers)[:, None, None]
        return masks

    def _picked(self, masks: NDArray[np.generic], what: str) -> NDArray[np.generic]:
        """Masks [M, H, W], one for each entry of the legend → those of concepts [L, H, W]."""
        if list(self.legend.labels) != list(range(len(masks))):
            expected = f"one for each number that {LEGEND} names: {_some(list(self.legend.labels))}"
            raise _wrong(what, f"{len(masks)} masks", expected, f"Correct {LEGEND}.")
        return masks[list(self.legend.numbers)]


def open_label_maps(folder: Path) -> LabelMaps:
    """The label maps in `folder`.

    Raises:
        FileError: there is no legend or no map, a legend or the first map is wrong, two maps have the same seed.
    """
    legend = Legend.load(folder)
    files = _found(folder)
    first = next(iter(files.values()))
    what = str(first.path)
    height, width = decode(read_bytes(first.path, what=what, limit_bytes=LARGEST_FILE), what).shape[-2:]
    masks = len(legend.numbers) * height * width
    if masks > LARGEST_MASKS:
        raise _wrong(
            what,
            f"{len(legend.numbers):,} concepts on {height:,} × {width:,} pixels",
            f"at most {LARGEST_MASKS:,} pixels of all masks of a picture",
            "Make the maps smaller, or divide the concepts among several folders.",
        )
    maps = LabelMaps(folder, legend, files, (height, width))
    maps._labels(next(iter(files)))
    return maps


def _found(folder: Path) -> dict[int, MapFile]:
    """Seed → file, by rising seed."""
    found: dict[int, MapFile] = {}
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        for entry in entries:
            match = _NAME.fullmatch(entry.name)
            if not match or not entry.is_file():
                continue
            seed = int(match[1])
            if seed in found:
                names = f"{found[seed].path.name} and {entry.name}"
                raise _wrong(str(folder), f"{names}, both of seed {seed}", "one map of each", "Remove one.")
            found[seed] = MapFile(Path(entry.path), _digest_of(entry))
    except OSError as problem:
        raise _wrong(
            str(folder), f"cannot be read ({problem.strerror})", "a folder of label maps", "Check the path."
        ) from None
    if not found:
        raise _wrong(
            str(folder), "no label map", "files called by seed, such as seed0000042.png", "Check the path."
        )
    return dict(sorted(found.items()))


def _digest_of(entry: os.DirEntry[str]) -> str:
    """SHA-256 of a file's content, as remembered if nothing about the file changed."""
    about = entry.stat()
    times = about.st_mtime_ns, about.st_ctime_ns
    settled = time.time_ns() - max(times) > SETTLED
    return (_digest if settled else _digest.__wrapped__)(entry.path, about.st_size, *times)


@lru_cache(maxsize=200_000)
def _digest(path: str, size: int, *times: int) -> str:
    return hashlib.sha256(read_bytes(Path(path), what=path, limit_bytes=LARGEST_FILE)).hexdigest()


def _some(numbers: list[int]) -> str:
    """The first few of some numbers."""
    return ", ".join(map(str, numbers[:12])) + (" …" if len(numbers) > 12 else "")


def _wrong(what: str, found: str, expected: str, remedy: str) -> FileError:
    return FileError(found=f"{what}: {found}", expected=expected, remedy=remedy)
