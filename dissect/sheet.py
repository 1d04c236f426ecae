"""A unit's sheet: what it fires on, shown so that a top list cannot flatter, and everything counted of it.

    found = dissect(generator, spec, layers, source, also=ALSO)
    sheet = unit_sheet(generator, found, "l08", 17)
    sheet.ranges[0].outlined(4)  # its top pictures, four times enlarged, outlined where it is above its threshold
    sheet.concepts()             # a row for each concept: IoU, held-out IoU, baseline …
    sheet.bars, sheet.threshold  # the distribution of its values, and where it counts as firing
    sheet.correlated             # the units that rise and fall with it

The samples are ranked by the greatest value of the unit in each. The sheet shows the first of them, then some from each
of the lower ranges, and the last; within a range they are taken at even distances in rank, so nobody chose them.

With ``also=ALSO``, `dissect` leaves in the store all statistics that sheets need, and only the pictures are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from dissect.layer import LayerDissection, Unit
from dissect.tables import Dissection
from rewrite_core.errors import RequestError
from rewrite_core.generators import Generator, LatentSpec
from rewrite_core.pictures import Colour, Picture, enlarge, outline, to_uint8
from rewrite_core.statistics import Along, Histogram, Maxima, SecondMoment, Statistic, Store, gather
from rewrite_core.statistics.histogram import Bars

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ALSO", "LOWER", "OUTLINE", "LayerSheets", "Range", "UnitSheet", "layer_sheets", "unit_sheet"]

ALSO: tuple[Statistic, ...] = (Maxima(), SecondMoment())
"""Empty statistics that sheets need beside those of `dissect`; for its `also`."""
LOWER = ((0.9, 0.99), (0.75, 0.9), (0.5, 0.75))
"""Ranges of the samples, ranked by the unit's greatest value in each, that are shown below the top."""
TOP, LOWEST = "top", "lowest"
OUTLINE: Colour = (255, 225, 60)
BARS = 48
CORRELATED = 8


@dataclass(frozen=True, eq=False)
class Range:
    """Some pictures of one range of a unit's greatest values.

    Attributes:
        name: ``top``, ``90–99 %`` … or ``lowest``.
        seeds: of the N pictures, greatest value first.
        maxima: the unit's greatest value in each.
        pictures: uint8 [N, H, W, 3].
        masks: where the unit, brought to the pictures bilinearly, is above its threshold, bool [N, H, W].
    """

    name: str
    seeds: tuple[int, ...]
    maxima: tuple[float, ...]
    pictures: Picture
    masks: NDArray[np.bool_]

    def outlined(
        self, factor: int = 1, colour: Colour = OUTLINE, dim: float = 0.5, thickness: int = 1
    ) -> Picture:
        """The pictures with the region in which the unit fires outlined, the rest of them darkened to `dim`.

        Args:
            factor: by which whole factor they are enlarged.
            colour: of the line, just outside the region.
            dim: how much light the rest keeps, from 0 to 1.
            thickness: of the line, in pixels of the enlarged pictures.

        Returns:
            uint8 [N, factor · H, factor · W, 3].
        """
        large = enlarge(self.pictures, factor)  # [N, R, S, 3]
        masks = self.masks.repeat(factor, axis=1).repeat(factor, axis=2)  # [N, R, S]
        return np.stack(
            [
                outline(picture, mask, colour, thickness, dim)
                for picture, mask in zip(large, masks, strict=True)
            ]
        )


@dataclass(frozen=True, eq=False)
class UnitSheet:
    """Everything that is shown of one unit.

    Attributes:
        found: what was found at its layer.
        row: which of the layer's units it is.
        ranges: its pictures: the top, the ranges of `LOWER` that hold a sample, the lowest.
        bars: the distribution of its values over all positions of all samples.
        above: the share of positions above its threshold, of its own grid.
        correlated: the units whose values are most correlated with its own, over all positions, with the correlation.
    """

    found: LayerDissection
    row: int
    ranges: tuple[Range, ...]
    bars: Bars
    above: float
    correlated: tuple[tuple[Unit, float], ...]

    @property
    def layer(self) -> str:
        """The name of its layer."""
        return self.found.layer

    @property
    def unit(self) -> Unit:
        """Its number, or a direction's name."""
        return self.found.units[self.row]

    @property
    def threshold(self) -> float:
        """Its set threshold."""
        return float(self.found.thresholds[self.row])

    @property
    def density(self) -> float:
        """The share of all pixels in which it is above that."""
        return float(self.found.density[self.row])

    @property
    def concept(self) -> str:
        """The concept that it stands for; empty if there is none."""
        number = int(self.found.concept[self.row])
        return self.found.concepts[number] if number >= 0 else ""

    @property
    def detector(self) -> bool:
        """Whether it detects that."""
        return bool(self.found.detector[self.row])

    def concepts(self) -> pd.DataFrame:
        """A row for each concept.

        Columns: concept; iou, precision, recall (at the set threshold, over all samples); tuned_quantile and tuned_iou
        (chosen on the first half); held_out_iou (on the second) and the baseline there.
        """
        import pandas as pd

        found, row = self.found, self.row
        return pd.DataFrame(
            {
                "concept": found.concepts,
                "iou": found.iou[row].numpy(),
                "precision": found.precision[row].numpy(),
                "recall": found.recall[row].numpy(),
                "tuned_quantile": found.tuned_quantile[row].numpy(),
                "tuned_iou": found.tuned_iou[row].numpy(),
                "held_out_iou": found.held_out[row].numpy(),
                "baseline": found.baseline.numpy(),
            }
        )


@dataclass(frozen=True, eq=False)
class LayerSheets:
    """The statistics of one layer, from which the sheet of any of its units is made.

    Attributes:
        generator: draws the pictures.
        spec: the samples that were dissected.
        found: what was found.
        histogram, maxima, second_moment: of its units, or along its directions.
        directions: these, [M, C]; None for units.
    """

    generator: Generator
    spec: LatentSpec
    found: LayerDissection
    histogram: Histogram
    maxima: Maxima
    second_moment: SecondMoment
    directions: Tensor | None = None

    def sheet(self, unit: Unit, count: int = 8, few: int = 4) -> UnitSheet:
        """The sheet of `unit`, with `count` top pictures and `few` of each other range.

        Raises:
            RequestError: no such unit.
        """
        row = self._row(unit)
        return UnitSheet(
            found=self.found,
            row=row,
            ranges=self._ranges(row, count, few),
            bars=self.histogram.bars(row, BARS),
            above=float(self.histogram.share_above(self.found.thresholds.double())[row]),
            correlated=self._correlated(row),
        )

    def _row(self, unit: Unit) -> int:
        units = self.found.units
        if unit not in units:
            raise RequestError(
                found=f"unit {unit} of layer '{self.found.layer}'",
                expected=f"one of {len(units):,}, from {units[0]} to {units[-1]}",
                remedy="Choose another unit.",
            )
        return units.index(unit)

    def _ranges(self, row: int, count: int, few: int) -> tuple[Range, ...]:
        """What is shown of each range; every picture is drawn once, whichever ranges it is in."""
        seeds, maxima = self.maxima.top(row, len(self.spec))
        shown = {name: places for name, places in _places(len(seeds), count, few).items() if places}
        drawn = sorted({int(seeds[place]) for places in shown.values() for place in places})
        pictures, masks = self._drawn(row, drawn)
        at = {seed: number for number, seed in enumerate(drawn)}
        ranges = []
        for name, places in shown.items():
            chosen = tuple(seeds[places].tolist())
            rows = [at[seed] for seed in chosen]
            ranges.append(Range(name, chosen, tuple(maxima[places].tolist()), pictures[rows], masks[rows]))
        return tuple(ranges)

    @torch.no_grad()
    def _drawn(self, row: int, seeds: Sequence[int]) -> tuple[Picture, NDArray[np.bool_]]:
        """Pictures [N, H, W, 3] of `seeds`, and where the unit is above its threshold in them [N, H, W]."""
        pictures, masks = [], []
        threshold = self.found.thresholds[row].item()
        for block in replace(self.spec, seeds=tuple(seeds)).blocks(self.generator.micro_batch):
            at = self.generator.keys(self.generator.latents(block), self.found.layer)
            pictures.append(to_uint8(self.generator.render(at, self.generator.values(at))))
            maps = self._map(row, self.generator.layer(self.found.layer).inside(at.keys)).float()
            large = functional.interpolate(maps, self.generator.picture_size, mode="bilinear")  # [N, 1, H, W]
            masks.append((large[:, 0] > threshold).cpu().numpy())
        return np.concatenate(pictures), np.concatenate(masks)

    def _map(self, row: int, keys: Tensor) -> Tensor:
        """The unit's map [N, 1, h, w] in `keys` [N, C, h, w]."""
        if self.directions is None:
            return keys[:, row : row + 1]
        return torch.einsum("nchw,c->nhw", keys.float(), self.directions[row].to(keys.device, torch.float32))[
            :, None
        ]

    def _correlated(self, row: int) -> tuple[tuple[Unit, float], ...]:
        """Other units by how strongly their values go with its own, of either sign."""
        correlation = _correlation(self.second_moment, row)
        order = correlation.abs().sort(descending=True, stable=True).indices.tolist()
        others = [other for other in order if other != row and correlation[other] != 0]
        return tuple((self.found.units[other], float(correlation[other])) for other in others[:CORRELATED])


def layer_sheets(
    generator: Generator,
    dissection: Dissection,
    layer: str,
    *,
    directions: Tensor | None = None,
    store: Store | None = None,
) -> LayerSheets:
    """What the sheets of a dissected layer are made from; from the store where that has it.

    Args:
        generator: the one that was dissected.
        dissection: what was found.
        layer: one of its layers.
        directions: those that took the place of units, [M, C].
        store: where statistics are kept.

    Raises:
        LayerError: `layer` was not dissected.
    """
    found = dissection.layer(layer)
    empty: list[Statistic] = [Histogram(), Maxima(), SecondMoment()]
    if directions is not None:
        empty = [Along(directions, one) for one in empty]
    answers = gather(generator, dissection.spec, {layer: empty}, store=store)[layer]
    histogram, maxima, second_moment = (one.inner if isinstance(one, Along) else one for one in answers)
    assert isinstance(histogram, Histogram)
    assert isinstance(maxima, Maxima)
    assert isinstance(second_moment, SecondMoment)
    return LayerSheets(generator, dissection.spec, found, histogram, maxima, second_moment, directions)


def unit_sheet(
    generator: Generator,
    dissection: Dissection,
    layer: str,
    unit: Unit,
    *,
    directions: Tensor | None = None,
    store: Store | None = None,
    count: int = 8,
    few: int = 4,
) -> UnitSheet:
    """The sheet of one unit: `count` top pictures, and `few` of each other range; see `layer_sheets`.

    Raises:
        LayerError: `layer` was not dissected.
        RequestError: no such unit.
    """
    return layer_sheets(generator, dissection, layer, directions=directions, store=store).sheet(
        unit, count, few
    )


def _places(samples: int, count: int, few: int) -> dict[str, list[int]]:
    """Which places of the ranking, from the top, are shown for each range."""
    shown = {TOP: list(range(min(count, samples)))}
    for low, high in LOWER:
        first, end = round((1 - high) * samples), round((1 - low) * samples)
        number = min(few, end - first)
        shown[f"{low * 100:.0f}–{high * 100:.0f} %"] = [
            first + (2 * place + 1) * (end - first) // (2 * number) for place in range(number)
        ]
    shown[LOWEST] = list(range(max(0, samples - few), samples))
    return shown


def _correlation(seen: SecondMoment, row: int) -> Tensor:
    """Pearson's correlation of one unit with each, over all positions, [C] float64; 0 with what never changes."""
    mean = seen.mean
    variance = (seen.matrix.diagonal() - mean.square()).clamp(min=0)  # [C]
    variance = variance.where(variance > 1e-12 * seen.matrix.diagonal(), 0)  # rounding is no variance
    covariance = seen.matrix[row] - mean[row] * mean
    scale = (variance * variance[row]).sqrt()
    return (
        torch.where(scale > 0, covariance / scale.clamp(min=torch.finfo(torch.float64).tiny), 0.0)
        .clamp(-1, 1)
        .cpu()
    )
