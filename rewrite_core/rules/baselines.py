"""What else could be done with the same request: baselines, to hold an edit against (method.md, "Baselines").

    for name, baseline in BASELINES.items():
        made = baseline.make(generator, request, statistics, progress)
        made.rules, made.loss / made.loss_before, made.seconds

Every baseline is made of rules, so that it is viewed, scaled, measured and saved as any edit: a full-rank change of a
layer is a rule along the identity, units that are silenced are one-hot directions with ``Λ = -W``, and a change of
several layers is a rule at each.

    full rank           Adam on the whole weight of the layer, without a constraint
    projected gradient  the same, gradient and weight projected onto the context's directions in every step
    published schedule  the same, the weight projected in every tenth step and at the end: as published
    overfit             Adam on the weights of the layer and of all behind it, on pixels (`overfit.py`)
    unit ablation       the units that fire most on the context, as many as the rank, set to 0 (GAN Dissection)

The first three minimise the published objective: the mean L1 between wanted and drawn values in the pasted box (with
several goals the mean of their shares of what it was), with no heed to what is drawn elsewhere. A loss that is reported
here is always recomputed from the weights that the rules compose, whatever the loop saw on its way there. A new
baseline is one function and one line in `BASELINES`.

Axes: output channels O, units C, rank R, taps kh × kw.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from rewrite_core.errors import RequestError
from rewrite_core.generators import Generator, Progress
from rewrite_core.memory import rank_images, unit_energy
from rewrite_core.rules.descent import Descent, descend
from rewrite_core.rules.goal import Goal
from rewrite_core.rules.made import Made, Make, described
from rewrite_core.rules.overfit import ITERATIONS as OVERFITTED
from rewrite_core.rules.overfit import overfit
from rewrite_core.rules.painted import observations_of
from rewrite_core.rules.published import projection, published_loss
from rewrite_core.rules.request import EditRequest
from rewrite_core.rules.rewrite import completed, direction_of, goals_of
from rewrite_core.rules.rule import Rule, composed
from rewrite_core.rules.solve import loss_of
from rewrite_core.statistics import LayerStatistics

__all__ = ["BASELINES", "ITERATIONS", "RATE", "Baseline", "Made", "full_rank", "projected", "unit_ablation"]

ITERATIONS = 2001
"""Steps of the published schedule."""
SETTLED = 1000
"""Steps of Adam where its rate falls to 0: more of them do not lower the loss."""
RATE = 0.05
"""Adam's learning rate as a share of the weight's RMS, which is about 1 in the published models."""
EVERY = 10
"""Steps from one projection of the published schedule to the next."""


@dataclass(frozen=True)
class Baseline:
    """One way of making an edit.

    Attributes:
        title: what to call it.
        about: what it does, in a sentence.
        constrained: whether it changes the weight along the context's directions alone, as a rule of ours does.
        iterations: what `make` takes where no number is given.
        make: see `rewrite_core.rules.made.Make`.
    """

    title: str
    about: str
    constrained: bool
    iterations: int
    make: Make


def full_rank(
    generator: Generator,
    request: EditRequest,
    statistics: LayerStatistics,
    progress: Progress | None = None,
    *,
    iterations: int = SETTLED,
    rate: float = RATE,
) -> Made:
    """Adam on the whole weight: what the layer could draw at best, and what it costs elsewhere.

    Raises:
        RequestError, LayerError, ModelMismatch: as `rewrite`.
    """
    return _descended(
        "full rank",
        generator,
        request,
        statistics,
        lambda loss, weight, _: descend(loss, [weight], iterations=iterations, rate=rate, progress=progress),
        constrained=False,
    )


def projected(
    generator: Generator,
    request: EditRequest,
    statistics: LayerStatistics,
    progress: Progress | None = None,
    *,
    iterations: int = ITERATIONS,
    rate: float = RATE,
    every: int = EVERY,
    gradient: bool = False,
) -> Made:
    """Adam on the whole weight, which is projected back to ``W + span(D)`` each `every` steps and at the end.

    With `gradient` the gradient is projected too, and the best kept weight is taken; without, it is the published
    schedule, which takes the last one.

    Raises:
        RequestError, LayerError, ModelMismatch: as `rewrite`.
    """

    def solved(loss: Callable[..., Tensor], weight: Tensor, directions: Tensor) -> Descent:
        rest = weight - projection(weight, directions)
        return descend(
            loss,
            [weight],
            iterations=iterations,
            rate=rate,
            progress=progress,
            steer=(lambda slope: projection(slope, directions)) if gradient else (lambda slope: slope),
            keep=lambda weight: rest + projection(weight, directions),
            every=every,
            best=gradient,
            settle=gradient,
        )

    name = "projected gradient" if gradient else "published schedule"
    return _descended(name, generator, request, statistics, solved, constrained=True)


def unit_ablation(
    generator: Generator,
    request: EditRequest,
    statistics: LayerStatistics,
    progress: Progress | None = None,
    *,
    iterations: int = 1,
) -> Made:
    """The units that fire most on the context, as many as the request's rank, set to 0 wherever they fire.

    Most is by the area-weighted mean of ``k² / E[k²]``, by which `erase` chooses its units too. Nothing is iterated.

    Raises:
        RequestError, LayerError, ModelMismatch: as `rewrite`; or there is no context.
    """
    started = time.perf_counter()
    generator, request = generator.pristine, completed(request, generator)
    goals = _goals(generator, request, statistics)
    seen = observations_of(generator, statistics.layer, request)
    units = rank_images(unit_energy(seen, statistics.second_moment), request.rank).to(generator.device)  # [R]
    weight = generator.weight(statistics.layer)
    one_hot = torch.eye(weight.shape[1], device=weight.device)[units]  # [R, C]
    rule = described("unit ablation", generator, request, statistics.layer, one_hot, -weight[:, units])
    return _made(generator, goals, rule, Descent((), 0, "closed form"), started)


BASELINES: Mapping[str, Baseline] = {
    "full rank": Baseline(
        "Full rank",
        "Adam on the whole weight of the layer, without a constraint.",
        False,
        SETTLED,
        full_rank,
    ),
    "projected gradient": Baseline(
        "Projected gradient",
        "Adam, gradient and weight projected onto the context's directions in every step.",
        True,
        SETTLED,
        partial(projected, iterations=SETTLED, every=1, gradient=True),
    ),
    "published schedule": Baseline(
        "Published schedule",
        "Adam on the whole weight, projected in every tenth step and at the end.",
        True,
        ITERATIONS,
        projected,
    ),
    "overfit": Baseline(
        "Overfit",
        "Adam on the weights of this layer and of all behind it, on the pixels of the pasted picture.",
        False,
        OVERFITTED,
        overfit,
    ),
    "unit ablation": Baseline(
        "Unit ablation",
        "The units that fire most on the context, as many as the rank, set to 0.",
        False,
        0,
        unit_ablation,
    ),
}


def _descended(
    name: str,
    generator: Generator,
    request: EditRequest,
    statistics: LayerStatistics,
    solve: Callable[[Callable[..., Tensor], Tensor, Tensor], Descent],
    *,
    constrained: bool,
) -> Made:
    """What `solve` makes of loss, weight and directions, as a rule: along D, or along the identity."""
    started = time.perf_counter()
    generator, request = generator.pristine, completed(request, generator)
    layer, weight = statistics.layer, generator.weight(statistics.layer)
    goals = _goals(generator, request, statistics)
    if constrained:
        directions = direction_of(generator, request, statistics).vectors.to(weight)  # [R, C]
    else:
        directions = torch.eye(weight.shape[1], device=weight.device)  # [C, C]
    units = [loss_of(generator, goal, weight) or 1.0 for goal in goals]

    def loss(unknowns: Sequence[Tensor]) -> Tensor:
        losses = [
            published_loss(generator, goal, unknowns[0]) / unit
            for goal, unit in zip(goals, units, strict=True)
        ]
        return torch.stack(losses).mean()

    found = solve(loss, weight, directions)
    delta = torch.einsum("ocyx,rc->oryx", found.unknowns[0] - weight, directions)  # [O, R, kh, kw]
    rule = described(name, generator, request, layer, directions, delta)
    return _made(generator, goals, rule, found, started)


def _goals(generator: Generator, request: EditRequest, statistics: LayerStatistics) -> tuple[Goal, ...]:
    """The goals of the request, of which there has to be one."""
    goals = goals_of(generator, request, statistics)
    if not goals:
        raise RequestError(
            found=f"an edit that is to {request.operation}, which has no goal",
            expected="one that pastes or erases",
            remedy="Compare one of those.",
        )
    return goals


@torch.no_grad()
def _made(generator: Generator, goals: Sequence[Goal], rule: Rule, found: Descent, started: float) -> Made:
    """With the loss of the very weight that the rule composes; of several goals the mean."""
    pristine, kept = generator.weight(rule.layer), composed(generator, [rule])[rule.layer]
    before, after = (
        sum(loss_of(generator, goal, weight) for goal in goals) / len(goals) for weight in (pristine, kept)
    )
    return Made(
        rules=(rule,),
        loss_before=before,
        loss=after,
        iterations=found.iterations,
        stopped=found.stopped,
        seconds=time.perf_counter() - started,
    )
