"""One edit of the embedded default generator: our direction and solve, against the published schedule.

The published schedule is `rewrite_core.rules.published`: 2,001 Adam steps on the whole weight, a projection every 10.
It gets our direction and our whole-map goal, so that what differs is the solver alone. Its time is that of its loop;
ours is that of direction, goal and solve together.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from benchmarks.row import Row, best_seconds
from rewrite_core.generators import open_generator
from rewrite_core.rules.elsewhere import elsewhere
from rewrite_core.rules.examples import example_edit
from rewrite_core.rules.published import published_solve
from rewrite_core.rules.rewrite import completed, direction_of, goals_of, rewrite
from rewrite_core.statistics import layer_statistics

__all__ = ["rows"]

LIMIT = 0.1
"""Seconds that direction and solve may take with C at hand."""


def rows() -> Iterable[Row]:
    """Time of an edit, against its limit and against the published schedule; then what each of them reached."""
    generator = open_generator()
    request = completed(example_edit("blue-eyes"), generator)
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
    (goal,) = goals_of(generator, request, statistics)
    other, threads = best_seconds(lambda: published_solve(generator, goal, directions), runs=1)
    ratio = other / ours
    yield Row(f"edit, published schedule [s, {threads} threads]", ours, other, ratio, "≥ 20 ×", ratio >= 20)

    solved = rewrite(generator, request, statistics=statistics).solved
    kept = published_solve(generator, goal, directions)
    added = kept.weight - generator.weight(statistics.layer)
    delta = torch.einsum("ocyx,rc->oryx", added, directions).flatten(1)  # [O, B]: D has orthonormal rows
    loss, spread = kept.loss, elsewhere(generator, statistics, directions).change(delta)
    score = solved.loss / solved.loss_before + request.solver.locality * solved.elsewhere**2
    theirs = loss / solved.loss_before + request.solver.locality * spread**2
    yield Row("edit, change elsewhere [share]", solved.elsewhere, spread, spread / solved.elsewhere, "", True)
    yield Row("edit, loss [mean L1]", solved.loss, loss, loss / solved.loss, "", True)
    yield Row("edit, objective (loss + locality)", score, theirs, theirs / score, "≥ 1 ×", theirs >= score)
