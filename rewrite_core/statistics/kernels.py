"""Compiled kernels, where numba is installed; without it the same counts come from plain torch, more slowly.

A kernel is a module that imports numba at its top (``*_kernel.py``) and is loaded when it is first used, so that the
engine neither needs numba nor waits for it. Kernels release the interpreter's lock and run on as many threads as torch
does; each thread has its own range of units or pictures, so counts do not depend on how many there are. They are
given arrays, numbers and plain tuples only: numba's cache of compiled code would keep the place of a class of ours.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache, partial
from importlib import import_module
from types import ModuleType

import torch

__all__ = ["kernel", "spread"]

FUNCTIONS = 4
"""Compiled functions in a kernel, at most: each fails once to be kept on a full disk, and is there all the same."""


@lru_cache
def kernel(name: str) -> ModuleType | None:
    """The module ``rewrite_core.statistics.<name>_kernel``, or None where numba is missing."""
    try:
        return import_module(f"rewrite_core.statistics.{name}_kernel")
    except (ImportError, RuntimeError):  # missing, or no folder to keep compiled code in
        return None


def spread(work: Callable[[int, int], None], count: int) -> None:
    """Call ``work(first, end)`` for ranges that cover 0 … count, on torch's number of threads."""
    threads = torch.get_num_threads()
    ranges = max(1, min(threads, count))
    edges = [count * part // ranges for part in range(ranges + 1)]
    if ranges == 1:
        _run(work, 0, count)
        return
    for _ in _pool(threads).map(partial(_run, work), edges[:-1], edges[1:]):
        pass


def _run(work: Callable[[int, int], None], first: int, end: int) -> None:
    """Call ``work(first, end)``; a full disk, where numba cannot keep what it has compiled, is no reason to stop.

    That fails before anything is counted, once for each compiled function, which is in memory afterwards.
    """
    for _ in range(FUNCTIONS):
        with suppress(OSError):
            work(first, end)
            return
    work(first, end)


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "palimpsest-kernel")
