"""The threads that compute the blocks of a pass: how many, on which devices, and what happens when memory runs out.

One block at a time on a CPU, whose threads it uses all; two on each GPU, so that one is drawn while the other's latents
travel; as many as have room. No number of them changes a result.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from queue import SimpleQueue

import torch

from rewrite_core.errors import Cancelled, RequestError
from rewrite_core.generators import Generator, LatentSpec
from rewrite_core.generators.footprint import footprint, free_memory
from rewrite_core.statistics.sweep import Answers, Wanted, see

__all__ = ["Crew", "devices_of", "lanes_for"]

LANES_CUDA = 2


class Crew:
    """Threads that compute blocks, each with its own stream, on one device or several."""

    def __init__(self, generator: Generator, devices: Sequence[torch.device]) -> None:
        self._replicas: SimpleQueue[Generator] = SimpleQueue()
        self.lanes = 0
        for device in devices:
            replica = generator.on(device)
            for _ in range(lanes_for(generator, device)):
                self._replicas.put(replica)
                self.lanes += 1
        # A thread takes over torch's number of threads, and with it the last bits, when it first asks for it.
        self._pool = ThreadPoolExecutor(self.lanes, "palimpsest-sweep", initializer=torch.get_num_threads)
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._under_way: dict[int, int] = {}  # thread → samples of its block that are done

    def see(self, block: LatentSpec, wanted: Wanted) -> Future[Answers]:
        """Compute `block` as soon as a lane is free."""
        return self._pool.submit(self._see, block, wanted)

    def under_way(self) -> int:
        """Samples done of the blocks that are not finished."""
        with self._lock:
            return sum(self._under_way.values())

    def shrink(self, problem: BaseException, lanes: int) -> None:
        """Compute one block less at a time than when there was too little memory, with `lanes` of them.

        Raises:
            RequestError: if that was a single one.
        """
        if lanes == 1:
            raise RequestError(
                found=f"out of memory ({str(problem).partition('.')[0] or 'no more to allocate'})",
                expected="room for one micro-batch",
                remedy="Close other programs on that device, or use another one.",
            ) from None
        self.lanes = min(self.lanes, lanes - 1)

    def stop(self) -> None:
        """Stop every block at its next micro-batch."""
        self._stopped.set()

    def close(self) -> None:
        """Wait for the threads to end."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _see(self, block: LatentSpec, wanted: Wanted) -> Answers:
        lane = threading.get_ident()
        replica = self._replicas.get()
        try:
            stream = torch.cuda.Stream(replica.device) if replica.device.type == "cuda" else None
            with torch.cuda.stream(stream) if stream else nullcontext():
                return see(replica, block, wanted, lambda samples: self._advance(lane, samples))
        except RuntimeError as problem:
            if "DefaultCPUAllocator" in str(problem):  # torch's own type for it is for GPUs
                raise MemoryError("DefaultCPUAllocator") from None
            raise
        finally:
            self._replicas.put(replica)
            with self._lock:
                self._under_way.pop(lane, None)

    def _advance(self, lane: int, samples: int) -> None:
        if self._stopped.is_set():
            raise Cancelled
        with self._lock:
            self._under_way[lane] = self._under_way.get(lane, 0) + samples


def devices_of(generator: Generator) -> list[torch.device]:
    """The device that the generator is on; if that is a GPU, every GPU that this process may use."""
    if generator.device.type != "cuda":
        return [generator.device]
    return [torch.device("cuda", number) for number in range(torch.cuda.device_count())]


def lanes_for(generator: Generator, device: torch.device) -> int:
    """How many blocks to compute at once on `device`, at least one: as many as are of use and have room."""
    if device.type != "cuda":
        return 1
    free = free_memory(device)
    return LANES_CUDA if free is None else max(1, min(LANES_CUDA, free // footprint(generator).drawing))
