"""Intersection over union of units and concepts: where a unit fires, against where a label is.

Network dissection (Bau et al. 2017, section 3; Bau et al. 2019, equation 2)::

    IoU(unit, label) = |fires ∧ label| / |fires ∨ label|     over every pixel of every picture

The convention, without which such a number means little:

* The masks are compared on the labels' own grid, or on `grid` where one is given; labels are then averaged over the
  area of each of its pixels. A soft label counts where it is above 0.5.
* A unit fires where its map, brought to that grid bilinearly, is *above* its threshold; so the threshold is taken
  after upsampling. Pixel centres are what is aligned (`align_corners` False); the published tools align the corners.
  A grid coarser than the map samples it at the pixel's centre, without averaging.

Counts are exact int64, and the same with and without numba: see `rewrite_core.statistics.overlaps`.

    seen = fetch(generator, "l08", spec, Intersection(thresholds, labeller))
    labels, iou = seen.best()

Several *levels*, thresholds [C, T], are counted in one pass over the pixels. Everything of a unit then has a dimension
more, and `at` takes one level out, equal to the bit to counting that one alone:

    seen = fetch(generator, "l08", spec, Intersection(histogram.quantile([0.98, 0.99, 0.995]), labeller))
    labels, iou = seen.at(1).best()
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional

from rewrite_core.errors import RequestError
from rewrite_core.statistics.overlaps import check_levels, count_overlaps
from rewrite_core.statistics.statistic import Batch, Labeller, Needs, Statistic

__all__ = ["DETECTED", "Intersection", "Picked", "labels_of"]

DETECTED = 0.04
"""The IoU above which the published reports say that a unit detects a concept."""


class Picked(NamedTuple):
    """What is said at one level for each unit and label, all [C, L]: thresholds float32, the shares float64."""

    thresholds: Tensor
    iou: Tensor
    precision: Tensor
    recall: Tensor


@dataclass(frozen=True, eq=False)
class Intersection(Statistic):
    """Pixels that unit and label share [C, L], pixels of each unit [C] and of each label [L], all int64.

    With thresholds [C, T], those of units are [C, T, L] and [C, T].

    Attributes:
        thresholds: one a unit, [C], or several that ascend, [C, T]; rounded to float32.
        labeller: where the L labels come from.
        grid: height and width of the masks that are compared; the labels' own if not given.
        align_corners: whether upsampling aligns the corners of the maps, as the published tools do.
    """

    thresholds: Tensor
    labeller: Labeller
    grid: tuple[int, int] | None = None
    align_corners: bool = False
    intersection: Tensor | None = None
    unit_area: Tensor | None = None
    label_area: Tensor | None = None
    pixels: int = 0
    samples: int = 0

    kind: ClassVar[str] = "intersection"
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_levels(self.thresholds)
        if self.grid is not None and min(self.grid) < 1:
            raise RequestError(
                found=f"a grid of {self.grid[0]} × {self.grid[1]}",
                expected="at least 1 × 1",
                remedy="64 × 64 is customary.",
            )

    def parameters(self) -> Mapping[str, Any]:
        """The convention, the labels, and the thresholds as a digest beside their range."""
        levels = self._levels()
        several = {"levels": levels.shape[1]} if levels.ndim == 2 else {}
        return {
            **several,
            "thresholds": hashlib.sha256(levels.numpy().astype("<f4").tobytes()).hexdigest()[:32],
            "units": len(levels),
            "lowest threshold": float(levels.min()) if len(levels) else None,
            "highest threshold": float(levels.max()) if len(levels) else None,
            "grid": list(self.grid) if self.grid else "labels",
            "align_corners": self.align_corners,
            "labels": list(self.labeller.names),
            "labeller": dict(self.labeller.identity()),
        }

    def needs(self) -> Needs:
        """Labels of every picture."""
        return Needs(labeller=self.labeller)

    # What it says.

    @property
    def iou(self) -> Tensor:
        """Intersection over union, [C, L] or [C, T, L] float64; 0 where neither was ever seen."""
        shared, units, labels = self._seen()
        return shared / (units[..., None] + labels - shared).clamp(min=1)

    @property
    def precision(self) -> Tensor:
        """Share of the unit's pixels that carry the label, as `iou`; 0 where it never fires."""
        shared, units, _ = self._seen()
        return shared / units[..., None].clamp(min=1)

    @property
    def recall(self) -> Tensor:
        """Share of the label's pixels where the unit fires, as `iou`; 0 where the label was never seen."""
        shared, _, labels = self._seen()
        return shared / labels.clamp(min=1)

    @property
    def density(self) -> Tensor:
        """Share of all pixels in which the unit fires, [C] or [C, T] float64."""
        return self._seen()[1] / max(self.pixels, 1)

    def at(self, level: int | Tensor) -> Self:
        """The same at one level: that of this index, or of each unit's own [C] int64.

        Raises:
            RequestError: if there are no levels to choose from.
            IndexError: if there is no such level.
        """
        levels = self._several()
        index = torch.full((len(levels),), level) if isinstance(level, int) else level.cpu()
        every = torch.arange(len(levels))
        shared, units = self.intersection, self.unit_area
        return replace(
            self,
            thresholds=levels[every, index],
            intersection=None if shared is None else shared[every, index],  # [C, L]
            unit_area=None if units is None else units[every, index],  # [C]
        )

    def at_levels(self, index: Tensor) -> Picked:
        """What is said of each unit and label at a level of their own, `index` [C, L] int64.

        Raises:
            RequestError: if there are no levels to choose from.
        """
        index = index.cpu()[:, None]  # [C, 1, L]
        levels = self._several()[..., None].expand(-1, -1, index.shape[2])  # [C, T, L]
        tables = levels, self.iou.cpu(), self.precision.cpu(), self.recall.cpu()
        return Picked(*(table.gather(1, index)[:, 0] for table in tables))

    def best(self) -> tuple[Tensor, Tensor]:
        """Each unit's label of highest IoU, [C] int64, the first of equals; and that IoU, [C] float64.

        Raises:
            RequestError: if there are several levels.
        """
        iou = self.iou
        if iou.ndim > 2:
            raise RequestError(
                found=f"{iou.shape[1]} levels",
                expected="one threshold for each unit",
                remedy="Take one level out with `at`.",
            )
        if not iou.numel():
            return torch.zeros(len(iou), dtype=torch.int64), torch.zeros(len(iou), dtype=torch.float64)
        label = torch.from_numpy(iou.cpu().numpy().argmax(1))  # [C]; torch's own may return any of equals
        return label, iou.cpu().gather(1, label[:, None])[:, 0]

    def detectors(self, above: float = DETECTED) -> dict[str, list[int]]:
        """Label → units whose best label it is, with an IoU above `above`, best first; labels of none are absent."""
        label, iou = self.best()
        found: dict[str, list[int]] = {}
        for unit in iou.argsort(descending=True, stable=True).tolist():
            if iou[unit] > above:
                found.setdefault(self.labeller.names[int(label[unit])], []).append(unit)
        return found

    # Seeing more.

    def update(self, batch: Batch) -> Self:
        """Counts of the batch, added."""
        keys, labels = batch.keys.float(), self._masks(batch)  # [N, C, h, w], [N, L, H, W]
        if keys.shape[1] != len(self.thresholds):
            raise RequestError(
                found=f"{len(self.thresholds)} thresholds for a layer of {keys.shape[1]} units",
                expected="one for each unit",
                remedy="Take the thresholds from the same layer.",
            )
        levels = self._levels()
        single = levels.ndim == 1
        shared, units, area = count_overlaps(
            keys, levels[:, None] if single else levels, labels, self.align_corners
        )
        seen = replace(
            self,
            intersection=shared[:, 0] if single else shared,
            unit_area=units[:, 0] if single else units,
            label_area=area,
            pixels=len(labels) * labels.shape[2] * labels.shape[3],
            samples=len(labels),
        )
        return self.merge(seen)

    def merge(self, other: Self) -> Self:
        """Counts add."""
        if self.intersection is None or self.unit_area is None or self.label_area is None:
            return other
        if other.intersection is None or other.unit_area is None or other.label_area is None:
            return self
        return replace(
            self,
            intersection=self.intersection + other.intersection,
            unit_area=self.unit_area + other.unit_area,
            label_area=self.label_area + other.label_area,
            pixels=self.pixels + other.pixels,
            samples=self.samples + other.samples,
        )

    def state(self) -> dict[str, Tensor]:
        """The three tables of counts, and the numbers of pixels and samples."""
        if self.intersection is None or self.unit_area is None or self.label_area is None:
            return {}
        return {
            "intersection": self.intersection,
            "unit_area": self.unit_area,
            "label_area": self.label_area,
            "counts": torch.tensor([self.pixels, self.samples], dtype=torch.int64),
        }

    def restore(self, state: Mapping[str, Tensor]) -> Self:
        """From `state`'s tensors."""
        if not state:
            return replace(self, intersection=None, unit_area=None, label_area=None, pixels=0, samples=0)
        shared, units, labels = state["intersection"], state["unit_area"], state["label_area"]
        shapes = [list(table.shape) for table in (shared, units, labels)]
        asked, named = list(self.thresholds.shape), len(self.labeller.names)
        if shapes != [[*asked, named], asked, [named]]:
            raise ValueError(f"counts of shapes {shapes} for thresholds of shape {asked} and {named} labels")
        pixels, samples = (int(count) for count in state["counts"])
        possible = torch.minimum(units[..., None], labels)  # as `shared`
        for table, most in ((shared, possible), (units, pixels), (labels, pixels)):
            if table.dtype != torch.int64 or bool(((table < 0) | (table > most)).any()):
                raise ValueError(f"counts that cannot be, of {pixels} pixels")
        if len(asked) == 2 and any(bool((table.diff(dim=1) > 0).any()) for table in (shared, units)):
            raise ValueError("more pixels above a higher level than above a lower one")
        return replace(
            self, intersection=shared, unit_area=units, label_area=labels, pixels=pixels, samples=samples
        )

    def summary(self) -> Mapping[str, Any]:
        """Units, levels if there are several, labels, samples, pixels, how many units detect a label, the highest IoU.

        Of several levels, a unit's best is what counts.
        """
        if self.intersection is None:
            return {"samples": 0}
        iou = self.iou.flatten(1)
        iou = iou.amax(1) if iou.numel() else iou.new_zeros(len(iou))  # [C]
        several = {"levels": self.thresholds.shape[1]} if self.thresholds.ndim == 2 else {}
        return {
            "units": len(self.thresholds),
            **several,
            "labels": len(self.labeller.names),
            "samples": self.samples,
            "pixels": self.pixels,
            f"units with an IoU above {DETECTED}": int((iou > DETECTED).sum()),
            "highest IoU": float(iou.max()) if len(iou) else 0.0,
        }

    def _levels(self) -> Tensor:
        """The thresholds as they are compared, [C] or [C, T] float32 on the CPU."""
        return self.thresholds.detach().to("cpu", torch.float32).contiguous()

    def _several(self) -> Tensor:
        """The levels of each unit as they are compared, [C, T]."""
        levels = self._levels()
        if levels.ndim != 2:
            raise RequestError(
                found="one threshold for each unit",
                expected="several levels to choose from",
                remedy="Count with thresholds of shape [units, levels].",
            )
        return levels

    def _masks(self, batch: Batch) -> Tensor:
        """Where each label is, on the grid of the comparison: bool [N, L, H, W]."""
        labels = labels_of(batch, self.labeller)
        if self.grid is not None and tuple(labels.shape[2:]) != self.grid:
            labels = functional.adaptive_avg_pool2d(labels.float(), self.grid)  # [N, L, *grid]
        return labels if labels.dtype == torch.bool else labels > 0.5

    def _seen(self) -> tuple[Tensor, Tensor, Tensor]:
        assert self.intersection is not None, "no sample was seen"
        assert self.unit_area is not None
        assert self.label_area is not None
        return self.intersection.double(), self.unit_area.double(), self.label_area.double()


def labels_of(batch: Batch, labeller: Labeller) -> Tensor:
    """The batch's labels [N, L, H, W]: a map for each picture, and as many as `labeller` names.

    Raises:
        RequestError: if they are not.
    """
    labels, wanted = batch.labels, (len(batch.keys), len(labeller.names))
    if labels is None or labels.ndim != 4 or labels.shape[:2] != wanted or not min(labels.shape[2:]):
        raise RequestError(
            found="no labels" if labels is None else f"labels of shape {list(labels.shape)}",
            expected=f"[{wanted[0]}, {wanted[1]}, H, W]: a map for each picture and name",
            remedy="Correct the labeller.",
        )
    return labels
