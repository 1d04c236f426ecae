"""The network of StyleGAN2-ADA in plain torch (Karras et al., *Training GANs with Limited Data*, 2020).

Modules and tensors have the names of the published state dict. Each layer is a linear map in the *separated* form, with
one interface: `style` (the factors that w gives), `respond` (linear in key and weight), `finish` (the rest, place by
place). With s = FC(w), W the stored weight [O, C, k, k] and f the blur's kernel::

    convolution   k = s · x
                  r = conv(k, W); conv0, which enlarges: blur(transposed conv(k, W), 4 f)
                  e = Σ (W s)²
                  v = clamp(g √2 · lrelu(r · rsqrt(e + 1e-8) + strength · noise + bias))
    torgb         k = s / √C · x,  r = conv(k, W),  v = clamp(r + bias)
    skip          k = x,  r = enlarged(conv(k, W / √C), 4 f),  v = r · √½

`skip` is the shortcut of the architecture ``resnet``, where g = √½ for conv1 (and its clamp is √½ of the others'); else
g = 1. It equals the published fused form; demodulation scales whole channels, so it commutes with the blur.

Shapes: batch N, w D, key channels C, value channels O.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from rewrite_core.generators.convolution import Convolution
from rewrite_core.generators.generator import EPSILON
from rewrite_core.generators.nvidia_mapping import MappingNetwork, MappingShape
from rewrite_core.generators.stylegan2_network import SLOPE, Linear, blurred, upsampled

__all__ = ["Architecture", "Shape", "Step", "StyleGAN2AdaNetwork", "SynthesisLayer"]

Architecture = Literal["skip", "resnet", "orig"]

USUAL_FILTER = (4, 4)  # conv1 holds one, and does not use it


@dataclass(frozen=True)
class Shape:
    """Everything that tells one network of this family from another but its numbers.

    Attributes:
        mapping: of the mapping network.
        architecture: how resolutions are joined.
        channels: at 4, 8, 16 … pixels.
        picture_channels: 1 or 3.
        filter: the shape of the blur's kernel: [taps, taps], or [taps] of one that is the same both ways.
        noise: whether layers have noise.
        clamp: the largest value of a layer, None: any.
    """

    mapping: MappingShape
    architecture: Architecture
    channels: tuple[int, ...]
    picture_channels: int
    filter: tuple[int, ...]
    noise: bool
    clamp: float | None

    @property
    def resolution(self) -> int:
        """Of the pictures."""
        return 2 << len(self.channels)


class Step(nn.Module):
    """A layer: a weight [O, C, k, k], modulated by an affine map of w where there is one."""

    demodulated = False
    enlarges = False

    def __init__(self, inputs: int, outputs: int, kernel: int, style_dim: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel))
        self.affine = Linear(style_dim, inputs) if style_dim else None
        self.convolution = Convolution((kernel, kernel), padding=(kernel // 2, kernel // 2))

    def style(self, w: Tensor) -> Tensor | None:
        """A factor for each input channel, [N, C]; None: the input is the key."""
        return None if self.affine is None else self.affine(w)

    def respond(self, keys: Tensor, weight: Tensor) -> Tensor:
        """Keys [N, c, h, w], weight [O, c, k, k] → [N, O, H, W]."""
        return self.convolution(keys, weight)

    def finish(self, response: Tensor, energy: Tensor | None, noise: Tensor | None) -> Tensor:
        """Response [N, O, H, W], energy [N, O], noise [N or 1, 1, H, W] → value [N, O, H, W]."""
        raise NotImplementedError


class SynthesisLayer(Step):
    """A demodulated 3×3 convolution with noise, bias, activation and clamp."""

    demodulated = True

    def __init__(
        self, shape: Shape, inputs: int, outputs: int, size: int, *, up: bool, gain: float = 1.0
    ) -> None:
        super().__init__(inputs, outputs, 3, shape.mapping.widths[-1])
        self.bias = nn.Parameter(torch.empty(outputs))
        self.register_buffer("resample_filter", torch.empty(shape.filter if up else USUAL_FILTER))
        self.noise_const: Tensor | None
        self.register_buffer("noise_const", torch.empty(size, size) if shape.noise else None)
        self.noise_strength = nn.Parameter(torch.empty(())) if shape.noise else None
        self.gain, self.clamp = gain * math.sqrt(2), None if shape.clamp is None else gain * shape.clamp
        self.enlarges = up
        if up:
            self.convolution = Convolution((3, 3), stride=(2, 2), transposed=True)

    def respond(self, keys: Tensor, weight: Tensor) -> Tensor:
        """Convolve, and blur after enlarging."""
        response = super().respond(keys, weight)  # enlarging: [N, O, 2h + 1, 2w + 1]
        return blurred(response, kernel_of(self)) if self.enlarges else response

    def finish(self, response: Tensor, energy: Tensor | None, noise: Tensor | None) -> Tensor:
        """Demodulate, add noise and bias, activate, clamp."""
        assert energy is not None, "this layer demodulates: pass the weight's energy"
        value = response * (self.gain * torch.rsqrt(energy + EPSILON))[:, :, None, None]
        if noise is not None and self.noise_strength is not None:
            value += self.gain * self.noise_strength * noise
        value += self.gain * self.bias[:, None, None]
        value = functional.leaky_relu(value, SLOPE, inplace=True)  # g · lrelu(x) = lrelu(g · x)
        return value if self.clamp is None else value.clamp(-self.clamp, self.clamp)


class ToRGB(Step):
    """A modulated 1×1 convolution to the picture's channels, not demodulated."""

    def __init__(self, shape: Shape, inputs: int) -> None:
        super().__init__(inputs, shape.picture_channels, 1, shape.mapping.widths[-1])
        self.bias = nn.Parameter(torch.empty(shape.picture_channels))
        self.clamp, self.gain = shape.clamp, 1 / math.sqrt(inputs)

    def style(self, w: Tensor) -> Tensor:
        """All of the affine map, its bias too, times 1/√C: [N, C]."""
        assert self.affine is not None
        style: Tensor = self.affine(w) * self.gain
        return style

    def finish(self, response: Tensor, energy: Tensor | None, noise: Tensor | None) -> Tensor:
        """Add the bias, clamp."""
        value = response + self.bias[:, None, None]
        return value if self.clamp is None else value.clamp(-self.clamp, self.clamp)


class Skip(Step):
    """The shortcut past a resolution: a 1×1 convolution, enlarged."""

    enlarges = True

    def __init__(self, shape: Shape, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1)
        self.register_buffer("resample_filter", torch.empty(shape.filter))
        self.gain = 1 / math.sqrt(inputs)

    def respond(self, keys: Tensor, weight: Tensor) -> Tensor:
        """Convolve, with the constant 1/√C, and enlarge."""
        return upsampled(super().respond(keys, self.gain * weight), kernel_of(self))

    def finish(self, response: Tensor, energy: Tensor | None, noise: Tensor | None) -> Tensor:
        """Times √½."""
        return response * math.sqrt(0.5)


class Block(nn.Module):
    """The layers of one resolution, in the order in which they are passed."""

    def __init__(self, shape: Shape, level: int) -> None:
        super().__init__()
        inputs, outputs, size = shape.channels[max(0, level - 1)], shape.channels[level], 4 << level
        residual = shape.architecture == "resnet" and level > 0
        self.register_buffer("resample_filter", torch.empty(shape.filter))
        if level == 0:
            self.const = nn.Parameter(torch.empty(outputs, size, size))
        if residual:
            self.skip = Skip(shape, inputs, outputs)
        if level > 0:
            self.conv0 = SynthesisLayer(shape, inputs, outputs, size, up=True)
        gain = math.sqrt(0.5) if residual else 1.0
        self.conv1 = SynthesisLayer(shape, outputs, outputs, size, up=False, gain=gain)
        if shape.architecture == "skip" or size == shape.resolution:
            self.torgb = ToRGB(shape, outputs)

    def steps(self) -> Iterator[tuple[str, Step]]:
        """Name and layer."""
        yield from ((name, layer) for name, layer in self.named_children() if isinstance(layer, Step))

    def enlarged(self, rgb: Tensor) -> Tensor:
        """The picture of the resolution below [N, c, h, w], for this one: [N, c, 2h, 2w]."""
        return upsampled(rgb, kernel_of(self))


class StyleGAN2AdaNetwork(nn.Module):
    """``mapping``, and ``synthesis`` with a block for each resolution; run by `StyleGAN2AdaGenerator`."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.mapping = MappingNetwork(shape.mapping)
        self.synthesis = nn.ModuleDict(
            {f"b{4 << level}": Block(shape, level) for level in range(len(shape.channels))}
        )

    def steps(self) -> Iterator[tuple[str, Step]]:
        """``b4.conv1`` and the layers after it."""
        for block in self.blocks():
            yield from (
                (f"{name}.{step}", layer) for name in [block] for step, layer in self.block(name).steps()
            )

    def blocks(self) -> list[str]:
        """Names, from ``b4`` to the last."""
        return list(self.synthesis)

    def block(self, name: str) -> Block:
        """The block called `name`."""
        block = self.synthesis[name]
        assert isinstance(block, Block)
        return block


def kernel_of(module: nn.Module) -> Tensor:
    """A module's blur [taps, taps], times 4 to make up for the zeros that enlarging inserts."""
    kernel = module.get_buffer("resample_filter")
    return 4 * (torch.outer(kernel, kernel) if kernel.ndim == 1 else kernel)
