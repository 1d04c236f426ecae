"""StyleGAN2's network in plain torch (Karras et al., *Analyzing and Improving the Image Quality of StyleGAN*, 2020).

The modules' names are those of the rosinality checkpoints, so a state dict is such a checkpoint's ``g_ema``. What a
module computes is written for one convolution at a time, in the *separated* form: with style s, weight W [O, C, 3, 3]
and the constant c = 1/√(9C)::

    k = s · x                                    the key
    r = blur(conv(k, c·W))                       the response, linear in k and in W (blur: upsampling layers only)
    e = Σ_{i,yx} (c · W · s_i)²                  the energy of each output channel
    v = √2 · lrelu(r · rsqrt(e + 1e-8) + strength · noise + bias)

It equals the usual fused form, which gives each picture a weight of its own; demodulation scales whole channels, so it
commutes with the blur. Weights W are as the file stores them: c is applied in `respond` and in `Generator.scales`.

Shapes: batch N, style D, key channels C, value channels O. All tensors float32, on the device they were put on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from rewrite_core.generators.convolution import Convolution
from rewrite_core.generators.generator import EPSILON

__all__ = ["Shape", "StyleGAN2Network", "StyledConvolution", "ToRGB", "blurred", "upsampled"]

SLOPE = 0.2
MAPPING_RATE = 0.01


@dataclass(frozen=True)
class Shape:
    """Everything that tells one StyleGAN2 from another but its numbers.

    Attributes:
        style_dim: D, of z and w.
        depth: fully connected layers from z to w.
        channels: at 4, 8, 16 … pixels.
        taps: of the kernel that blurs what a layer has upsampled, [taps, taps].
        picture_taps: of the kernel with which the picture so far is enlarged.
        stored_noise: whether the checkpoint brings its own noise.
        average: whether it brings the average w.
    """

    style_dim: int
    depth: int
    channels: tuple[int, ...]
    taps: int
    picture_taps: int
    stored_noise: bool
    average: bool

    @property
    def resolution(self) -> int:
        """Of the pictures."""
        return 2 << len(self.channels)

    @property
    def sizes(self) -> list[tuple[int, int, int, bool]]:
        """Of each styled convolution: key channels, value channels, resolution of the value, whether it upsamples."""
        found = [(self.channels[0], self.channels[0], 4, False)]
        for level in range(1, len(self.channels)):
            before, after = self.channels[level - 1 : level + 1]
            found += [(before, after, 4 << level, True), (after, after, 4 << level, False)]
        return found


class StyleGAN2Network(nn.Module):
    """Mapping, constant input, styled convolutions, and a toRGB for each resolution; run by `StyleGAN2Generator`."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        dim = shape.style_dim
        self.style = nn.Sequential(
            PixelNorm(), *(Linear(dim, dim, MAPPING_RATE, activated=True) for _ in range(shape.depth))
        )
        self.input = nn.ParameterDict({"input": torch.empty(1, shape.channels[0], 4, 4)})
        first, *rest = [
            StyledConvolution(before, after, dim, shape.taps if up else 0)
            for before, after, _, up in shape.sizes
        ]
        self.conv1, self.convs = first, nn.ModuleList(rest)
        self.to_rgb1 = ToRGB(shape.channels[0], dim, 0)
        self.to_rgbs = nn.ModuleList(ToRGB(width, dim, shape.picture_taps) for width in shape.channels[1:])
        self.noises = nn.Module()
        for index, (_, _, size, _) in enumerate(shape.sizes if shape.stored_noise else []):
            self.noises.register_buffer(f"noise_{index}", torch.empty(1, 1, size, size))
        self.latent_avg: Tensor | None
        self.register_buffer("latent_avg", torch.empty(dim) if shape.average else None)


class PixelNorm(nn.Module):
    """Divide each position's vector by its root mean square."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, …] → the same shape."""
        return x * torch.rsqrt(x.square().mean(1, keepdim=True) + EPSILON)


class Linear(nn.Module):
    """A fully connected layer with equalised learning rate, and √2 · leaky ReLU if `activated`."""

    def __init__(self, inputs: int, outputs: int, rate: float = 1.0, activated: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs))
        self.rate, self.activated = rate, activated

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs] → [N, outputs]."""
        gain = self.rate / math.sqrt(self.weight.shape[1])
        x = functional.linear(x, self.weight * gain, self.bias * self.rate)  # [N, outputs]
        return functional.leaky_relu(x, SLOPE) * math.sqrt(2) if self.activated else x


class Kernel(nn.Module):
    """A low-pass filter [taps, taps], scaled by 4 to make up for the zeros that upsampling inserts."""

    def __init__(self, taps: int) -> None:
        super().__init__()
        self.kernel: Tensor
        self.register_buffer("kernel", torch.empty(taps, taps))


class ModulatedConvolution(nn.Module):
    """A weight [1, O, C, k, k] whose input channels a style scales; `taps` > 0: upsamples, then blurs."""

    def __init__(self, inputs: int, outputs: int, kernel: int, style_dim: int, taps: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, outputs, inputs, kernel, kernel))
        self.modulation = Linear(style_dim, inputs)
        self.gain = 1 / math.sqrt(inputs * kernel * kernel)
        self.blur = Kernel(taps) if taps else None
        self.convolution = (
            Convolution((kernel, kernel), stride=(2, 2), transposed=True)
            if taps
            else Convolution((kernel, kernel), padding=(kernel // 2, kernel // 2))
        )

    def respond(self, keys: Tensor, weight: Tensor) -> Tensor:
        """Keys [N, c, h, w], weight [O, c, k, k] → [N, O, H, W]."""
        response = self.convolution(keys, self.gain * weight)  # upsampling: [N, O, 2h + 1, 2w + 1]
        return response if self.blur is None else blurred(response, self.blur.kernel)


class StyledConvolution(nn.Module):
    """A modulated, demodulated 3×3 convolution with noise, bias and activation; see the module's formulas."""

    def __init__(self, inputs: int, outputs: int, style_dim: int, taps: int) -> None:
        super().__init__()
        self.conv = ModulatedConvolution(inputs, outputs, 3, style_dim, taps)
        self.noise = nn.ParameterDict({"weight": torch.empty(1)})
        self.activate = nn.ParameterDict({"bias": torch.empty(outputs)})

    def finish(self, response: Tensor, energy: Tensor, noise: Tensor) -> Tensor:
        """Response [N, O, H, W], energy [N, O], noise [N or 1, 1, H, W] → value [N, O, H, W]."""
        value = response * (math.sqrt(2) * torch.rsqrt(energy + EPSILON))[:, :, None, None]
        value += math.sqrt(2) * (
            self.noise["weight"] * noise
        )  # in place: new memory costs more than the sums
        value += math.sqrt(2) * self.activate["bias"][:, None, None]
        return functional.leaky_relu(value, SLOPE, inplace=True)  # √2 · lrelu(x) = lrelu(√2 · x)


class ToRGB(nn.Module):
    """A modulated 1×1 convolution to three channels, added to the picture so far; `taps` > 0: which is enlarged."""

    def __init__(self, inputs: int, style_dim: int, taps: int) -> None:
        super().__init__()
        self.conv = ModulatedConvolution(inputs, 3, 1, style_dim, 0)
        self.bias = nn.Parameter(torch.empty(1, 3, 1, 1))
        self.upsample = Kernel(taps) if taps else None

    def forward(self, x: Tensor, w: Tensor, rgb: Tensor | None) -> Tensor:
        """Features [N, C, H, W], latents w [N, D] and the picture so far [N, 3, H/2, W/2] → [N, 3, H, W]."""
        weight = self.conv.gain * self.conv.weight.flatten(2)  # [1, 3, C]
        weight = weight * self.conv.modulation(w)[:, None]  # [N, 3, C]
        drawn: Tensor = (weight @ x.flatten(2)).unflatten(2, x.shape[2:]) + self.bias  # [N, 3, H, W]
        return drawn if rgb is None or self.upsample is None else drawn + upsampled(rgb, self.upsample.kernel)


def blurred(x: Tensor, kernel: Tensor) -> Tensor:
    """What a transposed convolution of stride 2 left, [N, C, 2h + 1, 2w + 1], low-passed: [N, C, 2h, 2w]."""
    height, width = x.shape[-2] - 1, x.shape[-1] - 1
    x = functional.conv2d(
        x, _depthwise(kernel.flip(0, 1), x), padding=(len(kernel) - 1) // 2, groups=x.shape[1]
    )
    return x[..., :height, :width]


def upsampled(x: Tensor, kernel: Tensor) -> Tensor:
    """[N, C, h, w] with zeros in between, low-passed: [N, C, 2h, 2w]."""
    height, width = 2 * x.shape[-2], 2 * x.shape[-1]
    x = functional.conv_transpose2d(
        x, _depthwise(kernel, x), stride=2, groups=x.shape[1]
    )  # [N, C, 2h + taps - 2, …]
    start = (len(kernel) - 2) // 2
    return x[..., start : start + height, start : start + width]


def _depthwise(kernel: Tensor, x: Tensor) -> Tensor:
    return kernel.to(x.dtype).expand(x.shape[1], 1, *kernel.shape)  # [C, 1, taps, taps]
