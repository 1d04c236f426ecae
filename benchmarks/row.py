"""One line of the benchmark table, and how times are taken.

A time is the best of several runs, each side at its best number of threads: these are minima of the same work on the
same machine in one process, so their ratio holds when the machine's absolute speed does not.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

__all__ = ["Row", "each_thread_count", "best_seconds"]


@dataclass(frozen=True)
class Row:
    """`ours` against `other` in the same unit; `holds` says whether the `goal` is met."""

    name: str
    ours: float
    other: float
    ratio: float
    goal: str
    holds: bool


def best_seconds(work: Callable[[], object], runs: int = 7) -> tuple[float, int]:
    """The least seconds of `runs` runs after one warm-up, over 1, 2, … cores' threads; and with how many threads."""
    work()
    return min((min(_seconds(work) for _ in range(runs)), threads) for threads in each_thread_count())


def each_thread_count() -> Iterator[int]:
    """Set torch to 1, 2, 4 … threads up to the cores, one after the other; afterwards to what it was."""
    before, cores = torch.get_num_threads(), os.cpu_count() or 1
    try:
        for threads in (1, 2, 4, 8, 16, 32):
            if threads <= cores:
                torch.set_num_threads(threads)
                yield threads
    finally:
        torch.set_num_threads(before)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
