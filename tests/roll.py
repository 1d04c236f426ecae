"""What tests of the statistics engine share: a statistic that forgets nothing, and a generator that counts."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from rewrite_core.generators import LayerInput, SequentialGenerator, from_sequential
from rewrite_core.generators.latents import Latents
from rewrite_core.statistics import Batch, Needs, Statistic
from rewrite_core.statistics.sweep import Answers
from tests.generators import seeded, small_generator

__all__ = ["Counted", "Roll", "engine", "same", "wide_generator"]


def engine(name: str) -> ModuleType:
    """A module of the statistics engine (the package's attribute `gather` is the function of that name)."""
    return importlib.import_module(f"rewrite_core.statistics.{name}")


@dataclass(frozen=True, eq=False)
class Roll(Statistic):
    """Which pictures were seen, in the order of seeing them, and the sum of each one's keys.

    It shows a block that is missing, counted twice or out of order, and a bit that differs in any one picture.
    """

    seeds: Tensor | None = None
    """[N] int64"""
    sums: Tensor | None = None
    """[N, C] float32"""
    labels: Any = None

    kind: ClassVar[str] = "roll"
    version: ClassVar[int] = 1

    def needs(self) -> Needs:
        return Needs(labeller=self.labels)

    def parameters(self) -> Mapping[str, Any]:
        return {"labels": self.labels.identity()} if self.labels else {}

    def update(self, batch: Batch) -> Self:
        sums = batch.keys.sum((2, 3))  # [N, C]
        if batch.labels is not None:
            sums = batch.labels.float().sum((2, 3))  # [N, L]
        seen = type(self)(torch.tensor(batch.seeds), sums, self.labels)
        return self.merge(seen)

    def merge(self, other: Self) -> Self:
        if self.seeds is None or self.sums is None:
            return other
        if other.seeds is None or other.sums is None:
            return self
        seeds, sums = torch.cat([self.seeds, other.seeds]), torch.cat([self.sums, other.sums])
        return type(self)(seeds, sums, self.labels)

    def state(self) -> dict[str, Tensor]:
        if self.seeds is None or self.sums is None:
            return {}
        return {"seeds": self.seeds, "sums": self.sums}

    def restore(self, state: Mapping[str, Tensor]) -> Self:
        if not state:
            return type(self)(labels=self.labels)
        if len(state["seeds"]) != len(state["sums"]):
            raise ValueError("a roll of two lengths")
        return type(self)(state["seeds"], state["sums"], self.labels)

    def summary(self) -> Mapping[str, Any]:
        return {"samples": 0 if self.seeds is None else len(self.seeds)}


class Counted(SequentialGenerator):
    """A generator that notes the seeds it draws keys for, and can be given another micro-batch."""

    size = 0
    drawn: list[int]
    passes: list[tuple[str, ...]]

    @classmethod
    def of(cls, plain: SequentialGenerator | None = None, size: int = 0) -> Self:
        """`plain` (by default the small generator), counted."""
        plain = plain or small_generator()
        assert isinstance(plain.network, nn.Sequential)
        counted = cls(plain.network, name=plain.name, latent=plain.latent, output_range=plain.output_range)
        counted.size, counted.drawn, counted.passes = size, [], []
        return counted

    @property
    def micro_batch(self) -> int:
        return self.size or super().micro_batch

    def inputs(self, latents: Latents, layers: Sequence[str]) -> dict[str, LayerInput]:
        self.note(latents.spec.seeds)
        self.passes.append(tuple(layers))
        return super().inputs(latents, layers)

    def note(self, seeds: Sequence[int]) -> None:
        """Called before each pass through the network."""
        self.drawn.extend(seeds)


def wide_generator() -> SequentialGenerator:
    """Layers ``up`` and ``plain`` again, at about a millisecond a picture."""
    stack = nn.Sequential()
    stack.add_module("start", nn.Linear(8, 64 * 8 * 8))
    stack.add_module("grid", nn.Unflatten(1, (64, 8, 8)))
    stack.add_module("up", nn.ConvTranspose2d(64, 64, 4, stride=2, padding=1))  # [64, 16, 16]
    stack.add_module("act1", nn.ReLU(inplace=True))
    stack.add_module("plain", nn.Conv2d(64, 64, 3, padding=1))  # [64, 16, 16]
    stack.add_module("act2", nn.ReLU())
    stack.add_module("last", nn.Conv2d(64, 3, 1))
    stack.add_module("act3", nn.Tanh())
    return from_sequential(seeded(stack), name="wide")


def same(ours: Answers, theirs: Answers) -> bool:
    """Whether two sets of answers are equal to the bit."""
    return list(ours) == list(theirs) and all(
        len(ours[layer]) == len(theirs[layer]) and all(map(_same, ours[layer], theirs[layer]))
        for layer in ours
    )


def _same(one: Statistic, other: Statistic) -> bool:
    ours, theirs = one.state(), other.state()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
