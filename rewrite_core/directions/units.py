"""A single unit as a direction: what dissection finds by, and the oldest way to name a layer's concepts.

    unit_direction(generator, "l08", 17)           # its heat is the feature map of unit 17

A unit is the query `e_u`, one-hot: its heat is the unit's own feature map. What the layer holds where it is high, its
pattern `C e_u`, is a whole row of the second moment: a unit alone is seldom all of a pattern.
"""

from __future__ import annotations

import torch

from rewrite_core.directions.direction import Direction
from rewrite_core.errors import RequestError
from rewrite_core.generators import Generator

__all__ = ["unit_direction"]


def unit_direction(generator: Generator, layer: str, unit: int) -> Direction:
    """Unit `unit` (a channel of the key, from 0) of `layer` as the direction that is 1 there and 0 elsewhere.

    Raises:
        LayerError: the generator has no such layer.
        RequestError: the layer has no such unit.
    """
    units = generator.layer(layer).in_channels
    if not 0 <= unit < units:
        raise RequestError(
            found=f"unit {unit}",
            expected=f"0 to {units - 1}, the units of {layer}",
            remedy="Choose one of these units.",
        )
    return Direction(
        vectors=torch.eye(units, dtype=torch.float64)[unit : unit + 1],  # [1, C]
        layer=layer,
        method="unit",
        singular_values=torch.ones(1, dtype=torch.float64),
        name=f"unit {unit}",
        provenance={"unit": unit},
        model=generator.pristine.name,
        fingerprint=generator.pristine.fingerprint,
    )
