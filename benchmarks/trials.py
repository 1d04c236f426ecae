"""One request, made in every way, and each measured on the same fresh pictures.

A *way* is a solver with a key method. What is measured of each: the true loss as a share of that before; the change
inside the concept's regions and outside, over `FRESH`; the change outside ÷ that of the reference at matched effect;
and the time from request to rules. The reference is the published direction (``zca`` without ridge) with our solver,
at the same rank: so a ratio below 1 says that a way disturbs less for the same effect.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.fresh import Effect, Fresh, effect, fresh_pictures, viewed
from dissect.concepts.catalogue import open_concepts
from rewrite_core.generators import Generator, LatentSpec, open_generator
from rewrite_core.pictures import Picture, outline, to_uint8
from rewrite_core.rules.baselines import BASELINES
from rewrite_core.rules.others import others
from rewrite_core.rules.painted import latents_of
from rewrite_core.rules.request import EditRequest, Painted
from rewrite_core.rules.rewrite import rewrite
from rewrite_core.rules.rule import Rule
from rewrite_core.statistics import LayerStatistics, layer_statistics

__all__ = [
    "BASELINES",
    "FRESH",
    "IDEAS",
    "KEYS",
    "OTHERS",
    "OURS",
    "PUBLISHED",
    "RANKS",
    "SOLVERS",
    "WHOLE",
    "Idea",
    "Result",
    "Shown",
    "Tried",
    "tried",
]

FRESH = LatentSpec.of(range(1000, 1100))
"""Pictures that neither the second moment nor any request has seen."""
RANKS = (1, 3, 10)
ANY_RANK = ("full rank", "overfit")
ONE_RANK = ("mean", "plain")
SHOWN = 4
"""Fresh pictures of each request on the contact sheet."""
COPY = (255, 45, 120)

OURS, PUBLISHED, LOCALITY_0, WHOLE = "ours", "zca, ridge 0", "ours, locality 0", "published, whole"
SOLVERS = (OURS, LOCALITY_0, *BASELINES, WHOLE)
KEYS: Mapping[str, Mapping[str, Any]] = {
    PUBLISHED: {"ridge": 0},
    "zca, ridge 0.1": {},
    "contrast 3": {"contrast": 3},
    "svd": {"method": "svd"},
    "mean": {"method": "mean"},
    "gandissect": {"method": "gandissect"},
    "plain": {"method": "plain"},
}


@dataclass(frozen=True)
class Idea:
    """Other settings of direction and solver; `apart`: with the second moment of `others`; `ranks` it can have."""

    direction: Mapping[str, Any] = field(default_factory=dict)
    solver: Mapping[str, Any] = field(default_factory=dict)
    apart: bool = False
    ranks: tuple[int, ...] = RANKS


OTHERS = "others"
IDEAS: Mapping[str, Idea] = {
    "ridge 0.3": Idea({"ridge": 0.3}),
    "ridge 1": Idea({"ridge": 1}),
    "ridge 3": Idea({"ridge": 3}),
    "contrast 1": Idea({"contrast": 1}),
    "contrast 10": Idea({"contrast": 10}),
    "locality 1": Idea(solver={"locality": 1}),
    "locality 3": Idea(solver={"locality": 3}),
    OTHERS: Idea(apart=True),
    "others, mean": Idea({"method": "mean"}, apart=True, ranks=(1,)),
    "others, mean, locality 1": Idea({"method": "mean"}, {"locality": 1}, apart=True, ranks=(1,)),
    "others, locality 1": Idea(solver={"locality": 1}, apart=True),
}
"""What might do better, with our solver."""


@dataclass(frozen=True)
class Result:
    """One way of making one request.

    Attributes:
        request: ``anime64-dcgan-eyes``.
        way: its solver, its key method, or an idea; see `kind`.
        kind: ``solver``, ``keys`` or ``idea``: which table it belongs to.
        rank: of the edit, and of the reference.
        loss: true loss as a share of that before.
        inside, outside: change at full strength, from 0 to 1.
        against: change outside ÷ that of the reference at matched effect.
        seconds: from request to rules.
    """

    request: str
    way: str
    kind: str
    rank: int
    loss: float
    inside: float
    outside: float
    against: float
    seconds: float


@dataclass(frozen=True, eq=False)
class Shown:
    """Pictures of one request for the contact sheet.

    `copied` [H, W, 3] is outlined; the first of `before`, `ours` and `published` [N, H, W, 3] is the pasted picture.
    """

    copied: Picture
    before: Picture
    ours: Picture
    published: Picture


@dataclass(frozen=True, eq=False)
class Tried:
    """All that there is of one request."""

    request: str
    results: tuple[Result, ...]
    shown: Shown


Made = tuple[tuple[Rule, ...], float, float]
"""Rules, loss as a share of that before, seconds."""


@dataclass(frozen=True, eq=False)
class _Trial:
    name: str
    generator: Generator
    request: EditRequest
    statistics: LayerStatistics
    fresh: Fresh

    def asked(self, rank: int, **settings: Mapping[str, Any]) -> EditRequest:
        """The request at a rank, with other settings of its direction or its solver."""
        changed = {
            field: getattr(self.request, field).model_copy(update=dict(values))
            for field, values in settings.items()
        }
        return self.request.model_copy(update={"rank": rank, **changed})

    def ours(self, request: EditRequest, apart: bool = False) -> Made:
        """By our solver."""
        started, statistics = time.perf_counter(), self.statistics
        if apart:
            statistics = others(self.generator, request, statistics)
        edit = rewrite(self.generator, request, statistics=statistics)
        return (edit.rule,), _share(edit.solved.loss, edit.solved.loss_before), time.perf_counter() - started

    def baseline(self, name: str, request: EditRequest) -> Made:
        """By a baseline."""
        made = BASELINES[name].make(self.generator, request, self.statistics)
        return made.rules, _share(made.loss, made.loss_before), made.seconds

    def solved(self, solver: str, rank: int) -> Made:
        """By one of `SOLVERS`, with our directions; published, whole: with the published ones."""
        if solver == OURS:
            return self.ours(self.asked(rank))
        if solver == LOCALITY_0:
            return self.ours(self.asked(rank, solver={"locality": 0}))
        if solver == WHOLE:
            return self.baseline("published schedule", self.asked(rank, direction=KEYS[PUBLISHED]))
        return self.baseline(solver, self.asked(rank))


def tried(path: Path) -> Tried:
    """Make the request in that file in every way.

    Its name ends in a concept that the generator's embedded concepts have: ``anime64-dcgan-eyes.json``.
    """
    request, concept = EditRequest.load(path), path.stem.rpartition("-")[2]
    assert request.model, "the requests name their generator"
    assert request.layer, "and their layer"
    generator = open_generator(request.model.name)
    source = open_concepts("embedded", generator)
    trial = _Trial(
        path.stem,
        generator,
        request,
        layer_statistics(generator, request.layer),
        fresh_pictures(generator, request.layer, FRESH, source, concept),
    )
    trial.ours(request)  # warm up
    references = {
        rank: effect(trial.fresh, trial.ours(trial.asked(rank, direction=KEYS[PUBLISHED]))[0])
        for rank in RANKS
    }
    made = list(_made(trial))
    results = [
        result
        for kind, way, ranks, one in made
        for result in _results(trial, kind, way, ranks, one, references)
    ]
    ours, whole = (
        next(one for kind, name, ranks, one in made if (kind, name, ranks) == ("solver", way, (1,)))
        for way in (OURS, WHOLE)
    )
    return Tried(path.stem, tuple(results), _shown(trial, ours[0], whole[0]))


def _made(trial: _Trial) -> Iterator[tuple[str, str, tuple[int, ...], Made]]:
    """Every way: its kind and name, the ranks that it is the same at, and what it made."""
    for solver in SOLVERS:
        for ranks in [RANKS] if solver in ANY_RANK else [(rank,) for rank in RANKS]:
            yield "solver", solver, ranks, trial.solved(solver, ranks[0])
    for rank in RANKS:
        for name, direction in KEYS.items():
            if rank == 1 or name not in ONE_RANK:
                yield "keys", name, (rank,), trial.ours(trial.asked(rank, direction=direction))
        for name, idea in IDEAS.items():
            if rank in idea.ranks:
                asked = trial.asked(rank, direction=idea.direction, solver=idea.solver)
                yield "idea", name, (rank,), trial.ours(asked, idea.apart)


def _results(
    trial: _Trial,
    kind: str,
    way: str,
    ranks: Sequence[int],
    made: Made,
    references: Mapping[int, Effect],
) -> Iterator[Result]:
    rules, loss, seconds = made
    found = effect(trial.fresh, rules)
    for rank in ranks:
        against = found.against(references[rank])
        yield Result(trial.name, way, kind, rank, loss, found.inside, found.outside, against, seconds)


def _share(loss: float, before: float) -> float:
    return loss / before if before else 1.0


# Pictures


@torch.no_grad()
def _shown(trial: _Trial, ours: Sequence[Rule], published: Sequence[Rule]) -> Shown:
    """The pasted picture, and the first fresh ones that show at least half the median area of the concept."""
    generator, request = trial.generator, trial.request
    source, target = request.painted("object"), request.painted("paste")
    areas = trial.fresh.inside.sum((1, 2))  # [N]
    places = (areas >= areas.median() / 2).nonzero().flatten()[:SHOWN]  # [n]

    def drawn(rules: Sequence[Rule]) -> Picture:
        pasted = _pictures(viewed(generator, rules), request, target)
        others = to_uint8(trial.fresh.drawn(rules)[places] * 2 - 1)
        return np.concatenate([pasted, others])

    (copied,) = _pictures(generator, request, source)
    mask = source.mask.area(generator.picture_size).numpy() > 0.5  # [H, W]
    return Shown(outline(copied, mask, COPY), drawn(()), drawn(ours), drawn(published))


def _pictures(generator: Generator, request: EditRequest, painted: Painted) -> Picture:
    drawn: Tensor = generator.pictures(latents_of(generator, request, painted.image))
    return to_uint8(drawn)
