"""NVIDIA generators for tests: small random ones, and the network pickles that the published code would write of them.

The pickles have the published structure, written by Python's own pickler: every module a call of the persistence
function with the module's source (a line that raises if anything executes it) and its ``__dict__``; tensors as torch
pickles them; or, for the TensorFlow line, networks with variables.
"""

from __future__ import annotations

import math
import pickle
import sys
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from rewrite_core.generators.layered import LayeredGenerator
from rewrite_core.generators.nvidia_mapping import MappingShape
from rewrite_core.generators.stylegan2_ada import StyleGAN2AdaGenerator
from rewrite_core.generators.stylegan2_ada_network import Architecture, Shape, StyleGAN2AdaNetwork
from rewrite_core.generators.stylegan3 import StyleGAN3Generator
from rewrite_core.generators.stylegan3_network import InputShape, LayerShape, StyleGAN3Network
from rewrite_core.generators.stylegan3_network import Shape as Shape3

__all__ = [
    "SOURCE",
    "filled",
    "foreign",
    "pickled",
    "pickled_tensorflow",
    "random_stylegan2_ada",
    "random_stylegan3",
    "reducing",
]

SOURCE = 'raise RuntimeError("module_src was executed")\n'
HOOKS = ("_backward_hooks", "_forward_hooks", "_forward_pre_hooks", "_state_dict_hooks")
DEFAULT_FILTER = torch.outer(*2 * [torch.tensor([1.0, 3.0, 3.0, 1.0])]) / 64


def filled(network: nn.Module, seed: int) -> dict[str, Tensor]:
    """Numbers for every tensor of a network, lively but tame: styles near 1, magnitudes and filters positive."""
    draw = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, place in network.state_dict().items():
        tensor = torch.randn(place.shape, generator=draw)
        if name.startswith("mapping.fc"):
            tensor = 100 * tensor  # stored at 1 / learning rate
        if name.endswith("affine.bias"):
            tensor = 1 + 0.3 * tensor
        if name.endswith("_ema"):
            tensor = 0.5 + tensor.abs()
        if name.endswith("_filter"):
            tensor = tensor.abs() / tensor.abs().sum()
        if name.endswith(".conv1.resample_filter"):
            tensor = DEFAULT_FILTER.clone()
        tensors[name] = tensor
    return tensors


def random_stylegan2_ada(
    seed: int = 0,
    *,
    architecture: Architecture = "skip",
    levels: int = 3,
    classes: int = 0,
    depth: int = 2,
    taps: tuple[int, ...] = (4, 4),
    noise: bool = True,
    clamp: float | None = None,
    average: bool = True,
    picture_channels: int = 3,
    name: str = "random",
) -> StyleGAN2AdaGenerator:
    """A network of random numbers and channels, of 8 pixels with 2 levels, 16 with 3 …"""
    choose = np.random.RandomState(seed)
    dim, latent, embedded = (int(choose.randint(3, 7)) for _ in range(3))
    widths = tuple(int(choose.randint(3, 7)) for _ in range(depth - 1))
    mapping = MappingShape(latent, classes, embedded if classes else 0, (*widths, dim), average, 0.01)
    channels = tuple(int(choose.randint(2, 7)) for _ in range(levels))
    shape = Shape(mapping, architecture, channels, picture_channels, taps, noise, clamp)
    network = StyleGAN2AdaNetwork(shape)
    network.load_state_dict(filled(network, seed))
    same = [network.block(block).resample_filter for block in network.blocks()]
    for module in network.modules():  # one blur for the whole network
        if getattr(module, "enlarges", False) or module in list(network.synthesis.values()):
            module.resample_filter = same[0]
    return StyleGAN2AdaGenerator(network, shape=shape, name=name)


def random_stylegan3(
    seed: int = 0,
    *,
    resolution: int = 16,
    count: int = 4,
    kernel: int = 3,
    radial: bool = False,
    classes: int = 0,
    clamp: float | None = 256.0,
    average: bool = True,
    picture_channels: int = 3,
    name: str = "random",
) -> StyleGAN3Generator:
    """A network of random numbers with the published sampling: `count` layers and a ToRGB, 2 pixels of margin.

    Layers have 5 channels or more: with fewer, a style near 0 shows the 1e-8 of the demodulation.
    """
    choose = np.random.RandomState(seed)
    dim, latent, embedded = (int(choose.randint(3, 7)) for _ in range(3))
    mapping = MappingShape(latent, classes, embedded if classes else 0, (dim, dim), average, 0.01)
    margin, tail = 2, 2
    places = [min(index / (count - tail), 1.0) for index in range(count + 1)]
    cutoffs = [2 * (resolution / 4) ** place for place in places]
    stops = [2**2.1 * (resolution / 2 * 2**0.3 / 2**2.1) ** place for place in places]
    rates = [2 ** math.ceil(math.log2(min(2 * stop, resolution))) for stop in stops]
    sizes = [rate + 2 * margin for rate in rates[:-2]] + [resolution] * 2
    channels = [int(choose.randint(5, 9)) for _ in range(count)] + [picture_channels]
    layers = []
    for index, (before, after) in enumerate(pairwise([0, *range(count + 1)])):
        torgb = index == count
        k = 1 if torgb else kernel
        inner = max(rates[before], rates[after]) * (1 if torgb else 2)
        up, down = inner // rates[before], inner // rates[after]
        up_taps, down_taps = (1 if torgb or factor == 1 else 6 * factor for factor in (up, down))
        total = (sizes[after] - 1) * down + 1 - (sizes[before] + k - 1) * up + up_taps + down_taps - 2
        low = (total + up) // 2
        flat = 1 if not radial or index >= count - tail else 2
        layer = LayerShape(
            name=f"L{index}_{sizes[after]}_{channels[index]}",
            inputs=channels[before] if index else channels[0],
            outputs=channels[index],
            kernel=k,
            size=sizes[before],
            up=up,
            down=down,
            up_filter=(up_taps,) if up_taps > 1 else None,
            down_filter=(down_taps,) * flat if down_taps > 1 else None,
            padding=(low, total - low),
            clamp=clamp,
            torgb=torgb,
        )
        assert layer.out_size == sizes[after]
        layers.append(layer)
    shape = Shape3(
        mapping, InputShape(channels[0], sizes[0], float(rates[0]), cutoffs[0]), tuple(layers), 0.25
    )
    network = StyleGAN3Network(shape)
    network.load_state_dict(filled(network, seed))
    return StyleGAN3Generator(network, shape=shape, name=name)


# Pickles


@contextmanager
def foreign(*names: str) -> Iterator[dict[str, Any]]:
    """Modules that are not installed, while a pickler looks whether the names it writes exist."""
    made: dict[str, Any] = {}
    modules: dict[str, types.ModuleType] = {}
    for name in names:
        path, _, last = name.rpartition(".")
        parents = path.split(".")
        for depth in range(len(parents)):
            place = ".".join(parents[: depth + 1])
            modules.setdefault(place, types.ModuleType(place))
        module = modules[path]
        made[name] = _function(path, last) if last[0] in "_abcdefghijklmnopqrstuvwxyz" else _class(path, last)
        setattr(module, last, made[name])
    with mock.patch.dict(sys.modules, modules):
        yield made


def _function(path: str, name: str) -> Callable[..., None]:
    def function(*_: Any) -> None:
        raise AssertionError(f"{name} was called")

    function.__module__, function.__qualname__ = path, name
    return function


def _class(path: str, name: str) -> type:
    base = dict if name == "EasyDict" else object
    return type(name, (base,), {"__module__": path, "__qualname__": name})


class reducing:  # noqa: N801 (used like a function)
    """An object that a pickler writes as the call of a function."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


def pickled(generator: LayeredGenerator, protocol: int = 4, *, training: bool = True) -> bytes:
    """A network pickle of the PyTorch line, with its averaged generator and two other networks."""
    with foreign("torch_utils.persistence._reconstruct_persistent_obj", "dnnlib.util.EasyDict") as made:
        rebuild, easy = made.values()

        def persistent(class_name: str, state: Mapping[str, Any]) -> Any:
            common = {"type": "class", "version": 6, "module_src": SOURCE}
            return reducing(rebuild, {**common, "class_name": class_name, "state": dict(state)})

        def module(path: str, tensors: Mapping[str, Tensor]) -> Any:
            own = {name: tensor for name, tensor in tensors.items() if "." not in name}
            children = dict.fromkeys(name.partition(".")[0] for name in tensors if "." in name)
            buffers = {name for name in own if _is_buffer(name)}
            inside = {
                child: module(
                    f"{path}.{child}".lstrip("."),
                    {
                        name.partition(".")[2]: tensor
                        for name, tensor in tensors.items()
                        if name.startswith(f"{child}.")
                    },
                )
                for child in children
            }
            hooks: dict[str, Any] = {name: OrderedDict() for name in HOOKS}
            attributes = _attributes(generator, path)
            state = {
                "training": False,
                "_parameters": {name: nn.Parameter(own[name]) for name in own if name not in buffers},
                "_buffers": {name: own[name] for name in buffers},
                "_non_persistent_buffers_set": set(),
                **hooks,
                "_modules": inside,
                **attributes,
                "_init_args": (),
                "_init_kwargs": easy(num_layers=2),
            }
            return persistent(_class_name(path, state), state)

        averaged = module("", generator.network.state_dict())
        other = persistent("Discriminator", {"_parameters": {}, "_buffers": {}, "_modules": {}})
        content: dict[str, Any] = {"G": other, "D": other, "G_ema": averaged}
        if training:
            content |= {"training_set_kwargs": {"path": "/data/x.zip", "max_size": 100}, "augment_pipe": None}
        return pickle.dumps(content, protocol)


def _is_buffer(name: str) -> bool:
    return name.endswith(("_filter", "_const", "_ema", "w_avg")) or name in ("freqs", "phases", "transform")


def _class_name(path: str, state: Mapping[str, Any]) -> str:
    known = {"": "Generator", "mapping": "MappingNetwork", "synthesis": "SynthesisNetwork"}
    return known.get(path, "FullyConnectedLayer" if "bias_gain" in state else "SynthesisLayer")


def _attributes(generator: LayeredGenerator, path: str) -> dict[str, Any]:
    """What the published constructors leave in a module's ``__dict__``."""
    last = path.rpartition(".")[2]
    if path.startswith("mapping.fc"):
        return {"activation": "lrelu", "weight_gain": np.float64(0.1), "bias_gain": 0.01}
    if last in ("affine", "embed"):
        return {"activation": "linear", "weight_gain": np.float64(0.1), "bias_gain": 1}
    if isinstance(generator, StyleGAN3Generator):
        return _attributes3(generator.shape, last)
    assert isinstance(generator, StyleGAN2AdaGenerator)
    if path.startswith("synthesis.b") and path.count(".") == 1:
        return {"architecture": generator.shape.architecture, "use_fp16": False, "resolution": int(last[1:])}
    if last.startswith("conv"):
        return {"activation": "lrelu", "conv_clamp": generator.shape.clamp, "act_gain": np.float64(2**0.5)}
    return {"conv_clamp": generator.shape.clamp} if last == "torgb" else {}


def _attributes3(shape: Shape3, last: str) -> dict[str, Any]:
    if last == "synthesis":
        return {"output_scale": shape.output_scale, "layer_names": [layer.name for layer in shape.layers]}
    if last == "input":
        return {
            "size": np.array([shape.input.size] * 2),
            "sampling_rate": np.float64(shape.input.rate),
            "bandwidth": shape.input.bandwidth,
        }
    for layer in shape.layers:
        if last == layer.name:
            return {
                "is_torgb": layer.torgb,
                "conv_clamp": layer.clamp,
                "in_size": np.array([layer.size] * 2),
                "up_factor": layer.up,
                "down_factor": layer.down,
                "padding": [*layer.padding, *layer.padding],
            }
    return {}


def pickled_tensorflow(generator: StyleGAN2AdaGenerator, protocol: int = 3, **arguments: Any) -> bytes:
    """A network pickle of the TensorFlow line: the tuple (G, D, Gs)."""
    with foreign("dnnlib.tflib.network.Network") as made:
        (kind,) = made.values()

        def network(variables: Mapping[str, np.ndarray], components: Mapping[str, Any], **kwargs: Any) -> Any:
            empty = kind()
            empty.__dict__ |= {
                "version": 4,
                "static_kwargs": kwargs,
                "components": dict(components),
                "build_module_src": SOURCE,
                "variables": list(variables.items()),
            }
            return empty

        variables = dict(_variables(generator.network.state_dict()))
        components = {
            part: network(
                {name[len(part) + 1 :]: value for name, value in variables.items() if name.startswith(part)},
                {},
            )
            for part in ("synthesis", "mapping")
        }
        top: dict[str, Any] = {
            "lod": np.float32(0),
            **{name: variables[name] for name in variables if "/" not in name},
        }
        averaged = network(top, components, architecture=generator.shape.architecture, **arguments)
        return pickle.dumps((network({}, {}), network({}, {}), averaged), protocol)


def _variables(state: Mapping[str, Tensor]) -> Iterator[tuple[str, np.ndarray]]:
    names = {"weight": "weight", "bias": "bias", "noise_strength": "noise_strength"}
    for name, tensor in state.items():
        value, parts = tensor.numpy(), name.split(".")
        match parts:
            case ["mapping", "w_avg"]:
                yield "dlatent_avg", value
            case ["mapping", layer, kind]:
                dense = "LabelEmbed" if layer == "embed" else f"Dense{layer[2:]}"
                yield f"mapping/{dense}/{kind}", np.ascontiguousarray(value.T)
            case ["synthesis", "b4", "const"]:
                yield "synthesis/4x4/Const/const", value[None]
            case ["synthesis", block, layer, "noise_const"]:
                index = 2 * int(math.log2(int(block[1:]))) - (4 if layer == "conv1" else 5)
                yield f"synthesis/noise{index}", value[None, None]
            case ["synthesis", block, layer, *rest] if parts[-1] != "resample_filter":
                size = block[1:]
                place = {"conv0": "Conv0_up", "conv1": "Conv" if size == "4" else "Conv1"}.get(layer)
                place = place or {"torgb": "ToRGB", "skip": "Skip"}[layer]
                if rest == ["weight"]:
                    value = value[..., ::-1, ::-1] if layer in ("conv0", "skip") else value
                    value = np.ascontiguousarray(value.transpose(2, 3, 1, 0))
                if rest[0] == "affine":
                    value = np.ascontiguousarray(value.T) if rest[1] == "weight" else value - np.float32(1)
                kind = f"mod_{rest[1]}" if rest[0] == "affine" else names[rest[0]]
                yield f"synthesis/{size}x{size}/{place}/{kind}", value
