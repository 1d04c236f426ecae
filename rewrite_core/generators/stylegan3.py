"""Family *StyleGAN3*: NVIDIA's alias-free generators, of both kinds (-T and -R), from pickles or from our export.

Layers are all of the synthesis network, under their published names: ``L0_36_512`` … and the last, which draws the
picture's channels. The key is the input after style modulation, divided by the running magnitude that the layer stores;
the value is what follows demodulation and bias, *before* the filtered activation, which is not place by place. The
canonical weight is the stored one. Formulas: `stylegan3_network.py`.

Maps reach beyond the picture's edge: a `Layer`'s margins say how far.

A `LayerInput`'s ``rest`` holds ``ws`` [N, L, D], a w for the input and for each layer, after truncation; and ``style``
[N, C] of this layer. There is no noise. What tensors do not tell (sampling) is in the pickle beside them, and in our
export's ``model.json``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from rewrite_core.errors import FileError
from rewrite_core.generators.contents import Contents, extent, fill
from rewrite_core.generators.generator import Box, Layer, LayerInput
from rewrite_core.generators.latents import Latents
from rewrite_core.generators.layout import Layout
from rewrite_core.generators.nvidia_generator import NvidiaGenerator
from rewrite_core.generators.nvidia_mapping import MappingNetwork, MappingShape
from rewrite_core.generators.stylegan3_network import (
    InputShape,
    LayerShape,
    Shape,
    StyleGAN3Network,
    SynthesisInput,
    SynthesisLayer,
)
from rewrite_core.settings import Settings

__all__ = ["StyleGAN3Description", "StyleGAN3Generator", "open_stylegan3", "recognise"]

SCHEMA = "stylegan3"
LARGEST_SIDE, MOST_TAPS = 1 << 13, 128
"""Pixels of a map between two filters (a published network of 1024 pixels: 2,100 and 4,200), and taps of a filter."""

Factor = Annotated[int, Field(ge=1, le=8)]
Positive = Annotated[float, Field(gt=0)]


class InputDescription(Settings):
    """Of the Fourier features."""

    size: Annotated[int, Field(ge=1, le=LARGEST_SIDE)]
    rate: Positive
    bandwidth: Annotated[float, Field(ge=0)]


class LayerDescription(Settings):
    """Of one layer: its name, and what its tensors do not tell."""

    name: Annotated[str, Field(pattern=r"^L\d+_\d+_\d+$", max_length=40)]
    up: Factor
    down: Factor
    padding: tuple[int, int]
    clamp: Positive | None
    torgb: bool


class StyleGAN3Description(Settings):
    """The content of our export's ``model.json``."""

    format: Annotated[Literal["stylegan3/1"], Field(alias="schema")] = "stylegan3/1"
    name: Annotated[str, Field(min_length=1, max_length=200)]
    mapping_rate: Annotated[float, Field(gt=0, le=1)] = 0.01
    output_scale: float
    input: InputDescription
    layers: Annotated[tuple[LayerDescription, ...], Field(min_length=1, max_length=64)]


class StyleGAN3Generator(NvidiaGenerator):
    """A StyleGAN3 in the separated form."""

    family = SCHEMA
    network: StyleGAN3Network

    def __init__(
        self, network: StyleGAN3Network, *, shape: Shape, name: str, layout: Layout | None = None
    ) -> None:
        self.shape, self.classes = shape, shape.mapping.classes
        side = shape.layers[-1].out_size
        super().__init__(
            network,
            name=name,
            latent_dim=shape.mapping.latent_dim,
            picture_size=(side, side),
            layers=list(_layers(network, shape)),
            layout=layout,
            largest_map=max(layer.outputs * layer.inner_size**2 for layer in shape.layers),
        )

    def architecture(self) -> Mapping[str, Any]:
        """What the tensors do not tell."""
        fields = ("name", "up", "down", "clamp", "torgb")
        sampling = self.shape.input
        return {
            "mapping_rate": self.shape.mapping.rate,
            "output_scale": self.shape.output_scale,
            "input": {"size": sampling.size, "rate": sampling.rate, "bandwidth": sampling.bandwidth},
            "layers": [
                {**{name: getattr(layer, name) for name in fields}, "padding": list(layer.padding)}
                for layer in self.shape.layers
            ],
        }

    @property
    def styles(self) -> int:
        """One for the input, and one for each layer."""
        return len(self.layers) + 1

    @property
    def mapping(self) -> MappingNetwork:
        """The network's own."""
        return self.network.mapping

    def scales(self, at: LayerInput) -> Tensor | None:
        """The style [N, C]; None for the last layer, which is not demodulated."""
        return None if self._synthesis(at.layer).shape.torgb else at.rest["style"]

    def finish(
        self, at: LayerInput, response: Tensor, energy: Tensor | None = None, box: Box | None = None
    ) -> Tensor:
        """Demodulate, add the bias."""
        return self._synthesis(at.layer).finish(response, energy)

    def weight(self, layer: str) -> Tensor:
        """The stored weight [O, C, k, k]."""
        return self._synthesis(self.layer(layer).name).weight.detach()

    def _put_weight(self, layer: str, weight: Tensor) -> None:
        self._synthesis(layer).weight = nn.Parameter(weight, requires_grad=False)

    def _synthesis(self, layer: str) -> SynthesisLayer:
        module = self.network.synthesis[layer]
        assert isinstance(module, SynthesisLayer)
        return module

    def _first(self, latents: Latents) -> LayerInput:
        ws = self.placed(latents)  # [N, L, D]
        waves = self.network.synthesis["input"]
        assert isinstance(waves, SynthesisInput)
        return self._stopped(next(iter(self.layers)), waves(ws[:, 0]), latents, ws)

    def _next(self, at: LayerInput, values: Tensor) -> LayerInput | None:
        names = list(self.layers)
        index = names.index(at.layer) + 1
        if index == len(names):
            return None
        x = self._synthesis(at.layer).activated(values)  # [N, C, h, w]
        return self._stopped(names[index], x, at.latents, at.rest["ws"])

    def _stopped(self, layer: str, x: Tensor, latents: Latents, ws: Tensor) -> LayerInput:
        module = self._synthesis(layer)
        style = module.style(ws[:, list(self.layers).index(layer) + 1])  # [N, C]
        return LayerInput(layer, module.keys(x, style), latents, {"ws": ws, "style": style})

    def _drawn(self, at: LayerInput, values: Tensor) -> Tensor:
        pictures = self._synthesis(at.layer).activated(values) * self.shape.output_scale
        return pictures.expand(-1, 3, -1, -1)


def recognise(contents: Contents) -> bool:
    """Whether it is a network pickle of this family, or our export."""
    return contents.schema == SCHEMA


def open_stylegan3(contents: Contents) -> StyleGAN3Generator:
    """Build the network that the tensors and the description make together.

    Raises:
        FileError: naming the first thing that does not fit.
    """
    what = contents.weights
    description = StyleGAN3Description.parse(contents.description, f"{contents.name}/model.json", FileError)
    tensors = contents.floats()
    shape = _shape(tensors, description, what)
    with torch.device("meta"):
        network = StyleGAN3Network(shape)
    fill(network, tensors, what)
    layout = contents.layout(contents.under(""))
    return StyleGAN3Generator(network, shape=shape, name=description.name, layout=layout)


def _shape(tensors: Mapping[str, Tensor], description: StyleGAN3Description, what: str) -> Shape:
    layers: list[LayerShape] = []
    size = description.input.size
    for layer in description.layers:
        layers.append(_layer_shape(tensors, layer, size, what))
        size = layers[-1].out_size
    sampling = description.input
    channels = extent(tensors, "synthesis.input.freqs", 0, what)
    shape = Shape(
        mapping=MappingShape.of(tensors, description.mapping_rate, what),
        input=InputShape(channels, sampling.size, sampling.rate, sampling.bandwidth),
        layers=tuple(layers),
        output_scale=description.output_scale,
    )
    if layers[-1].outputs not in (1, 3) or sampling.rate <= 2 * sampling.bandwidth:
        raise FileError(
            found=f"{what}: pictures of {layers[-1].outputs} channels, a bandwidth of {sampling.bandwidth}",
            expected=f"1 or 3 channels, a bandwidth below half the rate {sampling.rate}",
            remedy="Check that it is the right file.",
        )
    return shape


def _layer_shape(tensors: Mapping[str, Tensor], layer: LayerDescription, size: int, what: str) -> LayerShape:
    """By the description and the tensors that carry sizes; whether all others agree is for `fill` to say."""
    path = f"synthesis.{layer.name}"
    shape = LayerShape(
        name=layer.name,
        inputs=extent(tensors, f"{path}.weight", 1, what),
        outputs=extent(tensors, f"{path}.weight", 0, what),
        kernel=extent(tensors, f"{path}.weight", 2, what),
        size=size,
        up=layer.up,
        down=layer.down,
        up_filter=_taps(tensors, f"{path}.up_filter"),
        down_filter=_taps(tensors, f"{path}.down_filter"),
        padding=layer.padding,
        clamp=layer.clamp,
        torgb=layer.torgb,
    )
    filters = [taps for taps in (shape.up_filter, shape.down_filter) if taps is not None]
    known = all(len(taps) in (1, 2) and len(set(taps)) == 1 and 1 <= taps[0] <= MOST_TAPS for taps in filters)
    named = int(layer.name.split("_")[1])
    if not known or shape.inner_size > LARGEST_SIDE or shape.out_size != named or not named:
        raise FileError(
            found=f"{what}: {layer.name} makes {shape.out_size} pixels of {size} ({shape.inner_size} between)",
            expected=f"{named}, filters of 1 to {MOST_TAPS} taps each way, and at most {LARGEST_SIDE} pixels",
            remedy="Check that it is whole and of this family.",
        )
    return shape


def _taps(tensors: Mapping[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(tensors[name].shape) if name in tensors else None


def _layers(network: StyleGAN3Network, shape: Shape) -> Iterator[Layer]:
    """The picture lies in the middle of every map, as many cells wide as the map has in a unit of length."""
    rate = shape.input.rate
    for layer in shape.layers:
        margin = max(0, round((layer.size - rate) / 2))
        rate *= layer.up / layer.down
        module = network.synthesis[layer.name]
        assert isinstance(module, SynthesisLayer)
        key, value = (layer.size, layer.size), (layer.value_size, layer.value_size)
        yield Layer(
            layer.name,
            module.convolution,
            layer.inputs,
            layer.outputs,
            key,
            value,
            key_margin=margin,
            value_margin=margin + (layer.kernel - 1) // 2,
        )
