"""What a concept source says, made visible: labels over pictures, how much each concept covers, how far two agree.

A source that labels badly must be seen to do so, before any number that follows from it is believed::

    found = labelled(generator, LatentSpec.of(range(24)), source)
    pictures = overlay(found.pictures, found.labels, colours_of(found.names))  # [N, H, W, 3], enlarged
    shares(found)                       # concept, share of pixels, share of pictures
    agreement(found, labelled(generator, spec, other))

A soft label counts above 0.5, as it does in `rewrite_core.statistics.Intersection`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from dissect.concepts.source import ConceptSource
from rewrite_core.errors import PalimpsestError, RequestError
from rewrite_core.generators import Generator, Latents, LatentSpec, Progress
from rewrite_core.pictures import Colour, Picture, enlarge, to_uint8
from rewrite_core.statistics import Scene

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LEGIBLE", "Agreement", "Labelled", "agreement", "labelled", "legible", "overlay", "shares"]

LEGIBLE = 256
"""Pixels that the longer side of an enlarged picture has at least."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """Pictures with their labels.

    Attributes:
        pictures: uint8 [N, H, W, 3].
        labels: [N, L, h, w] on the CPU, bool or float in [0, 1]; their grid need not be the pictures'.
        names: what the L concepts are called.
        spec: the N pictures.
        title: the source's.
    """

    pictures: Picture
    labels: Tensor
    names: tuple[str, ...]
    spec: LatentSpec
    title: str = ""

    @property
    def masks(self) -> Tensor:
        """Where each concept is, bool [N, L, h, w]."""
        return _masks(self.labels)

    def only(self, names: Sequence[str]) -> Labelled:
        """The same with these concepts alone, in this order.

        Raises:
            RequestError: there is none of a name.
        """
        for name in names:
            if name not in self.names:
                raise RequestError(
                    found=f"the concept '{name}'",
                    expected=f"one of {', '.join(self.names)}",
                    remedy="Choose among these.",
                )
        places = [self.names.index(name) for name in names]
        return Labelled(self.pictures, self.labels[:, places], tuple(names), self.spec, self.title)


@torch.no_grad()
def labelled(
    generator: Generator, spec: LatentSpec, source: ConceptSource, progress: Progress | None = None
) -> Labelled:
    """The pictures of `spec` and what `source` says of them.

    Raises:
        RequestError: no picture is asked for.
        PalimpsestError: from `source`, which may not label what this generator draws.
        Cancelled: from `progress`.
    """
    if not len(spec):
        raise RequestError(
            found="no picture to label", expected="at least one seed", remedy="Choose some seeds."
        )
    source.check(generator)
    pictures, labels = [], []
    done = 0
    for block in spec.blocks(generator.micro_batch):
        scene = _scene(generator, generator.latents(block), source.layers)
        pictures.append(to_uint8(scene.pictures))
        labels.append(source(scene).cpu())
        done += len(block)
        if progress:
            progress(done, len(spec))
    return Labelled(np.concatenate(pictures), torch.cat(labels), source.names, spec, source.title)


def legible(size: tuple[int, int]) -> int:
    """The whole factor by which pictures of `size` are enlarged so that their longer side has `LEGIBLE` pixels."""
    return max(1, math.ceil(LEGIBLE / max(size)))


def overlay(
    pictures: Picture,
    labels: Tensor,
    colours: Sequence[Colour],
    opacity: float = 0.45,
    factor: int | None = None,
) -> Picture:
    """Pictures [N, H, W, 3] with each concept tinted and outlined, enlarged.

    Where concepts overlap, the one that covers less of that picture is on top, and of equals the later one: eyes are
    seen on a face. A line one pixel wide, after enlargement, runs along the inside of each region.

    Args:
        pictures: uint8 [N, H, W, 3].
        labels: [N, L, h, w]; brought to the pictures by the nearest label.
        colours: one for each concept.
        opacity: of the tint; the lines are opaque.
        factor: by how much to enlarge; `legible` if not given.

    Returns:
        uint8 [N, factor · H, factor · W, 3].
    """
    factor = factor or legible((pictures.shape[1], pictures.shape[2]))
    large = enlarge(pictures, factor)  # [N, R, S, 3]
    top = _nearest(_topmost(_masks(labels))[:, None], large.shape[1:3])[:, 0].long().numpy()  # [N, R, S]
    cover = np.where(_borders(top), 1.0, opacity)[..., None].astype(np.float32)  # [N, R, S, 1]
    cover[top == -1] = 0
    paint = np.array([*colours, (0, 0, 0)], dtype=np.float32)[top]  # [N, R, S, 3]
    blended: Picture = (large * (1 - cover) + paint * cover).round().astype(np.uint8)
    return blended


def shares(found: Labelled) -> pd.DataFrame:
    """For each concept the share of all pixels that it covers, and the share of pictures that it is in."""
    import pandas as pd

    masks = found.masks  # [N, L, h, w]
    return pd.DataFrame(
        {
            "concept": found.names,
            "share of pixels": _share(masks).tolist(),
            "share of pictures": masks.flatten(2).any(2).double().mean(0).tolist(),
        }
    )


@dataclass(frozen=True, eq=False)
class Agreement:
    """How far two labellings of the same pictures agree.

    Attributes:
        table: for each concept that both know: its IoU, and the share of pixels that each gives it. The IoU is 0 where
            neither ever saw it, as the shares then are.
        accuracy: share of the pixels to which both give the same name, if each gives every pixel just one; else None.
    """

    table: pd.DataFrame
    accuracy: float | None


def agreement(one: Labelled, other: Labelled) -> Agreement:
    """How far two sources agree on the same pictures, concept by concept, by name.

    They are compared on the pictures' own grid: finer labels are averaged over a pixel's area, coarser ones are those
    of the nearest.

    Raises:
        PalimpsestError: they are of different pictures, or no concept is called the same.
    """
    if one.spec != other.spec or one.pictures.shape != other.pictures.shape:
        raise PalimpsestError(
            found=f"{len(one.spec)} pictures labelled by {one.title}, and others by {other.title}",
            expected="the same pictures",
            remedy="Label the same seeds with both.",
        )
    both = [name for name in one.names if name in other.names]
    if not both:
        raise PalimpsestError(
            found=f"no concept that {one.title} and {other.title} call the same",
            expected=f"one of {', '.join(one.names[:12])} in both",
            remedy="Rename the concepts in one of them.",
        )
    size = one.pictures.shape[1:3]
    first, second = _on_grid(one.labels, size), _on_grid(other.labels, size)  # [N, L, H, W], [N, M, H, W]
    mine = first[:, [one.names.index(name) for name in both]]
    theirs = second[:, [other.names.index(name) for name in both]]
    return Agreement(_compared(both, mine, theirs), _accuracy(first, second, mine, theirs))


def _scene(generator: Generator, latents: Latents, layers: Sequence[str]) -> Scene:
    """A micro-batch as a labeller sees it that reads `layers`."""
    if not layers:
        return Scene(generator.pictures(latents), latents)
    stopped = generator.inputs(latents, layers)
    at = stopped[max(layers, key=list(generator.layers).index)]
    maps = {layer: generator.layer(layer).inside(stopped[layer].keys) for layer in layers}
    return Scene(generator.render(at, generator.values(at)), latents, maps)


def _masks(labels: Tensor) -> Tensor:
    return labels if labels.dtype == torch.bool else labels > 0.5


def _on_grid(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Where each concept is on a grid of `size`, bool [N, L, *size]."""
    if labels.shape[2:] == size:
        return _masks(labels)
    if labels.shape[2] >= size[0] and labels.shape[3] >= size[1]:
        return functional.adaptive_avg_pool2d(labels.float(), size) > 0.5
    return _nearest(labels, size) > 0.5


def _nearest(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps [N, L, h, w] on a grid of `size`, each pixel the nearest one."""
    return functional.interpolate(maps.float(), size, mode="nearest-exact")


def _share(masks: Tensor) -> Tensor:
    """The share of all pixels that each concept covers, [L] float64."""
    return masks.sum((0, 2, 3)).double() / (len(masks) * masks.shape[2] * masks.shape[3])


def _topmost(masks: Tensor) -> Tensor:
    """The number of the concept that is seen in each pixel [N, H, W]; -1 where there is none."""
    areas = masks.flatten(2).sum(2)  # [N, L]
    order = areas.argsort(dim=1, descending=True, stable=True)  # [N, L]; those to be painted first
    top = torch.full((len(masks), *masks.shape[2:]), -1)
    for concepts in order.T:  # [N], one concept of each picture
        there = masks[torch.arange(len(masks)), concepts]  # [N, H, W]
        top = torch.where(there, concepts[:, None, None], top)
    return top


def _borders(top: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Pixels [N, H, W] that have a neighbour above, below, left or right of another concept."""
    padded = np.pad(top, ((0, 0), (1, 1), (1, 1)), mode="edge")
    beside = (padded[:, :-2, 1:-1], padded[:, 2:, 1:-1], padded[:, 1:-1, :-2], padded[:, 1:-1, 2:])
    borders: NDArray[np.bool_] = np.logical_or.reduce([neighbour != top for neighbour in beside])
    return borders


def _compared(names: Sequence[str], mine: Tensor, theirs: Tensor) -> pd.DataFrame:
    """IoU and shares of each concept, from masks [N, L, H, W]."""
    import pandas as pd

    shared, either = (_share(masks) for masks in (mine & theirs, mine | theirs))  # [L]
    return pd.DataFrame(
        {
            "concept": names,
            "IoU": torch.where(either > 0, shared / either, 0.0).tolist(),
            "share of pixels": _share(mine).tolist(),
            "share of pixels in the other": _share(theirs).tolist(),
        }
    )


def _accuracy(first: Tensor, second: Tensor, mine: Tensor, theirs: Tensor) -> float | None:
    """Share of the pixels that carry the same name, where every pixel has exactly one in both."""
    if not all(bool((masks.sum(1) == 1).all()) for masks in (first, second)):
        return None
    return float((mine & theirs).any(1).double().mean())
