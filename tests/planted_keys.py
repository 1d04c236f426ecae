"""Keys drawn from mixtures of which everything is known, and angles to what was planted in them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rewrite_core import LatentSpec
from rewrite_core.directions.layer_keys import LayerKeys
from rewrite_core.statistics import Batch, Reservoir, SecondMoment

__all__ = ["as_layer", "drawn", "nearest_angle", "orthonormal", "subspace_angle"]


def drawn(seed: int) -> torch.Generator:
    """A source of random numbers."""
    return torch.Generator().manual_seed(seed)


def orthonormal(rows: int, units: int, draw: torch.Generator) -> Tensor:
    """Random orthonormal rows [R, C], float64."""
    columns: Tensor = torch.linalg.qr(torch.randn(units, rows, generator=draw, dtype=torch.float64)).Q
    return columns.T


def as_layer(rows: Tensor, layer: str = "planted", size: int | None = None) -> LayerKeys:
    """Keys [N, C] as those of a layer whose pictures have one position each; `size` of them are sampled."""
    batch = Batch.of(rows.float()[:, :, None, None])  # [N, C, 1, 1]
    moment, sample = SecondMoment().update(batch), Reservoir(size or len(rows)).update(batch)
    return LayerKeys(layer, "planted", "f" * 64, LatentSpec.of(range(len(rows))), moment, sample)


def subspace_angle(found: Tensor, planted: Tensor) -> float:
    """The largest principal angle between the spans of orthonormal rows [R, C], in degrees."""
    cosine = torch.linalg.svdvals(found @ planted.T).min().clamp(max=1)
    return math.degrees(math.acos(float(cosine)))


def nearest_angle(found: Tensor, planted: Tensor) -> Tensor:
    """Of each of `planted` [M, C], the angle to the nearest of `found` [K, C], sign and all, in degrees: [M]."""
    rows, targets = (torch.nn.functional.normalize(each.double()) for each in (found, planted))
    return torch.rad2deg((targets @ rows.T).amax(1).clamp(max=1).acos())
