"""What a pickled network's attributes say, as the ``model.json`` of our own export would say it.

So a network pickle and our export are opened by the same code: tensors, and a description of what they do not tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rewrite_core.errors import FileError
from rewrite_core.generators.nvidia_pickle import PickledNetwork

__all__ = ["description_of"]

_SYNTHESIS = "synthesis."


def description_of(network: PickledNetwork, name: str, what: str) -> dict[str, Any]:
    """The description of a StyleGAN3 or a StyleGAN2-ADA, whichever the names of its tensors are of.

    Raises:
        FileError: it is another network, or a variant that neither family computes.
    """
    if network.class_name != "Generator":
        raise _other(what, f"a {network.class_name[:80]}", "a Generator")
    _require_activations(network, what)
    common = {
        "name": name[:200] or "network",
        "mapping_rate": _value(network, what, "mapping.fc0", "bias_gain"),
    }
    if "synthesis.input.freqs" in network.tensors:
        return common | _stylegan3(network, what)
    if "synthesis.b4.const" in network.tensors:
        return common | _stylegan2_ada(network, what)
    raise _other(
        what, f"a network with {min(network.tensors, default='no tensor')}", "a StyleGAN2 or a StyleGAN3"
    )


def _stylegan2_ada(network: PickledNetwork, what: str) -> dict[str, Any]:
    return {
        "schema": "stylegan2-ada/1",
        "architecture": _only(network, what, "architecture"),
        "clamp": _only(network, what, "conv_clamp"),
    }


def _stylegan3(network: PickledNetwork, what: str) -> dict[str, Any]:
    layers = [
        path.removeprefix(_SYNTHESIS)
        for path in network.attributes
        if f"{path}.magnitude_ema" in network.tensors and path.startswith(_SYNTHESIS)
    ]

    def of(layer: str, attribute: str) -> Any:
        return _value(network, what, f"{_SYNTHESIS}{layer}".rstrip("."), attribute)

    return {
        "schema": "stylegan3/1",
        "output_scale": of("", "output_scale"),
        "input": {
            "size": _side(of("input", "size"), what),
            "rate": of("input", "sampling_rate"),
            "bandwidth": of("input", "bandwidth"),
        },
        "layers": [
            {
                "name": layer,
                "up": of(layer, "up_factor"),
                "down": of(layer, "down_factor"),
                "padding": _pair(of(layer, "padding"), what),
                "clamp": of(layer, "conv_clamp"),
                "torgb": of(layer, "is_torgb"),
            }
            for layer in layers
        ],
    }


def _values(network: PickledNetwork, attribute: str) -> Iterator[Any]:
    """An attribute of all modules of the synthesis that have it."""
    for path, attributes in network.attributes.items():
        if path.startswith(_SYNTHESIS) and attribute in attributes:
            yield attributes[attribute]


def _only(network: PickledNetwork, what: str, attribute: str) -> Any:
    """The value of an attribute that all modules must agree on."""
    values = list(_values(network, attribute))
    if not values or values.count(values[0]) != len(values):
        raise _other(what, f"layers of {'different' if values else 'no'} {attribute}", "one for all")
    return values[0]


def _value(network: PickledNetwork, what: str, path: str, attribute: str) -> Any:
    if attribute not in network.attributes.get(path, {}):
        raise _other(what, f"{path} without {attribute}", "what the published classes have")
    return network.attributes[path][attribute]


def _require_activations(network: PickledNetwork, what: str) -> None:
    for path, attributes in network.attributes.items():
        usual = "linear" if path.endswith((".affine", ".embed")) else "lrelu"
        value = attributes.get("activation", usual)
        if value != usual:
            raise _other(what, f"{path} with the activation {str(value)[:40]!r}", f"'{usual}'")


def _side(size: Any, what: str) -> Any:
    """The one number of a square."""
    if isinstance(size, list) and size and size.count(size[0]) == len(size):
        return size[0]
    raise _other(what, f"a map of the size {str(size)[:40]}", "a square")


def _pair(padding: Any, what: str) -> Any:
    """What is added before and after, the same along both axes."""
    if isinstance(padding, list) and padding[:2] == padding[2:]:
        return padding[:2]
    raise _other(what, f"the padding {str(padding)[:40]}", "the same along both axes")


def _other(what: str, found: str, expected: str) -> FileError:
    return FileError(
        found=f"{what}: {found}", expected=expected, remedy="Only the published networks are opened."
    )
