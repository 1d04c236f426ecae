"""Directions in place of units: the vectors of several, as rows of one layer, each by a name.

    rows = stacked([eyes, hair])       # of Direction values at one layer
    found = dissect_directions(generator, spec, rows.layer, rows.rows, rows.names, source)
    write_report(generator, found, out, directions=[eyes, hair])

A direction of rank one goes by its own name; of a higher rank each of its vectors does, with a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rewrite_core.directions import Direction
from rewrite_core.errors import RequestError

__all__ = ["Stacked", "manifest_entry", "stacked"]


@dataclass(frozen=True, eq=False)
class Stacked:
    """The vectors of some directions at `layer`, one below the other: rows [M, C], and the M names."""

    layer: str
    rows: Tensor
    names: tuple[str, ...]


def stacked(directions: Sequence[Direction]) -> Stacked:
    """`directions` as rows.

    Raises:
        RequestError: there are none, or they are of several layers.
    """
    layers = list(dict.fromkeys(direction.layer for direction in directions))
    if len(layers) != 1:
        raise RequestError(
            found=f"directions of {', '.join(layers)}" if layers else "no direction",
            expected="directions of one layer, at least one",
            remedy="Dissect those of each layer by themselves." if layers else "Give a direction.",
        )
    return Stacked(
        layers[0],
        torch.cat([direction.vectors for direction in directions]),  # [M, C]
        tuple(name for direction in directions for name in _names(direction)),
    )


def manifest_entry(direction: Direction) -> dict[str, Any]:
    """What a manifest says of a direction, as JSON values: enough to know it again, and to compute it again."""
    return {
        "name": direction.name,
        "method": direction.method,
        "layer": direction.layer,
        "rank": direction.rank,
        "digest": direction.digest,
        "provenance": dict(direction.provenance),
    }


def _names(direction: Direction) -> list[str]:
    """A name for each of its vectors."""
    name = direction.name or direction.method
    return [name] if direction.rank == 1 else [f"{name} {number + 1}" for number in range(direction.rank)]
