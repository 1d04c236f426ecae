"""Overfit: every rewritable weight from a layer on, by Adam, on the pixels of pasted pictures.

The published interface's `overfit`: what it takes to draw the pasted picture itself (or several), with no thought for
any other. The copy is pasted in *pixels* (`pasted`), and the weights of the layer and of all layers behind it are
changed until the generator draws that; other parameters stay (biases, norms). The loss is the mean L1 over the whole
picture, so that the rest of it is held in place; with a `perceptual` network, which the caller brings, the mean L1
between what it says of both pictures is added.

The published `overfit` has VGG's features for that. None is shipped or fetched here.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rewrite_core.errors import RequestError
from rewrite_core.generators import Box, Generator, LayerInput, Progress
from rewrite_core.rules.descent import descend
from rewrite_core.rules.example import Example
from rewrite_core.rules.goal import erase, placed
from rewrite_core.rules.made import Made, described
from rewrite_core.rules.painted import latents_of
from rewrite_core.rules.patch import Patch
from rewrite_core.rules.posing import posed
from rewrite_core.rules.request import EditRequest
from rewrite_core.rules.rewrite import completed
from rewrite_core.rules.rule import Rule, composed
from rewrite_core.statistics import LayerStatistics

__all__ = ["ITERATIONS", "RATE", "Pasted", "overfit", "pasted"]

ITERATIONS = 300
RATE = 0.05


def overfit(
    generator: Generator,
    request: EditRequest,
    statistics: LayerStatistics,
    progress: Progress | None = None,
    *,
    iterations: int = ITERATIONS,
    rate: float = RATE,
    perceptual: nn.Module | None = None,
    weight: float = 1.0,
) -> Made:
    """Rules at the request's layer and at all behind it that draw its pasted picture.

    Args:
        generator: what to change, on its pristine network.
        request: what to paste, and at which layer to begin.
        statistics: of that layer.
        progress: `progress(step, iterations)`; may raise `Cancelled`.
        iterations: steps of Adam.
        rate: its learning rate.
        perceptual: a network from pictures [N, 3, H, W] in [-1, 1] to a tensor.
        weight: of what it says, against pixels in units of their full range.

    Raises:
        RequestError, LayerError, ModelMismatch: as `rewrite`.
    """
    started = time.perf_counter()
    generator, request = generator.pristine, completed(request, generator)
    layer = statistics.layer
    examples = pasted(generator, request, statistics)
    layers = list(generator.layers)[list(generator.layers).index(layer) :]
    pristine = [generator.weight(name) for name in layers]
    said = [None if perceptual is None else perceptual(one.wanted).detach() for one in examples]

    def loss(weights: Sequence[Tensor]) -> Tensor:
        under, total = dict(zip(layers, weights, strict=True)), pristine[0].new_zeros(())
        for one, heard in zip(examples, said, strict=True):
            drawn = _drawn(generator, one.at, under)  # [1, 3, H, W]
            total = total + (drawn - one.wanted).abs().mean() / 2
            if perceptual is not None:
                total = total + weight * (perceptual(drawn) - heard).abs().mean()
        return total / len(examples)

    found = descend(loss, pristine, iterations=iterations, rate=rate, progress=progress)
    rules = tuple(
        _whole(generator, request, name, edited - before)
        for name, edited, before in zip(layers, found.unknowns, pristine, strict=True)
    )
    with torch.no_grad():
        kept = composed(generator, rules)
        before, after = (
            sum(one.off(_drawn(generator, one.at, weights)) for one in examples) / len(examples)
            for weights in ({}, kept)
        )
        return Made(
            rules=rules,
            loss_before=before,
            loss=after,
            iterations=found.iterations,
            stopped=found.stopped,
            seconds=time.perf_counter() - started,
            measured="pixels",
        )


@dataclass(frozen=True, eq=False)
class Pasted:
    """A picture stopped at a layer, what it is to become [1, 3, H, W] in [-1, 1], and the box of the copy."""

    at: LayerInput
    wanted: Tensor
    box: Box

    def off(self, drawn: Tensor) -> float:
        """Mean L1 of `drawn` [1, 3, H, W] in the box, in units of the full range of a pixel."""
        top, left, bottom, right = self.box
        return float((drawn - self.wanted)[..., top:bottom, left:right].abs().mean() / 2)


@torch.no_grad()
def pasted(generator: Generator, request: EditRequest, statistics: LayerStatistics) -> tuple[Pasted, ...]:
    """The picture of each pair of copy and paste, with the copied pixels in it; of an erasure, one.

    The copy is scaled and flipped as its pair says, and blended by its soft mask onto the middle of the painted paste
    region. For an erasure the picture is what the layer's erased values (`goal.erase`) are drawn as.

    Raises:
        RequestError: a region is missing, or the request neither pastes nor erases; a MaskError where a mask is empty.
    """
    size = generator.picture_size
    if request.operation == "erase":
        goal = erase(generator, statistics.layer, request, statistics.second_moment)
        region = request.paste or request.painted("key")
        return (Pasted(goal.at, generator.render(goal.at, goal.wanted), region.mask.bounds(size)),)
    if request.operation != "paste":
        raise RequestError(
            found=f"an edit that is to {request.operation}, which has no goal",
            expected="one that pastes or erases",
            remedy="Compare one of those.",
        )
    return tuple(_pasted(generator, request, statistics.layer, pair) for pair in request.pairs)


def _pasted(generator: Generator, request: EditRequest, layer: str, pair: Example) -> Pasted:
    copied, alpha = _copied(generator, request, pair)  # [1, 3, bh, bw], [bh, bw]
    at = generator.keys(latents_of(generator, request, pair.paste.image), layer)
    wanted = generator.render(at, generator.values(at)).clone()  # [1, 3, H, W]
    size = generator.picture_size
    box = placed((alpha.shape[0], alpha.shape[1]), pair.paste.mask.bounds(size), size)
    top, left, bottom, right = box
    wanted[..., top:bottom, left:right].lerp_(copied, alpha.expand_as(copied))
    return Pasted(at, wanted, box)


def _copied(generator: Generator, request: EditRequest, pair: Example) -> tuple[Tensor, Tensor]:
    """Pixels [1, 3, bh, bw] to paste, and how much of each, [bh, bw]."""
    size, copied = generator.picture_size, pair.object
    if isinstance(copied, Patch):
        pixels, alpha = copied.picture().to(generator.device), copied.alpha.to(generator.device)
        if copied.colour:
            top, left, bottom, right = pair.paste.mask.bounds(size)
            area = pair.paste.mask.area(size).to(alpha)[top:bottom, left:right]  # [bh, bw]
            pixels, alpha = pixels.expand(-1, -1, *area.shape), alpha * area
        fitting = min(1.0, size[0] / alpha.shape[0], size[1] / alpha.shape[1])
        return posed(pixels, alpha, pair, size, fitting)
    top, left, bottom, right = copied.mask.bounds(size)
    drawn = generator.pictures(latents_of(generator, request, copied.image))  # [1, 3, H, W]
    alpha = copied.mask.area(size).to(drawn)[top:bottom, left:right]  # [bh, bw]
    return posed(drawn[..., top:bottom, left:right], alpha, pair, size)


def _drawn(generator: Generator, at: LayerInput, weights: Mapping[str, Tensor]) -> Tensor:
    """The pictures of a batch under `weights`, through which the gradient flows."""
    view = copy.copy(generator)

    def weight(layer: str) -> Tensor:
        return weights[layer] if layer in weights else generator.weight(layer)

    vars(view)["weight"] = weight  # `with_weights` makes parameters of its own of them
    return view.render(at, view.values(at))


def _whole(generator: Generator, request: EditRequest, layer: str, change: Tensor) -> Rule:
    """A change [O, C, kh, kw] of a whole weight as a rule, along the identity."""
    return described(
        "overfit", generator, request, layer, torch.eye(change.shape[1], device=change.device), change
    )
