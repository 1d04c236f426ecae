"""What a baseline makes of a request, and how it is asked for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from rewrite_core.generators import Generator, Progress
from rewrite_core.rules.request import EditRequest
from rewrite_core.rules.rule import Provenance, Rule, versions
from rewrite_core.statistics import LayerStatistics

__all__ = ["Made", "Make", "described"]


@dataclass(frozen=True, eq=False)
class Made:
    """The rules of a baseline, and what is true of them together.

    Attributes:
        rules: one for each layer that is changed.
        loss_before: mean L1 in the pasted box between what is wanted and what the pristine weights draw; with several
            pairs of copy and paste the mean over them.
        loss: the same under the weights that the rules compose, recomputed from those very weights.
        iterations: steps taken.
        stopped: ``iterations``, ``cancelled`` or ``closed form``.
        seconds: time taken, with directions and goal, without statistics.
        measured: what the losses are of: ``values`` of the request's layer, as a rule of ours has them, or ``pixels``
            in units of their full range. Compare shares ``loss / loss_before`` alone where these differ.
    """

    rules: tuple[Rule, ...]
    loss_before: float
    loss: float
    iterations: int
    stopped: str
    seconds: float
    measured: Literal["values", "pixels"] = "values"


class Make(Protocol):
    """Make a request's edit: of `generator`'s pristine network, with `statistics` of the request's layer.

    `progress(step, iterations)` may raise `Cancelled`: what there is by then is returned.
    """

    def __call__(
        self,
        generator: Generator,
        request: EditRequest,
        statistics: LayerStatistics,
        progress: Progress | None = None,
        *,
        iterations: int = ...,
    ) -> Made:
        """The rules, and their true loss."""
        ...


def described(
    name: str, generator: Generator, request: EditRequest, layer: str, directions: Tensor, delta: Tensor
) -> Rule:
    """A rule of the baseline `name` at `layer`: directions [R, C], delta [O, R, kh, kw]."""
    provenance = Provenance(
        model=generator.name,
        fingerprint=generator.fingerprint,
        layer=layer,
        name=f"{name} at {layer}",
        request=request.to_dict(),
        result={"baseline": name},
        made_with=versions(),
    )
    return Rule(directions, delta, provenance)
