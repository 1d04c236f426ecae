"""A feed-forward stack as data: the steps of a ``model.json``, and the torch modules they stand for.

Each kind of step is one small class that is read from JSON, builds its module, and recognises itself in a module that
somebody hands over. A new operation is one class here and one line in `STEPS`. Steps that hold tensors carry a `name`,
the prefix of their tensors in ``model.safetensors``; there tensors are in torch's own layout (a transposed convolution
[C, O, kh, kw]), while the built `ConvolutionModule` holds the canonical [O, C, kh, kw].
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from torch import Tensor, nn
from torch.nn import functional

from rewrite_core.generators.convolution import Convolution
from rewrite_core.settings import Settings

__all__ = ["STEPS", "ConvolutionModule", "Step", "Upsample", "describe"]

Tensors = Mapping[str, Tensor]


def _both(taps: Any) -> Any:
    """One number stands for height and width alike."""
    if isinstance(taps, int):
        return (taps, taps)
    return tuple(taps) if isinstance(taps, list) else taps


Count = Annotated[int, Field(ge=0, le=64)]
Size = Annotated[int, Field(ge=1, le=64)]
Counts = Annotated[tuple[Count, Count], BeforeValidator(_both)]
Sizes = Annotated[tuple[Size, Size], BeforeValidator(_both)]
Name = Annotated[str, Field(pattern=r"^[^.]+$", max_length=100)]


class ConvolutionModule(nn.Module):
    """A convolution in canonical layout: weight [O, C, kh, kw], bias [O] or None; keys ↦ map(keys, weight) + bias."""

    def __init__(self, convolution: Convolution, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        if bias is not None and bias.shape != weight.shape[:1]:
            raise ValueError(f"a bias {list(bias.shape)} for a weight {list(weight.shape)}")
        self.convolution = convolution
        self.weight = _constant(weight)
        self.bias = _constant(bias)

    def forward(self, keys: Tensor) -> Tensor:
        """Keys [N, C, h, w] → values [N, O, H, W]."""
        assert self.weight is not None
        return self.finish(self.convolution(keys, self.weight))

    def finish(self, response: Tensor) -> Tensor:
        """Add the bias to a response [N, O, H, W]."""
        return response if self.bias is None else response + self.bias[:, None, None]

    def extra_repr(self) -> str:
        """The map: it is part of a fingerprint where no step can describe it."""
        return repr(self.convolution)


class Upsample(nn.Module):
    """Enlarge a feature map by a whole factor."""

    def __init__(self, scale: int, mode: str, align_corners: bool | None) -> None:
        super().__init__()
        self.scale, self.mode, self.align_corners = scale, mode, align_corners

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → [N, C, scale·H, scale·W]."""
        scale = float(self.scale)
        return functional.interpolate(x, scale_factor=scale, mode=self.mode, align_corners=self.align_corners)


class BatchNormModule(nn.BatchNorm2d):
    """Batch normalisation of [N, C] or [N, C, H, W]."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of axes will do."""


class Linear(Settings):
    """A fully connected layer."""

    op: Literal["linear"] = "linear"
    name: Name

    def build(self, tensors: Tensors) -> nn.Module:
        """`tensors`: weight [out, in], bias [out] or none."""
        module = nn.Linear(1, 1)
        module.weight, module.bias = _constant(tensors["weight"]), _constant(tensors.get("bias"))
        module.out_features, module.in_features = tensors["weight"].shape
        return module

    @classmethod
    def of(cls, name: str, module: nn.Module) -> Self | None:
        """The step for any `torch.nn.Linear`."""
        return cls(name=name) if type(module) is nn.Linear else None


class Reshape(Settings):
    """Give each sample the shape [C, H, W]."""

    op: Literal["reshape"] = "reshape"
    shape: Annotated[tuple[Annotated[int, Field(ge=-1, le=1 << 20)], ...], Field(min_length=1, max_length=3)]

    def build(self, tensors: Tensors) -> nn.Module:
        """Takes no tensors."""
        return nn.Unflatten(1, self.shape)

    @classmethod
    def of(cls, name: str, module: nn.Module) -> Self | None:
        """The step for `torch.nn.Unflatten` over the channel axis."""
        if (
            type(module) is not nn.Unflatten
            or module.dim != 1
            or not all(isinstance(n, int) for n in module.unflattened_size)
        ):
            return None
        return cls(shape=tuple(int(n) for n in module.unflattened_size if isinstance(n, int)))


class Conv2d(Settings):
    """A plain convolution with zero padding."""

    op: Literal["conv2d"] = "conv2d"
    name: Name
    kernel: Sizes
    stride: Sizes = (1, 1)
    padding: Counts = (0, 0)
    dilation: Sizes = (1, 1)

    def build(self, tensors: Tensors) -> nn.Module:
        """`tensors`: weight [O, C, kh, kw], bias [O] or none."""
        convolution = Convolution(self.kernel, self.stride, self.padding, self.dilation)
        return ConvolutionModule(convolution, tensors["weight"], tensors.get("bias"))

    @classmethod
    def of(cls, name: str, module: nn.Module) -> Self | None:
        """The step for our own module, if it is a plain convolution."""
        if type(module) is not ConvolutionModule or module.convolution.transposed:
            return None
        c = module.convolution
        return cls(name=name, kernel=c.kernel, stride=c.stride, padding=c.padding, dilation=c.dilation)


class ConvTranspose2d(Settings):
    """A transposed convolution with torch's padding or Keras's crop (top, bottom, left, right)."""

    op: Literal["conv_transpose2d"] = "conv_transpose2d"
    name: Name
    kernel: Sizes
    stride: Sizes = (1, 1)
    padding: Counts = (0, 0)
    output_padding: Counts = (0, 0)
    dilation: Sizes = (1, 1)
    crop: tuple[Count, Count, Count, Count] = (0, 0, 0, 0)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        limits = [max(pair) for pair in zip(self.stride, self.dilation, strict=True)]
        if any(extra >= limit for extra, limit in zip(self.output_padding, limits, strict=True)):
            raise ValueError("an output_padding below the stride or the dilation")
        return self

    def build(self, tensors: Tensors) -> nn.Module:
        """`tensors`: weight [C, O, kh, kw], bias [O] or none."""
        convolution = Convolution(
            self.kernel,
            self.stride,
            self.padding,
            self.dilation,
            self.output_padding,
            transposed=True,
            crop=self.crop,
        )
        return ConvolutionModule(
            convolution, tensors["weight"].transpose(0, 1).contiguous(), tensors.get("bias")
        )

    @classmethod
    def of(cls, name: str, module: nn.Module) -> Self | None:
        """The step for our own module, if it is a transposed convolution."""
        if type(module) is not ConvolutionModule or not module.convolution.transposed:
            return None
        c = module.convolution
        return cls(
            name=name,
            kernel=c.kernel,
            stride=c.stride,
            padding=c.padding,
            output_padding=c.output_padding,
            dilation=c.dilation,
            crop=c.crop,
        )


class UpsampleStep(Settings):
    """Enlarge by a whole factor, nearest or bilinear."""

    op: Literal["upsample"] = "upsample"
    scale: Annotated[int, Field(ge=1, le=16)]
    mode: Literal["nearest", "bilinear"] = "nearest"
    align_corners: bool = False

    def build(self, tensors: Tensors) -> nn.Module:
        """Takes no tensors."""
        return Upsample(self.scale, self.mode, self.align_corners if self.mode == "bilinear" else None)

    @classmethod
    def of(cls, name: str, module: nn.Module) -> Self | None:
        """The step for our own module, or for `torch.nn.Upsample` by a whole factor."""
        if type(module) is Upsample:
            scale: Any = module.scale
        elif type(module) is nn.Upsample and module.size is None:
            scale = module.scale_factor
        else:
            return None
        if (
            not isinstance(scale, int | float)
            or scale != int(scale)
            or module.mode not in ("nearest", "bilinear")
        ):
            return None
        return cls.model_validate(
            {"scale": int(scale), "mode": module.mode, "align_corners": bool(module.align_corners)}
        )


class BatchNorm(Settings):
    """Batch normalisation by its running statistics (always evaluation)."""

    op: Literal["batch_norm"] = "batch_norm"
    name: Name
    eps: Annotated[float, Field(gt=0, lt=1)] = 1e-5

    def build(self, tensors: Tensors) -> nn.Module:
        """`tensors`: running_mean, running_var [C]; weight, bias [C] or none."""
        if (tensors["running_var"] < 0).any():
            raise ValueError("a negative variance")
        module = BatchNormModule(len(tensors["running_mean"]), eps=self.eps, affine="weight" in tensors)
        module.running_mean, module.running_var = tensors["running_mean"], tensors["running_var"]
        if module.affine:
            module.weight, module.bias = _constant(tensors["weight"]), _constant(tensors["bias"])
        module.num_batches_tracked = None
        return module

    @classmethod
    def of(cls, name: str, module: nn.Module) -> Self | None:
        """The step for batch normalisation that keeps running statistics."""
        kinds = (nn.BatchNorm1d, nn.BatchNorm2d, BatchNormModule)
        if not isinstance(module, kinds) or type(module) not in kinds or module.running_mean is None:
            return None
        return cls(name=name, eps=module.eps)


_PLAIN: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "identity": nn.Identity,
}


class LeakyReLU(Settings):
    """The slope of a leaky ReLU."""

    leaky_relu: Annotated[float, Field(ge=0, le=1)]


class Activation(Settings):
    """An activation, by name, or ``{"leaky_relu": slope}``."""

    op: Literal["act"] = "act"
    fn: Literal["relu", "tanh", "sigmoid", "elu", "selu", "gelu", "silu", "softplus", "identity"] | LeakyReLU

    def build(self, tensors: Tensors) -> nn.Module:
        """Takes no tensors."""
        return nn.LeakyReLU(self.fn.leaky_relu) if isinstance(self.fn, LeakyReLU) else _PLAIN[self.fn]()

    @classmethod
    def of(cls, name: str, module: nn.Module) -> Self | None:
        """The step for torch's activation modules with their default parameters."""
        if type(module) is nn.LeakyReLU:
            return cls(fn=LeakyReLU(leaky_relu=module.negative_slope))
        for fn, kind in _PLAIN.items():
            if type(module) is kind and repr(module) == repr(kind()):
                return cls.model_validate({"fn": fn})
        return None


STEPS = (Linear, Reshape, Conv2d, ConvTranspose2d, UpsampleStep, BatchNorm, Activation)

Step = Annotated[
    Linear | Reshape | Conv2d | ConvTranspose2d | UpsampleStep | BatchNorm | Activation,
    Field(discriminator="op"),
]


def describe(name: str, module: nn.Module) -> Step | None:
    """The step that `module`, whose tensors are called ``name.…``, stands for; None if no kind can say it."""
    for kind in STEPS:
        with suppress(ValidationError):  # of a known kind, beyond the limits of a file
            if (step := kind.of(name, module)) is not None:
                return step
    return None


def _constant(tensor: Tensor | None) -> Any:
    return None if tensor is None else nn.Parameter(tensor, requires_grad=False)
