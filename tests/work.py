"""Work for jobs that tests can wait for and let go: no test sleeps until something has probably happened."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from rewrite_core.jobs import Progress

__all__ = ["WAIT", "Gate", "answer", "fail", "torch_threads"]

WAIT = 10.0


class Gate:
    """Work that reports one step and then waits to be let through."""

    def __init__(self, steps: int = 4) -> None:
        self.steps, self.started, self.opened = steps, threading.Event(), threading.Event()

    def __call__(self, progress: Progress) -> str:
        progress(0, self.steps)
        progress(1, self.steps)
        self.started.set()
        assert self.opened.wait(WAIT)
        progress(self.steps, self.steps)
        return "through"


def answer(progress: Progress) -> int:
    progress(1, 1)
    return 42


def fail(error: Exception) -> Callable[[Progress], None]:
    def work(progress: Progress) -> None:
        raise error

    return work


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """As on a machine where torch has `count` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
