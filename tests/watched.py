"""A small real generator that tells what it was asked to draw, and waits to be let: for tests of who draws when."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Self

from rewrite_core.generators import LayerInput, SequentialGenerator
from rewrite_core.generators.flatten import flattened
from rewrite_core.generators.latents import Latents
from tests.generators import small_generator, small_stack
from tests.work import WAIT

__all__ = ["Watched"]


class Watched(SequentialGenerator):
    """The small generator; it notes what it is asked to draw, and draws only as many batches as it is let."""

    drawn: list[tuple[tuple[int, ...], tuple[str, ...]]]
    """Of each batch: its seeds, and the layers that it was stopped at."""
    busy: threading.Event
    """Somebody has asked for a batch."""
    _let: threading.Semaphore
    _opened: bool

    @classmethod
    def small(cls, seed: int = 0) -> Self:
        """From the weights of `small_stack`, waiting to be let."""
        plain = small_generator(seed)
        watched = cls(
            flattened(small_stack(seed)), name="small", latent=plain.latent, output_range=plain.output_range
        )
        watched.drawn, watched.busy = [], threading.Event()
        watched._let, watched._opened = threading.Semaphore(0), False
        return watched

    def let(self, batches: int) -> None:
        """Draw so many batches more."""
        self._let.release(batches)

    def open(self) -> None:
        """Draw without end."""
        self._opened = True
        self._let.release()

    def inputs(self, latents: Latents, layers: Sequence[str]) -> dict[str, LayerInput]:
        self.busy.set()
        assert self._opened or self._let.acquire(timeout=WAIT)
        self.drawn.append((latents.spec.seeds, tuple(layers)))
        return super().inputs(latents, layers)

    @property
    def samples(self) -> int:
        """How many samples were drawn so far."""
        return sum(len(seeds) for seeds, _ in self.drawn)

    @property
    def passes(self) -> list[int]:
        """How large the passes were, of samples from 0 in a single batch each."""
        return [len(seeds) for seeds, _ in self.drawn]
