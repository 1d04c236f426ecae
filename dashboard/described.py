"""A generator's architecture as plain rows, for the model page and `palimpsest models`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rewrite_core.generators import Generator, Layer

__all__ = ["layer_rows"]


def layer_rows(generator: Generator) -> list[dict[str, Any]]:
    """Every layer with weights: fully connected ones, then the rewritable ones in the order they run."""
    return [*_linear(generator), *map(_layer, generator.layers.values())]


def _layer(layer: Layer) -> dict[str, Any]:
    return {
        "name": layer.name,
        "kind": layer.kind,
        "in_channels": layer.in_channels,
        "out_channels": layer.out_channels,
        "key_size": layer.key_size,
        "value_size": layer.value_size,
        "kernel": layer.convolution.kernel,
        "stride": layer.convolution.stride,
        "rewritable": True,
    }


def _linear(generator: Generator) -> Iterator[dict[str, Any]]:
    """Fully connected layers: part of the network, without a grid to find a context on."""
    from torch import nn

    for name, module in generator.network.named_modules():
        if isinstance(module, nn.Linear):
            channels = {"in_channels": module.in_features, "out_channels": module.out_features}
            yield {"name": name, "kind": "linear", **channels, "rewritable": False}
