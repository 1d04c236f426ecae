"""Family *StyleGAN2* (Karras et al. 2020; the home family of Bau et al., *Rewriting a Deep Generative Model*, 2020).

A checkpoint is in the rosinality layout or in the published code's sequential one, as a ``.pt`` file or as our own
export (`stylegan2_names.py`). Resolution (8 to 1024), channels, style dimension, mapping depth and blur are read off
the tensors.

Layers are the styled 3×3 convolutions: ``layer2`` at 4×4, then ``layer3``, ``layer4`` … with two a resolution, the odd
one upsampling. The key is ``s · x``, the input after style modulation; the value is what follows demodulation, blur,
noise, bias and leaky ReLU. The canonical weight is the stored one, [1, O, C, 3, 3] without its first axis; the constant
``1/√(9C)`` belongs to `respond` and `scales`. Formulas: `stylegan2_network.py`.

A `LayerInput`'s ``rest`` holds what the layer and all that follows need:

* ``w`` after truncation: [N, D], or [N, L, D] with one for each of the L places where a style enters (every layer, and
  the last toRGB), ``style`` [N, C] of this layer,
* ``noise`` [N or 1, 1, H, W] of this layer, unscaled (replace it to draw the layer with other noise),
* ``rgb`` [N, 3, …]: the picture drawn by the resolutions below; absent at the first.

Noise is the checkpoint's own where it has any, else drawn from (seed, layer); `with_noise` takes another source.
Truncation ψ is in w, ``w̄ + ψ (w - w̄)``, and needs the checkpoint's ``latent_avg``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from rewrite_core.errors import FileError, RequestError
from rewrite_core.files import to_safetensors_bytes
from rewrite_core.generators.contents import Contents, extent, fill
from rewrite_core.generators.generator import Box, Layer, LayerInput
from rewrite_core.generators.latents import Latents
from rewrite_core.generators.layered import LayeredGenerator
from rewrite_core.generators.layout import Layout
from rewrite_core.generators.noise import NoiseSource, SeededNoise, StoredNoise
from rewrite_core.generators.stylegan2_names import AVERAGE, names_of, without_average
from rewrite_core.generators.stylegan2_network import Shape, StyledConvolution, StyleGAN2Network, ToRGB
from rewrite_core.settings import Settings

__all__ = ["StyleGAN2Description", "StyleGAN2Generator", "open_stylegan2", "recognise"]

SCHEMA = "stylegan2"


class StyleGAN2Description(Settings):
    """The content of our export's ``model.json``; all else is read off the tensors."""

    format: Annotated[Literal["stylegan2/1"], Field(alias="schema")] = "stylegan2/1"
    name: Annotated[str, Field(min_length=1, max_length=200)]
    noise: Literal["stored", "seeded"] = "stored"


class StyleGAN2Generator(LayeredGenerator):
    """A StyleGAN2 in the separated form."""

    family = SCHEMA
    network: StyleGAN2Network

    def __init__(
        self,
        network: StyleGAN2Network,
        *,
        shape: Shape,
        name: str,
        noise: NoiseSource | None = None,
        layout: Layout | None = None,
    ) -> None:
        self.shape = shape
        stored = {f"layer{index + 2}": tensor for index, tensor in enumerate(network.noises.buffers())}
        self.noise: NoiseSource = noise or (StoredNoise(stored) if stored else SeededNoise())
        super().__init__(
            network,
            name=name,
            latent_dim=shape.style_dim,
            picture_size=(shape.resolution, shape.resolution),
            layers=list(_layers(network, shape)),
            layout=layout,
        )

    def with_noise(self, noise: NoiseSource) -> StyleGAN2Generator:
        """The same weights with noise from another source: a generator of its own, with a fingerprint of its own."""
        return StyleGAN2Generator(
            self.network, shape=self.shape, name=self.name, noise=noise, layout=self.layout
        )

    def architecture(self) -> Mapping[str, Any]:
        """Sizes, and where noise comes from."""
        sizes = {
            "style_dim": self.shape.style_dim,
            "depth": self.shape.depth,
            "channels": self.shape.channels,
        }
        return {**sizes, "noise": self.noise.kind}

    @property
    def styles(self) -> int:
        """One for each layer, and one for the last toRGB."""
        return len(self.layers) + 1

    def mapped(self, latents: Latents) -> Tensor:
        """W, truncated: [N, D], or [N, L, D] where it was given so."""
        w = latents.w
        if w is None:
            w = self.network.style(latents.z).float()  # [N, D]; half where samples are drawn so
        if latents.spec.truncation != 1:
            if self.network.latent_avg is None:
                raise RequestError(
                    found=f"truncation {latents.spec.truncation}",
                    expected=f"1, since {self.name} does not hold its average latent",
                    remedy="Set truncation to 1, or add latent_avg to the checkpoint.",
                )
            w = torch.lerp(self.network.latent_avg, w, latents.spec.truncation)
        return w

    def respond(self, layer: str, keys: Tensor, weight: Tensor) -> Tensor:
        """Convolve, with the constant 1/√(9C); after upsampling also blur."""
        return self._styled(self.layer(layer).name).conv.respond(keys, weight)

    def scales(self, at: LayerInput) -> Tensor:
        """The style, times the constant 1/√(9C): [N, C]."""
        return self._styled(at.layer).conv.gain * at.rest["style"]

    def finish(
        self, at: LayerInput, response: Tensor, energy: Tensor | None = None, box: Box | None = None
    ) -> Tensor:
        """Demodulate, add noise and bias, activate."""
        assert energy is not None, "StyleGAN2 demodulates: pass the weight's energy"
        noise = at.rest["noise"]
        if box is not None:
            top, left, bottom, right = box
            noise = noise[..., top:bottom, left:right]
        return self._styled(at.layer).finish(response, energy, noise)

    def weight(self, layer: str) -> Tensor:
        """The stored weight without its first axis, [O, C, 3, 3]."""
        return self._styled(self.layer(layer).name).conv.weight[0].detach()

    def files(self) -> dict[str, bytes]:
        """``model.json``, and ``model.safetensors`` under the rosinality checkpoint's names.

        Raises:
            FileError: if noise comes from a source that was handed in.
        """
        if not isinstance(self.noise, StoredNoise | SeededNoise):
            raise FileError(
                found=f"{self.name}: noise of kind '{self.noise.kind}'",
                expected="stored or seeded noise, which a file can describe",
                remedy="Choose with_noise(SeededNoise()) before saving.",
            )
        description = {"schema": "stylegan2/1", "name": self.name, "noise": self.noise.kind}
        tensors = {
            name if name == "latent_avg" else f"g_ema.{name}": tensor
            for name, tensor in self.network.state_dict().items()
        }
        return {
            "model.json": json.dumps(description, indent=1).encode(),
            "model.safetensors": to_safetensors_bytes(tensors, {"fingerprint": self.fingerprint}),
        }

    def _put_weight(self, layer: str, weight: Tensor) -> None:
        self._styled(layer).conv.weight = nn.Parameter(weight[None], requires_grad=False)

    def _styled(self, layer: str) -> StyledConvolution:
        index = list(self.layers).index(layer)
        module = self.network.convs[index - 1] if index else self.network.conv1
        assert isinstance(module, StyledConvolution)
        return module

    def _first(self, latents: Latents) -> LayerInput:
        """The batch stopped at the first layer."""
        w = self.mapped(latents)  # [N, D] or [N, L, D]
        x = self.network.input["input"].expand(len(w), -1, -1, -1)  # [N, C, 4, 4]
        return self._stopped(next(iter(self.layers)), x, latents, {"w": w})

    def _next(self, at: LayerInput, values: Tensor) -> LayerInput | None:
        """What the layer drew, as the input of the next one; None after the last."""
        names = list(self.layers)
        index = names.index(at.layer)
        if index + 1 == len(names):
            return None
        rest = {name: at.rest[name] for name in ("w", "rgb") if name in at.rest}
        if index % 2 == 0:  # the last layer of its resolution
            rest["rgb"] = self._drawn(at, values)
        return self._stopped(names[index + 1], values, at.latents, rest)

    def _stopped(self, layer: str, x: Tensor, latents: Latents, rest: Mapping[str, Tensor]) -> LayerInput:
        w = _style(rest["w"], list(self.layers).index(layer))  # [N, D]
        style = self._styled(layer).conv.modulation(w)  # [N, C]
        noise = self.noise(self.layers[layer], latents).to(x)  # [N or 1, 1, H, W]
        keys = style[:, :, None, None] * x  # [N, C, h, w]
        return LayerInput(layer, keys, latents, {**rest, "style": style, "noise": noise})

    def _drawn(self, at: LayerInput, values: Tensor) -> Tensor:
        """The picture so far, [N, 3, H, W], with what the last layer of a resolution adds."""
        index = list(self.layers).index(at.layer)
        module = self.network.to_rgbs[index // 2 - 1] if index else self.network.to_rgb1
        assert isinstance(module, ToRGB)
        drawn: Tensor = module(values, _style(at.rest["w"], index + 1), at.rest.get("rgb"))
        return drawn


def _style(w: Tensor, place: int) -> Tensor:
    """The w [N, D] that enters at `place`."""
    return w if w.ndim == 2 else w[:, place]


def recognise(contents: Contents) -> bool:
    """Whether it is our export, or tensors under the names of either layout."""
    return contents.schema == SCHEMA or (
        contents.description is None and names_of(contents.tensors) is not None
    )


def open_stylegan2(contents: Contents) -> StyleGAN2Generator:
    """Build the network that the tensors describe.

    Raises:
        FileError: naming the first thing that does not fit.
    """
    what, name, seeded = contents.weights, contents.name, False
    if contents.description is not None:
        parsed = StyleGAN2Description.parse(contents.description, f"{name}/model.json", FileError)
        name, seeded = parsed.name, parsed.noise == "seeded"
    absent = without_average(contents.tensors)
    names = {ours: name for ours, name in (names_of(contents.tensors) or {}).items() if name not in absent}
    layout = contents.layout(names, rest=absent)
    tensors = contents.called(names).floats()
    if AVERAGE in tensors:
        tensors[AVERAGE] = tensors[AVERAGE].reshape(-1)  # [D] or [1, D]
    shape = _shape(tensors, what)
    with torch.device("meta"):
        network = StyleGAN2Network(shape)
    fill(network, tensors, what)
    noise = SeededNoise() if seeded else None
    return StyleGAN2Generator(network, shape=shape, name=name, noise=noise, layout=layout)


def _shape(tensors: Mapping[str, Tensor], what: str) -> Shape:
    """Sizes by the tensors that carry them; whether all others agree is for `fill` to say."""
    levels = sum(name.startswith("to_rgbs.") and name.endswith(".conv.weight") for name in tensors)
    widths = [extent(tensors, f"convs.{2 * level}.conv.weight", 1, what) for level in range(levels)]
    shape = Shape(
        style_dim=extent(tensors, "conv1.conv.modulation.weight", 1, what),
        depth=sum(name.startswith("style.") and name.endswith(".weight") for name in tensors),
        channels=(extent(tensors, "input.input", 1, what), *widths),
        taps=extent(tensors, "convs.0.conv.blur.kernel", 0, what),
        picture_taps=extent(tensors, "to_rgbs.0.upsample.kernel", 0, what),
        stored_noise=any(name.startswith("noises.") for name in tensors),
        average="latent_avg" in tensors,
    )
    taps = (shape.taps, shape.picture_taps)
    if not (8 <= shape.resolution <= 1024 and min(taps) >= 1 and max(taps) <= 16 and shape.picture_taps > 1):
        raise FileError(
            found=f"{what}: {shape.resolution} px with kernels of {taps[0]} and {taps[1]} taps",
            expected="8 to 1024 px, 1 to 16 taps to blur with and 2 to 16 to enlarge the picture",
            remedy="Check that it is the right file.",
        )
    return shape


def _layers(network: StyleGAN2Network, shape: Shape) -> Iterator[Layer]:
    modules = [network.conv1, *network.convs]
    for index, ((before, after, size, up), module) in enumerate(zip(shape.sizes, modules, strict=True)):
        assert isinstance(module, StyledConvolution)
        key = size // 2 if up else size
        yield Layer(f"layer{index + 2}", module.conv.convolution, before, after, (key, key), (size, size))
