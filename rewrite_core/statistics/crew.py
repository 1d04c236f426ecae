"""Who computes the blocks of a pass: the lanes of one device or several, and fewer of them when memory runs out.

No number of lanes changes a result (`rewrite_core.generators.lanes`).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from queue import SimpleQueue

import torch

from rewrite_core.errors import Cancelled, RequestError
from rewrite_core.generators import Generator, LatentSpec
from rewrite_core.generators.lanes import Lanes
from rewrite_core.statistics.sweep import Answers, Wanted, see

__all__ = ["Crew", "devices_of"]


class Crew:
    """The lanes of all devices; a block on a GPU has a stream of its own.

    Attributes:
        lanes: how many blocks to compute at once, at most.
    """

    def __init__(self, generator: Generator, devices: Sequence[torch.device]) -> None:
        self._free: SimpleQueue[tuple[Lanes, Generator]] = SimpleQueue()
        self._all = [Lanes(generator, device) for device in devices]
        self.lanes = sum(lanes.count for lanes in self._all)
        for lanes, device in zip(self._all, devices, strict=True):
            replica = generator.on(device)
            for _ in range(lanes.count):
                self._free.put((lanes, replica))
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._under_way: dict[int, int] = {}  # thread → samples of its block that are done

    def see(self, block: LatentSpec, wanted: Wanted) -> Future[Answers]:
        """Compute `block` in a free lane, of which there is one while fewer than `lanes` blocks are under way."""
        lanes, replica = self._free.get()
        return lanes.submit(self._see, lanes, replica, block, wanted)

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
        """Wait for the blocks that have begun."""
        for lanes in self._all:
            lanes.close()

    def _see(self, lanes: Lanes, replica: Generator, block: LatentSpec, wanted: Wanted) -> Answers:
        lane = threading.get_ident()
        try:
            stream = torch.cuda.Stream(replica.device) if replica.device.type == "cuda" else None
            with torch.cuda.stream(stream) if stream else nullcontext():
                return see(replica, block, wanted, lambda samples: self._advance(lane, samples))
        except RuntimeError as problem:
            if "DefaultCPUAllocator" in str(problem):  # torch's own type for it is for GPUs
                raise MemoryError("DefaultCPUAllocator") from None
            raise
        finally:
            self._free.put((lanes, replica))
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
