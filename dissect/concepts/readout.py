"""A linear reading of feature maps: scores of concepts, for every pixel or for some.

The score of a concept is ``b + Σ_layers w_layer · enlarged keys``, with w [L, C] for each layer and b [L]. Enlarging is
linear and its weights add up to one, so both commute: the weights are applied to each layer at its own size, and only L
maps are enlarged where there were C. Layers of one size are added before they are enlarged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from dissect.concepts.features import at_pixels

__all__ = ["Readout"]


@dataclass(frozen=True, eq=False)
class Readout:
    """Weights [L, C] of each layer it reads, and the bias [L], float32 on the CPU."""

    weights: Mapping[str, Tensor]
    bias: Tensor

    @classmethod
    def stacked(cls, readouts: Sequence[Readout]) -> Readout:
        """Several that read the same layers as one: its scores [.., K · L] are theirs, one after the other."""
        layers = readouts[0].layers
        weights = {layer: torch.cat([each.weights[layer] for each in readouts]) for layer in layers}
        return cls(weights, torch.cat([each.bias for each in readouts]))

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that it reads."""
        return tuple(self.weights)

    @property
    def digest(self) -> str:
        """SHA-256 of layers, weights and bias."""
        content = hashlib.sha256()
        for name, tensor in (*self.weights.items(), ("", self.bias)):
            content.update(f"{name}{tuple(tensor.shape)}".encode())
            content.update(tensor.contiguous().numpy().astype("<f4", copy=False).tobytes())
        return content.hexdigest()

    def __call__(self, maps: Mapping[str, Tensor], size: tuple[int, int]) -> Tensor:
        """Scores [N, L, H, W] at `size` of maps [N, C, h, w] by layer."""
        small: dict[torch.Size, Tensor] = {}
        for layer in self.layers:
            read = self._read(layer, maps[layer])  # [N, L, h, w]
            grid = read.shape[2:]
            small[grid] = small[grid] + read if grid in small else read
        total = self.bias.to(read.device)[:, None, None]  # [L, 1, 1]
        for read in small.values():
            total = total + functional.interpolate(read, size, mode="bilinear", align_corners=False)
        return total

    def at(self, maps: Mapping[str, Tensor], pixels: Tensor, size: tuple[int, int]) -> Tensor:
        """Scores [P, L] of one picture's maps [C, h, w] at `pixels` [P, 2] (row, column) of `size`."""
        total = self.bias.to(pixels.device).expand(len(pixels), -1)  # [P, L]
        for layer in self.layers:
            total = total + at_pixels(self._read(layer, maps[layer][None])[0], pixels, size)
        return total

    def _read(self, layer: str, maps: Tensor) -> Tensor:
        """The layer's part of the scores at the layer's own size, [N, L, h, w]."""
        weight = self.weights[layer].to(maps.device)
        read: Tensor = weight @ maps.float().flatten(2)  # [N, L, h·w]
        return read.reshape(*read.shape[:2], *maps.shape[2:])  # [N, L, h, w]
