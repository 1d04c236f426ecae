"""A layer as the published code cuts it out, and the noise it draws there.

Noise depends on shapes alone: every call of a layer gets the first numbers of ``RandomState(0)``, a row for each place
in the batch. So a picture depends on its place, and a crop has the noise of a small map, not a part of the large one's.

Of the three splits, ``usual`` has the keys and values of `Generator`. ``tiny`` ends after the demodulation: its values
lack noise, bias and activation (for layers that upsample the published one also ends before the blur, which is part of
the response here). ``pre`` begins before the modulation: its keys ``x = k / s`` are what C and D are made of; the
values are the usual ones. Without styles, in ProgGAN, the three are the same.

Keys [N, C, h, w], values [N, O, H, W], weights [O, C, kh, kw].
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from rewrite_core.generators import (
    EPSILON,
    Generator,
    Latents,
    LatentSpec,
    Layer,
    LayerInput,
    StyleGAN2Generator,
)
from rewrite_core.rules.published.settings import Split

__all__ = ["PublishedNoise", "as_published", "batches", "drawn", "memory_keys", "published_noise"]

BATCH = 10
"""Pictures drawn together while statistics are gathered: it decides their noise."""


def published_noise(count: int, size: tuple[int, int]) -> Tensor:
    """Noise [N, 1, H, W] of any call with this batch and this map."""
    rows = np.random.RandomState(0).randn(count, size[0] * size[1])
    return torch.from_numpy(rows.astype(np.float32)).reshape(count, 1, *size)  # [N, 1, H, W]


class PublishedNoise:
    """`published_noise` as a noise source of StyleGAN2: what a picture is given depends on its place in the batch."""

    kind = "published"

    def __call__(self, layer: Layer, latents: Latents) -> Tensor:
        """[N, 1, H, W] on the CPU."""
        return published_noise(len(latents), layer.value_size)


def as_published(generator: Generator) -> Generator:
    """The pristine generator with the published noise, where it has noise at all."""
    pristine = generator.pristine
    return pristine.with_noise(PublishedNoise()) if isinstance(pristine, StyleGAN2Generator) else pristine


def batches(generator: Generator, layer: str, pictures: int) -> Iterator[LayerInput]:
    """The first `pictures` rows of the published latents, stopped at `layer` ten at a time."""
    for block in LatentSpec.of(range(pictures), "rows").blocks(BATCH):
        yield generator.keys(generator.latents(block), layer)


def memory_keys(at: LayerInput, split: Split) -> Tensor:
    """The keys that C and D are made of."""
    style = at.rest.get("style")
    return at.keys / style[:, :, None, None] if split == "pre" and style is not None else at.keys


def drawn(generator: Generator, at: LayerInput, weight: Tensor, split: Split) -> Tensor:
    """The values that `weight` draws; the gradient flows through the demodulation too."""
    response, energy = generator.respond(at.layer, at.keys, weight), generator.energy(at, weight)
    if split == "tiny" and energy is not None:
        return response * torch.rsqrt(energy + EPSILON)[:, :, None, None]
    return generator.finish(at, response, energy)
