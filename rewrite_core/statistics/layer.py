"""What an edit needs to know of a layer: the second moment of its keys, and a sample of them.

The second moment (over 1,000 samples by default) comes from the store. The sample is the whole key maps of up to 100
pictures: it gives the exact expected change elsewhere for any kernel and stride, and the distribution of each unit.
It is quick to draw again and large, so it is kept by whoever holds this value, not on disk.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rewrite_core.errors import RequestError
from rewrite_core.generators import Generator, LatentSpec, Progress
from rewrite_core.statistics.second_moment import SecondMoment
from rewrite_core.statistics.store import Store, default_store

__all__ = ["SAMPLES", "LayerStatistics", "layer_statistics"]

SAMPLES = 1000
"""Pictures that the second moment is over, as published."""
SAMPLED_PICTURES, SAMPLED_BYTES = 100, 256 << 20
"""The key sample holds at most this many pictures and bytes."""


@dataclass(frozen=True, eq=False)
class LayerStatistics:
    """Statistics of one layer of one (pristine) generator.

    Attributes:
        second_moment: C = E[k kᵀ], [C, C] float64.
        sample: keys [M, C, h, w] of the first M seeds, on the generator's device.
        power: E‖respond(k, W)‖² over the sample's output positions.
    """

    layer: str
    fingerprint: str
    second_moment: Tensor
    sample: Tensor
    power: float


@torch.no_grad()
def layer_statistics(
    generator: Generator,
    layer: str,
    *,
    store: Store | None = None,
    samples: int = SAMPLES,
    progress: Progress | None = None,
) -> LayerStatistics:
    """Gather them, the second moment from `store` (the default one if not given) or by a sweep that is then stored.

    Raises:
        LayerError: if there is no such layer.
        RequestError: if `samples` is not positive.
        Cancelled: from `progress`.
    """
    found = generator.layer(layer)
    if samples < 1:
        raise RequestError(
            found=f"{samples} samples", expected="at least 1", remedy="1,000 is a sound number."
        )
    pristine = generator.pristine
    spec = LatentSpec.of(range(samples))
    moment = (store or default_store()).fetch(pristine, layer, spec, SecondMoment(), progress).matrix
    size = 4 * found.in_channels * found.key_size[0] * found.key_size[1]
    count = min(samples, SAMPLED_PICTURES, max(1, SAMPLED_BYTES // size))
    weight, keys, power = pristine.weight(layer), [], 0.0
    for block in LatentSpec.of(range(count)).blocks(pristine.micro_batch):
        keys.append(pristine.keys(pristine.latents(block), layer).keys)
        response = pristine.respond(layer, keys[-1], weight)  # [N, O, H, W]
        power += float(response.square().sum(1).mean()) * len(block) / count
    return LayerStatistics(layer, pristine.fingerprint, moment, torch.cat(keys), power)
