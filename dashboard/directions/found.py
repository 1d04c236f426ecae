"""Where the chosen direction matches: searched in the background, and drawn as the visitor wants it.

found = found_of(visitor, item)          # None until it is there; asking for it begins the job
if found is None:
    show_work(visitor, SEARCH)           # once on a page: how far, how long still, Cancel
    found = found_before(visitor)        # what stays on screen meanwhile
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import streamlit as st
import torch
from numpy.typing import NDArray
from torch import Tensor

from dashboard.background import brought
from dashboard.budget import Budget
from dashboard.directions.choices import Item, Range
from dashboard.directions.state import choose, searched
from dashboard.session import Session, drawn, service
from dissect.patches import patches
from rewrite_core.directions.matches import Matches, search
from rewrite_core.generators import Generator
from rewrite_core.generators.own import PictureId
from rewrite_core.jobs import Progress
from rewrite_core.pictures import Picture, blend_heat, enlarge, overlay_heat

__all__ = [
    "SCALE",
    "SEARCH",
    "SHOWN",
    "Found",
    "found_before",
    "found_of",
    "look_closely",
    "looked_at",
    "overlaid",
]

SEARCH = "matches"
"""The purpose of the job that searches."""
BEFORE = "directions-found"
"""Under which a visitor's last search is remembered."""
SHOWN = 24
"""Pictures of a gallery."""
SCALE = (0.5, 0.9, 0.99, 0.999, 0.9999)
"""Quantiles at even steps of a heat map's colours, which is clear up to the first."""
DIM = 0.6
"""What of a picture's brightness is left under a heat map."""

_found: Budget[Matches] = Budget(512 << 20, lambda found: found.heat.nbytes)
_levels: Budget[float] = Budget(1 << 16, lambda _: 64)


@dataclass(frozen=True, eq=False)
class Found:
    """Matches of one query of a direction, and `key`: all that they depend on."""

    key: Hashable
    item: Item
    query: Tensor  # [C]
    matches: Matches
    generator: Generator

    def level(self, quantile: float) -> float:
        """A quantile of the heat over all positions, found once for all visitors."""
        return _levels.get((self.key, quantile), lambda: self.matches.level(quantile))

    def graded(self, heat: Tensor) -> Tensor:
        """`heat` [h, w] on the scale of `SCALE`: 0 at its first quantile, 1 at its last, straight lines between."""
        levels, steps = [self.level(quantile) for quantile in SCALE], np.linspace(0, 1, len(SCALE))
        return torch.from_numpy(np.interp(heat.double().cpu().numpy(), levels, steps))

    def seeds(self, part: Range, count: int = SHOWN) -> list[int]:
        """The pictures at one end of the ranking, or around its middle, in the order of their scores."""
        ends = {"Top": self.matches.top, "Middle": self.matches.middle, "Bottom": self.matches.bottom}
        return ends[part](min(count, len(self.matches.spec)))

    def pictures(self, seeds: Sequence[int]) -> Picture:
        """The pictures [N, H, W, 3] of these seeds, as the generator draws them without rules."""
        return drawn(replace(self.matches.spec, seeds=tuple(seeds)), self.generator)

    def quantiles(self, heat: Tensor) -> NDArray[np.float64]:
        """For each value of `heat` [h, w] the share of all positions of all samples whose heat is below it, [h, w]."""
        values, places = heat.to(self.matches.heat).flatten().unique(return_inverse=True)  # [V] ascending
        below = torch.bucketize(self.matches.heat.flatten(), values, right=True).bincount(
            minlength=len(values) + 1
        )
        shares = below.cumsum(0)[places].double() / max(1, self.matches.heat.numel())  # [h·w]
        result: NDArray[np.float64] = shares.reshape(heat.shape).numpy()
        return result

    def patches(self, count: int) -> Picture:
        """The patches [N, s, s, 3] around the hottest positions of the best pictures."""
        seeds = self.seeds("Top", count)
        places = np.array([self.matches.best(seed) for seed in seeds])  # [N, 2]
        height, width = self.matches.heat.shape[1:]
        return patches(self.pictures(seeds), places, (height, width))


def found_of(visitor: Session, item: Item) -> Found | None:
    """Where the direction matches, if that is known; else a job is on its way.

    Raises:
        RequestError: the visitor has too many jobs under way.
    """
    generator, direction, spec = visitor.generator.pristine, item.direction, searched(visitor)
    row = min(visitor.exploring.row, direction.rank - 1)
    query, layer = direction.vectors[row], direction.layer
    key = (generator.fingerprint, direction.digest, row, spec)

    def work(progress: Progress) -> Matches:
        return search(generator, layer, query, spec, store=service().store, progress=progress)

    label = f"Searching {len(spec):,} samples for {item.name}"
    matches = brought(visitor, SEARCH, key, _found, label, work)
    if matches is None:
        return None
    st.session_state[BEFORE] = (key, item, query)
    return Found(key, item, query, matches, generator)


def found_before(visitor: Session) -> Found | None:
    """The visitor's last search that came to its end, if it is of the open generator and still kept."""
    key, item, query = st.session_state.get(BEFORE, (None, None, None))
    generator, matches = visitor.generator.pristine, _found.peek(key)
    if matches is None or item.direction.fingerprint != generator.fingerprint:
        return None
    return Found(key, item, query, matches, generator)


# What is looked at


def looked_at(visitor: Session, found: Found) -> PictureId:
    """The picture that is looked at closely: the one that was clicked, or the best match."""
    picked = visitor.exploring.picture
    return found.matches.top(1)[0] if picked is None else picked


def look_closely(visitor: Session, picture: PictureId | None) -> None:
    """Look at another picture; it is then the one that every page has selected."""
    visitor.select(picture)
    choose(visitor, picture=picture, place=None)
    st.rerun()


def overlaid(visitor: Session, found: Found, pictures: Picture, heats: Sequence[Tensor]) -> list[Picture]:
    """Pictures [N, H, W, 3] enlarged, each with its heat [h, w] over it in the way that is chosen."""
    overlay, level = visitor.exploring.overlay, found.level(visitor.exploring.quantile)
    result = []
    for image, heat in zip(enlarge(pictures, visitor.enlargement), heats, strict=True):
        if overlay == "Outline":
            image = overlay_heat(image, heat, level)
        elif overlay == "Heat":
            image = blend_heat((DIM * image).astype(np.uint8), found.graded(heat), 0.0, 1.0, opacity=0.9)
        result.append(image)
    return result
