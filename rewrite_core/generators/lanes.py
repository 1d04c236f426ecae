"""Lanes: threads in which micro-batches of samples are computed at once.

On a CPU there are as many as torch has threads, each with one thread of torch's. Two micro-batches side by side are
done sooner than one after the other by two threads, which wait for each other at the end of every operation; and what
one thread computes is the same to the bit whatever the number of lanes. On a GPU there are two, so that one micro-batch
is drawn while another's latents travel. In either case no more than have room.

The CPU's lanes belong to the process: whatever asks for some at the same time shares them. What is done beside them,
such as folding what they have found, is done `beside` by one more such thread: torch's own threads would go on spinning
for some milliseconds after each operation, and take the lanes' cores.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, ParamSpec, TypeVar

import torch

from rewrite_core.generators.footprint import footprint, free_memory
from rewrite_core.generators.generator import Generator

__all__ = ["Lanes", "beside"]

LANES_CUDA = 2

P = ParamSpec("P")
T = TypeVar("T")


class Lanes:
    """The lanes of one generator on one device.

    Attributes:
        count: how many are of use and have room, at least one; whoever submits keeps to it.
    """

    def __init__(self, generator: Generator, device: torch.device | None = None) -> None:
        device = device or generator.device
        shared = device.type == "cpu"
        useful = torch.get_num_threads() if shared else LANES_CUDA if device.type == "cuda" else 1
        free = free_memory(device)
        room = useful if free is None else free // (1 + shared) // footprint(generator).drawing
        self.count = max(1, min(useful, room))
        self._pool = _cpu(useful) if shared else ThreadPoolExecutor(self.count, "palimpsest-lane")
        self._shared = shared
        self._submitted: set[Future[Any]] = set()

    def submit(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call `work` as soon as a lane is free."""
        future = self._pool.submit(work, *args, **kwargs)
        self._submitted.add(future)
        future.add_done_callback(self._submitted.discard)
        return future

    def close(self) -> None:
        """Drop what has not begun, and wait for the rest."""
        submitted = list(self._submitted)
        for future in submitted:
            future.cancel()
        wait(submitted)
        if not self._shared:
            self._pool.shutdown()


def beside(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `work` in a thread that computes with one of torch's threads, and wait for it."""
    return _cpu(1, "palimpsest-beside").submit(work, *args, **kwargs).result()


_pools: dict[tuple[int, str], ThreadPoolExecutor] = {}
_making = threading.Lock()


def _cpu(count: int, name: str = "palimpsest-lane") -> ThreadPoolExecutor:
    """The process's `count` threads of that name, which compute with one thread of torch's each."""
    with _making:
        if (count, name) not in _pools:
            before = torch.get_num_threads()
            pool = ThreadPoolExecutor(count, name, initializer=_single)
            started = threading.Barrier(count + 1)
            for _ in range(count):
                pool.submit(started.wait)
            started.wait()
            torch.set_num_threads(
                before
            )  # else every thread that starts from now on would take over a lane's 1
            _pools[count, name] = pool
        return _pools[count, name]


def _single() -> None:
    torch.get_num_threads()  # a thread takes over the process's number when it first asks, so it has to ask first
    torch.set_num_threads(1)
