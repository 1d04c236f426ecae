"""One pass over the samples feeds every statistic of every layer asked for.

The pass runs in fixed micro-batches, so the same samples give bit-identical statistics at one thread count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from rewrite_core.generators import Generator, LatentSpec, Progress
from rewrite_core.statistics.statistic import Statistic

__all__ = ["sweep"]


@torch.no_grad()
def sweep(
    generator: Generator,
    spec: LatentSpec,
    wanted: Mapping[str, Sequence[Statistic]],
    progress: Progress | None = None,
) -> dict[str, list[Statistic]]:
    """Update the statistics `wanted` of each layer (name → fresh statistics) with the keys of every sample in `spec`.

    Raises:
        Cancelled: from `progress`.
    """
    seen = {layer: list(statistics) for layer, statistics in wanted.items()}
    done = 0
    for block in spec.blocks(generator.micro_batch):
        stopped = generator.inputs(generator.latents(block), list(seen))
        for layer, at in stopped.items():
            seen[layer] = [statistic.update(at.keys) for statistic in seen[layer]]
        done += len(block)
        if progress:
            progress(done, len(spec))
    return seen
