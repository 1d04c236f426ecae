"""What speaks for and against a generator having been opened right: its weights, and what it draws.

Nothing here proves that a checkpoint is sound; `agreement.py` does, where there are pictures to compare with. These are
rules of thumb, each a `Finding`: a tensor that is all zero or constant, numbers that are not finite, units whose
weights are all zero, a tensor whose size is far from that of its siblings (the tensors with the same name but for its
numbers, such as ``convs.3.conv.weight`` and ``convs.5.conv.weight``); pictures that are blank, or all alike.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from rewrite_core.errors import RequestError
from rewrite_core.generators.generator import Generator, Progress
from rewrite_core.generators.latents import LatentSpec

__all__ = ["Facts", "Finding", "Samples", "Weights", "facts", "samples", "weights"]

FAR = 30.0
"""How many times larger or smaller than its siblings' median a tensor is remarked on."""
SIBLINGS = 4
"""Fewer have no typical size."""
BLANK, ALIKE = 1e-3, 1e-3
"""Contrast within a picture, and mean difference between pictures, below which they are remarked on; of [-1, 1]."""
PROBED = LatentSpec.of(range(16))


@dataclass(frozen=True)
class Finding:
    """Something unusual: `where` (a tensor, a layer or the pictures), and what about it."""

    where: str
    what: str


@dataclass(frozen=True)
class Weights:
    """Tensors, numbers in them, bytes, the root mean square of all numbers, and what is unusual."""

    tensors: int
    numbers: int
    bytes: int
    rms: float
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Samples:
    """What the first pictures look like, in units of [-1, 1].

    Attributes:
        mean, contrast: of all numbers; and their standard deviation within a picture, averaged.
        variety: mean absolute difference between one picture and the next.
        clipped: share of numbers beyond [-1, 1], which a picture cannot show.
    """

    count: int
    mean: float
    contrast: float
    variety: float
    clipped: float
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Facts:
    """What a generator is able to do.

    Attributes:
        truncation: empty if it can be truncated, else why not.
        noise: where its noise comes from, such as ``stored``; empty if it has none.
    """

    truncation: str
    noise: str


def facts(generator: Generator) -> Facts:
    """Whether it can be truncated, and where its noise comes from."""
    refused = ""
    try:
        generator.sample(LatentSpec((0,), truncation=0.5))
    except RequestError as problem:
        reason = problem.expected.partition("since ")[2] or problem.expected
        refused = reason.replace(generator.name, "it")
    return Facts(refused, str(generator.architecture().get("noise", "")))


def weights(generator: Generator) -> Weights:
    """The generator's tensors, counted and looked at."""
    tensors = {name: tensor.detach() for name, tensor in generator.tensors() if tensor.is_floating_point()}
    numbers = sum(tensor.numel() for tensor in tensors.values())
    squares = sum(float(tensor.double().square().sum()) for tensor in tensors.values())
    found = (*_unusual(tensors), *_outliers(tensors), *_dead(generator))
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    return Weights(len(tensors), numbers, size, math.sqrt(squares / max(1, numbers)), found)


def samples(generator: Generator, progress: Progress | None = None) -> Samples:
    """Statistics of the first 16 pictures."""
    drawn = generator.sample(PROBED, progress)  # [N, 3, H, W]
    mean, contrast = float(drawn.mean()), float(drawn.flatten(1).std(1).mean())
    variety = float((drawn[1:] - drawn[:-1]).abs().mean())
    clipped = float((drawn.abs() > 1 + 1e-6).float().mean())
    return Samples(len(drawn), mean, contrast, variety, clipped, tuple(_seen(drawn, contrast, variety)))


def _seen(drawn: Tensor, contrast: float, variety: float) -> Iterator[Finding]:
    if not torch.isfinite(drawn).all():
        yield Finding("pictures", "NaN or infinite numbers are drawn")
    elif contrast < BLANK:
        yield Finding("pictures", "they are blank: one colour each")
    elif variety < ALIKE:
        yield Finding("pictures", "they are all alike: the latents make no difference")


def _unusual(tensors: Mapping[str, Tensor]) -> Iterator[Finding]:
    for name, tensor in tensors.items():
        wrong = int((~torch.isfinite(tensor)).sum())
        if wrong:
            yield Finding(name, f"{wrong:,} of {tensor.numel():,} numbers are NaN or infinite")
        elif tensor.numel() > 1 and not tensor.any():
            yield Finding(name, "all zero")
        elif tensor.numel() > 1 and bool((tensor == tensor.flatten()[0]).all()):
            yield Finding(name, f"every number is {float(tensor.flatten()[0]):.6g}")


def _outliers(tensors: Mapping[str, Tensor]) -> Iterator[Finding]:
    """Tensors far larger or smaller than their siblings; zeros have been remarked on, and statistics of data vary."""
    families: dict[str, dict[str, float]] = defaultdict(dict)
    for name, tensor in tensors.items():
        size = float(tensor.double().square().mean().sqrt()) if tensor.numel() else 0.0
        if size and math.isfinite(size) and ".running_" not in name:
            families[re.sub(r"\d+", "*", name)][name] = size
    for siblings in families.values():
        typical = median(siblings.values())
        for name, size in siblings.items():
            if len(siblings) >= SIBLINGS and not 1 / FAR < size / typical < FAR:
                times = f"{size / typical:.3g}" if size > typical else f"1/{typical / size:.3g}"
                yield Finding(name, f"{times} times the size of its {len(siblings) - 1} siblings")


def _dead(generator: Generator) -> Iterator[Finding]:
    """Units that a layer draws nothing into."""
    for layer in generator.layers:
        silent = int((generator.weight(layer).flatten(1) == 0).all(1).sum())  # [O, C·kh·kw] → count
        if silent:
            yield Finding(
                layer, f"{silent} of {len(generator.weight(layer))} units have no weights but zeros"
            )
