"""Pictures by the thousand, straight to disk: in constant memory, resumed where it stopped, by several processes.

    from rewrite_core.generators.bulk import write_samples

    written = write_samples(generator, LatentSpec.of(range(10_000)), Path("pictures"))
    written.drawn, written.found                     # made here; there already, or made by another process

The folder's ``sample.json`` says what its pictures are of; a folder of others is refused. Pictures are cut into parts
of whole micro-batches. Whoever holds a part's claim, a file lock that the system releases when its process ends,
however it ends, looks what is missing of it, draws that and writes it (`bulk_formats.py`). So the same call goes on
after a crash, and several processes, such as those of ``torchrun``, share the work by making the same call at once;
each returns when everything is there.

Files are identical however the work was split, because a picture is always drawn in the same micro-batch, and on a CPU
always by one thread (`rewrite_core.generators.lanes`). Encoding and writing are done by a few threads more, and whoever
is too far ahead waits.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout

from rewrite_core.errors import FileError, RequestError
from rewrite_core.files import write_json
from rewrite_core.generators.bulk_formats import FORMATS, Format, FormatName, Part, Writer, writing
from rewrite_core.generators.bulk_manifest import MANIFEST, Manifest, RuleRecord
from rewrite_core.generators.generator import Generator, Progress
from rewrite_core.generators.lanes import Lanes
from rewrite_core.generators.latents import LatentSpec
from rewrite_core.pictures import to_uint8

__all__ = ["Written", "write_samples"]

CLAIMS, LOCK = ".claims", ".sample.lock"
ENCODERS = 4
AHEAD = 2
"""Micro-batches that may wait for the encoders, beside those being drawn."""
LOOK = 0.1
"""Seconds between two looks at what other processes have finished."""


@dataclass(frozen=True)
class Written:
    """A finished folder: pictures drawn here, and found there (or made meanwhile by other processes)."""

    drawn: int
    found: int
    manifest: Manifest
    format: Format

    def files(self) -> Iterator[Path]:
        """Every file that holds pictures."""
        return self.format.files(self.manifest.micro_batch)


def write_samples(
    generator: Generator,
    spec: LatentSpec,
    folder: Path,
    *,
    format: FormatName = "png",
    rules: Sequence[RuleRecord] = (),
    progress: Progress | None = None,
) -> Written:
    """Draw what is missing of the pictures of `spec` in `folder`, which is made if need be.

    Returns when all are there, whoever drew them. `rules` are those that hold in `generator`, for the record.

    Raises:
        FileError: if the folder is of other pictures, or cannot be written.
        RequestError: if a seed is named twice.
        Cancelled: from `progress`; what is written stays, and the same call goes on.
    """
    if len(set(spec.seeds)) < len(spec):
        raise RequestError(found="a seed named twice", expected="each once", remedy="Leave it out.")
    manifest = Manifest.of(generator, spec, format, rules)
    kind = FORMATS[format](folder, spec, generator.picture_size)
    _enter(folder, manifest, kind)
    with _Work(generator, kind, progress) as work:
        work.run()
    shutil.rmtree(folder / CLAIMS, ignore_errors=True)
    return Written(work.drawn, work.found, manifest, kind)


@dataclass(eq=False)
class _Open:
    """A part under way: what is missing of it, where that goes, and how many pictures are still to come."""

    part: Part
    missing: frozenset[int]
    writer: Writer
    claim: FileLock
    left: int = field(init=False)

    def __post_init__(self) -> None:
        self.left = len(self.missing)


Encoded = list[tuple[int, int, Future[bytes]]]  # place, seed, what the writer makes of the picture


@dataclass(eq=False)
class _Work:
    """One process's share: lanes draw, encoders encode, and the calling thread claims, writes and waits."""

    generator: Generator
    format: Format
    progress: Progress | None
    drawn: int = 0
    found: int = 0
    _open: list[_Open] = field(default_factory=list)
    _queue: deque[tuple[_Open, Future[Encoded]]] = field(default_factory=deque)

    def __enter__(self) -> Self:
        self._lanes = Lanes(self.generator)
        self._encoding = ThreadPoolExecutor(ENCODERS, "palimpsest-encode")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lanes.close()
        self._encoding.shutdown(cancel_futures=True)
        for part in self._open:
            part.writer.abandon()
            part.claim.release()

    def run(self) -> None:
        """Work until every part is there."""
        left = self.format.parts(self.generator.micro_batch)
        while left:
            busy = [part for part in left if not self._take(part)]
            while self._queue:
                self._settle()
            if len(busy) == len(left):
                time.sleep(LOOK)
            left = busy

    def _take(self, part: Part) -> bool:
        """Draw what is missing of a part, or find that nothing is; False while another process has it."""
        if not self.format.missing(part):
            self._count(found=len(part.spec))
            return True
        claim = _claimed(self.format.folder, part)
        if claim is None:
            return False
        missing = self.format.missing(part)  # it may just have been finished
        if not missing:
            claim.release()
            self._count(found=len(part.spec))
            return True
        opened = _Open(part, missing, self.format.begin(part), claim)
        self._open.append(opened)
        self._count(found=len(part.spec) - len(missing))
        for block in part.spec.blocks(self.generator.micro_batch):
            if missing.intersection(block.seeds):
                self._queue.append((opened, self._lanes.submit(self._draw, opened, block)))
                while len(self._queue) > self._lanes.count + AHEAD:
                    self._settle()
        return True

    def _draw(self, opened: _Open, block: LatentSpec) -> Encoded:
        """In a lane: draw a micro-batch and hand its pictures to the encoders."""
        pictures = to_uint8(self.generator.sample(block))
        place = opened.part.first + opened.part.spec.seeds.index(block.seeds[0])
        return [
            (place + index, seed, self._encoding.submit(opened.writer.encode, seed, picture))
            for index, (seed, picture) in enumerate(zip(block.seeds, pictures, strict=True))
            if seed in opened.missing
        ]

    def _settle(self) -> None:
        """Wait for the oldest micro-batch under way and write it."""
        opened, drawn = self._queue.popleft()
        encoded = drawn.result()
        for place, seed, data in encoded:
            opened.writer.add(place, seed, data.result())
        opened.left -= len(encoded)
        if not opened.left:
            self._open.remove(opened)
            try:
                opened.writer.close()
            finally:
                opened.claim.release()
        self._count(drawn=len(encoded))

    def _count(self, drawn: int = 0, found: int = 0) -> None:
        self.drawn, self.found = self.drawn + drawn, self.found + found
        if self.progress and drawn + found:
            self.progress(self.drawn + self.found, len(self.format.spec))


def _enter(folder: Path, manifest: Manifest, format: Format) -> None:
    """Begin the folder, or see that it was begun for the same pictures; one process at a time."""
    if not (folder / MANIFEST).exists():
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        lock = folder / LOCK
        with FileLock(lock):
            try:
                if not (folder / MANIFEST).exists():
                    _begin(folder, manifest, format)
            finally:
                lock.unlink(missing_ok=True)  # whoever still waits for it will find the manifest
    Manifest.load(folder).require(manifest, folder)


def _begin(folder: Path, manifest: Manifest, format: Format) -> None:
    """Put the manifest in a folder that holds no pictures yet."""
    stray = next((path.name for pattern in format.patterns for path in folder.glob(pattern)), None)
    if stray:
        raise FileError(
            found=f"{folder} with {stray} in it, and no {MANIFEST} that says what it is of",
            expected="an empty folder, or one begun by the same command",
            remedy="Choose another folder, or empty this one.",
        )
    format.prepare()
    write_json(folder / MANIFEST, json.loads(manifest.model_dump_json(by_alias=True)))


def _claimed(folder: Path, part: Part) -> FileLock | None:
    """The claim on a part, or None: another process has it, or has just finished all there was to do."""
    with writing(folder):
        (folder / CLAIMS).mkdir(exist_ok=True)
        lock = FileLock(folder / CLAIMS / f"{part.index:06d}.lock")
        try:
            lock.acquire(blocking=False)
        except (Timeout, FileNotFoundError):
            return None
    return lock
