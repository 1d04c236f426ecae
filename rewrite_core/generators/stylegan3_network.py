"""StyleGAN3's network in plain torch (Karras et al., *Alias-Free Generative Adversarial Networks*, 2021).

Modules and tensors have the names of the published state dict. A layer in the *separated* form, with s = FC(w), the
stored weight W [O, C, k, k] and m, the running mean square of the layer's input::

    k = x · s / √m                     the key (ToRGB: s / √C for s)
    r = conv(k, W)                     the response; zeros around let it grow by k - 1
    e = Σ (W s)²                       the energy of each output channel
    v = r · rsqrt(e + 1e-8) + bias     the value (ToRGB: r + bias)
    x = down(clamp(√2 · lrelu(up(v)))) what the next layer gets: up and down are low-pass filters with resampling

The published layer scales W to unit mean square per output channel, and s to that over the batch. Demodulation divides
both out again (but for the 1e-8, of which the share is then 1e-10), so neither is done here, and a picture does not
depend on its batch. The activation between two filters is not place by place: it comes after the value, on the way to
the next layer.

The input is a sum of waves: Fourier features that w turns and shifts, and a matrix that mixes them.

Shapes: batch N, w D, key channels C, value channels O.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from rewrite_core.generators.convolution import Convolution
from rewrite_core.generators.generator import EPSILON
from rewrite_core.generators.nvidia_mapping import MappingNetwork, MappingShape
from rewrite_core.generators.stylegan2_network import SLOPE, Linear

__all__ = ["InputShape", "LayerShape", "Shape", "StyleGAN3Network", "SynthesisLayer"]


@dataclass(frozen=True)
class InputShape:
    """Of the Fourier features: channels, pixels of a side, pixels per unit of length, largest undamped frequency."""

    channels: int
    size: int
    rate: float
    bandwidth: float


@dataclass(frozen=True)
class LayerShape:
    """Of one layer: what the published code derives for it.

    Attributes:
        name: ``L3_36_512``: index, pixels of a side that it gives on, channels.
        inputs, outputs, kernel: of the weight.
        size: pixels of a side of its input.
        up, down: factors of the resampling around the activation.
        up_filter, down_filter: shapes of the filters' kernels; None: no filter.
        padding: zeros before and after, at the higher resolution; negative: cut off.
        clamp: the largest value between the filters, None: any.
        torgb: whether it draws the picture's channels, without activation.
    """

    name: str
    inputs: int
    outputs: int
    kernel: int
    size: int
    up: int
    down: int
    up_filter: tuple[int, ...] | None
    down_filter: tuple[int, ...] | None
    padding: tuple[int, int]
    clamp: float | None
    torgb: bool

    @property
    def value_size(self) -> int:
        """Pixels of a side of its value."""
        return self.size + self.kernel - 1

    @property
    def inner_size(self) -> int:
        """Pixels of a side between the filters."""
        taps = self.up_filter[0] if self.up_filter else 1
        return self.value_size * self.up + sum(self.padding) - taps + 1

    @property
    def out_size(self) -> int:
        """Pixels of a side that it gives on."""
        taps = self.down_filter[0] if self.down_filter else 1
        return (self.inner_size - taps) // self.down + 1


@dataclass(frozen=True)
class Shape:
    """Everything that tells one StyleGAN3 from another but its numbers."""

    mapping: MappingShape
    input: InputShape
    layers: tuple[LayerShape, ...]
    output_scale: float

    @property
    def style_dim(self) -> int:
        """D, of w."""
        return self.mapping.widths[-1]


class SynthesisInput(nn.Module):
    """Fourier features, turned and shifted by w, as a map."""

    def __init__(self, shape: InputShape, style_dim: int) -> None:
        super().__init__()
        self.shape = shape
        self.weight = nn.Parameter(torch.empty(shape.channels, shape.channels))
        self.affine = Linear(style_dim, 4)
        self.transform: Tensor
        self.freqs: Tensor
        self.phases: Tensor
        self.register_buffer("transform", torch.empty(3, 3))
        self.register_buffer("freqs", torch.empty(shape.channels, 2))
        self.register_buffer("phases", torch.empty(shape.channels))

    def forward(self, w: Tensor) -> Tensor:
        """W [N, D] → [N, C, size, size]."""
        freqs, phases = self._moved(w)  # [N, C, 2], [N, C]
        damped = (freqs.norm(dim=2) - self.shape.bandwidth) / (self.shape.rate / 2 - self.shape.bandwidth)
        size = self.shape.size
        along = (torch.arange(size, device=w.device, dtype=w.dtype) + 0.5 - size / 2) / self.shape.rate
        y, x = torch.meshgrid(along, along, indexing="ij")
        angles = freqs @ torch.stack([x.flatten(), y.flatten()])  # [N, C, size²]
        waves = torch.sin(2 * math.pi * (angles + phases[:, :, None]))
        waves = waves * (1 - damped).clamp(0, 1)[:, :, None]
        mixed: Tensor = (self.weight / math.sqrt(self.shape.channels)) @ waves  # [N, C, size²]
        return mixed.reshape(*mixed.shape[:2], size, size)

    def _moved(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """Frequencies and phases after the turn and the shift that w asks for, and `transform`."""
        t = self.affine(w)  # [N, 4]: cosine and sine of the turn, shift
        t = t / t[:, :2].norm(dim=1, keepdim=True)
        zero, one = torch.zeros_like(t[:, 0]), torch.ones_like(t[:, 0])
        turn = torch.stack([t[:, 0], -t[:, 1], zero, t[:, 1], t[:, 0], zero, zero, zero, one], 1).unflatten(
            1, (3, 3)
        )
        shift = torch.stack([one, zero, -t[:, 2], zero, one, -t[:, 3], zero, zero, one], 1).unflatten(
            1, (3, 3)
        )
        move = turn @ shift @ self.transform  # [N, 3, 3]
        return self.freqs @ move[:, :2, :2], self.phases + (self.freqs @ move[:, :2, 2:]).squeeze(2)


class SynthesisLayer(nn.Module):
    """A modulated convolution and the filtered activation after it; see the module's formulas."""

    def __init__(self, shape: LayerShape, style_dim: int) -> None:
        super().__init__()
        self.shape = shape
        self.weight = nn.Parameter(torch.empty(shape.outputs, shape.inputs, shape.kernel, shape.kernel))
        self.bias = nn.Parameter(torch.empty(shape.outputs))
        self.affine = Linear(style_dim, shape.inputs)
        self.magnitude_ema: Tensor
        self.up_filter: Tensor | None
        self.down_filter: Tensor | None
        self.register_buffer("magnitude_ema", torch.empty(()))
        self.register_buffer("up_filter", None if shape.up_filter is None else torch.empty(shape.up_filter))
        self.register_buffer(
            "down_filter", None if shape.down_filter is None else torch.empty(shape.down_filter)
        )
        around = shape.kernel - 1
        self.convolution = Convolution((shape.kernel, shape.kernel), padding=(around, around))

    def style(self, w: Tensor) -> Tensor:
        """A factor for each input channel, [N, C]; keys have 1/√m beside it."""
        style: Tensor = self.affine(w)
        return style / math.sqrt(self.shape.inputs) if self.shape.torgb else style

    def keys(self, x: Tensor, style: Tensor) -> Tensor:
        """[N, C, h, w]."""
        return x * (style * self.magnitude_ema.rsqrt())[:, :, None, None]

    def finish(self, response: Tensor, energy: Tensor | None) -> Tensor:
        """Response [N, O, H, W], energy [N, O] → value [N, O, H, W]."""
        if energy is not None:
            response = response * torch.rsqrt(energy + EPSILON)[:, :, None, None]
        return response + self.bias[:, None, None]

    def activated(self, values: Tensor) -> Tensor:
        """Value [N, O, H, W] → the next layer's input [N, O, h, w]."""
        shape = self.shape
        x = filtered(values, self.up_filter, up=shape.up, padding=shape.padding)  # new memory
        if not shape.torgb:
            x = functional.leaky_relu(
                x.mul_(math.sqrt(2)), SLOPE, inplace=True
            )  # √2 · lrelu(x) = lrelu(√2 · x)
        if shape.clamp is not None:
            clamp = x.clamp if x.requires_grad else x.clamp_  # a gradient needs what leaky_relu made
            x = clamp(-shape.clamp, shape.clamp)
        return filtered(x, self.down_filter, down=shape.down)


class StyleGAN3Network(nn.Module):
    """``mapping``, and ``synthesis`` with ``input`` and the layers; run by `StyleGAN3Generator`."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.mapping = MappingNetwork(shape.mapping)
        self.synthesis = nn.ModuleDict({"input": SynthesisInput(shape.input, shape.style_dim)})
        for layer in shape.layers:
            self.synthesis[layer.name] = SynthesisLayer(layer, shape.style_dim)


def filtered(
    x: Tensor, kernel: Tensor | None, up: int = 1, down: int = 1, padding: tuple[int, int] = (0, 0)
) -> Tensor:
    """Zeros in between and around, a low-pass filter [taps] along both axes or [taps, taps], every `down`-th place."""
    kernel = x.new_ones(1) if kernel is None else kernel
    if kernel.ndim == 2:
        return _along(x, up**2 * kernel, (up, up), (down, down), (padding, padding))
    x = _along(x, up * kernel[None, :], (1, up), (1, down), ((0, 0), padding))
    return _along(x, up * kernel[:, None], (up, 1), (down, 1), (padding, (0, 0)))


def _along(
    x: Tensor,
    kernel: Tensor,
    up: tuple[int, int],
    down: tuple[int, int],
    padding: tuple[tuple[int, int], tuple[int, int]],
) -> Tensor:
    """[N, C, h, w] filtered with [th, tw]: a true convolution of what zeros were put into and around."""
    n, c, h, w = x.shape
    (top, bottom), (left, right) = padding
    grown = x.new_zeros(n, c, h, up[0], w, up[1])
    grown[:, :, :, 0, :, 0] = x
    grown = functional.pad(grown.reshape(n, c, h * up[0], w * up[1]), (left, right, top, bottom))
    taps = kernel.flip(0, 1).expand(c, 1, *kernel.shape)  # [C, 1, th, tw]
    return functional.conv2d(grown, taps, stride=down, groups=c)
