"""Processes of their own that gather, or hold a claim, for tests that start several of them or kill them.

They are forked from a server that has loaded torch already, so that starting one takes a moment and not seconds.
Whatever a `Worker` draws it notes in its folder's ``drawn`` file as it goes, which survives its end.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import torch

from rewrite_core.errors import FileError
from rewrite_core.generators import LatentSpec
from rewrite_core.statistics import Batch, SecondMoment, Store, gather
from rewrite_core.statistics.key import Key
from rewrite_core.statistics.ledger import Ledger, claim
from rewrite_core.statistics.sweep import Answers, Wanted, sweep
from tests.generators import PLAIN, UP
from tests.roll import Counted, Roll, engine, wide_generator

__all__ = ["Claimant", "Pruner", "Worker", "digest", "drawn_in", "expected", "wanted"]

NOBODY = 65534

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tests.killed"])


def wanted(ask: str) -> Wanted:
    """What a worker asks for: of layer `ask`, or of both."""
    layers = [UP, PLAIN] if ask == "both" else [ask]
    return {layer: [SecondMoment(), Roll()] for layer in layers}


@lru_cache
def expected(samples: int, ask: str = "both") -> dict[str, str]:
    """The digests of a whole pass in memory, in this process."""
    return digest(sweep(wide_generator(), LatentSpec.of(range(samples)), wanted(ask)))


def digest(answers: Answers) -> dict[str, str]:
    """A hash of every bit of every answer, by layer and kind."""
    found = {}
    for layer, statistics in answers.items():
        for statistic in statistics:
            sha = hashlib.sha256()
            for name, tensor in sorted(statistic.state().items()):
                sha.update(name.encode() + tensor.numpy().tobytes())
            found[f"{layer} {statistic.kind}"] = sha.hexdigest()
    return found


def drawn_in(folder: Path) -> int:
    """How many samples the workers of `folder` have drawn, those that were killed included."""
    path = folder / "drawn"
    return sum(map(int, path.read_text().split())) if path.exists() else 0


@contextmanager
def _no_main() -> Iterator[None]:
    """Without a main module: a process would run its file again, and a test of a page leaves the page's there."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


class _Process:
    """A process and the pipe to it; as a context it is killed at the end."""

    def __init__(self, work: Callable[..., None], *arguments: object) -> None:
        self.pipe, theirs = _processes.Pipe()
        self.process = _processes.Process(target=work, args=(theirs, *arguments), daemon=True)
        with _no_main():
            self.process.start()
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None:
        self.kill()
        self.pipe.close()
        self.process.close()

    def ready(self) -> Self:
        """Wait until it has reached the point where it says so."""
        assert self.pipe.recv() == "ready"
        return self

    def kill(self) -> bool:
        """``kill -9``; whether that is what ended it, and not the end of its work."""
        self.process.kill()
        self.process.join()
        return self.process.exitcode == -signal.SIGKILL


class Worker(_Process):
    """A process that is `ready` to gather into ``folder/statistics`` (or `store`), and does on `go`."""

    def __init__(
        self,
        folder: Path,
        samples: int = 1000,
        ask: str = "both",
        *,
        save: float = 0.05,
        store: Path | None = None,
        unprivileged: bool = False,
    ) -> None:
        super().__init__(_work, folder, samples, ask, save, store or folder / "statistics", unprivileged)

    def go(self) -> Self:
        """Let it start."""
        self.pipe.send("go")
        return self

    def answer(self, timeout: float = 100) -> dict[str, Any]:
        """Wait for digests of its answers, samples it drew, seconds, and what it said."""
        assert self.pipe.poll(timeout)
        found: dict[str, Any] = self.pipe.recv()
        self.process.join()
        return found


class Claimant(_Process):
    """A process that holds the claim on a block once it is `ready`."""

    def __init__(self, folder: Path, samples: Key, block: int) -> None:
        super().__init__(_hold, folder, samples, block)


class _Noting(Counted):
    """Notes what it draws in a file as well."""

    path: Path

    def note(self, seeds: Sequence[int]) -> None:
        super().note(seeds)
        with self.path.open("a") as file:  # one short write: whole, whoever else appends
            file.write(f"{len(seeds)}\n")


def _work(
    pipe: Connection, folder: Path, samples: int, ask: str, save: float, store: Path, unprivileged: bool
) -> None:
    torch.set_num_threads(1)
    vars(engine("gather"))["SAVE_EVERY"] = save  # the passes of tests are short
    generator = _Noting.of(wide_generator())
    generator.path = folder / "drawn"
    said: list[str] = []
    if unprivileged and os.getuid() == 0:
        os.setuid(NOBODY)  # root may read and write anything
    pipe.send("ready")
    pipe.recv()
    started = time.perf_counter()
    answers = gather(
        generator, LatentSpec.of(range(samples)), wanted(ask), store=Store(store), say=said.append
    )
    seconds = time.perf_counter() - started
    pipe.send({"digest": digest(answers), "drawn": len(generator.drawn), "seconds": seconds, "said": said})


def _hold(pipe: Connection, folder: Path, samples: Key, block: int) -> None:
    lock = claim(Store(folder), samples, block)
    pipe.send("ready" if lock else "claimed by another")
    pipe.recv()


class Pruner(_Process):
    """A process that puts, reads, lists, prunes and deletes in one folder for a while."""

    def __init__(self, folder: Path, seed: int) -> None:
        super().__init__(_prune, folder, seed)

    def outcome(self) -> str:
        """``fine``, or what went wrong."""
        found: str = self.pipe.recv()
        return found


def _prune(pipe: Connection, folder: Path, seed: int) -> None:
    chance, store = random.Random(seed), Store(folder, limit_bytes=4000)
    try:
        for _ in range(60):
            key = {"number": chance.randrange(8)}
            store.put(key, SecondMoment().update(Batch.of(torch.full((1, 4, 2, 2), float(key["number"])))))
            found = store.get(key, SecondMoment())
            assert found is None or float(found.mean[0]) == key["number"]
            ledger = Ledger(store, key, SecondMoment())
            ledger.add(0, SecondMoment())
            with suppress(FileError):  # another process has deleted the folder just now
                ledger.save()
            ledger.clear()
            entries = store.entries()
            if entries and chance.random() < 0.2:
                store.delete(chance.choice(entries))
            store.size()
    except Exception as problem:
        pipe.send(repr(problem))
    else:
        pipe.send("fine")
