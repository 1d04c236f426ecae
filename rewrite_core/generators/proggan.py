"""Family *ProgGAN* (Karras et al., *Progressive Growing of GANs*, ICLR 2018), as the published code stores it.

A layer is pixel norm → nearest upsampling (the odd ones from ``layer3`` on) → convolution without bias → a constant
gain and a bias → leaky ReLU. The first, ``layer1``, is the 4×4 convolution of the latent. The key is the convolution's
input, after norm and upsampling; the value is its output, before gain and bias.

A file holds ``layerN.conv.weight`` [O, C, k, k], ``layerN.wscale.b`` [O], and ``output_RxR.…`` for the picture, perhaps
under one of `contents.PREFIXES`; sizes are read off them. Latents are normalised on the way in, so scaling them does
nothing: truncation other than 1 is refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from rewrite_core.errors import FileError, RequestError
from rewrite_core.files import to_safetensors_bytes
from rewrite_core.generators.contents import Contents, extent, fill
from rewrite_core.generators.convolution import Convolution
from rewrite_core.generators.generator import Box, Layer, LayerInput
from rewrite_core.generators.latents import Latents
from rewrite_core.generators.layered import LayeredGenerator
from rewrite_core.generators.layout import Layout
from rewrite_core.settings import Settings

__all__ = ["ProgGANDescription", "ProgGANGenerator", "open_proggan", "recognise"]

SCHEMA = "proggan"
SIGN = "layer1.wscale.b"
LAYERS = range(2, 19, 2)
EPSILON = 1e-8
SLOPE = 0.2


class ProgGANDescription(Settings):
    """The content of our export's ``model.json``; all else is read off the tensors."""

    format: Annotated[Literal["proggan/1"], Field(alias="schema")] = "proggan/1"
    name: Annotated[str, Field(min_length=1, max_length=200)]


class Block(nn.Module):
    """One layer, or the output: its linear map, and what comes before and after it.

    Args:
        inputs, outputs: channels.
        kernel: taps each way; 4 for the first layer, which grows the latent [N, C, 1, 1] to 4×4.
        enlarge: whether the map is doubled before it is convolved.
        gain: √2 for layers, 1 for the output.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, enlarge: bool = False, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.conv = nn.ParameterDict({"weight": torch.empty(outputs, inputs, kernel, kernel)})
        self.wscale = nn.ParameterDict({"b": torch.empty(outputs)})
        padding = 3 if kernel == 4 else kernel // 2
        self.convolution = Convolution((kernel, kernel), padding=(padding, padding))
        self.enlarge, self.gain = enlarge, gain / kernel / math.sqrt(inputs)

    def keys(self, x: Tensor) -> Tensor:
        """Features [N, C, h, w] → keys [N, C, H, W]: normalised, and enlarged."""
        x = x / (x.square().mean(1, keepdim=True) + EPSILON).sqrt()
        return functional.interpolate(x, scale_factor=2.0) if self.enlarge else x

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, C, h, w] → values [N, O, H, W]."""
        return self.convolution(self.keys(x), self.conv["weight"])

    def scaled(self, values: Tensor) -> Tensor:
        """Values [N, O, H, W] with gain and bias."""
        bias: Tensor = self.wscale["b"]
        return values * self.gain + bias[:, None, None]


class ProgGANNetwork(nn.Module):
    """Blocks ``layer1`` … and the output, under the names that the files use; run by `ProgGANGenerator`."""

    def __init__(self, channels: Sequence[int], output: str) -> None:
        super().__init__()
        for index, (before, after) in enumerate(pairwise(channels), start=1):
            enlarge = index % 2 == 1 and index > 1
            block = Block(before, after, 3 if index > 1 else 4, enlarge=enlarge, gain=math.sqrt(2))
            self.add_module(f"layer{index}", block)
        self.add_module(output, Block(channels[-1], 3, 1))


class ProgGANGenerator(LayeredGenerator):
    """A progressively grown generator at its last resolution."""

    family = SCHEMA

    def __init__(self, network: ProgGANNetwork, *, name: str, layout: Layout | None = None) -> None:
        layers = list(_layers(network))
        super().__init__(
            network,
            name=name,
            latent_dim=layers[0].in_channels,
            picture_size=layers[-1].value_size,
            layers=layers,
            layout=layout,
        )

    def architecture(self) -> Mapping[str, Any]:
        """Channels: of the latent, then of each layer's value."""
        layers = list(self.layers.values())
        return {"channels": [layers[0].in_channels, *(layer.out_channels for layer in layers)]}

    def finish(
        self, at: LayerInput, response: Tensor, energy: Tensor | None = None, box: Box | None = None
    ) -> Tensor:
        """The response itself."""
        return response

    def weight(self, layer: str) -> Tensor:
        """The stored weight [O, C, k, k]."""
        weight: Tensor = self._block(self.layer(layer).name).conv["weight"]
        return weight.detach()

    def files(self) -> dict[str, bytes]:
        """``model.json``, and ``model.safetensors`` under the names that it was opened with."""
        description = {"schema": "proggan/1", "name": self.name}
        return {
            "model.json": json.dumps(description, indent=1).encode(),
            "model.safetensors": to_safetensors_bytes(
                self.network.state_dict(), {"fingerprint": self.fingerprint}
            ),
        }

    def _put_weight(self, layer: str, weight: Tensor) -> None:
        self._block(layer).conv["weight"] = nn.Parameter(weight, requires_grad=False)

    def _block(self, name: str) -> Block:
        block = self.network.get_submodule(name)
        assert isinstance(block, Block)
        return block

    def _first(self, latents: Latents) -> LayerInput:
        if latents.spec.truncation != 1:
            raise RequestError(
                found=f"truncation {latents.spec.truncation}",
                expected=f"1, since {self.name} normalises its latents",
                remedy="Set truncation to 1.",
            )
        return self._stopped(next(iter(self.layers)), latents.z[:, :, None, None], latents)

    def _next(self, at: LayerInput, values: Tensor) -> LayerInput | None:
        name = self._behind(at.layer)
        return self._stopped(name, self._activated(at, values), at.latents) if name in self.layers else None

    def _drawn(self, at: LayerInput, values: Tensor) -> Tensor:
        output = self._block(self._behind(at.layer))
        return output.scaled(output(self._activated(at, values))).clamp(-1, 1)

    def _stopped(self, layer: str, x: Tensor, latents: Latents) -> LayerInput:
        return LayerInput(layer, self._block(layer).keys(x), latents)

    def _behind(self, layer: str) -> str:
        """The block that follows; behind the last layer it is the output."""
        names = [name for name, _ in self.network.named_children()]
        return names[names.index(layer) + 1]

    def _activated(self, at: LayerInput, values: Tensor) -> Tensor:
        return functional.leaky_relu(self._block(at.layer).scaled(values), SLOPE)


def recognise(contents: Contents) -> bool:
    """Whether it is our export, or tensors under the published names."""
    return contents.schema == SCHEMA or (contents.description is None and contents.prefix(SIGN) is not None)


def open_proggan(contents: Contents) -> ProgGANGenerator:
    """Build the network that the tensors describe.

    Raises:
        FileError: naming the first thing that does not fit.
    """
    what, name = contents.weights, contents.name
    if contents.description is not None:
        name = ProgGANDescription.parse(contents.description, f"{name}/model.json", FileError).name
    names = contents.under(contents.prefix(SIGN) or "")
    tensors = contents.called(names).floats()
    channels = _channels(tensors, what)
    size = 2 << len(channels) // 2
    with torch.device("meta"):
        network = ProgGANNetwork(channels, f"output_{size}x{size}")
    fill(network, tensors, what)
    return ProgGANGenerator(network, name=name, layout=contents.layout(names))


def _channels(tensors: Mapping[str, Tensor], what: str) -> list[int]:
    """Of the latent and of each layer's value; whether everything else agrees is for `fill` to say."""
    count = sum(name.startswith("layer") and name.endswith(".conv.weight") for name in tensors)
    if count not in LAYERS:
        raise FileError(
            found=f"{what}: {count} layers",
            expected="two for each resolution from 4 to 1024",
            remedy="Check that the file is whole and of this family.",
        )
    widths = [extent(tensors, f"layer{index}.conv.weight", 0, what) for index in range(1, count + 1)]
    return [extent(tensors, "layer1.conv.weight", 1, what), *widths]


def _layers(network: ProgGANNetwork) -> Iterator[Layer]:
    blocks = [block for block in network.children() if isinstance(block, Block)]
    for index, block in enumerate(blocks[:-1], start=1):
        out_channels, in_channels = block.conv["weight"].shape[:2]
        size = 4 << (index - 1) // 2
        key = size if index > 1 else 1
        yield Layer(f"layer{index}", block.convolution, in_channels, out_channels, (key, key), (size, size))
