"""A Keras ``.h5`` file as `model.save` writes it → the ``model.json`` and the tensors that say the same.

The file's ``model_config`` lists the layers as JSON; nothing in it is built or executed, and a layer that holds code
(Lambda) or that a step cannot say is refused by its name. Layers may be a Sequential, a functional model that is one
chain, or models within a model. Differences to torch are settled here:

* kernels [kh, kw, C, O] and, transposed, [kh, kw, O, C] become [O, C, kh, kw] and [C, O, kh, kw], Dense [in, out]
  becomes [out, in]; taps are not flipped.
* Keras counts [H, W, C]: where a vector becomes a map, the layers before are put into the order of [C, H, W].
* ``padding="same"`` of a transposed convolution of kernel k and stride s is a crop of k - s, the smaller half first.
* ε of batch norms and slopes of leaky ReLUs are in the file.

That latents are standard normal is not; it is assumed. Needs h5py: ``pip install "palimpsest[keras]"``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rewrite_core.generators.keras_config import Config, Unsaid, chained_layers, mapping, number, pair

__all__ = ["described"]

Weights = Mapping[tuple[str, str], NDArray[Any]]

SKIPPED = {
    "InputLayer", "Dropout", "SpatialDropout2D", "GaussianNoise", "GaussianDropout", "AlphaDropout",
    "ActivityRegularization",
}  # fmt: skip
PLAIN = {"relu", "tanh", "sigmoid", "selu", "gelu", "softplus"}
RENAMED = {"swish": "silu", "silu": "silu", "elu": "elu"}


def described(config: Any, weights: Weights, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The description and the tensors of a decoded ``model_config``; `weights` by (layer, variable).

    Raises:
        Unsaid: naming the first thing that steps cannot say.
    """
    builder = _Builder(weights)
    for layer in chained_layers(config):
        builder.take(str(layer.get("class_name")), mapping(layer.get("config")))
    if not builder.steps or len(builder.shape) != 3 or builder.latent_dim == 0:
        raise Unsaid("no chain of layers from latents to a picture")
    ends_in_sigmoid = builder.steps[-1] == {"op": "act", "fn": "sigmoid"}
    height, width, channels = builder.shape
    return {
        "schema": "gen-layers/1",
        "name": name,
        "resolution": max(height, width),
        "channels": channels,
        "latent": {"dim": builder.latent_dim, "distribution": "normal"},
        "output_range": [0.0, 1.0] if ends_in_sigmoid else [-1.0, 1.0],
        "layers": builder.steps,
        "note": "Read from a Keras file, which does not tell its latents: standard normal is assumed.",
    }, builder.tensors


class _Builder:
    """Follows the layers; `shape` is (width,) or Keras's (height, width, channels)."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.shape: tuple[int, ...] = ()
        self.latent_dim = 0
        self.steps: list[dict[str, Any]] = []
        self.tensors: dict[str, Tensor] = {}

    def take(self, kind: str, config: Config) -> None:
        """Add a layer."""
        self._start(config)
        if kind in SKIPPED:
            return
        if kind == "Lambda":
            raise Unsaid("a Lambda layer, which holds code")
        if kind not in LAYERS:
            raise Unsaid(f"a layer {kind[:60]}")
        if not self.shape:
            raise Unsaid("no input shape before its first layer")
        if config.get("data_format") == "channels_first":
            raise Unsaid(f"a layer {kind} with channels first")
        LAYERS[kind](self, config)

    def _start(self, config: Config) -> None:
        given = config.get("batch_shape", config.get("batch_input_shape"))
        if self.shape or not isinstance(given, list) or len(given) not in (2, 4):
            return
        sides = [side for side in given[1:] if isinstance(side, int) and side > 0]
        if len(sides) == len(given) - 1 and all(side == 1 for side in sides[:-1]):
            self.shape = tuple(sides)
            self.latent_dim = sides[-1]

    def dense(self, config: Config) -> None:
        if len(self.shape) != 1:
            raise Unsaid("a Dense layer on a map")
        weight = self._weight(config, "kernel", 2)
        self._require(weight.shape[0] == self.shape[0], "Dense", config)
        self._named("linear", config, {"weight": weight.T, "bias": self._weight(config, "bias", 1)})
        self.shape = (weight.shape[1],)
        self.activate(config.get("activation"))

    def reshape(self, config: Config) -> None:
        target = config.get("target_shape")
        if (
            not isinstance(target, list)
            or len(target) not in (1, 3)
            or not all(isinstance(n, int) for n in target)
        ):
            raise Unsaid("a Reshape to something other than a vector or a map")
        size, known = math.prod(self.shape), math.prod(side for side in target if side != -1)
        shape = tuple(size // known if side == -1 and known > 0 else side for side in target)
        self._require(min(shape) > 0 and math.prod(shape) == size, "Reshape", config)
        if len(shape) == 1 or len(self.shape) == 3:
            self._require(shape == self.shape or math.prod(self.shape[:-1]) == 1, "Reshape", config)
        if len(shape) == 3 and len(self.shape) == 1:
            self._reorder(shape)
            height, width, channels = shape
            self.steps.append({"op": "reshape", "shape": [channels, height, width]})
        self.shape = shape

    def flatten(self, config: Config) -> None:
        if math.prod(self.shape[:-1]) != 1:
            raise Unsaid("a Flatten of a map")
        self._require(not self.steps, "Flatten", config)
        self.shape = self.shape[-1:]

    def convolution(self, config: Config) -> None:
        weight = self._weight(config, "kernel", 4)
        kernel, stride, dilation = weight.shape[:2], pair(config, "strides"), pair(config, "dilation_rate")
        self._require(len(self.shape) == 3 and weight.shape[2] == self.shape[2], "Conv2D", config)
        self._require(config.get("groups", 1) == 1, "Conv2D", config)
        padding = (0, 0)
        if config.get("padding") == "same":
            before = zip(self.shape[:2], kernel, stride, dilation, strict=True)
            totals = [max((math.ceil(n / s) - 1) * s + (k - 1) * d + 1 - n, 0) for n, k, s, d in before]
            if any(total % 2 for total in totals):
                raise Unsaid(f"the uneven padding of the layer '{config.get('name')}'")
            padding = (totals[0] // 2, totals[1] // 2)
        step = {"kernel": [*kernel], "stride": [*stride], "padding": [*padding], "dilation": [*dilation]}
        self._named(
            "conv2d",
            config,
            {"weight": weight.transpose(3, 2, 0, 1), "bias": self._weight(config, "bias", 1)},
            step,
        )
        sides = [
            (n + 2 * p - (k - 1) * d - 1) // s + 1
            for n, p, k, d, s in zip(self.shape[:2], padding, kernel, dilation, stride, strict=True)
        ]
        self._placed(sides, weight.shape[3], config)

    def transposed(self, config: Config) -> None:
        weight = self._weight(config, "kernel", 4)
        kernel, stride = weight.shape[:2], pair(config, "strides")
        self._require(len(self.shape) == 3 and weight.shape[3] == self.shape[2], "Conv2DTranspose", config)
        plain = config.get("output_padding") is None and pair(config, "dilation_rate") == (1, 1)
        self._require(plain and config.get("groups", 1) == 1, "Conv2DTranspose", config)
        excess = [max(k - s, 0) for k, s in zip(kernel, stride, strict=True)]
        if config.get("padding") != "same":
            excess = [0, 0]
        crop = [part for total in excess for part in (total // 2, total - total // 2)]
        extra = [max(s - k, 0) for k, s in zip(kernel, stride, strict=True)]
        step = {"kernel": [*kernel], "stride": [*stride], "output_padding": extra, "crop": crop}
        self._named(
            "conv_transpose2d",
            config,
            {"weight": weight.transpose(3, 2, 0, 1), "bias": self._weight(config, "bias", 1)},
            step,
        )
        sides = [
            (n - 1) * s + k + more - less
            for n, s, k, more, less in zip(self.shape[:2], stride, kernel, extra, excess, strict=True)
        ]
        self._placed(sides, weight.shape[2], config)

    def norm(self, config: Config) -> None:
        axis = config.get("axis", -1)
        axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
        self._require(axis in (-1, len(self.shape)), "BatchNormalization", config)
        width = self.shape[-1]
        own = {
            "running_mean": self._weight(config, "moving_mean", 1),
            "running_var": self._weight(config, "moving_variance", 1),
            "weight": self._weight(config, "gamma", 1, np.ones(width, np.float32)),
            "bias": self._weight(config, "beta", 1, np.zeros(width, np.float32)),
        }
        self._require(all(len(value) == width for value in own.values()), "BatchNormalization", config)
        self._named("batch_norm", config, own, {"eps": number(config, "epsilon", 1e-3)})

    def upsampling(self, config: Config) -> None:
        size = pair(config, "size")
        mode = config.get("interpolation", "nearest")
        self._require(len(self.shape) == 3 and size[0] == size[1], "UpSampling2D", config)
        self.steps.append({"op": "upsample", "scale": size[0], "mode": mode})
        self.shape = (self.shape[0] * size[0], self.shape[1] * size[1], self.shape[2])

    def leaky(self, config: Config) -> None:
        slope = number(config, "negative_slope", number(config, "alpha", 0.3))
        self.steps.append({"op": "act", "fn": {"leaky_relu": slope}})

    def relu(self, config: Config) -> None:
        slope = number(config, "negative_slope", 0.0)
        self._require(config.get("max_value") is None and not config.get("threshold"), "ReLU", config)
        self.steps.append({"op": "act", "fn": {"leaky_relu": slope} if slope else "relu"})

    def elu(self, config: Config) -> None:
        self._require(number(config, "alpha", 1.0) == 1, "ELU", config)
        self.steps.append({"op": "act", "fn": "elu"})

    def activate(self, function: Any) -> None:
        """Add an activation by its Keras name, or as the object that Keras 3 may write for one."""
        if isinstance(function, Mapping):
            kind, config = str(function.get("class_name")), function.get("config")
            if kind in ("LeakyReLU", "ReLU", "ELU"):
                LAYERS[kind](self, mapping(config))
                return
            function = config if kind == "function" else kind
        if function in (None, "linear"):
            return
        name = RENAMED.get(str(function), str(function))
        if name == "leaky_relu":
            self.leaky({"negative_slope": 0.2})
        elif name in PLAIN or name in RENAMED.values():
            self.steps.append({"op": "act", "fn": name})
        else:
            raise Unsaid(f"an activation {str(function)[:60]}")

    def _weight(
        self, config: Config, variable: str, axes: int, default: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """A variable of a layer; `default`, or no numbers, where the layer has none of that name."""
        found = self.weights.get((str(config.get("name")), variable))
        if found is None:
            if variable in ("kernel", "moving_mean", "moving_variance"):
                raise Unsaid(f"no {variable} of the layer '{config.get('name')}'")
            return np.zeros(0, np.float32) if default is None else default
        if found.ndim != axes or not found.size:
            raise Unsaid(f"'{config.get('name')}/{variable}' {list(found.shape)}")
        return found

    def _named(
        self,
        op: str,
        config: Config,
        tensors: Mapping[str, NDArray[Any]],
        step: Mapping[str, Any] | None = None,
    ) -> None:
        name = str(config.get("name")).replace(".", "_").replace("/", "_")
        if any(step.get("name") == name for step in self.steps):
            raise Unsaid(f"two layers called '{name[:60]}'")
        self.steps.append({"op": op, "name": name, **(step or {})})
        for key, value in tensors.items():
            if value.size:
                array = np.ascontiguousarray(value, np.float32)
                self.tensors[f"{name}.{key}"] = torch.from_numpy(array.copy())

    def _placed(self, sides: Sequence[int], channels: int, config: Config) -> None:
        self.shape = (sides[0], sides[1], channels)
        self.activate(config.get("activation"))

    def _reorder(self, shape: Sequence[int]) -> None:
        """Put the layers that make a vector of [H, W, C] into the order of [C, H, W]."""
        height, width, channels = shape
        if height * width == 1:
            return
        order = torch.arange(math.prod(shape)).reshape(height, width, channels).permute(2, 0, 1).flatten()
        made = [step for step in self.steps if "name" in step]
        start = next((index for index in range(len(made) - 1, -1, -1) if made[index]["op"] == "linear"), None)
        if start is None:
            raise Unsaid("latents that are reshaped to a map")
        for step in made[start:]:
            for key in ("weight", "bias", "running_mean", "running_var"):
                name = f"{step['name']}.{key}"
                if name in self.tensors:
                    self.tensors[name] = self.tensors[name][order]

    def _require(self, holds: bool, kind: str, config: Config) -> None:
        if not holds:
            raise Unsaid(f"the settings of the {kind} layer '{str(config.get('name'))[:60]}'")


LAYERS: Mapping[str, Callable[[_Builder, Config], None]] = {
    "Dense": _Builder.dense,
    "Reshape": _Builder.reshape,
    "Flatten": _Builder.flatten,
    "Conv2D": _Builder.convolution,
    "Conv2DTranspose": _Builder.transposed,
    "BatchNormalization": _Builder.norm,
    "UpSampling2D": _Builder.upsampling,
    "LeakyReLU": _Builder.leaky,
    "ReLU": _Builder.relu,
    "ELU": _Builder.elu,
    "Activation": lambda builder, config: builder.activate(config.get("activation")),
}
