"""Ask for statistics: from disk where they are, else computed now, block by block, and kept.

    moment, histogram = gather(generator, spec, {"l08": [SecondMoment(), Histogram()]})["l08"]

Only what is not stored is computed, all of it in one pass. Blocks are claimed one at a time, so processes that share
a folder (two apps, a command beside an app, `torchrun` on several machines) work on different blocks of the same pass;
every few seconds, and when the work is cancelled, finished blocks are put on disk, and whoever asks next goes on from
there. Since blocks and the order of merging are fixed, the result is the same to the bit in all these cases.

How many blocks are computed at once adapts to memory: one for each of torch's threads on a CPU, two on each GPU, fewer
when a device runs out. No number of them changes the result.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from filelock import FileLock

from rewrite_core.errors import Cancelled, FileError, RequestError
from rewrite_core.generators import Generator, LatentSpec, Progress
from rewrite_core.generators.lanes import beside
from rewrite_core.statistics.crew import Crew, devices_of
from rewrite_core.statistics.key import key_of, name_of, samples_of
from rewrite_core.statistics.ledger import Ledger, claim, forget
from rewrite_core.statistics.statistic import Statistic
from rewrite_core.statistics.store import Store, default_store
from rewrite_core.statistics.sweep import Answers, Wanted, blocks_of

__all__ = ["fetch", "gather"]

S = TypeVar("S", bound=Statistic)
Say = Callable[[str], None]
log = logging.getLogger(__name__)

SAVE_EVERY = 5.0
"""Seconds of work that a crash may cost, or `SHARE` times what it takes to save a large state."""
SHARE = 10
CLAIMS_HELD = 64
"""Blocks that a process keeps to itself before it puts them on disk."""
LOOK = 0.1
"""Seconds between two looks at what the lanes and other processes have finished."""


def fetch(
    generator: Generator,
    layer: str,
    spec: LatentSpec,
    empty: S,
    *,
    store: Store | None = None,
    progress: Progress | None = None,
) -> S:
    """The one statistic `empty` of `layer`; see `gather`."""
    (found,) = gather(generator, spec, {layer: [empty]}, store=store, progress=progress)[layer]
    assert isinstance(found, type(empty))
    return found


def gather(
    generator: Generator,
    spec: LatentSpec,
    wanted: Wanted,
    *,
    store: Store | None = None,
    progress: Progress | None = None,
    devices: Sequence[torch.device] | None = None,
    say: Say | None = None,
) -> Answers:
    """The statistics `wanted` of each layer (name → empty statistics) over the samples in `spec`.

    `devices` are those to spread the pass over (default: where the generator is; if that is a GPU, all of them). What
    cannot be stored is served all the same, and the reason is said. `say` receives one line for each thing worth
    noting.

    Raises:
        LayerError: if there is no such layer.
        RequestError: if `spec` is empty, or a device has no memory for a single micro-batch.
        PalimpsestError: if a layer's keys are not finite, naming layer and unit.
        Cancelled: from `progress`, which is called a few times a second; what is finished by then is kept.
    """
    if not len(spec):
        raise RequestError(found="0 samples", expected="at least 1", remedy="1,000 is a sound number.")
    for layer in wanted:
        generator.layer(layer)
    store = store or default_store()
    answers: Answers = {layer: list(statistics) for layer, statistics in wanted.items()}
    missing = []
    for layer, statistics in wanted.items():
        for place, empty in enumerate(statistics):
            key = key_of(generator, layer, spec, empty)
            if (found := store.get(key, empty)) is not None:
                answers[layer][place] = found
            else:
                missing.append(_Open(layer, place, Ledger(store, key, empty)))
    if missing:
        work = _Pass(generator, spec, missing, store, devices or devices_of(generator), say or log.info)
        for question, found in work.run(progress):
            answers[question.layer][question.place] = found
    return answers


@dataclass(frozen=True, eq=False)
class _Open:
    """A statistic that is not stored yet: where its answer belongs, and its blocks."""

    layer: str
    place: int
    ledger: Ledger[Statistic]


@dataclass(eq=False)
class _Pass:
    """One pass over the samples, in this process; others may be working on it too."""

    generator: Generator
    spec: LatentSpec
    open: list[_Open]
    store: Store
    devices: Sequence[torch.device]
    say: Say
    _answered: list[tuple[_Open, Statistic]] = field(default_factory=list)
    _running: dict[Future[Answers], tuple[int, list[_Open], int]] = field(
        default_factory=dict
    )  # with the lanes then
    _claims: dict[int, FileLock] = field(default_factory=dict)
    _alone: bool = False  # nothing can be written, so nobody shares this pass
    _saved: float = field(default_factory=time.monotonic)
    _pause: float = field(default_factory=lambda: SAVE_EVERY)

    def __post_init__(self) -> None:
        self.blocks = blocks_of(self.generator, self.spec)
        self.samples = samples_of(self.generator, self.spec)
        self.crew = Crew(self.generator, self.devices)

    def run(self, progress: Progress | None) -> list[tuple[_Open, Statistic]]:
        """Work until every open statistic is answered, here or by another process."""
        found = self._samples_finished()
        many = "statistic" if len(self.open) == 1 else "statistics"
        self.say(f"{len(self.open)} {many} over {len(self.spec):,} samples in {len(self.blocks):,} blocks")
        if found:
            self.say(f"{found:,} samples were there already")
        if progress:
            progress(found, len(self.spec))
        try:
            while self.open:
                started = self._start()
                if self._running:
                    self._collect()
                elif not started:
                    self._conclude()
                if progress:
                    progress(min(self._samples_done(), len(self.spec)), len(self.spec))
                if time.monotonic() > self._saved + self._pause or len(self._claims) >= CLAIMS_HELD:
                    self._save()
            if progress:
                progress(len(self.spec), len(self.spec))
            self._release()
            forget(self.store, self.samples)
        except BaseException:
            self.crew.stop()
            self._collect_rest()
            self._save()
            raise
        finally:
            self.crew.close()
            self._release()
        return self._answered

    # Working.

    def _start(self) -> bool:
        """Give every free lane a block that is missing and that nobody else has claimed; whether any got one."""
        started = False
        for block in range(self._folded(), len(self.blocks)):
            if len(self._running) >= self.crew.lanes:
                break
            if block in self._claims or self._has(block):
                continue
            if not self._claim(block):
                continue
            missing = self._missing(block)
            if missing:  # else another process has finished it just now
                future = self.crew.see(self.blocks[block], _wanted(missing))
                self._running[future] = (block, missing, self.crew.lanes)
                started = True
        return started

    def _claim(self, block: int) -> bool:
        if self._alone:
            return not any(block == running for running, *_ in self._running.values())
        try:
            lock = claim(self.store, self.samples, block)
        except OSError as problem:
            self._go_alone(f"nothing can be kept in {self.store.partial}: {problem.strerror}")
            return True
        if lock is None:
            return False
        self._claims[block] = lock
        self._look()
        return True

    def _folded(self) -> int:
        """Blocks from the first on that are finished for every open statistic; with many, looking at each is slow."""
        return min((question.ledger.end for question in self.open), default=len(self.blocks))

    def _has(self, block: int) -> bool:
        return all(question.ledger.has(block) for question in self.open)

    def _missing(self, block: int) -> list[_Open]:
        return [question for question in self.open if not question.ledger.has(block)]

    def _collect(self) -> None:
        """Take what the lanes have finished, waiting a moment for it."""
        for future in wait(self._running, timeout=LOOK, return_when=FIRST_COMPLETED).done:
            block, questions, lanes = self._running.pop(future)
            try:
                found = future.result()
            except (torch.OutOfMemoryError, MemoryError) as problem:
                self.crew.shrink(problem, lanes)
                self.say(f"a device ran out of memory: {self.crew.lanes} blocks at once from now on")
                self._drop(block)
                continue
            beside(_add, block, questions, found)

    def _collect_rest(self) -> None:
        """After `stop`: keep the blocks that are finished, let go of the others."""
        for future, (block, questions, _) in self._running.items():
            with suppress(Cancelled, Exception):
                beside(_add, block, questions, future.result())
        self._running.clear()

    # Keeping.

    def _save(self) -> None:
        """Put on disk what only this process has, and let go of the claims on it."""
        started = time.monotonic()
        try:
            self._write()
        finally:
            self._saved = time.monotonic()
            self._pause = max(SAVE_EVERY, SHARE * (self._saved - started))

    def _write(self) -> None:
        if self._alone:
            return
        try:
            for question in self.open:
                try:
                    question.ledger.save()
                except FileError:  # perhaps another process has answered it and deleted its folder just now
                    question.ledger.save()
        except FileError as problem:
            self._go_alone(str(problem))
            return
        running = {block for block, *_ in self._running.values()}
        for block in set(self._claims) - running:
            self._drop(block)

    def _conclude(self) -> None:
        """Every block is finished or claimed by others: answer what can be answered, else wait for them."""
        self._look()
        for question in list(self.open):
            if not all(map(question.ledger.has, range(len(self.blocks)))):
                continue
            if (found := self._store(question)) is not None:
                self._answer(question, found)
        if self.open:
            self._save()  # the others may be waiting for our blocks
            time.sleep(LOOK)

    def _look(self) -> None:
        """See what other processes have answered or finished."""
        for question in list(self.open):
            found = self.store.get(question.ledger.key, question.ledger.empty)
            if found is not None:
                question.ledger.clear()
                self._answer(question, found)
            else:
                question.ledger.refresh()

    def _answer(self, question: _Open, found: Statistic) -> None:
        self._answered.append((question, found))
        self.open.remove(question)

    def _store(self, question: _Open) -> Statistic | None:
        ledger = question.ledger
        found = beside(ledger.finish, len(self.blocks))
        if found is None:  # perhaps another process has stored the result and deleted the blocks just now
            found = self.store.get(ledger.key, ledger.empty)
            if found is None:
                self.say(f"a block of {name_of(ledger.key)} cannot be read and is computed again")
            return found
        try:
            self.store.put(ledger.key, found)
            ledger.clear()
        except FileError as problem:
            log.warning("statistic not stored: %s", problem)
            self.say(f"not stored: {problem}")
        return found

    def _go_alone(self, reason: str) -> None:
        log.warning("statistics under way are kept in memory only: %s", reason)
        self.say(f"kept in memory only: {reason}")
        self._alone = True
        self._release()

    def _drop(self, block: int) -> None:
        if lock := self._claims.pop(block, None):
            lock.release()

    def _release(self) -> None:
        for block in list(self._claims):
            self._drop(block)

    # How far.

    def _samples_finished(self) -> int:
        folded = self._folded()
        later = (len(block) for number, block in enumerate(self.blocks[folded:], folded) if self._has(number))
        return sum(map(len, self.blocks[:folded])) + sum(later)

    def _samples_done(self) -> int:
        return self._samples_finished() + self.crew.under_way()


def _wanted(questions: Sequence[_Open]) -> Wanted:
    wanted: dict[str, list[Statistic]] = {}
    for question in questions:
        wanted.setdefault(question.layer, []).append(question.ledger.empty)
    return wanted


def _add(block: int, questions: Sequence[_Open], found: Answers) -> None:
    for question, statistic in zip(questions, _in_order(found, questions), strict=True):
        question.ledger.add(block, statistic)


def _in_order(found: Answers, questions: Sequence[_Open]) -> list[Statistic]:
    """The answers in the order of the questions that `_wanted` was given."""
    rest = {layer: iter(statistics) for layer, statistics in found.items()}
    return [next(rest[question.layer]) for question in questions]
