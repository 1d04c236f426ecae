"""A Keras ``model_config``: which layers there are, in which order, and their settings; JSON that nobody checked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["Config", "Unsaid", "chained_layers", "mapping", "number", "pair"]

Config = Mapping[str, Any]

NESTED = {"Sequential", "Functional", "Model"}
DEEPEST, MOST_LAYERS = 8, 512


class Unsaid(Exception):
    """Something in a model that steps cannot say; the text names it."""


def chained_layers(model: Any, depth: int = 0) -> list[Config]:
    """The layers of a model in the order of its one chain, with those of models in it.

    Raises:
        Unsaid: if they branch, or there are too many.
    """
    config = mapping(model).get("config")
    layers = config if isinstance(config, list) else mapping(config).get("layers")
    if depth > DEEPEST or not isinstance(layers, list) or len(layers) > MOST_LAYERS:
        raise Unsaid("a model_config that lists no layers, or too many")
    ordered = [mapping(layer) for layer in layers]
    if mapping(model).get("class_name") != "Sequential":
        ordered = _chained(ordered)
    found: list[Config] = []
    for layer in ordered:
        found += chained_layers(layer, depth + 1) if layer.get("class_name") in NESTED else [layer]
        if len(found) > MOST_LAYERS:
            raise Unsaid("a model_config that lists no layers, or too many")
    return found


def _chained(layers: Sequence[Config]) -> list[Config]:
    """The layers of a functional model from its input on, if each takes what one other makes."""
    after: dict[str | None, Config] = {}
    for layer in layers:
        sources = _sources(layer.get("inbound_nodes"), 0)
        source = next(iter(sources), None)
        if len(sources) > 1 or source in after:
            raise Unsaid(
                f"branches at the layer '{layer.get('name', mapping(layer.get('config')).get('name'))}'"
            )
        after[source] = layer
    chain: list[Config] = []
    name: str | None = None
    while name in after:
        layer = after.pop(name)
        chain.append(layer)
        name = str(layer.get("name", mapping(layer.get("config")).get("name")))
    if len(chain) != len(layers):
        raise Unsaid("layers that are not one chain")
    return chain


def _sources(nodes: Any, depth: int) -> set[str]:
    """The layers that a layer takes from: every ``[name, node, tensor, …]`` in what Keras 2 or 3 writes."""
    if depth > 12:
        raise Unsaid("inbound_nodes nested too deeply")
    if isinstance(nodes, Mapping):
        return set().union(*(_sources(value, depth + 1) for value in nodes.values()), set())
    if not isinstance(nodes, list):
        return set()
    if len(nodes) >= 3 and isinstance(nodes[0], str) and all(isinstance(index, int) for index in nodes[1:3]):
        return {nodes[0]}
    return set().union(*(_sources(value, depth + 1) for value in nodes), set())


def mapping(value: Any) -> Config:
    """`value` if it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def pair(config: Config, key: str) -> tuple[int, int]:
    """A setting of two small numbers, or one that stands for both; 1 where it is absent."""
    value = config.get(key, 1)
    found = tuple(value) if isinstance(value, list) else (value, value)
    if len(found) != 2 or not all(type(taps) is int and 1 <= taps <= 64 for taps in found):
        raise Unsaid(f"{key} {str(value)[:60]} of the layer '{str(config.get('name'))[:60]}'")
    return found[0], found[1]


def number(config: Config, key: str, default: float) -> float:
    """A setting of one finite number."""
    value = config.get(key, default)
    value = (
        value.get("config", {}).get("value") if isinstance(value, Mapping) else value
    )  # as Keras 3 writes arrays
    if type(value) not in (int, float) or not math.isfinite(value):
        raise Unsaid(f"{key} {str(value)[:60]} of the layer '{str(config.get('name'))[:60]}'")
    return float(value)
