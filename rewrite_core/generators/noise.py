"""Where a StyleGAN2 layer's noise comes from: never from a picture's place in its batch.

A source maps a layer and a batch of latents to one map a picture, [N, 1, H, W], or to one that all share,
[1, 1, H, W]. The layer scales it by a strength it has learned and adds it to every channel. The published code drew
it anew for every call from the batch's shape alone, so a picture depended on its neighbours.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from rewrite_core.generators.generator import Layer
from rewrite_core.generators.latents import Latents

__all__ = ["NoNoise", "NoiseSource", "SeededNoise", "StoredNoise"]


class NoiseSource(Protocol):
    """Noise of a layer's value map for a batch of pictures."""

    @property
    def kind(self) -> str:
        """Names the source in a generator's fingerprint: sources that differ must be of different kinds."""
        ...

    def __call__(self, layer: Layer, latents: Latents) -> Tensor:
        """[N, 1, H, W], or [1, 1, H, W] where all pictures share it; float32, on any device."""
        ...


@dataclass(frozen=True, eq=False)
class StoredNoise:
    """The checkpoint's own maps, layer name → [1, 1, H, W], the same for every picture."""

    maps: Mapping[str, Tensor]
    kind: ClassVar[str] = "stored"

    def __call__(self, layer: Layer, latents: Latents) -> Tensor:
        """The layer's map [1, 1, H, W]."""
        return self.maps[layer.name]


@dataclass(frozen=True)
class NoNoise:
    """None at all: zero everywhere."""

    kind: ClassVar[str] = "none"

    def __call__(self, layer: Layer, latents: Latents) -> Tensor:
        """[1, 1, H, W] of zeros on the CPU."""
        return torch.zeros(1, 1, *layer.value_size)


@dataclass(frozen=True)
class SeededNoise:
    """Standard normal from (seed, layer), a stream that numpy keeps frozen: each picture has its own in every batch."""

    kind: ClassVar[str] = "seeded"

    def __call__(self, layer: Layer, latents: Latents) -> Tensor:
        """[N, 1, H, W] on the CPU."""
        place = zlib.crc32(layer.name.encode())
        maps = [
            np.random.RandomState([seed, place]).randn(1, *layer.value_size) for seed in latents.spec.seeds
        ]
        return torch.from_numpy(np.array(maps, np.float32).reshape(-1, 1, *layer.value_size))
