"""Where a query matches: its heat over many pictures, which of them show it most, and the level that outlines it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from rewrite_core.generators import Generator, LatentSpec, Progress
from rewrite_core.memory import heat, level, rank_images, score

__all__ = ["OUTLINE", "Matches", "matches"]

OUTLINE = 0.999
"""Overlays outline what exceeds this quantile of the heat over all positions of all samples, as published."""


@dataclass(frozen=True, eq=False)
class Matches:
    """Heat [N, h, w] of a query over the pictures of `spec`, on the CPU; what is outside a picture is left out."""

    spec: LatentSpec
    heat: Tensor

    def top(self, count: int) -> list[int]:
        """The pictures (seeds) that match best, best first; of equals the earlier one first."""
        return [self.spec.seeds[index] for index in rank_images(score(self.heat), count).tolist()]

    def level(self, quantile: float = OUTLINE) -> float:
        """The exact quantile of the heat over all positions of all pictures."""
        return level(self.heat, quantile)

    @cached_property
    def outline(self) -> float:
        """The level that overlays outline, found once: a page asks for it in every run."""
        return self.level()

    def of(self, seed: int) -> Tensor:
        """The heat map [h, w] of one picture."""
        return self.heat[self.spec.seeds.index(seed)]


@torch.no_grad()
def matches(
    generator: Generator, layer: str, query: Tensor, spec: LatentSpec, progress: Progress | None = None
) -> Matches:
    """Heat of `query` [C] at `layer` over every picture of `spec`.

    Raises:
        Cancelled: from `progress`.
    """
    grid = generator.layer(layer)
    done, maps = 0, [grid.inside(torch.empty(0, *grid.key_size))]
    for block in spec.blocks(generator.micro_batch):
        keys = generator.keys(generator.latents(block), layer).keys  # [N, C, h, w]
        maps.append(heat(grid.inside(keys), query).cpu())  # [N, h, w]
        done += len(block)
        if progress:
            progress(done, len(spec))
    return Matches(spec, torch.cat(maps))
