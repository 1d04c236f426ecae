"""The TensorFlow line's network pickles (StyleGAN2, and StyleGAN2-ADA for TensorFlow) → the PyTorch line's names.

Such a file is a tuple (G, D, Gs) of ``dnnlib.tflib.network.Network``, each with a state: its version, the arguments of
its build function (``static_kwargs``), its variables as pairs of a name and an array, and its components, networks
themselves. Gs is the averaged generator. What differs from the PyTorch line:

* Dense weights are transposed; weights of convolutions are [k, k, I, O], and those that enlarge (``Conv0_up``,
  ``Skip``) are flipped along both spatial axes.
* The 1 that a style is added to is not in ``mod_bias``.
* Noise is numbered: ``noise0`` at 4×4, then two a resolution.
* The blur's kernel is an argument, not a variable.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rewrite_core.generators.nvidia_tensors import LONGEST_NAME, array_of, number_of
from rewrite_core.generators.pickletree import Call, Refused

__all__ = ["NETWORK", "converted"]

NETWORK = "dnnlib.tflib.network.Network"

Array = NDArray[Any]

_OLDEST = 4
_MOST_TAPS, _MOST_VARIABLES, _MOST_CHANNELS = 16, 1024, 4096
_DEFAULT_KERNEL = (1, 3, 3, 1)
_LAYERS = {"Conv": "conv1", "Conv0_up": "conv0", "Conv1": "conv1", "ToRGB": "torgb", "Skip": "skip"}
_TENSORS = {
    "weight": "weight",
    "bias": "bias",
    "noise_strength": "noise_strength",
    "mod_weight": "affine.weight",
    "mod_bias": "affine.bias",
}


def converted(tree: tuple[Any, ...]) -> tuple[dict[str, Array], dict[str, dict[str, Any]]]:
    """Tensors under the PyTorch line's names, as views of the file, and the modules' attributes under theirs.

    Raises:
        Refused: it is no StyleGAN2 of this line.
    """
    _, _, averaged = tree
    state = _state(averaged)
    arguments = state["static_kwargs"]
    variables = dict(_variables(state))
    for name in ("synthesis", "mapping"):
        component = _state(state["components"][name])
        variables |= {f"{name}/{variable}": value for variable, value in _variables(component)}
    views: dict[str, Array] = {}
    for name, value in variables.items():
        views |= _translated(name, value)
    views |= _filters(views, arguments.get("resample_kernel"))
    return views, _attributes(views, arguments)


def _state(network: Any) -> Mapping[str, Any]:
    if not isinstance(network, Call) or network.function != NETWORK or not isinstance(network.state, dict):
        raise Refused(f"a {type(network).__name__} for a network")
    if number_of(network.state["version"]) < _OLDEST:
        raise ValueError("a network from before StyleGAN2")
    return network.state


def _variables(state: Mapping[str, Any]) -> Iterator[tuple[str, Array]]:
    if len(state["variables"]) > _MOST_VARIABLES:
        raise Refused("variables without end")
    for name, value in state["variables"]:
        if not isinstance(name, str) or len(name) > LONGEST_NAME:
            raise Refused("a variable without a short name")
        yield name, array_of(value)


def _translated(name: str, value: Array) -> dict[str, Array]:
    """A variable's tensor under its new name; none where the generator does without it."""
    if name == "dlatent_avg":
        return {"mapping.w_avg": value}
    if match := re.fullmatch(r"mapping/(?:Dense(\d\d?)|(LabelEmbed))/(weight|bias)", name):
        number, _, kind = match.groups()
        return {f"mapping.{'embed' if number is None else f'fc{number}'}.{kind}": value.T}
    if name == "synthesis/4x4/Const/const":
        return {"synthesis.b4.const": value[0]}
    if match := re.fullmatch(r"synthesis/noise(\d\d?)", name):
        index = int(match[1])
        return {f"synthesis.b{4 << (index + 1) // 2}.conv{1 - index % 2}.noise_const": value[0, 0]}
    if match := re.fullmatch(r"synthesis/(\d{1,4})x\1/(\w+)/(\w+)", name):
        size, layer, kind = match.groups()
        if layer in _LAYERS and kind in _TENSORS:
            return {f"synthesis.b{size}.{_LAYERS[layer]}.{_TENSORS[kind]}": _turned(layer, kind, value)}
    if name.startswith(("mapping/", "synthesis/")):
        raise ValueError(f"the variable {name[:60]} is of no known layer")
    return {}


def _turned(layer: str, kind: str, value: Array) -> Array:
    """A layer's array as the PyTorch line has it."""
    if kind == "mod_weight":
        return value.T
    if kind == "mod_bias":
        if value.size > _MOST_CHANNELS:
            raise Refused(f"a style of {value.size:,} numbers")
        raised: Array = value + value.dtype.type(1)
        return raised
    if kind == "weight":
        value = value.transpose(3, 2, 0, 1)  # [O, I, k, k]
        return value[..., ::-1, ::-1] if layer in ("Conv0_up", "Skip") else value
    return value


def _filters(views: Mapping[str, Array], kernel: Any) -> dict[str, Array]:
    """The buffers that the PyTorch line keeps the blur in."""
    kernel = _DEFAULT_KERNEL if kernel is None else kernel
    if not isinstance(kernel, tuple | list) or not 1 <= len(kernel) <= _MOST_TAPS:
        raise Refused("a blur without a kernel")
    own, usual = _filter([number_of(tap) for tap in kernel]), _filter(_DEFAULT_KERNEL)
    places = {name.removesuffix(".affine.bias").removesuffix(".weight") for name in views}
    found = {}
    for place in places:
        if match := re.fullmatch(r"(synthesis\.b\d+)\.(conv0|conv1|skip)", place):
            found[f"{place}.resample_filter"] = usual if match[2] == "conv1" else own
            found[f"{match[1]}.resample_filter"] = own
    return found


def _filter(taps: Any) -> Array:
    line = np.array(taps, np.float32)
    plane = np.outer(line, line) if len(line) < 8 else line
    total = float(plane.sum())
    return plane / np.float32(total if total else 1.0)


def _attributes(views: Mapping[str, Array], arguments: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What the PyTorch line keeps beside the tensors."""
    clamp, rate = arguments.get("conv_clamp"), number_of(arguments.get("mapping_lrmul", 0.01))
    layer = {
        "conv_clamp": None if clamp is None else number_of(clamp),
        "activation": _text(arguments, "nonlinearity", "lrelu"),
    }
    dense = {"activation": _text(arguments, "mapping_nonlinearity", "lrelu"), "bias_gain": rate}
    block = {"architecture": _text(arguments, "architecture", "skip")}
    found: dict[str, dict[str, Any]] = {"mapping.fc0": dense}
    for name in views:
        if match := re.fullmatch(r"(synthesis\.b\d+)\.(conv\d|torgb)\.weight", name):
            found |= {match[1]: block, f"{match[1]}.{match[2]}": layer}
    return found


def _text(arguments: Mapping[str, Any], name: str, default: str) -> str:
    value = arguments.get(name, default)
    if not isinstance(value, str) or len(value) > LONGEST_NAME:
        raise Refused(f"a {type(value).__name__} for {name}")
    return value
