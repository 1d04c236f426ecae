"""The map of a layer's keys as the page keeps it, what is brushed on it, and the direction of that.

    found = mapped_of(visitor)           # None until it is there; asking for it begins the job
    if found is None:
        show_work(visitor, MAPPED)       # once on a page: how far, how long still, Cancel
    rows = found.inside(box)             # the keys in a box, those in its middle first
    found.direction(rows)                # what they have in common and the others have not

Keys are of the generator as it was loaded, at the session's layer, truncation and class.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dashboard.background import brought
from dashboard.budget import Budget
from dashboard.directions.choices import Box
from dashboard.directions.found import SCALE
from dashboard.dissection.state import identity_of, source_of
from dashboard.session import Session, service
from dissect.key_map import KeyMap, key_map
from rewrite_core.directions import ContextSettings, Direction, context_direction
from rewrite_core.directions.layer_keys import LayerKeys, layer_keys
from rewrite_core.jobs import Progress
from rewrite_core.memory import Observations

__all__ = ["MAPPED", "Mapped", "mapped_of"]

MAPPED = "map"
"""The purpose of the job that places the keys."""
POINTS, PICTURES = 1000, 1000
"""Keys on the map, and how many of the samples they are drawn from, at most."""
OPENING, HOTTEST = 0.25, 25
"""The box that is brushed when nothing was: its share of the map's sides, and how many points it is put around."""


@dataclass(frozen=True, eq=False)
class Mapped:
    """A map and the keys on it, the first [k, C] of the layer's sample; `key` is all that they depend on."""

    key: Hashable
    keys: LayerKeys
    map: KeyMap
    concepts: str

    @property
    def rows(self) -> Tensor:
        """The keys on the map, [k, C]."""
        return self.keys.rows[: len(self.map.points)]

    def inside(self, box: Box) -> NDArray[np.intp]:
        """Which points are in the box, nearest to its middle first; none in an empty one."""
        if not box:
            return np.empty(0, np.intp)
        low, high = np.array([box[0], box[2]]), np.array([box[1], box[3]])
        points = self.map.points  # [k, 2]
        chosen = np.flatnonzero(((points >= low) & (points <= high)).all(1))
        away = np.square((points[chosen] - (low + high) / 2) / np.maximum(high - low, 1e-12)).sum(1)
        return chosen[np.argsort(away, kind="stable")]

    def around(self, vector: Tensor) -> Box:
        """A box around the middle of the points where the heat of `vector` [C] is greatest."""
        hottest = (self.rows @ vector).topk(min(HOTTEST, len(self.rows))).indices.numpy()
        middle = np.median(self.map.points[hottest], axis=0)  # [2]
        half = OPENING / 2 * np.ptp(self.map.points, axis=0)
        (left, bottom), (right, top) = middle - half, middle + half
        return float(left), float(right), float(bottom), float(top)

    def graded(self, vector: Tensor) -> NDArray[np.float64]:
        """The heat of `vector` [C] at each point on the scale of `SCALE`, whose quantiles are of the whole sample."""
        heat = (self.keys.rows @ vector).numpy()  # [all of the sample]
        levels, steps = np.quantile(heat, SCALE), np.linspace(0, 1, len(SCALE))
        result: NDArray[np.float64] = np.interp(heat[: len(self.map.points)], levels, steps)
        return result

    def counts(self, rows: Sequence[int] | NDArray[np.intp]) -> Counter[str]:
        """How many of these points are of each concept; of none: ""."""
        return Counter(self.map.concepts[int(row)] for row in rows)

    def direction(self, rows: Sequence[int] | NDArray[np.intp]) -> Direction:
        """The query of the mean of these keys, called by what most of them are.

        They are less alike than what one paints: the leading singular direction may be that of a few long keys, while
        the query of the mean is hot on them on average whatever they are.

        Raises:
            MaskError: the keys are zero.
        """
        chosen = self.keys.rows[torch.as_tensor(rows, dtype=torch.int64)]  # [M, C]
        (concept, count), *_ = self.counts(rows).most_common(1)
        what = f"{concept}, " if concept and 2 * count > len(rows) else ""
        return context_direction(
            Observations(chosen, torch.ones(len(chosen), dtype=torch.float64)),
            self.keys.moment.matrix,
            1,
            ContextSettings(method="mean"),
            layer=self.keys.layer,
            name=f"{what}{len(chosen)} {'key' if len(chosen) == 1 else 'keys'}",
            provenance={
                "places": self.map.places[np.asarray(rows, np.intp)].tolist(),
                "keys": self.keys.origin(),
            },
            model=self.keys.model,
            fingerprint=self.keys.fingerprint,
        )


_mapped: Budget[Mapped] = Budget(256 << 20, lambda found: found.rows.nbytes + found.map.patches.nbytes)
_sampled: Budget[LayerKeys] = Budget(
    256 << 20, lambda keys: 2 * keys.rows.nbytes + keys.moment.matrix.nbytes
)  # as they were counted, and as float64


def mapped_of(visitor: Session) -> Mapped | None:
    """The map of the session's layer, if it is there; else a job is on its way.

    Raises:
        PalimpsestError: the concepts cannot be had, or the visitor has too many jobs under way.
    """
    generator, layer, method = visitor.generator.pristine, visitor.layer, visitor.exploring.placed
    spec = visitor.spec(tuple(range(min(visitor.exploring.samples, PICTURES))))
    source = source_of(visitor)
    sampled = (generator.fingerprint, layer, spec)
    key = (*sampled, method, identity_of(source))

    def gathered(progress: Progress) -> LayerKeys:
        return layer_keys(generator, layer, spec, store=service().store, progress=progress)

    def work(progress: Progress) -> Mapped:
        keys = _sampled.get(sampled, lambda: gathered(progress))
        placed = key_map(generator, keys, method=method, points=POINTS, source=source, progress=progress)
        return Mapped(key, keys, placed, source.title)

    return brought(visitor, MAPPED, key, _mapped, f"Mapping keys of {layer} by {method}", work)
