"""What a rule is solved for: at these keys, these values (Bau et al. 2020, §3.3; method.md, "Masks and pasting").

A goal is a picture's *whole* key map and the values wanted there; only the pasted box counts. Cropping the keys, as the
published code does, pads the crop with zeros and so asks the rule to mend the crop's border too.

Boxes are (top, left, bottom, right) on the value map, bottom and right exclusive.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rewrite_core.generators import Box, Generator, Layer, LayerInput
from rewrite_core.memory import observe, rank_images, unit_energy
from rewrite_core.rules.painted import latents_of, painted_keys
from rewrite_core.rules.posing import posed
from rewrite_core.rules.request import EditRequest, Example, Painted, Patch

__all__ = ["Goal", "copy_paste", "erase", "erased_units", "placed", "whole_cells"]


@dataclass(frozen=True)
class Goal:
    """Keys `at` [1, C, h, w] of one picture, the values `wanted` [1, O, H, W] there, and the box that counts."""

    at: LayerInput
    wanted: Tensor
    box: Box


def copy_paste(
    generator: Generator, layer: str, request: EditRequest, example: Example | None = None
) -> Goal:
    """The copied values, blended by their soft mask onto the middle of the painted paste region.

    They are scaled and flipped first, as the `example` says: the first of the request's, unless another is given. What
    is larger than the map loses its edges.

    Raises:
        RequestError: if copy or paste is missing, its mask is empty at this layer's resolution, or nothing of it is
            left once it is scaled.
        LayerError: if pixels are to be pasted, and the layer does not draw the picture itself.
    """
    example = example or request.pairs[0]
    grid = generator.layer(layer)
    size = grid.value_size
    region = example.paste.mask.bounds(size, grid.value_margin)
    copied, alpha = _copied(generator, layer, request, example)  # [1, O, bh, bw], [bh, bw]

    at = generator.keys(latents_of(generator, request, example.paste.image), layer)
    wanted = generator.values(at).clone()  # [1, O, H, W]
    box = placed((alpha.shape[0], alpha.shape[1]), region, size)
    top, left, bottom, right = box
    wanted[..., top:bottom, left:right].lerp_(copied, alpha.expand_as(copied))
    return Goal(at, wanted, whole_cells(box, grid))


def erase(generator: Generator, layer: str, request: EditRequest, second_moment: Tensor) -> Goal:
    """What the layer draws with the context's most telling units set to 0, inside the painted region.

    The region is the paste's, or the first context's where nothing is pasted.

    Raises:
        RequestError: if the context is missing, or a mask is empty at this layer's resolution.
    """
    target = request.paste or request.painted("key")
    at = generator.keys(latents_of(generator, request, target.image), layer)
    units = erased_units(generator, layer, request, second_moment)
    keys = at.keys.clone()
    keys[:, units] = 0
    grid = generator.layer(layer)
    alpha = target.mask.area(grid.value_size, grid.value_margin).to(keys.device)  # [H, W]
    blank = generator.values(LayerInput(layer, keys, at.latents, at.rest))  # [1, O, H, W]
    wanted = torch.lerp(generator.values(at), blank, alpha.expand_as(blank))
    return Goal(at, wanted, whole_cells(target.mask.bounds(grid.value_size, grid.value_margin), grid))


def erased_units(generator: Generator, layer: str, request: EditRequest, second_moment: Tensor) -> Tensor:
    """Units with the greatest area-weighted mean of k² / E[k²] over the context, the strongest first.

    `request.erase_units` is meant for 512 channels and scaled down in proportion on narrower layers; units that are
    always 0 are skipped.
    """
    keys, areas = painted_keys(generator, layer, request, request.key)
    telling = unit_energy(observe(keys, areas), second_moment)  # [C]
    count = max(1, round(request.erase_units * min(1.0, len(telling) / 512)))
    return rank_images(telling, count)


def whole_cells(box: Box, layer: Layer) -> Box:
    """`box` grown outwards to whole key cells, where the layer upsamples."""
    (h, w), (height, width) = layer.key_size, layer.value_size
    down, across = max(1, height // h), max(1, width // w)
    top, left, bottom, right = box
    return (
        top // down * down,
        left // across * across,
        min(height, -(-bottom // down) * down),
        min(width, -(-right // across) * across),
    )


def placed(shape: tuple[int, int], region: Box, size: tuple[int, int]) -> Box:
    """A box of `shape` centred on `region`, moved to stay inside a map of `size`."""
    (height, width), (top, left, bottom, right) = shape, region
    y = max(0, min(size[0] - height, (top + bottom) // 2 - height // 2))
    x = max(0, min(size[1] - width, (left + right) // 2 - width // 2))
    return (y, x, y + height, x + width)


def _copied(
    generator: Generator, layer: str, request: EditRequest, example: Example
) -> tuple[Tensor, Tensor]:
    """Values [1, O, bh, bw] to paste, no larger than the map, and how much of each, [bh, bw]."""
    grid, copied = generator.layer(layer), example.object
    size, margin = grid.value_size, grid.value_margin
    if isinstance(copied, Patch):
        return _patched(generator, layer, copied, example)
    top, left, bottom, right = copied.mask.bounds(size, margin)
    values = _values(generator, layer, request, copied)[..., top:bottom, left:right]  # [1, O, bh, bw]
    alpha = copied.mask.area(size, margin).to(values.device)[top:bottom, left:right]  # [bh, bw]
    return posed(values, alpha, example, size)


def _patched(generator: Generator, layer: str, patch: Patch, example: Example) -> tuple[Tensor, Tensor]:
    """The same of pixels: a picture is brought to the map where it is larger, a colour fills the paste region."""
    size = generator.layer(layer).value_size
    pixels, alpha = (
        patch.picture().to(generator.device),
        patch.alpha.to(generator.device),
    )  # [1, 3, h, w], [h, w]
    if patch.colour:
        top, left, bottom, right = example.paste.mask.bounds(size)
        area = example.paste.mask.area(size).to(alpha)[top:bottom, left:right]  # [bh, bw]
        pixels, alpha = pixels.expand(-1, -1, *area.shape), alpha * area
    fitting = min(1.0, size[0] / alpha.shape[0], size[1] / alpha.shape[1])
    pixels, alpha = posed(pixels, alpha, example, size, fitting)
    return generator.unrendered(layer, pixels), alpha


def _values(generator: Generator, layer: str, request: EditRequest, painted: Painted) -> Tensor:
    return generator.values(generator.keys(latents_of(generator, request, painted.image), layer))
