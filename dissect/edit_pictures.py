"""The pictures that an edit is shown by: what was painted, and pairs before and after.

painted = painted_edit(generator, request)         # copy, context and paste, each a Panel
pairs = edited_pairs(generator, edited, LatentSpec.of(range(8)))
most, least = extremes(generator, edited, found)   # of an `EditEffect`
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from dissect.edit_effect import EditEffect
from dissect.edit_regions import regions_of
from dissect.sheet import OUTLINE
from rewrite_core.generators import Generator, LatentSpec
from rewrite_core.generators.own import short
from rewrite_core.pictures import Mask, Picture, outline, to_uint8
from rewrite_core.rules.goal import copy_paste
from rewrite_core.rules.painted import latents_of
from rewrite_core.rules.regions import Painted
from rewrite_core.rules.request import EditRequest

__all__ = ["PaintedEdit", "Pairs", "Panel", "edited_pairs", "extremes", "outlined", "painted_edit"]

Masks = NDArray[np.bool_]  # [H, W], or [N, H, W] where several are meant


@dataclass(frozen=True, eq=False)
class Panel:
    """A picture [H, W, 3] with a mask [H, W] of what was painted on it, and the picture's name."""

    picture: Picture
    mask: Masks
    label: str


@dataclass(frozen=True, eq=False)
class PaintedEdit:
    """What was painted.

    Attributes:
        operation: ``paste`` or ``erase``.
        copy: what is copied; None for an erasure.
        paste: where it is pasted, as the layer draws it there; for an erasure what is erased, as it is; or None.
        context: pictures with the context, masks on one picture joined.
        regions: painted masks of the context.
    """

    operation: str
    copy: Panel | None
    paste: Panel | None
    context: tuple[Panel, ...]
    regions: int


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pictures `before` and `after`, [N, H, W, 3], over their seeds; where the context matches, `regions` [N, H, W]."""

    seeds: tuple[int, ...]
    before: Picture
    after: Picture
    regions: Masks | None = None


@torch.no_grad()
def painted_edit(generator: Generator, request: EditRequest) -> PaintedEdit:
    """What was painted for `request`, on the pictures of `generator` without rules.

    Raises:
        LayerError: there is no such layer.
        RequestError, MaskError: a mask is empty at the layer's resolution.
    """
    generator = generator.pristine
    pasting = request.operation == "paste" and request.object is not None and request.paste is not None
    paste = None if request.paste is None else _panel(generator, request, [request.paste])
    if paste and pasting:
        goal = copy_paste(generator, request.layer or generator.default_layer, request)
        paste = replace(paste, picture=to_uint8(generator.render(goal.at, goal.wanted))[0])
    images = dict.fromkeys(region.image for region in request.key)
    context = [
        _panel(generator, request, [region for region in request.key if region.image == image])
        for image in images
    ]
    copied = request.object if pasting else None
    return PaintedEdit(
        operation=request.operation,
        copy=None if copied is None else _panel(generator, request, [copied]),
        paste=paste,
        context=tuple(context),
        regions=len(request.key),
    )


def edited_pairs(before: Generator, after: Generator, spec: LatentSpec) -> Pairs:
    """The pictures of `spec` before and after."""
    return Pairs(spec.seeds, before.draw(spec), after.draw(spec))


def extremes(before: Generator, after: Generator, effect: EditEffect, count: int = 6) -> tuple[Pairs, Pairs]:
    """The pairs of `effect` that change most, and those that change least, with the regions of their context."""

    def pairs(seeds: list[int]) -> Pairs:
        spec = replace(effect.spec, seeds=tuple(seeds))
        regions = regions_of(before, effect.direction, effect.level, spec).numpy()
        return replace(edited_pairs(before, after, spec), regions=regions)

    return pairs(effect.most(count)), pairs(effect.least(count))


def outlined(picture: Picture, mask: Masks, size: tuple[int, int]) -> Picture:
    """A picture [H, W, 3] at the (height, width) it is printed at, with a line around `mask` [H, W]."""
    from dissect.paper import printed

    large = Mask.from_array(mask).resized(size).pixels > 127
    return outline(printed(picture, size), large, OUTLINE, thickness=2)


def _panel(generator: Generator, request: EditRequest, regions: list[Painted]) -> Panel:
    """One picture as it is, and all that was painted on it."""
    image = regions[0].image
    picture = to_uint8(generator.pictures(latents_of(generator, request, image)))[0]
    masks = [region.mask.resized(generator.picture_size).pixels > 127 for region in regions]
    return Panel(picture, np.logical_or.reduce(masks), str(short(image)))
