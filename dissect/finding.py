"""Which units fire here? Units ranked by how well they pick out a region that was painted on a few pictures.

    histogram = fetch(generator, "l08", LatentSpec.of(range(1000)), Histogram(), store=store)
    found = find_units(generator, LatentSpec.of([12, 40]), [mask, other], "l08", histogram)
    found.table()         # a row for each unit, the most specific first
    found.outlined(17, 4)  # the painted pictures, outlined where unit 17 fires

Axes: units C, painted pictures N, levels T, pixels of the picture H, W. All painted pictures count as one: pixels are
*inside* if they are painted, and *outside* if they are not, in any of them. So who paints a mouth in one picture paints
it in the others too, or leaves them out.

**The score is the IoU** of the painted region with where the unit, brought to the picture bilinearly, is above a
threshold: the measure of a dissection, for a concept that is painted by hand. The threshold is the unit's best of the
levels of `dissect.units.LADDER`, which are quantiles over thousands of samples: so a level says how unusual a value is
for that unit, and units of any loudness are compared alike. A unit that fires everywhere has the IoU of the region's
share of the picture, the `baseline`; only what fires inside rather than outside beats it.

Choosing the level flatters, by a factor that few pictures do not tell. What a unit detects, on samples that it was not
chosen on, is for `dissect.units` to say; this is a search. Beside the score stand

* `inside`, `outside`: the share of either in which the unit is above that threshold;
* `lift`: how many times more often it is above it inside than anywhere in the samples of the histogram;
* `rank_inside`, `rank_outside`: the unit's mean rank there among all its values, from 0 to 1 (on the layer's own grid,
  each position weighted by the area that is painted); 0.5 is an ordinary place.

A unit that is above no level anywhere has a score, shares and lift of 0. Nothing here is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from dissect.layer import Levels
from dissect.settings import CUSTOMARY
from dissect.units import levels_of
from rewrite_core.errors import MaskError, RequestError
from rewrite_core.generators import Generator, LatentSpec
from rewrite_core.pictures import Colour, Mask, Picture, enlarge, outline, to_uint8
from rewrite_core.statistics import Histogram

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MARK", "Found", "find_units"]

OUTLINE: Colour = (255, 225, 60)
"""Around where a unit fires."""
MARK: Colour = (255, 45, 120)
"""Around what is painted."""
_VALUES = 1 << 24  # enlarged values that are looked at together


@dataclass(frozen=True, eq=False)
class Found:
    """Every unit of a layer against the painted region; tensors [C] are float64 on the CPU unless said otherwise.

    Attributes:
        layer: its name.
        spec: the N painted pictures.
        regions: what is painted on them, bool [N, H, W].
        pictures: uint8 [N, H, W, 3].
        maps: the units' maps on the layer's own grid, [N, C, h, w].
        quantile: of the best level, the share of the unit's values that lie below it.
        threshold: the level itself, float32.
        iou: the score; see the module.
        inside, outside: shares of the painted and of the other pixels in which the unit is above it.
        lift: `inside` over the same share of all samples.
        rank_inside, rank_outside: mean rank in either.
    """

    layer: str
    spec: LatentSpec
    regions: NDArray[np.bool_]
    pictures: Picture
    maps: Tensor
    quantile: Tensor
    threshold: Tensor
    iou: Tensor
    inside: Tensor
    outside: Tensor
    lift: Tensor
    rank_inside: Tensor
    rank_outside: Tensor

    @property
    def baseline(self) -> float:
        """The IoU of a unit that fires everywhere: the painted share of the pictures."""
        return float(self.regions.mean())

    @property
    def order(self) -> tuple[int, ...]:
        """The units, the best first; of equals, that of the lower number."""
        return tuple(self.iou.sort(descending=True, stable=True).indices.tolist())

    def table(self) -> pd.DataFrame:
        """A row for each unit, the best first.

        Columns: layer, unit, iou, lift, inside, outside, rank_inside, rank_outside, quantile, threshold.
        """
        import pandas as pd

        order = list(self.order)
        names = ("iou", "lift", "inside", "outside", "rank_inside", "rank_outside", "quantile", "threshold")
        columns = {name: getattr(self, name)[order].double().numpy() for name in names}
        return pd.DataFrame({"layer": self.layer, "unit": order, **columns})

    def fires(self, unit: int) -> NDArray[np.bool_]:
        """Where `unit` is above its threshold, bool [N, H, W]."""
        large = _enlarged(self.maps[:, unit : unit + 1], self.regions.shape[1:])  # [N, 1, H, W]
        fires: NDArray[np.bool_] = (large[:, 0] > self.threshold[unit]).numpy()
        return fires

    def outlined(self, unit: int, factor: int = 1, *, thickness: int = 1, dim: float = 0.5) -> Picture:
        """The pictures with lines around where `unit` fires and around what is painted, dimmed where it does not fire.

        Returns:
            uint8 [N, factor · H, factor · W, 3].
        """
        fires, painted = (
            masks.repeat(factor, axis=1).repeat(factor, axis=2) for masks in (self.fires(unit), self.regions)
        )
        shown = [
            outline(outline(picture, some, OUTLINE, thickness, dim), region, MARK, thickness)
            for picture, some, region in zip(enlarge(self.pictures, factor), fires, painted, strict=True)
        ]
        return np.stack(shown)

    @property
    def nbytes(self) -> int:
        """What it takes to keep it."""
        return self.maps.nbytes + self.pictures.nbytes + self.regions.nbytes


@torch.no_grad()
def find_units(
    generator: Generator,
    spec: LatentSpec,
    regions: Sequence[Mask],
    layer: str,
    histogram: Histogram,
) -> Found:
    """Every unit of `layer` against `regions`, one for each picture of `spec`.

    Args:
        generator: draws the pictures.
        spec: which pictures were painted on.
        regions: what is painted, of any size; a pixel counts where at least half of it is painted.
        layer: whose units.
        histogram: of that layer, over as many samples as there are.

    Raises:
        LayerError: no such layer.
        RequestError: not one region for each picture, or a histogram of another layer.
        MaskError: nothing is painted, or everything.
    """
    units = generator.layer(layer).in_channels
    if len(spec) != len(regions) or not regions or len(histogram.least) != units:
        raise RequestError(
            found=f"{len(regions)} regions for {len(spec)} pictures, and {len(histogram.least)} distributions",
            expected=f"a region for each picture, and the {units} units of layer '{layer}'",
            remedy="Paint on the pictures that are asked about.",
        )
    painted = np.stack([_on_pixels(region, generator.picture_size) for region in regions])  # [N, H, W]
    _require_both_sides(painted)
    maps, pictures = _seen(generator, spec, layer)
    levels = levels_of(histogram, CUSTOMARY)
    iou, at, inside, outside = _best(maps, torch.from_numpy(painted), levels)
    threshold = levels.values.gather(1, at[:, None])[:, 0]  # [C]
    anywhere = histogram.share_above(threshold.double()).clamp(min=1 / histogram.positions)
    ranks = _mean_ranks(maps, torch.from_numpy(painted), histogram)
    quantile = torch.tensor(levels.quantiles, dtype=torch.float64)[at]
    return Found(
        layer,
        spec,
        painted,
        pictures,
        maps,
        quantile,
        threshold,
        iou,
        inside,
        outside,
        inside / anywhere,
        *ranks,
    )


def _on_pixels(region: Mask, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels [H, W] of a picture that are painted."""
    painted: NDArray[np.bool_] = region.resized(size).pixels >= 128
    return painted


def _require_both_sides(painted: NDArray[np.bool_]) -> None:
    if not painted.any() or painted.all():
        raise MaskError(
            found="every pixel painted" if painted.any() else "nothing painted",
            expected="a region, with something around it",
            remedy="Paint what the units are to fire on, and leave the rest free.",
        )


def _seen(generator: Generator, spec: LatentSpec, layer: str) -> tuple[Tensor, Picture]:
    """The maps [N, C, h, w] of the layer without its margins, on the CPU, and the pictures [N, H, W, 3]."""
    maps, pictures = [], []
    for block in spec.blocks(generator.micro_batch):
        at = generator.keys(generator.latents(block), layer)
        maps.append(generator.layer(layer).inside(at.keys).float().cpu())
        pictures.append(to_uint8(generator.render(at, generator.values(at))))
    return torch.cat(maps), np.concatenate(pictures)


def _enlarged(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps [N, C, h, w] at the size of the picture, as a dissection has them."""
    return functional.interpolate(maps, tuple(size), mode="bilinear", align_corners=False)


def _best(maps: Tensor, painted: Tensor, levels: Levels) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For each unit the greatest IoU, at which level, and the shares above it inside and outside: four [C].

    Args:
        maps: [N, C, h, w].
        painted: bool [N, H, W].
        levels: T of each unit.
    """
    counts = _counts_above(maps, painted, levels.values)  # [C, T, 2], outside and inside
    counts[levels.dead] = 0  # rounding of what is enlarged may lift a constant above itself
    area = torch.stack([(~painted).sum(), painted.sum()]).double()  # [2]
    iou = counts[..., 1] / (area[1] + counts[..., 0])  # [C, T]
    at = levels.values.shape[1] - 1 - torch.from_numpy(iou.flip(1).numpy().argmax(1))  # the last of equals
    shares = (counts / area)[torch.arange(len(at)), at]  # [C, 2]
    return iou.gather(1, at[:, None])[:, 0], at, shares[:, 1], shares[:, 0]


def _counts_above(maps: Tensor, painted: Tensor, levels: Tensor) -> Tensor:
    """How many pixels outside and inside are above each of `levels` [C, T], [C, T, 2] float64, exact."""
    units, tried = levels.shape
    counts = torch.zeros(units, tried + 1, 2, dtype=torch.int64)
    together = max(1, _VALUES // painted[0].numel())
    for some in torch.arange(units).split(together):
        for picture, region in zip(maps, painted, strict=True):
            values = _enlarged(picture[None, some], region.shape)[0].flatten(1)  # [c, HW]
            passed = torch.searchsorted(levels[some], values)  # how many levels lie below, [c, HW]
            cells = (torch.arange(len(some))[:, None] * (tried + 1) + passed) * 2 + region.flatten().long()
            seen = torch.bincount(cells.flatten(), minlength=len(some) * (tried + 1) * 2)
            counts[some] += seen.view(len(some), tried + 1, 2)
    return counts.flip(1).cumsum(1).flip(1)[:, 1:].double()


def _mean_ranks(maps: Tensor, painted: Tensor, histogram: Histogram) -> tuple[Tensor, Tensor]:
    """The mean rank of each unit inside and outside, weighted by area, two [C]."""
    grid = (maps.shape[2], maps.shape[3])
    grid = (maps.shape[2], maps.shape[3])
    weights = functional.adaptive_avg_pool2d(painted[:, None].double(), grid).flatten()  # [Nhw]
    ranks = histogram.rank(maps.movedim(1, 0).flatten(1))  # [C, Nhw]
    return ranks @ (weights / weights.sum()), ranks @ ((1 - weights) / (1 - weights).sum())
