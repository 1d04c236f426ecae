"""One edit of the embedded default generator: our direction and solve, against the published schedule.

The published schedule (Bau et al. 2020): 2,001 Adam steps (rate 0.05) on the whole weight, projected back to
``W + span(D)`` every 10 steps and at the end, mean L1. It gets our direction and our whole-map goal, so that what
differs is the solver alone. Its time is that of its loop; ours is that of direction, goal and solve together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from benchmarks.row import Row, best_seconds
from rewrite_core.generators import Generator, embedded_folder, open_generator
from rewrite_core.rules.goal import Goal
from rewrite_core.rules.low_rank import response_moment
from rewrite_core.rules.request import EditRequest
from rewrite_core.rules.rewrite import completed, direction_of, goal_of, rewrite
from rewrite_core.rules.solve import loss_of
from rewrite_core.statistics import LayerStatistics, layer_statistics

__all__ = ["published_schedule", "rows"]

STEPS, RATE, EVERY = 2001, 0.05, 10
LIMIT = 0.1
"""Seconds that direction and solve may take with C at hand."""


def rows() -> Iterable[Row]:
    """Time of an edit, against its limit and against the published schedule; then what each of them reached."""
    generator = open_generator()
    folder = embedded_folder(generator.name) / "edits"
    request = completed(EditRequest.load(folder / "blue-eyes.json"), generator)
    statistics = layer_statistics(generator, str(request.layer))
    ours, threads = best_seconds(lambda: rewrite(generator, request, statistics=statistics))
    yield Row(
        f"edit, direction and solve [s, {threads} threads]",
        ours,
        LIMIT,
        LIMIT / ours,
        "< 0.1 s",
        ours < LIMIT,
    )

    directions = direction_of(generator, request, statistics).vectors.float()
    goal = goal_of(generator, request, statistics)
    other, threads = best_seconds(lambda: published_schedule(generator, goal, directions), runs=1)
    ratio = other / ours
    yield Row(f"edit, published schedule [s, {threads} threads]", ours, other, ratio, "≥ 20 ×", ratio >= 20)

    solved = rewrite(generator, request, statistics=statistics).solved
    weight = published_schedule(generator, goal, directions)
    loss, spread = loss_of(generator, goal, weight), elsewhere(generator, weight, directions, statistics)
    score = solved.loss / solved.loss_before + request.solver.locality * solved.elsewhere**2
    theirs = loss / solved.loss_before + request.solver.locality * spread**2
    yield Row("edit, change elsewhere [share]", solved.elsewhere, spread, spread / solved.elsewhere, "", True)
    yield Row("edit, loss [mean L1]", solved.loss, loss, loss / solved.loss, "", True)
    yield Row("edit, objective (loss + locality)", score, theirs, theirs / score, "≥ 1 ×", theirs >= score)


def published_schedule(generator: Generator, goal: Goal, directions: Tensor) -> Tensor:
    """The weight [O, C, kh, kw] that the published loop ends with; `directions` [R, C] have orthonormal rows."""
    top, left, bottom, right = goal.box
    pristine = generator.weight(goal.at.layer)
    rest = pristine - _projected(pristine, directions)
    weight = pristine.clone().requires_grad_(True)
    adam = torch.optim.Adam([weight], lr=RATE)
    for step in range(STEPS):
        adam.zero_grad()
        values = generator.finish(goal.at, generator.respond(goal.at.layer, goal.at.keys, weight))
        loss = (goal.wanted - values)[..., top:bottom, left:right].abs().mean()
        loss.backward()
        adam.step()
        if step % EVERY == 0 or step == STEPS - 1:
            weight.data = rest + _projected(weight.data, directions)
    return weight.detach()


def elsewhere(generator: Generator, weight: Tensor, directions: Tensor, statistics: LayerStatistics) -> float:
    """Relative change over everything the generator draws, as `Solved.elsewhere` defines it."""
    layer = statistics.layer
    delta = torch.einsum("ocyx,rc->oryx", weight - generator.weight(layer), directions).flatten(1)  # [O, B]
    moment = response_moment(generator, layer, statistics.sample.keys, directions)
    delta = delta.to(moment)
    return math.sqrt(float(((delta @ moment) * delta).sum() / statistics.power))


def _projected(weight: Tensor, directions: Tensor) -> Tensor:
    """The part of the weight that reads the directions: Σ_d ⟨W, d⟩ d over input channels."""
    return torch.einsum("ocyx,rc,rj->ojyx", weight, directions, directions)
