"""The same dissection before and after: of a generator without and with a rule stack, or of two models.

Two questions, answered over the same seeds and the same concepts:

* *Which units changed meaning?* Both generators are dissected. A unit *lost* its concept if it was a detector and is
  none any more, *gained* one if it became a detector, and *moved* if it detects another one.
* *Which concepts grew or shrank, and where?* The share of pixels before and after, paired by seed, with a bootstrap
  interval over pictures; and for each pixel, how much more often a concept is there.

**Thresholds.** Each dissection takes the quantiles of its own network: a unit's meaning is where it is most active, and
that stays what it is when a rule makes it twice as loud. Thresholds of before would call such a unit changed, and mean
nothing in another model. What they do tell is whether a unit has fallen silent, or got louder: so the table says,
beside the meaning, how often a unit is above its *old* threshold, before and after. Layers up to the one that a rule
changes have the keys that they had; there, only what is drawn can change a meaning.

    stack = RuleStack().push(rule)
    found = compare(generator, generator.with_rules(stack), LatentSpec.of(range(1000)), ["l08", "l11"], colours)
    found.units()      # one row a unit: concepts, held-out IoU, change
    found.concepts()   # before, after, effect, low, high, relative
    found.where        # [L, H, W], from -1 to 1

Of two models with other layers or widths only the layers that agree are dissected; concepts are compared always. The
source must see pixels alone. `agreement` says how far two dissections, say of other seeds, tell the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dissect.bootstrap import RESAMPLES
from dissect.concepts.source import ConceptSource, require_pixels_only
from dissect.effects import Effects, counting
from dissect.layer import LayerDissection
from dissect.settings import CUSTOMARY, Settings
from dissect.shares import concept_masks
from dissect.tables import Dissection
from dissect.units import dissect
from rewrite_core.errors import RequestError
from rewrite_core.generators import Generator, LatentSpec, Progress
from rewrite_core.statistics import Histogram, Store, gather

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMNS", "Agreement", "Comparison", "Pair", "agreement", "compare"]

COLUMNS = (
    "layer",
    "unit",
    "change",
    "concept_before",
    "concept_after",
    "held_out_iou_before",
    "held_out_iou_after",
    "iou_change",
    "detector_before",
    "detector_after",
    "firing_before",
    "firing_after",
)
"""Of `Comparison.units`."""


@dataclass(frozen=True, eq=False)
class Pair:
    """One layer, dissected before and after.

    Attributes:
        firing: share of positions where a unit is above its threshold of before; before and after, [2, C] float64.
    """

    before: LayerDissection
    after: LayerDissection
    firing: Tensor

    def table(self) -> pd.DataFrame:
        """A row for each unit; see `Comparison.units`."""
        before, after = self.before.table(), self.after.table()
        table = before[["layer", "unit"]].copy()
        for name in ("concept", "held_out_iou", "detector"):
            table[f"{name}_before"], table[f"{name}_after"] = before[name], after[name]
        table["iou_change"] = after["held_out_iou"] - before["held_out_iou"]
        table["firing_before"], table["firing_after"] = self.firing.numpy()
        was, now, moved = before["detector"], after["detector"], before["concept"] != after["concept"]
        table["change"] = np.select(
            [was & ~now, ~was & now, was & now & moved], ["lost", "gained", "moved"], ""
        )
        return table[list(COLUMNS)]


@dataclass(frozen=True, eq=False)
class Comparison:
    """What differs between two generators.

    Attributes:
        before, after: their names.
        layers: those that both have, by name.
        shares: pixels of each concept in each picture, before and after.
        where: mean of after less before at each pixel, [L, H, W] float64; None if the pictures differ in size.
    """

    before: str
    after: str
    layers: dict[str, Pair]
    shares: Effects
    where: Tensor | None

    def units(self) -> pd.DataFrame:
        """A row for each unit of each layer that both have.

        Columns: layer; unit; change (lost, gained, moved, or empty); concept, held_out_iou and detector, each
        ``_before`` and ``_after``; iou_change, of the held-out IoU; firing_before and firing_after, shares of positions
        above the threshold of before.
        """
        import pandas as pd

        tables = [pair.table() for pair in self.layers.values()]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(COLUMNS))

    def concepts(self, resamples: int = RESAMPLES) -> pd.DataFrame:
        """A row for each concept: concept, before, after, effect, low, high, relative, as in `Effects.table`."""
        return self.shares.table(resamples).drop(columns="set")


def compare(
    before: Generator,
    after: Generator,
    spec: LatentSpec,
    layers: Sequence[str],
    source: ConceptSource,
    settings: Settings = CUSTOMARY,
    *,
    store: Store | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Dissect `layers` of both, and count concepts in the pictures of both, over the samples in `spec`.

    `progress` is told of one stage after the other, each counted from its own start.

    Raises:
        PalimpsestError: the source is not pixels-only, or cannot label what one of them draws.
        LayerError: `before` has no such layer.
        RequestError: fewer than two samples, or a layer or concept named twice.
        Cancelled: from `progress`.
    """
    require_pixels_only(source)
    for generator in (before, after):
        source.check(generator)
    if len(spec) < 2:
        raise RequestError(
            found=f"{len(spec)} samples", expected="at least 2", remedy="1,000 is a sound number."
        )
    shared = [layer for layer in layers if _agree(before, after, layer)]
    pairs = _pairs(before, after, spec, shared, source, settings, store, progress) if shared else {}
    advance = counting(progress, 2 * len(spec))
    first, second = (_Labelled.of(generator, spec, source, advance) for generator in (before, after))
    where = (second.map - first.map) / len(spec) if first.map.shape == second.map.shape else None
    return Comparison(before.name, after.name, pairs, _effects(source, spec, first, second), where)


def _pairs(
    before: Generator,
    after: Generator,
    spec: LatentSpec,
    layers: Sequence[str],
    source: ConceptSource,
    settings: Settings,
    store: Store | None,
    progress: Progress | None,
) -> dict[str, Pair]:
    """`layers`, which both have, dissected."""
    both = (before, after)
    one, other = (
        dissect(generator, spec, layers, source, settings, store=store, progress=progress)
        for generator in both
    )
    wanted = {layer: [Histogram()] for layer in layers}
    histograms = [gather(generator, spec, wanted, store=store) for generator in both]  # stored by now
    found = {}
    for layer in layers:
        old, firing = one.layers[layer].thresholds.double(), []
        for (histogram,) in (answers[layer] for answers in histograms):
            assert isinstance(histogram, Histogram)
            firing.append(histogram.share_above(old))  # [C]
        found[layer] = Pair(one.layers[layer], other.layers[layer], torch.stack(firing))
    return found


def _agree(before: Generator, after: Generator, layer: str) -> bool:
    """Whether both have the layer, and it is as wide."""
    width = before.layer(layer).in_channels
    return layer in after.layers and after.layers[layer].in_channels == width


@dataclass(frozen=True, eq=False)
class _Labelled:
    """Pixels of each concept in each picture, [N, L] int64; in how many pictures each pixel is one, [L, H, W]."""

    counts: Tensor
    map: Tensor

    @classmethod
    @torch.no_grad()
    def of(
        cls, generator: Generator, spec: LatentSpec, source: ConceptSource, advance: Callable[[int], None]
    ) -> _Labelled:
        counts, maps = [], []
        for block in spec.blocks(generator.micro_batch):
            latents = generator.latents(block)
            masks = concept_masks(source, generator.pictures(latents), latents)  # [N, L, H, W]
            counts.append(masks.sum((2, 3)).cpu())  # [N, L]
            maps.append(masks.sum(0, dtype=torch.float64).cpu())  # [L, H, W]
            advance(len(block))
        return cls(torch.cat(counts), torch.stack(maps).sum(0))

    @property
    def pixels(self) -> int:
        """Of a picture's labels."""
        return self.map[0].numel()


def _effects(source: ConceptSource, spec: LatentSpec, before: _Labelled, after: _Labelled) -> Effects:
    """Counts of both on one scale, exactly, also if the pictures differ in size."""
    common = math.lcm(before.pixels, after.pixels)
    first, second = (seen.counts * (common // seen.pixels) for seen in (before, after))  # [N, L]
    return Effects(("after",), source.names, spec.seeds, first, second[None], common)


@dataclass(frozen=True)
class Agreement:
    """How far two dissections tell the same.

    Attributes:
        units: that stand for a concept in at least one of the two.
        same: the share of these with the same concept in both.
        detectors: units that are detectors in at least one.
        same_detectors: the share of these that detect the same concept in both.
        correlation: of the units' held-out IoU, each with its own concept; 0 where one of the two is constant.
    """

    units: int
    same: float
    detectors: int
    same_detectors: float
    correlation: float


def agreement(one: Dissection, other: Dissection) -> Agreement:
    """Of the units of all layers that both have; seeds, thresholds and settings may differ.

    Raises:
        RequestError: other concepts, no layer in common, or other units in one.
    """
    import pandas as pd

    common = [layer for layer in one.layers if layer in other.layers]
    alike = all(one.layers[layer].units == other.layers[layer].units for layer in common)
    if one.names != other.names or not common or not alike:
        raise RequestError(
            found=f"{', '.join(one.layers)} of {one.model}, and {', '.join(other.layers)} of {other.model}",
            expected="the same concepts, and a layer in common with the same units",
            remedy="Dissect both alike.",
        )
    a, b = (
        pd.concat([dissection.layers[layer].table() for layer in common], ignore_index=True)
        for dissection in (one, other)
    )
    same = a["concept"] == b["concept"]
    meant, detected = (a["concept"] != "") | (b["concept"] != ""), a["detector"] | b["detector"]
    return Agreement(
        units=int(meant.sum()),
        same=_share(same, meant),
        detectors=int(detected.sum()),
        same_detectors=_share(same & a["detector"] & b["detector"], detected),
        correlation=_correlation(a["held_out_iou"].to_numpy(), b["held_out_iou"].to_numpy()),
    )


def _share(alike: pd.Series[bool], among: pd.Series[bool]) -> float:
    """0 of none."""
    return float((alike & among).sum()) / max(int(among.sum()), 1)


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / scale if scale else 0.0
