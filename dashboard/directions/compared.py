"""One painted context by all methods, compared in the background, and drawn with the heat of each.

request = context_of(item)                       # None: the direction is not of a painted context
found = compared_of(visitor, item, request)      # None until it is there; asking for it begins the job
if found is None:
show_work(visitor, COMPARING)                # once on a page: how far, how long still, Cancel
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dashboard.background import brought
from dashboard.budget import Budget
from dashboard.directions.choices import Item
from dashboard.directions.found import SCALE
from dashboard.dissection.state import identity_of, source_of
from dashboard.session import Session, drawn, service, statistics_of
from dissect.methods import MethodComparison, compare_methods
from rewrite_core.directions import METHODS
from rewrite_core.errors import PalimpsestError
from rewrite_core.generators import Generator
from rewrite_core.jobs import Progress
from rewrite_core.pictures import Picture, blend_heat, enlarge
from rewrite_core.rules.request import EditRequest

__all__ = ["COMPARING", "Sides", "compared_of", "context_of", "judge", "samples_of"]

COMPARING = "methods"
"""The purpose of the job that compares."""
MOST = 10_000
"""Samples, at most: the heat of every method is kept for all of them."""

DIMMED, HELD = 0.7, 0.95
"""How bright small pictures are under a heat map, and how opaque it is at its hottest."""

_compared: Budget[MethodComparison] = Budget(
    512 << 20, lambda found: sum(one.heat.nbytes for one in found.matches.values())
)
_levels: Budget[list[float]] = Budget(1 << 16, lambda levels: 8 * len(levels))


@dataclass(frozen=True, eq=False)
class Sides:
    """What the methods find, side by side; `key` is all that it depends on."""

    key: Hashable
    found: MethodComparison
    generator: Generator

    def pictures(self, method: str, seeds: Sequence[int], factor: int) -> list[Picture]:
        """The pictures of these seeds in grey, enlarged, under a method's heat on the scale of its own quantiles."""
        images = DIMMED * self.plain(seeds, factor).mean(-1, keepdims=True)  # [N, H, W, 1]
        grey = images.astype(np.uint8).repeat(3, axis=-1)
        heats = [self._graded(method, seed) for seed in seeds]
        return [blend_heat(image, heat, 0.0, 1.0, HELD) for image, heat in zip(grey, heats, strict=True)]

    def plain(self, seeds: Sequence[int], factor: int) -> Picture:
        """The pictures of these seeds as they are, enlarged, [N, H, W, 3]."""
        return enlarge(drawn(replace(self.found.spec, seeds=tuple(seeds)), self.generator), factor)

    def rank(self, method: str, seed: int) -> int:
        """Where the method ranks a picture among all, from 1."""
        matches = self.found.matches[method]
        return 1 + int((matches.scores > matches.of(seed).max()).sum())

    def _graded(self, method: str, seed: int) -> Tensor:
        matches = self.found.matches[method]
        levels = _levels.get((self.key, method), lambda: [matches.level(quantile) for quantile in SCALE])
        heat = matches.of(seed).double().numpy()  # [h, w]
        return torch.from_numpy(np.interp(heat, levels, np.linspace(0, 1, len(SCALE))))


def context_of(item: Item) -> EditRequest | None:
    """The painted context that a direction was made from by one of the methods; None if it was not."""
    direction = item.direction
    if direction.method not in METHODS:
        return None
    request = item.request
    if request is None and isinstance(direction.provenance.get("request"), dict):
        try:
            request = EditRequest.from_json(direction.provenance["request"], "the direction's context")
        except PalimpsestError:  # of a file that somebody else wrote
            return None
    return request if request is not None and request.key else None


def judge(visitor: Session, item: Item) -> str:
    """The concept that methods are judged by: the visitor's choice, or the one that the direction is called by.

    Raises:
        PalimpsestError: the concepts cannot be had.
    """
    names, chosen = source_of(visitor).names, visitor.exploring.judged
    if chosen is not None:
        return chosen if chosen in names else ""
    return next((name for name in names if name.casefold() == item.name.casefold().strip()), "")


def samples_of(visitor: Session) -> int:
    """How many samples are looked at."""
    return min(visitor.exploring.samples, MOST)


def compared_of(visitor: Session, item: Item, request: EditRequest) -> Sides | None:
    """The context by all methods, if that is known; else a job is on its way.

    Raises:
        PalimpsestError: the concepts cannot be had, or the visitor has too many jobs under way.
    """
    generator, layer = visitor.generator.pristine, item.direction.layer
    spec, owner = request.latents.spec(range(samples_of(visitor))), visitor.visitor
    concept = judge(visitor, item)
    source = source_of(visitor) if concept else None
    key = (
        generator.fingerprint,
        layer,
        request.to_json(),
        spec,
        concept,
        "" if source is None else identity_of(source),
    )

    def work(progress: Progress) -> MethodComparison:
        store = service().store
        statistics_of(generator, layer, progress, visitor=owner)  # whose second moment is stored from then on
        return compare_methods(
            generator, layer, request, spec, source, concept, store=store, progress=progress
        )

    label = f"Comparing methods on {item.name} over {len(spec):,} samples"
    found = brought(visitor, COMPARING, key, _compared, label, work)
    return None if found is None else Sides(key, found, generator)
