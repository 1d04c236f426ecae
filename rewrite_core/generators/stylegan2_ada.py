"""Family *StyleGAN2-ADA*: NVIDIA's StyleGAN2 in PyTorch, from its network pickles or from our export.

Architectures ``skip``, ``resnet`` and ``orig``; the published StyleGAN2 of the TensorFlow line, and that of the
StyleGAN3 repository are of this family, too. Sizes are read off the tensors; what they do not tell (architecture,
clamp, rate of the mapping network) is in the pickle beside them, and in our export's ``model.json``.

Layers are *all* convolutions, named as in the state dict and passed in this order: ``b4.conv1``, ``b4.torgb``,
``b8.skip``, ``b8.conv0`` (enlarges), ``b8.conv1``, ``b8.torgb``, … as far as the architecture has them. The canonical
weight is the stored one. Formulas: `stylegan2_ada_network.py`.

A `LayerInput`'s ``rest`` holds what the layer and all that follow need:

* ``ws`` [N, L, D]: a w for each place of the published code, after truncation,
* ``style`` [N, C] of this layer (not for ``skip``),
* ``noise`` [N or 1, 1, H, W] of this layer, unscaled (convolutions with noise),
* ``x``: the features [N, C, …] that go on past a ``torgb``,
* ``rgb``: the picture drawn by the resolutions below; absent at the first,
* ``shortcut`` [N, O, …]: what ``skip`` drew, until it is added to the resolution's last value.

Noise is the checkpoint's own (``noise_const``); `with_noise` takes another source.
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
from rewrite_core.generators.noise import NoiseSource, NoNoise, SeededNoise, StoredNoise
from rewrite_core.generators.nvidia_generator import NvidiaGenerator
from rewrite_core.generators.nvidia_mapping import MappingNetwork, MappingShape
from rewrite_core.generators.stylegan2_ada_network import (
    Architecture,
    Shape,
    Step,
    StyleGAN2AdaNetwork,
    SynthesisLayer,
)
from rewrite_core.settings import Settings

__all__ = ["StyleGAN2AdaDescription", "StyleGAN2AdaGenerator", "open_stylegan2_ada", "recognise"]

SCHEMA = "stylegan2-ada"
SIZES = range(2, 10)
"""Resolutions that a network has: of 8 to 1024 pixels."""
_SOURCES: Mapping[str, NoiseSource] = {"seeded": SeededNoise(), "none": NoNoise()}


class StyleGAN2AdaDescription(Settings):
    """The content of our export's ``model.json``: what tensors do not tell."""

    format: Annotated[Literal["stylegan2-ada/1"], Field(alias="schema")] = "stylegan2-ada/1"
    name: Annotated[str, Field(min_length=1, max_length=200)]
    architecture: Architecture
    clamp: Annotated[float, Field(gt=0)] | None
    mapping_rate: Annotated[float, Field(gt=0, le=1)] = 0.01
    noise: Literal["stored", "seeded", "none"] = "stored"


class StyleGAN2AdaGenerator(NvidiaGenerator):
    """A StyleGAN2-ADA in the separated form."""

    family = SCHEMA
    network: StyleGAN2AdaNetwork

    def __init__(
        self,
        network: StyleGAN2AdaNetwork,
        *,
        shape: Shape,
        name: str,
        noise: NoiseSource | None = None,
        layout: Layout | None = None,
    ) -> None:
        self.shape, self.classes = shape, shape.mapping.classes
        steps = dict(network.steps())
        maps = {
            layer: step.noise_const[None, None]
            for layer, step in steps.items()
            if isinstance(step, SynthesisLayer) and step.noise_const is not None
        }
        self.noise: NoiseSource = noise or (StoredNoise(maps) if maps else NoNoise())
        super().__init__(
            network,
            name=name,
            latent_dim=shape.mapping.latent_dim,
            picture_size=(shape.resolution, shape.resolution),
            layers=list(_layers(steps)),
            layout=layout,
        )

    def with_noise(self, noise: NoiseSource) -> StyleGAN2AdaGenerator:
        """The same weights with noise from another source: a generator of its own, with a fingerprint of its own."""
        return StyleGAN2AdaGenerator(self.network, shape=self.shape, name=self.name, noise=noise)

    def architecture(self) -> Mapping[str, Any]:
        """What the tensors do not tell."""
        return {
            "architecture": self.shape.architecture,
            "clamp": self.shape.clamp,
            "mapping_rate": self.shape.mapping.rate,
            "noise": self.noise.kind,
        }

    @property
    def default_layer(self) -> str:
        """The middle one of the 3×3 convolutions above the first resolution."""
        convolutions = [name for name in self.layers if ".conv" in name]
        return convolutions[len(convolutions) // 2]

    def respond(self, layer: str, keys: Tensor, weight: Tensor) -> Tensor:
        """Convolve; where the layer enlarges, also blur."""
        return self._step(self.layer(layer).name).respond(keys, weight)

    @property
    def styles(self) -> int:
        """Two for each resolution, as the published code counts."""
        return 2 * len(self.network.blocks())

    @property
    def mapping(self) -> MappingNetwork:
        """The network's own."""
        return self.network.mapping

    def scales(self, at: LayerInput) -> Tensor | None:
        """The style [N, C] of a demodulated layer."""
        return at.rest["style"] if self._step(at.layer).demodulated else None

    def finish(
        self, at: LayerInput, response: Tensor, energy: Tensor | None = None, box: Box | None = None
    ) -> Tensor:
        """Demodulate, add noise and bias, activate, clamp: as far as the layer does."""
        noise = at.rest.get("noise")
        if noise is not None and box is not None:
            top, left, bottom, right = box
            noise = noise[..., top:bottom, left:right]
        return self._step(at.layer).finish(response, energy, noise)

    def weight(self, layer: str) -> Tensor:
        """The stored weight [O, C, k, k]."""
        return self._step(self.layer(layer).name).weight.detach()

    def files(self) -> dict[str, bytes]:
        """``model.json``, and ``model.safetensors`` under the state dict's names.

        Raises:
            FileError: if noise comes from a source that was handed in.
        """
        if not isinstance(self.noise, StoredNoise | SeededNoise | NoNoise):
            raise FileError(
                found=f"{self.name}: noise of kind '{self.noise.kind}'",
                expected="stored or seeded noise or none, which a file can describe",
                remedy="Choose with_noise(SeededNoise()) before saving.",
            )
        return super().files()

    def _put_weight(self, layer: str, weight: Tensor) -> None:
        self._step(layer).weight = nn.Parameter(weight, requires_grad=False)

    def _step(self, layer: str) -> Step:
        block, _, name = layer.partition(".")
        step = self.network.block(block).get_submodule(name)
        assert isinstance(step, Step)
        return step

    def _first(self, latents: Latents) -> LayerInput:
        blocks = self.network.blocks()
        ws = self.placed(latents)  # [N, L, D]
        x = self.network.block(blocks[0]).const.expand(len(ws), -1, -1, -1)  # [N, C, 4, 4]
        return self._stopped(next(iter(self.layers)), x, latents, {"ws": ws})

    def _next(self, at: LayerInput, values: Tensor) -> LayerInput | None:
        names = list(self.layers)
        index = names.index(at.layer)
        if index + 1 == len(names):
            return None
        rest = {name: at.rest[name] for name in ("ws", "rgb", "shortcut") if name in at.rest}
        x = values
        match at.layer.partition(".")[2]:
            case "skip":
                rest["shortcut"], x = values, at.rest["x"]
            case "conv1" if "shortcut" in rest:
                x = rest.pop("shortcut") + values
            case "torgb":
                rest["rgb"], x = self._rgb(at, values), at.rest["x"]
        return self._stopped(names[index + 1], x, at.latents, rest)

    def _stopped(self, layer: str, x: Tensor, latents: Latents, rest: Mapping[str, Tensor]) -> LayerInput:
        block, _, name = layer.partition(".")
        step, own = self._step(layer), dict(rest)
        style = step.style(rest["ws"][:, self._place(block, name)])  # [N, C]
        if style is not None:
            own["style"] = style
        if not step.demodulated:
            own["x"] = x
        elif self.shape.noise:
            own["noise"] = self.noise(self.layers[layer], latents).to(x)  # [N or 1, 1, H, W]
        keys = x if style is None else style[:, :, None, None] * x  # [N, C, h, w]
        return LayerInput(layer, keys, latents, own)

    def _place(self, block: str, name: str) -> int:
        """Which w a layer takes: a torgb, the one that the next resolution's first convolution takes, too."""
        last = 2 * self.network.blocks().index(block)
        return last + {"skip": -1, "conv0": -1, "conv1": 0, "torgb": 1}[name]

    def _rgb(self, at: LayerInput, values: Tensor) -> Tensor:
        """The picture so far [N, c, H, W], with what a torgb adds."""
        if "rgb" not in at.rest:
            return values
        return self.network.block(at.layer.partition(".")[0]).enlarged(at.rest["rgb"]) + values

    def _drawn(self, at: LayerInput, values: Tensor) -> Tensor:
        return self._rgb(at, values).expand(-1, 3, -1, -1)


def recognise(contents: Contents) -> bool:
    """Whether it is a network pickle of this family, or our export."""
    return contents.schema == SCHEMA


def open_stylegan2_ada(contents: Contents) -> StyleGAN2AdaGenerator:
    """Build the network that the tensors and the description make together.

    Raises:
        FileError: naming the first thing that does not fit.
    """
    what = contents.weights
    description = StyleGAN2AdaDescription.parse(
        contents.description, f"{contents.name}/model.json", FileError
    )
    tensors = contents.floats()
    shape = _shape(tensors, description, what)
    with torch.device("meta"):
        network = StyleGAN2AdaNetwork(shape)
    fill(network, tensors, what)
    noise, layout = _SOURCES.get(description.noise), contents.layout(contents.under(""))
    return StyleGAN2AdaGenerator(network, shape=shape, name=description.name, noise=noise, layout=layout)


def _shape(tensors: Mapping[str, Tensor], description: StyleGAN2AdaDescription, what: str) -> Shape:
    """Sizes by the tensors that carry them; whether all others agree is for `fill` to say."""
    levels = sum(name.startswith("synthesis.b") and name.endswith(".conv1.weight") for name in tensors)
    if levels not in SIZES:
        raise FileError(
            found=f"{what}: {levels} resolutions",
            expected="those from 4 to a last one of 8 to 1024 pixels",
            remedy="Check that it is whole and of this family.",
        )
    blocks = [f"synthesis.b{4 << level}" for level in range(levels)]
    shape = Shape(
        mapping=MappingShape.of(tensors, description.mapping_rate, what),
        architecture=description.architecture,
        channels=tuple(extent(tensors, f"{block}.conv1.weight", 0, what) for block in blocks),
        picture_channels=extent(tensors, f"{blocks[-1]}.torgb.weight", 0, what),
        filter=tuple(tensors.get(f"{blocks[1]}.conv0.resample_filter", torch.empty(0)).shape),
        noise=f"{blocks[0]}.conv1.noise_const" in tensors,
        clamp=description.clamp,
    )
    square = len(shape.filter) == 1 or (len(shape.filter) == 2 and shape.filter[0] == shape.filter[1])
    if shape.picture_channels not in (1, 3) or not square or not 2 <= shape.filter[0] <= 16:
        raise FileError(
            found=f"{what}: pictures of {shape.picture_channels} channels, a blur {list(shape.filter)}",
            expected="1 or 3 channels, a square blur of 2 to 16 taps",
            remedy="Check that it is the right file.",
        )
    return shape


def _layers(steps: Mapping[str, Step]) -> Iterator[Layer]:
    for name, step in steps.items():
        out_channels, in_channels = step.weight.shape[:2]
        size = int(name.partition(".")[0][1:])
        key = size // 2 if step.enlarges else size
        yield Layer(name, step.convolution, in_channels, out_channels, (key, key), (size, size))
