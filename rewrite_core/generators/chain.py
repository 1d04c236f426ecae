"""Names and shapes of a bare state dict → the chain of steps that they can be: all that tensors say for certain.

A stack's tensors are ``PATH.weight``, ``PATH.bias`` and, of a batch norm, ``PATH.running_mean`` and ``running_var``. A
weight of two axes is a linear layer; one of four is a convolution [O, C, k, k] or a transposed one [C, O, k, k],
whichever takes the channels that the step before hands on. After a linear layer the channels that the next step needs
give the shape [C, s, s]. Strides and paddings are not in a file. The recipe (Radford et al. 2016) is

* transposed, on one position: stride 1, no padding; the map is as large as the kernel;
* transposed 4×4 on a map: stride 2, padding 1; the map doubles;
* plain, odd: stride 1, padding k // 2; the map stays.

Other kernels get the usual numbers, and a *doubt*: a `Chain` with doubts is good for a draft and for no more.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

__all__ = ["Chain", "Link", "Part", "chains", "parts_of"]

KEYS = {"weight", "bias", "running_mean", "running_var"}
COUNTER = "num_batches_tracked"
MOST_PARTS = 64
LARGEST_SIDE, LARGEST_MAP = 4096, 1 << 24
"""Of what a step hands on; in numbers."""


@dataclass(frozen=True)
class Part:
    """The tensors of one step; `path` is what their names have in common."""

    path: str
    tensors: Mapping[str, Tensor]

    @property
    def is_norm(self) -> bool:
        """Whether it is a batch norm with running statistics."""
        return "running_mean" in self.tensors

    @property
    def place(self) -> tuple[str, int] | None:
        """The stack it is in and its place there, ``main.3`` → (``main``, 3); None if its name is no number."""
        parent, _, last = self.path.rpartition(".")
        return (parent, int(last)) if last.isdecimal() and len(last) < 6 else None


@dataclass(frozen=True)
class Link:
    """One step of a chain, as ``model.json`` says it, with the shape it hands on; a reshape has no part.

    `gap` is how many steps without tensors lie between it and the part before, where their names tell; else None.
    """

    step: Mapping[str, Any]
    shape: tuple[int, ...]
    part: Part | None = None
    gap: int | None = None


@dataclass(frozen=True)
class Chain:
    """Steps with tensors in their order, from latents of `latent_dim` numbers to a picture; and what is doubtful."""

    latent_dim: int
    links: tuple[Link, ...]
    doubts: tuple[str, ...]


def parts_of(tensors: Mapping[str, Tensor]) -> list[Part] | None:
    """The steps that have tensors, in the order of `tensors`; None if some tensor is no step's."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        path, _, key = name.rpartition(".")
        if key == COUNTER:
            continue
        if key not in KEYS or not path or not tensor.is_floating_point():
            return None
        found.setdefault(path, {})[key] = tensor
    parts = [Part(path, own) for path, own in found.items()]
    complete = all(
        "weight" in part.tensors or {"running_mean", "running_var"} <= set(part.tensors) for part in parts
    )
    return parts if complete and 2 <= len(parts) <= MOST_PARTS else None


def chains(parts: Sequence[Part], in_order: bool) -> Iterator[Chain]:
    """Every way of reading the parts as a chain that ends in a picture, in the order of their names.

    `in_order`: the parts come in the order of the stack, as in a state dict, and that is tried first.
    """
    seen: list[list[Mapping[str, Any]]] = []
    for order in (*([_as_given] if in_order else []), _natural, _numbered):
        for transposed in (True, False):
            chain = _read(sorted(parts, key=order), transposed)
            steps = [link.step for link in chain.links] if chain else []
            if chain and steps not in seen:
                seen.append(steps)
                yield chain


def _read(parts: Sequence[Part], first_transposed: bool) -> Chain | None:
    """The chain whose first convolution is transposed or plain, if there is one."""
    reader = _Reader(first_transposed)
    before: Part | None = None
    for part in parts:
        if not reader.take(part, _gap(before, part)):
            return None
        before = part
    ends_in_picture = len(reader.shape) == 3 and reader.shape[0] in (1, 3) and not parts[-1].is_norm
    return Chain(reader.latent_dim, tuple(reader.links), tuple(reader.doubts)) if ends_in_picture else None


class _Reader:
    """Follows the shape that is handed on from part to part."""

    def __init__(self, first_transposed: bool) -> None:
        self.transposed: bool | None = first_transposed  # of the first convolution; afterwards None
        self.shape: tuple[int, ...] = ()
        self.latent_dim = 0
        self.links: list[Link] = []
        self.doubts: list[str] = []

    def take(self, part: Part, gap: int | None) -> bool:
        """Add a part; False if it does not fit."""
        if part.is_norm:
            return self._norm(part, gap)
        axes = part.tensors["weight"].ndim
        return self._linear(part, gap) if axes == 2 else axes == 4 and self._convolution(part, gap)

    def _linear(self, part: Part, gap: int | None) -> bool:
        outputs, inputs = part.tensors["weight"].shape
        if self.links or not outputs or not inputs:
            return False
        self.latent_dim = inputs
        return self._add(part, gap, {"op": "linear"}, (outputs,))

    def _norm(self, part: Part, gap: int | None) -> bool:
        width = len(part.tensors["running_mean"]) if part.tensors["running_mean"].ndim == 1 else 0
        if not self.shape or not width or not (self.shape[0] == width or self._reshaped(width)):
            return False
        return self._add(part, gap, {"op": "batch_norm"}, self.shape)

    def _convolution(self, part: Part, gap: int | None) -> bool:
        first, second, kernel, across = part.tensors["weight"].shape
        if kernel != across or not first or not second or not kernel:
            return False
        transposed = self._direction(first, second, kernel)
        self.transposed = None
        if transposed is None:
            return False
        inputs, outputs = (first, second) if transposed else (second, first)
        if not self.shape:
            self.latent_dim, self.shape = inputs, (inputs, 1, 1)
        if not (len(self.shape) == 3 and self.shape[0] == inputs) and not self._reshaped(inputs):
            return False
        if not transposed and (kernel % 2 == 0 or kernel > self.shape[1]):
            return False  # a plain convolution of the recipe keeps a map as large as it is
        step, side, usual = _geometry(transposed, kernel, self.shape[1])
        if not usual:
            self.doubts.append(
                f"stride and padding of {part.path}, a transposed convolution {kernel}×{kernel}"
            )
        return self._add(part, gap, step, (outputs, side, side))

    def _direction(self, first: int, second: int, kernel: int) -> bool | None:
        """Whether a weight [first, second, k, k] is that of a transposed convolution; None if it cannot be."""
        channels = self.shape[0] if len(self.shape) == 3 else 0
        as_transposed = first == channels if channels else not self.shape or bool(self._side(first))
        as_plain = second == channels if channels else not self.shape or bool(self._side(second))
        if as_transposed and as_plain:
            return kernel % 2 == 0 if self.transposed is None else self.transposed
        return as_transposed if as_transposed or as_plain else None

    def _side(self, channels: int) -> int:
        """Of the square map of so many channels that the vector is; 0 if it is none."""
        (width,) = self.shape if len(self.shape) == 1 else (0,)
        side = math.isqrt(width // channels) if channels else 0
        return side if side * side * channels == width else 0

    def _reshaped(self, channels: int) -> bool:
        side = self._side(channels)
        if side:
            self.shape = (channels, side, side)
            self.links.append(Link({"op": "reshape", "shape": list(self.shape)}, self.shape))
        return bool(side)

    def _add(self, part: Part, gap: int | None, step: Mapping[str, Any], shape: tuple[int, ...]) -> bool:
        if math.prod(shape) > LARGEST_MAP or max(shape[1:], default=1) > LARGEST_SIDE:
            return False
        named = {"op": step["op"], "name": part.path.replace(".", "_"), **step}
        self.links.append(Link(named, shape, part, gap))
        self.shape = shape
        return True


def _geometry(transposed: bool, kernel: int, side: int) -> tuple[dict[str, Any], int, bool]:
    """A convolution's step, the side of what it makes, and whether the recipe says so."""
    if not transposed:
        return {"op": "conv2d", "kernel": kernel, "stride": 1, "padding": kernel // 2}, side, True
    step = {"op": "conv_transpose2d", "kernel": kernel}
    if side == 1:
        return {**step, "stride": 1, "padding": 0}, kernel, True
    odd = kernel % 2
    padding = {"stride": 2, "padding": max(0, (kernel - 1) // 2), **({"output_padding": 1} if odd else {})}
    return {**step, **padding}, 2 * side, kernel == 4


def _gap(before: Part | None, part: Part) -> int | None:
    here, there = part.place, before.place if before else None
    return here[1] - there[1] - 1 if here and there and here[0] == there[0] and here[1] > there[1] else None


def _as_given(part: Part) -> tuple[Any, ...]:
    return ()


def _natural(part: Part) -> tuple[Any, ...]:
    """``main.2`` before ``main.10``."""
    return tuple(
        (not text.isdecimal(), int(text) if text.isdecimal() else 0, text) for text in _split(part.path)
    )


def _numbered(part: Part) -> tuple[Any, ...]:
    """``fc``, then ``c0``, ``bn0``, ``c1``, ``bn1`` …: by the last number, a norm after what it follows."""
    numbers = [int(text) for text in _split(part.path) if text.isdecimal()]
    return (numbers[-1] if numbers else -1, part.is_norm, part.path)


_split: Callable[[str], list[str]] = re.compile(r"(?<=\d)(?=\D)|(?<=\D)(?=\d)").split
