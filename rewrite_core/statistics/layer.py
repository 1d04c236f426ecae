"""What an edit needs to know of a layer: the second moment of its keys, and a sample of them.

The second moment (over 1,000 samples by default) comes from the store. The sample is the whole key maps of up to 100
pictures: it gives the exact expected change elsewhere for any kernel and stride, and the distribution of each unit.
It is quick to draw again and large, so it is kept by whoever holds this value, not on disk.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rewrite_core.generators import EPSILON, Generator, LatentSpec, LayerInput, Progress
from rewrite_core.generators.generator import joined
from rewrite_core.statistics.gather import fetch
from rewrite_core.statistics.second_moment import SecondMoment
from rewrite_core.statistics.store import Store

__all__ = ["SAMPLES", "LayerStatistics", "layer_statistics"]

SAMPLES = 1000
"""Pictures that the second moment is over, as published."""
SAMPLED_PICTURES, SAMPLED_BYTES = 100, 256 << 20
"""The key sample holds at most this many pictures and bytes."""
RESPONSES_BYTES = 128 << 20
"""And the responses of a demodulated layer this many."""


@dataclass(frozen=True, eq=False)
class LayerStatistics:
    """Statistics of one layer of one (pristine) generator.

    Attributes:
        second_moment: C = E[k kᵀ], [C, C] float64.
        sample: the first M seeds stopped at the layer, keys [M, C, h, w], on the generator's device.
        responses: ``respond(k, W)`` [m, O, H, W] of the first m ≤ M of them where the layer is demodulated; else m = 0.
        power: mean ‖respond(k, W)‖² over output positions of the sample, demodulated where the layer is.
    """

    layer: str
    fingerprint: str
    second_moment: Tensor
    sample: LayerInput
    responses: Tensor
    power: float


@torch.no_grad()
def layer_statistics(
    generator: Generator,
    layer: str,
    *,
    store: Store | None = None,
    samples: int = SAMPLES,
    moment: SecondMoment | None = None,
    progress: Progress | None = None,
) -> LayerStatistics:
    """Gather them; the second moment, unless it is given, from `store` (the default one if not given) or by a sweep.

    Raises:
        LayerError: if there is no such layer.
        RequestError: if `samples` is not positive.
        Cancelled: from `progress`.
    """
    found = generator.layer(layer)
    pristine = generator.pristine
    if moment is None:
        spec = LatentSpec.of(range(samples))
        moment = fetch(pristine, layer, spec, SecondMoment(), store=store, progress=progress)
    size = 4 * found.in_channels * found.key_size[0] * found.key_size[1]
    count = min(samples, SAMPLED_PICTURES, max(1, SAMPLED_BYTES // size))
    weight, power = pristine.weight(layer), 0.0
    parts: list[LayerInput] = []
    responses: list[Tensor] = []
    kept = RESPONSES_BYTES // (4 * found.out_channels * found.value_size[0] * found.value_size[1])
    for block in LatentSpec.of(range(count)).blocks(pristine.micro_batch):
        parts.append(at := pristine.keys(pristine.latents(block), layer))
        response = pristine.respond(layer, at.keys, weight)  # [N, O, H, W]
        energy = pristine.energy(at, weight)  # [N, O]
        gains = torch.ones(1, device=weight.device) if energy is None else 1 / (energy + EPSILON)
        power += float((response.square().mean((2, 3)) * gains).sum()) / count
        if energy is not None:
            responses.append(response[: max(0, kept - sum(len(drawn) for drawn in responses))])
    return LayerStatistics(
        layer,
        pristine.fingerprint,
        moment.matrix,
        sample=joined(parts),
        responses=torch.cat(responses)
        if responses
        else torch.empty(0, found.out_channels, *found.value_size),
        power=power,
    )
