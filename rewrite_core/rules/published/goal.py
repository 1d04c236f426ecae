"""Goals as published: keys and the values wanted there, copied and pasted, or erased.

``tight`` crops both to the pasted box, grown to whole key cells. The crop is then a map of its own: zeros around it,
and the noise of its own shape. So even what is not to change is wanted otherwise than the pristine weight draws it.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from rewrite_core.generators import Box, Generator, Layer, LayerInput
from rewrite_core.memory import rank_images, unit_energy
from rewrite_core.rules.goal import Goal, placed, whole_cells
from rewrite_core.rules.painted import latents_of
from rewrite_core.rules.published.context import published_context
from rewrite_core.rules.published.layer import drawn, published_noise
from rewrite_core.rules.published.settings import PublishedSettings, Split
from rewrite_core.rules.request import EditRequest, Painted

__all__ = ["cropped", "published_copy", "published_erase", "published_erased_units", "published_paste"]


@torch.no_grad()
def published_copy(
    generator: Generator, layer: str, request: EditRequest, split: Split = "usual"
) -> tuple[Tensor, Tensor]:
    """The object's values [1, O, bh, bw] in the box around its mask, and their soft area [bh, bw]."""
    source, size = request.painted("object"), generator.layer(layer).value_size
    box = source.mask.bounds(size)
    values = _values(generator, _stopped(generator, layer, request, source), split)
    return _cut(values, box), _cut(source.mask.area(size), box).to(values.device)


@torch.no_grad()
def published_paste(
    generator: Generator, layer: str, request: EditRequest, settings: PublishedSettings
) -> Goal:
    """The values of the paste picture with the object in them, tight or whole."""
    copied, area = published_copy(generator, layer, request, settings.split)
    found, target = generator.layer(layer), request.painted("paste")
    box = placed((area.shape[0], area.shape[1]), target.mask.bounds(found.value_size), found.value_size)
    at = _stopped(generator, layer, request, target)
    wanted = _values(generator, at, settings.split)  # [1, O, H, W]
    area = area if settings.alpha else torch.ones_like(area)
    _cut(wanted, box).copy_((1 - area) * _cut(wanted, box) + area * copied)
    return cropped(Goal(at, wanted, box), found) if settings.tight else _whole(at, wanted)


@torch.no_grad()
def published_erase(
    generator: Generator, layer: str, request: EditRequest, second_moment: Tensor, split: Split = "usual"
) -> Goal:
    """The values of the paste picture (or the first context's) with the erased units at 0 everywhere; never tight."""
    at = _stopped(generator, layer, request, request.paste or request.painted("key"))
    blank = at.keys.clone()
    blank[:, published_erased_units(generator, layer, request, second_moment, split)] = 0
    return _whole(at, _values(generator, replace(at, keys=blank), split))


def published_erased_units(
    generator: Generator, layer: str, request: EditRequest, second_moment: Tensor, split: Split = "usual"
) -> Tensor:
    """The `request.erase_units` units with the greatest area-weighted mean of k² / E[k²], however narrow the layer."""
    seen, _ = published_context(generator, layer, request, split)
    return rank_images(unit_energy(seen, second_moment), request.erase_units)


def cropped(goal: Goal, layer: Layer) -> Goal:
    """`goal` as if its box, grown to whole key cells, were the whole map."""
    box = top, left, bottom, right = whole_cells(goal.box, layer)
    (h, w), (height, width), rest = layer.key_size, layer.value_size, dict(goal.at.rest)
    cells = (top * h // height, left * w // width, bottom * h // height, right * w // width)
    if "noise" in rest:
        rest["noise"] = published_noise(1, (bottom - top, right - left)).to(rest["noise"])
    return _whole(replace(goal.at, keys=_cut(goal.at.keys, cells), rest=rest), _cut(goal.wanted, box))


def _whole(at: LayerInput, wanted: Tensor) -> Goal:
    return Goal(at, wanted, (0, 0, wanted.shape[-2], wanted.shape[-1]))


def _cut(maps: Tensor, box: Box) -> Tensor:
    top, left, bottom, right = box
    return maps[..., top:bottom, left:right]


def _stopped(generator: Generator, layer: str, request: EditRequest, painted: Painted) -> LayerInput:
    return generator.keys(latents_of(generator, request, painted.image), layer)


def _values(generator: Generator, at: LayerInput, split: Split) -> Tensor:
    return drawn(generator, at, generator.weight(at.layer), split)
