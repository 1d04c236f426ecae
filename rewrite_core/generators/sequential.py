"""Family *sequential*: any feed-forward stack, described by data or handed over as a `torch.nn.Sequential`.

Convolutions and transposed convolutions are the rewritable layers, read as in method.md's table: the key is the
convolution's input, the value its output with bias, before normalisation and activation. Their weights are brought
into the canonical layout once, when the stack is opened; everything else runs as it came.

Truncation scales z towards its mean 0 (there is no mapping network).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rewrite_core.errors import FileError, PalimpsestError
from rewrite_core.files import require_finite, to_safetensors_bytes
from rewrite_core.generators.description import LatentDescription
from rewrite_core.generators.flatten import flattened
from rewrite_core.generators.generator import Box, Layer, LayerInput
from rewrite_core.generators.latents import Distribution, Latents, LatentSpec
from rewrite_core.generators.layered import LayeredGenerator
from rewrite_core.generators.layout import Layout
from rewrite_core.generators.shapes import starts_with_convolution, trace
from rewrite_core.generators.stack import ConvolutionModule, describe

__all__ = ["SequentialGenerator", "from_sequential"]

LARGEST_PICTURE = 4096
SHORT = 2e-3
"""How far from the limits of tanh and sigmoid, as a share of their range, a value is taken back."""
TWO = LatentSpec((0, 1))
"""What modules that no step describes are tried on."""


class SequentialGenerator(LayeredGenerator):
    """A generator whose network is one `torch.nn.Sequential` of steps.

    `about` is what its ``model.json`` says of source, licence and training data; a saved copy says it again.
    """

    family = "sequential"

    def __init__(
        self,
        network: nn.Sequential,
        *,
        name: str,
        latent: LatentDescription,
        output_range: tuple[float, float],
        about: Mapping[str, Any] | None = None,
        layout: Layout | None = None,
        assumed: str = "",
    ) -> None:
        self.output_range = output_range
        self.assumed = assumed
        self.about = dict(about or {})
        self.latent = latent
        sizes = trace(network, latent.dim, name)
        picture = sizes[-1]
        sides = picture[1:]
        if (
            len(picture) != 3
            or picture[0] not in (1, 3)
            or not 1 <= min(sides) <= max(sides) <= LARGEST_PICTURE
        ):
            raise FileError(
                found=f"{name}: a stack that draws {list(picture)}",
                expected=f"pictures [3, H, W] or [1, H, W] up to {LARGEST_PICTURE} px",
                remedy="End the stack where the picture comes out.",
            )
        if not -math.inf < output_range[0] < output_range[1] < math.inf:
            raise FileError(
                found=f"{name}: output_range {list(output_range)}",
                expected="the numbers that stand for black and for white",
                remedy="Give the lower one first, e.g. [-1, 1] for a stack that ends in tanh.",
            )
        super().__init__(
            network,
            name=name,
            latent_dim=latent.dim,
            distribution=latent.distribution,
            picture_size=(sides[0], sides[1]),
            layers=list(_layers(network, sizes)),
            largest_map=max(map(math.prod, sizes)),
            layout=layout,
        )

    def architecture(self) -> Mapping[str, Any]:
        """The steps; a module of no known kind stands by its `repr` and by what it makes of two latents."""
        described = [_described(name, module) for name, module in self.network.named_children()]
        steps = described if all(described) else self._observed(described)
        return {"latent": self.latent.model_dump(), "output_range": list(self.output_range), "layers": steps}

    @torch.no_grad()
    def _observed(self, described: Sequence[dict[str, Any] | None]) -> list[Any]:
        """The descriptions, with [repr, summary] where there is none: a `repr` need not say all."""
        steps: list[Any] = []
        x = self._start(self.latents(TWO))
        for description, module in zip(described, self.network.children(), strict=True):
            x = module(x)
            steps.append(description or [repr(module), _summary(x)])
        return steps

    def finish(
        self, at: LayerInput, response: Tensor, energy: Tensor | None = None, box: Box | None = None
    ) -> Tensor:
        """Add the bias."""
        return self._convolution(at.layer).finish(response)

    def pictures(self, latents: Latents) -> Tensor:
        """Run the whole stack, which need not have a layer."""
        return self._picture(self.network(self._start(latents)))

    def paints(self, layer: str) -> bool:
        """Whether nothing but activations that can be undone follows the layer."""
        return all(type(module) in _UNDONE for module in self._behind(layer))

    def _unrendered(self, layer: str, pictures: Tensor) -> Tensor:
        low, high = self.output_range
        drawn = (pictures + 1) * ((high - low) / 2) + low  # [N, 3, H, W]
        if self.layers[layer].out_channels == 1:
            drawn = drawn.mean(1, keepdim=True)  # [N, 1, H, W]
        for module in reversed(self._behind(layer)):
            drawn = _UNDONE[type(module)](module, drawn)
        return drawn

    def _behind(self, layer: str) -> list[nn.Module]:
        """The steps that follow a layer."""
        names = [name for name, _ in self.network.named_children()]
        return list(self.network.children())[names.index(layer) + 1 :]

    def weight(self, layer: str) -> Tensor:
        """The layer's weight [O, C, kh, kw]."""
        self.layer(layer)
        weight: Tensor = self._convolution(layer).weight
        return weight.detach()

    def files(self) -> dict[str, bytes]:
        """``model.json`` and ``model.safetensors``.

        Raises:
            FileError: if the stack holds a module that no step of a model.json describes.
        """
        modules = dict(self.network.named_children())
        unknown = [
            f"{name} ({type(module).__name__})"
            for name, module in modules.items()
            if not describe(name, module)
        ]
        if unknown:
            raise FileError(
                found=f"{self.name}: step {unknown[0]}, which model.json has no word for",
                expected="only linear, reshape, convolution, upsampling, batch norm and activation steps",
                remedy="Save the weights with torch instead.",
            )
        description = {
            "schema": "gen-layers/1",
            "name": self.name,
            "resolution": self.resolution,
            **self.architecture(),
            **self.about,
        }
        return {
            "model.json": json.dumps(description, indent=1).encode(),
            "model.safetensors": to_safetensors_bytes(self.stored(), {"fingerprint": self.fingerprint}),
        }

    def stored(self) -> dict[str, Tensor]:
        """The steps' tensors in torch's own layout: a transposed convolution's weight is [C, O, kh, kw]."""
        return {
            f"{name}.{key}": tensor.transpose(0, 1).contiguous()
            if _stored_transposed(module, key)
            else tensor
            for name, module in self.network.named_children()
            for key, tensor in module.state_dict().items()
            if tensor.is_floating_point()
        }

    def _put_weight(self, layer: str, weight: Tensor) -> None:
        self._convolution(layer).weight = nn.Parameter(weight, requires_grad=False)

    def _convolution(self, layer: str) -> ConvolutionModule:
        module = self.network.get_submodule(layer)
        assert isinstance(module, ConvolutionModule)
        return module

    def _first(self, latents: Latents) -> LayerInput:
        layer = next(iter(self.layers))
        return LayerInput(layer, self._run(self._start(latents), until=layer), latents)

    def _next(self, at: LayerInput, values: Tensor) -> LayerInput | None:
        layers = list(self.layers)
        behind = layers[layers.index(at.layer) + 1 :]
        return LayerInput(behind[0], self._run(values, at.layer, behind[0]), at.latents) if behind else None

    def _drawn(self, at: LayerInput, values: Tensor) -> Tensor:
        return self._picture(self._run(values, at.layer))

    def _run(self, x: Tensor, after: str | None = None, until: str | None = None) -> Tensor:
        """What the steps between two make of x; from the first on, or to the last, where one is not given."""
        names = [name for name, _ in self.network.named_children()]
        first, end = names.index(after) + 1 if after else 0, names.index(until) if until else len(names)
        for module in list(self.network.children())[first:end]:
            x = module(x)
        return x

    def _start(self, latents: Latents) -> Tensor:
        z = latents.z * latents.spec.truncation  # [N, D]
        return z[:, :, None, None] if starts_with_convolution(self.network) else z

    def _picture(self, drawn: Tensor) -> Tensor:
        low, high = self.output_range
        centred = (drawn - low) * (2.0 / (high - low)) - 1.0  # [N, 1 or 3, H, W] in [-1, 1]
        return centred.expand(-1, 3, -1, -1)  # [N, 3, H, W]


def _unsquashed(module: nn.Module, drawn: Tensor) -> Tensor:
    """Tanh or sigmoid undone, short of their limits."""
    if isinstance(module, nn.Sigmoid):
        return drawn.clamp(SHORT, 1 - SHORT).logit()
    return drawn.clamp(2 * SHORT - 1, 1 - 2 * SHORT).atanh()


_UNDONE: Mapping[type[nn.Module], Callable[[nn.Module, Tensor], Tensor]] = {
    nn.Tanh: _unsquashed,
    nn.Sigmoid: _unsquashed,
    nn.Identity: lambda module, drawn: drawn,
}
"""Activation → the value that it was given, from what it drew."""


def from_sequential(
    stack: nn.Sequential,
    *,
    name: str = "stack",
    latent_dim: int | None = None,
    distribution: Distribution = "normal",
    output_range: tuple[float, float] | None = None,
) -> SequentialGenerator:
    """A generator from any `torch.nn.Sequential` that maps latents [N, D] (or [N, D, 1, 1]) to pictures.

    The stack is copied, so it may go on being trained. `latent_dim` is read off the first linear or convolution, and
    `output_range` off the last activation (sigmoid: 0 to 1, else -1 to 1), where they are not given.

    Raises:
        FileError: if the stack does not run on such latents, draws no picture, draws at random, or holds NaN.
    """
    flat = flattened(stack)
    require_finite(
        {key: value for key, value in flat.state_dict().items() if value.is_floating_point()}, name
    )
    last = type(list(flat)[-1]) if len(flat) else nn.Identity
    latent = LatentDescription(dim=latent_dim or _latent_dim(flat, name), distribution=distribution)
    generator = SequentialGenerator(
        flat,
        name=name,
        latent=latent,
        output_range=output_range or ((0.0, 1.0) if last is nn.Sigmoid else (-1.0, 1.0)),
    )
    _require_repeatable(generator)
    return generator


def _require_repeatable(generator: SequentialGenerator) -> None:
    """A seed must name a picture; only a module that no step describes could draw numbers of its own."""
    if all(describe(name, module) for name, module in generator.network.named_children()):
        return
    latents = generator.latents(TWO)
    once, again = generator.pictures(latents), generator.pictures(latents)
    if not torch.allclose(once, again, rtol=0, atol=1e-5, equal_nan=True):
        raise FileError(
            found=f"{generator.name}: two different pictures of one latent",
            expected="a stack that draws the same each time",
            remedy="Make its random numbers constant, such as buffers.",
        )


def _layers(network: nn.Sequential, sizes: Sequence[tuple[int, ...]]) -> Iterable[Layer]:
    for (name, module), before, after in zip(network.named_children(), sizes[:-1], sizes[1:], strict=True):
        if isinstance(module, ConvolutionModule):
            size_in, size_out = (before[1], before[2]), (after[1], after[2])
            yield Layer(name, module.convolution, before[0], after[0], size_in, size_out)


def _latent_dim(network: nn.Sequential, name: str) -> int:
    for module in network:
        if isinstance(module, ConvolutionModule):
            return int(module.weight.shape[1])
        if isinstance(module, nn.Linear):
            return module.in_features
        if isinstance(module, nn.Unflatten) and (size := math.prod(map(int, module.unflattened_size))) > 0:
            return size
    raise PalimpsestError(
        found=f"{name}: no linear layer or convolution to read the latent size from",
        expected="latent_dim",
        remedy="Give latent_dim=…",
    )


def _described(name: str, module: nn.Module) -> dict[str, Any] | None:
    step = describe(name, module)
    return step.model_dump(mode="json") if step else None


def _summary(x: Tensor) -> list[str]:
    """A fixed random projection of each sample of [N, …]: few and rounded, to be the same on every machine."""
    flat = x.detach().flatten(1).cpu().double()  # [N, M]
    draw = torch.Generator().manual_seed(0)
    weights = torch.randn(flat.shape[1], generator=draw, dtype=torch.float64)  # [M]
    return [f"{value:.2e}" for value in (flat @ weights).tolist()]


def _stored_transposed(module: nn.Module, key: str) -> bool:
    return key == "weight" and isinstance(module, ConvolutionModule) and module.convolution.transposed
