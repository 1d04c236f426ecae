"""What a visitor tries on units: where they ask who fires, and what is ablated or inserted. A value, never changed."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from rewrite_core.generators import LatentSpec
from rewrite_core.pictures import Mask

__all__ = [
    "ABLATE",
    "BY_CONCEPT",
    "BY_NUMBER",
    "EVERYWHERE",
    "INSERT",
    "MEAN",
    "PAINTED",
    "QUANTILE",
    "SHEET",
    "Probe",
]

ABLATE, INSERT = "Ablate", "Insert"
BY_CONCEPT, BY_NUMBER, SHEET = "By concept", "By number", "Sheet"
EVERYWHERE, PAINTED = "Everywhere", "Where painted"
MEAN, QUANTILE = "Concept's mean", "0.995 quantile"


@dataclass(frozen=True)
class Probe:
    """The choices of the views that find, ablate and compare.

    Attributes:
        regions: picture → what is painted on it, to find who fires there.
        act: what is done to the units.
        by: how they are chosen.
        concept: the one that they are most like, and whose values are inserted; empty: the page's, or the layer's.
        count: how many of these.
        numbers: the units that are named by hand.
        value: what is inserted.
        strength: from 0 to 1.
        where: everywhere, or in what is painted; `region` is that.
        judged: the concept that units are ranked by.
        other: the model that is compared with; empty: the rules, off and on.
        compared: over how many samples.
        wanted: for each purpose, all that what was asked for depends on.
    """

    regions: Mapping[LatentSpec, Mask] = field(default_factory=lambda: MappingProxyType({}))
    act: str = ABLATE
    by: str = BY_CONCEPT
    concept: str = ""
    count: int = 4
    numbers: str = ""
    value: str = MEAN
    strength: float = 1.0
    where: str = EVERYWHERE
    region: Mask | None = None
    judged: str = ""
    other: str = ""
    compared: int = 250
    wanted: Mapping[str, Hashable] = field(default_factory=lambda: MappingProxyType({}))

    def painted(self, picture: LatentSpec, region: Mask) -> Probe:
        """The same with `region` painted on `picture`; an empty one takes away what was there."""
        regions = {**self.regions, picture: region}
        return replace(self, regions={one: mask for one, mask in regions.items() if not mask.empty})

    def on(self, spec: LatentSpec) -> dict[int, Mask]:
        """Seed → what is painted on it, of pictures that differ from those of `spec` by their seed alone."""
        return {
            one.seeds[0]: mask for one, mask in self.regions.items() if replace(spec, seeds=one.seeds) == one
        }

    def asking(self, purpose: str, key: Hashable) -> Probe:
        """The same, having asked for `key`."""
        return replace(self, wanted={**self.wanted, purpose: key})
