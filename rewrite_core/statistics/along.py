"""Any statistic along directions instead of units: of a rule, of principal components, of a sparse dictionary.

A *unit* is one channel of a layer's keys; a *direction* d is any vector in their space, and what a position says along
it is ``d · k``. So for M directions [M, C], another statistic is shown M maps where it would be shown C units::

    maps[n, m] = Σ_c directions[m, c] · keys[n, c]          [N, M, h, w], in float32

and says of directions what it says of units: quantiles, top pictures, intersection with concepts. Directions are taken
as they are, neither centred nor scaled to unit length.

    along = fetch(generator, "l08", spec, Along(directions, Intersection(thresholds, labeller)))
    labels, iou = along.inner.best()
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, Self, TypeVar

import torch
from torch import Tensor

from rewrite_core.errors import RequestError
from rewrite_core.statistics.statistic import Batch, Needs, Statistic

__all__ = ["Along"]

S = TypeVar("S", bound=Statistic)


@dataclass(frozen=True, eq=False)
class Along(Statistic, Generic[S]):
    """What `inner` says of the maps along `directions`.

    Attributes:
        directions: [M, C], finite; rounded to float32.
        inner: the statistic of the M maps; empty when it is asked for, and the answer afterwards. The keys of another
            layer that it may need are shown to it as they are.
    """

    directions: Tensor
    inner: S

    kind: ClassVar[str] = "along"
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        shape = self.directions.shape
        if len(shape) != 2 or not min(shape) or not bool(self._rows().isfinite().all()):
            raise RequestError(
                found=f"directions of shape {list(shape)}, or not finite",
                expected="at least one direction, a finite number for each unit",
                remedy="Stack them as rows: [directions, units].",
            )
        if isinstance(self.inner, Along):
            raise RequestError(
                found="directions of directions",
                expected="a statistic of units",
                remedy="Multiply the two matrices.",
            )

    def parameters(self) -> Mapping[str, Any]:
        """The directions as a digest beside their number, and what is asked along them."""
        rows = self._rows()
        return {
            "directions": hashlib.sha256(rows.numpy().astype("<f4").tobytes()).hexdigest()[:32],
            "number": len(rows),
            "units": rows.shape[1],
            "statistic": self.inner.kind,
            "version": self.inner.version,
            "parameters": dict(self.inner.parameters()),
        }

    def needs(self) -> Needs:
        """What the inner statistic needs."""
        return self.inner.needs()

    def update(self, batch: Batch) -> Self:
        """The maps along the directions, shown to the inner statistic."""
        keys = batch.keys.float()  # [N, C, h, w]
        if keys.shape[1] != self.directions.shape[1]:
            raise RequestError(
                found=f"directions of {self.directions.shape[1]} units for a layer of {keys.shape[1]} units",
                expected="a number for each unit of the layer",
                remedy="Take the directions from the same layer.",
            )
        rows = self._rows().to(keys.device, non_blocking=True)
        maps = (rows @ keys.flatten(2)).unflatten(2, keys.shape[2:])  # [N, M, h, w]
        return replace(self, inner=self.inner.update(replace(batch, keys=maps)))

    def merge(self, other: Self) -> Self:
        """The inner statistics, merged."""
        return replace(self, inner=self.inner.merge(other.inner))

    def state(self) -> dict[str, Tensor]:
        """That of the inner statistic."""
        return self.inner.state()

    def restore(self, state: Mapping[str, Tensor]) -> Self:
        """From the inner statistic's tensors."""
        return replace(self, inner=self.inner.restore(state))

    def summary(self) -> Mapping[str, Any]:
        """What the inner statistic says, of directions in place of units."""
        said = dict(self.inner.summary())
        if "units" not in said:
            return said
        return {"directions": said.pop("units"), **said}

    def _rows(self) -> Tensor:
        """The directions as they are used, [M, C] float32 on the CPU."""
        return self.directions.detach().to("cpu", torch.float32).contiguous()
