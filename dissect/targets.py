"""What of a layer is forced by an intervention: units, or directions; see `dissect.interventions` for the formula.

Both read M numbers off each key [C], and can move them to given values by a share of the way. Keys [N, C, h, w] come in
and go out; nothing is changed in place.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from rewrite_core.errors import RequestError
from rewrite_core.generators.generator import Layer

__all__ = ["Directions", "Target", "Units"]

MOST_NAMED = 8
"""Units that are all named in a title; of more, the first three and how many."""


class Target(Protocol):
    """What of a layer's keys is forced: M readings of each key [C]."""

    def __len__(self) -> int:
        """M."""
        ...

    def check(self, layer: Layer) -> None:
        """See that `layer` has it.

        Raises:
            RequestError: it has not.
        """
        ...

    def forced(self, keys: Tensor, values: Tensor, share: Tensor) -> Tensor:
        """Keys [N, C, h, w] whose readings are moved to `values` [M], by `share` [h, w] of the way."""
        ...


@dataclass(frozen=True)
class Units:
    """Single channels."""

    numbers: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.numbers)

    def __str__(self) -> str:
        if len(self) > MOST_NAMED:
            return f"{len(self):,} units ({', '.join(map(str, self.numbers[:3]))}, …)"
        return ("unit " if len(self) == 1 else "units ") + ", ".join(map(str, self.numbers))

    def check(self, layer: Layer) -> None:
        """See that there are such units in `layer`, and each is named once."""
        wrong = [unit for unit in self.numbers if not 0 <= unit < layer.in_channels]
        twice = [unit for unit, times in Counter(self.numbers).items() if times > 1]
        if wrong or twice:
            raise RequestError(
                found=f"unit {wrong[0]}" if wrong else f"unit {twice[0]} twice",
                expected=f"units from 0 to {layer.in_channels - 1} of layer '{layer.name}', each once",
                remedy="Choose other units.",
            )

    def forced(self, keys: Tensor, values: Tensor, share: Tensor) -> Tensor:
        """The units' maps are blended with their value."""
        result = keys.clone()
        numbers = list(self.numbers)
        result[:, numbers] = torch.lerp(keys[:, numbers], values[:, None, None], share)  # [N, M, h, w]
        return result


@dataclass(frozen=True, eq=False)
class Directions:
    """Queries D [M, C] and their patterns P [C, M], with ``D P = 1``; float32."""

    queries: Tensor
    patterns: Tensor

    @classmethod
    def of(cls, queries: Tensor, second_moment: Tensor) -> Directions:
        """Of `queries` [M, C] in a layer whose keys have this second moment [C, C].

        Raises:
            RequestError: shapes or numbers that cannot be, or directions that say the same or match nothing.
        """
        D, C = queries.detach().to("cpu", torch.float64), second_moment.detach().to("cpu", torch.float64)
        if D.ndim != 2 or C.shape != 2 * D.shape[1:] or not bool(D.isfinite().all() and C.isfinite().all()):
            raise RequestError(
                found=f"directions {list(queries.shape)} and a second moment {list(second_moment.shape)}",
                expected="[M, C] and [C, C], all numbers finite",
                remedy="Take both from the same layer.",
            )
        patterns = C @ D.T  # [C, M]
        gram = D @ patterns  # [M, M]
        power = torch.linalg.eigvalsh(gram)
        if not len(D) or power[0] <= 1e-10 * max(float(power[-1]), 1e-30):
            raise RequestError(
                found="directions that match nothing the layer shows, or that say the same twice",
                expected="directions that are independent under the second moment",
                remedy="Leave some out.",
            )
        return cls(D.float(), torch.linalg.solve(gram, patterns.T).T.float())

    def __len__(self) -> int:
        return len(self.queries)

    def __str__(self) -> str:
        return f"{len(self)} direction" + ("s" if len(self) > 1 else "")

    def check(self, layer: Layer) -> None:
        """See that `layer` is as wide as the queries."""
        if self.queries.shape[1] != layer.in_channels:
            raise RequestError(
                found=f"directions of {self.queries.shape[1]} units",
                expected=f"{layer.in_channels} units, as layer '{layer.name}' has",
                remedy="Choose directions of this layer.",
            )

    def forced(self, keys: Tensor, values: Tensor, share: Tensor) -> Tensor:
        """Along the patterns, by what the readings lack."""
        queries, patterns = self.queries.to(keys.device), self.patterns.to(keys.device)
        readings = torch.einsum("mc,nchw->nmhw", queries, keys)
        lack = share * (values[:, None, None] - readings)  # [N, M, h, w]
        return torch.where(share > 0, keys + torch.einsum("cm,nmhw->nchw", patterns, lack), keys)
