"""Pictures while a slider scales a direction: stopped once at the layer, drawn on under each rule; what changes, where.

    pictures = scaled(view, LatentSpec.of(range(12)), "l08")  # of a view: rules that are on stay on
    after = pictures.drawn(scaling_rule(generator, direction, second_moment, alpha=-1))
    where = effect_map(pictures.before, after)                # [H, W]
    table = changes(pictures.spec.seeds, pictures.before, after)
    found = pictures.inside(direction.vectors[0], after)      # found.inside against found.outside

A *change* is the mean absolute difference over the three channels of two pictures as bytes, in units of their full
range: from 0 to 1.
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

from dissect.live import Stopped, stop
from rewrite_core.errors import LayerError, RequestError
from rewrite_core.generators import Generator, LatentSpec
from rewrite_core.memory import heat, level
from rewrite_core.pictures import Picture, to_uint8
from rewrite_core.rules.rule import Rule

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["INSIDE", "Inside", "ScaledPictures", "changes", "effect_map", "inside_outside", "scaled"]

INSIDE = 0.99
"""A direction's own outline is where its heat is above this quantile of it."""


@dataclass(frozen=True)
class Inside:
    """The change inside what a direction matches, and elsewhere.

    Attributes:
        inside, outside: the mean change there, from 0 to 1; 0 where there is no such pixel.
        share: of all pixels, those inside.
    """

    inside: float
    outside: float
    share: float


@dataclass(frozen=True, eq=False)
class ScaledPictures:
    """Pictures stopped at a layer, to be drawn under one rule after another."""

    stopped: Stopped

    @property
    def layer(self) -> str:
        """Where they are stopped."""
        return self.stopped.layer

    @property
    def spec(self) -> LatentSpec:
        """Which pictures they are."""
        return self.stopped.spec

    @property
    def before(self) -> Picture:
        """As they are, uint8 [N, H, W, 3]."""
        return self.stopped.pictures

    @property
    def nbytes(self) -> int:
        """What it takes to keep them."""
        return self.stopped.nbytes

    @torch.no_grad()
    def drawn(self, rule: Rule) -> Picture:
        """Under `rule`, on top of the rules that their generator is viewed through, uint8 [N, H, W, 3].

        It is what a stack with `rule` pushed on it draws, without composing a view: only this layer's weight differs.

        Raises:
            LayerError: the rule is of another layer.
            ModelMismatch: it was made for another generator.
        """
        generator, layer = self.stopped.generator, self.layer
        rule.check(generator)
        if rule.layer != layer:
            raise LayerError(
                found=f"a rule at '{rule.layer}' for pictures stopped at '{layer}'",
                expected="the same layer",
                remedy="Stop the pictures there.",
            )
        weight = generator.weight(layer)  # [O, C, kh, kw]
        edited = (weight.double() + rule.change().to(weight.device, torch.float64)).float()
        drawn = [to_uint8(generator.render(at, generator.values(at, edited))) for at in self.stopped.batches]
        return np.concatenate([self.before[:0], *drawn])

    def heat(self, query: Tensor) -> Tensor:
        """Heat of `query` [C] in the pictures, [N, h, w] on the CPU, without margins."""
        grid = self.stopped.generator.layer(self.layer)
        maps = [grid.inside(heat(at.keys, query)).cpu() for at in self.stopped.batches]
        return torch.cat([grid.inside(torch.empty(0, *grid.key_size)), *maps])

    def inside(self, query: Tensor, after: Picture, above: float | None = None) -> Inside:
        """The change inside and outside of where heat of `query` [C] is above a level.

        `above` is that level, as `Matches.level(INSIDE)` knows it from thousands of pictures; without it, the same
        quantile over these pictures is taken.
        """
        found = self.heat(query)
        return inside_outside(self.before, after, found, level(found, INSIDE) if above is None else above)


def scaled(generator: Generator, spec: LatentSpec, layer: str) -> ScaledPictures:
    """The pictures of `spec` stopped at `layer` of `generator`, which may be a view through rules.

    Raises:
        LayerError: no such layer.
    """
    return ScaledPictures(stop(generator, spec, layer))


def effect_map(before: Picture, after: Picture) -> NDArray[np.float32]:
    """Where pictures [N, H, W, 3] differ: the mean change at each pixel, float32 [H, W]; 0 without pictures.

    Raises:
        RequestError: they are not of the same number and size.
    """
    changed = _changed(before, after)  # [N, H, W]
    mean: NDArray[np.float32] = changed.sum(0) / np.float32(max(len(changed), 1))  # [H, W]
    return mean


def changes(seeds: Sequence[int], before: Picture, after: Picture) -> pd.DataFrame:
    """How much each picture changes, in their order: seed, change.

    Raises:
        RequestError: they are not of the same number and size, or there is not a seed for each.
    """
    import pandas as pd

    changed = _changed(before, after)  # [N, H, W]
    _require_as_many(len(seeds), len(changed), "seeds")
    return pd.DataFrame({"seed": list(seeds), "change": changed.mean((1, 2), dtype=np.float64)})


def inside_outside(before: Picture, after: Picture, found: Tensor, above: float) -> Inside:
    """The mean change of pictures [N, H, W, 3] where heat `found` [N, h, w] is above a level, and elsewhere.

    Heat is brought to the pictures' size bilinearly, as overlays show it.

    Raises:
        RequestError: the pictures are not of the same number and size, or heat is not of as many.
    """
    changed = _changed(before, after)  # [N, H, W]
    _require_as_many(len(found), len(changed), "heat maps")
    size = (changed.shape[1], changed.shape[2])
    larger = functional.interpolate(found.float()[:, None], size=size, mode="bilinear", align_corners=False)
    matched = (larger[:, 0] > above).numpy()  # [N, H, W]
    return Inside(_mean(changed[matched]), _mean(changed[~matched]), _mean(matched))


def _require_as_many(found: int, pictures: int, what: str) -> None:
    if found != pictures:
        raise RequestError(
            found=f"{found} {what} for {pictures} pictures",
            expected="one for each",
            remedy="Take those of the same pictures.",
        )


def _mean(values: NDArray[np.float32] | NDArray[np.bool_]) -> float:
    return float(values.mean(dtype=np.float64)) if values.size else 0.0


def _changed(before: Picture, after: Picture) -> NDArray[np.float32]:
    """|after - before| over channels, [N, H, W], from 0 to 1."""
    if before.shape != after.shape or before.ndim != 4:
        raise RequestError(
            found=f"pictures {list(before.shape)} and {list(after.shape)}",
            expected="the same pictures before and after, [N, H, W, 3]",
            remedy="Draw both from the same seeds.",
        )
    apart = np.abs(after.astype(np.int16) - before).sum(3, dtype=np.int16)  # [N, H, W]
    shares: NDArray[np.float32] = apart.astype(np.float32) / np.float32(3 * 255)
    return shares
