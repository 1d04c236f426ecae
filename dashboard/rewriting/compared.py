"""A request by every baseline and by ours, made and measured in the background.

    question = Question.of(visitor)
    found = compared_of(visitor, question)     # None until it is there; asking for it begins the job
    if found is None:
        show_work(visitor, COMPARING)          # once on a page: how far, how long still, Cancel

Every side is made of the pristine network and viewed alone, whatever rules are on. Each is kept by itself: a comparison
that was cancelled goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import pandas as pd

from dashboard.background import brought
from dashboard.budget import Budget
from dashboard.rewriting.measuring import fresh_seeds, stack_of
from dashboard.session import Session, service, statistics_of
from dissect.edit_effect import EditEffect, edit_effect
from dissect.edit_regions import context_level
from rewrite_core.directions import Direction
from rewrite_core.errors import Cancelled, PalimpsestError
from rewrite_core.generators import Generator, LatentSpec
from rewrite_core.jobs import Progress
from rewrite_core.pictures import Picture
from rewrite_core.rules.baselines import BASELINES
from rewrite_core.rules.request import EditRequest
from rewrite_core.rules.rewrite import completed, direction_of, rewrite
from rewrite_core.rules.rule import Rule
from rewrite_core.statistics import LayerStatistics

__all__ = ["COMPARING", "OURS", "SHOWN", "Compared", "Question", "Side", "compared_of"]

COMPARING = "baselines"
"""The purpose of the job."""
OURS = "ours"
SHOWN = 8
"""Pictures that every side is shown on: the first of those it is measured over."""
_FINE = 1000  # steps of a side in what the job reports


@dataclass(frozen=True, eq=False)
class Side:
    """One way of making the edit, and what it does.

    Attributes:
        about: what it is, in a sentence.
        rules: one for each layer that is changed; none where it cannot be made.
        share: of the loss that is left; of pixels for overfit, of the layer's values otherwise.
        seconds: time taken, without statistics.
        effect: over fresh pictures.
        pictures: the first of these [N, H, W, 3].
        problem: why it cannot be made, in one line; empty otherwise.
    """

    title: str
    about: str
    rules: tuple[Rule, ...] = ()
    share: float = 0.0
    seconds: float = 0.0
    effect: EditEffect | None = None
    pictures: Picture | None = None
    problem: str = ""


@dataclass(frozen=True, eq=False)
class Compared:
    """The sides by name, ours first; and the pictures as the pristine network draws them."""

    sides: Mapping[str, Side]
    before: Picture
    spec: LatentSpec

    def table(self) -> pd.DataFrame:
        """A row for each side that could be made: its numbers, with the ends of their intervals."""
        return pd.DataFrame([_row(side, side.effect) for side in self.sides.values() if side.effect])


_sides: Budget[Side] = Budget(
    512 << 20, lambda side: sum(rule.delta.nbytes + rule.directions.nbytes for rule in side.rules)
)
_compared: Budget[Compared] = Budget(64 << 20, lambda found: (1 + len(found.sides)) * found.before.nbytes)


@dataclass(frozen=True, eq=False)
class Question:
    """All that a comparison depends on; its job touches nothing of the session."""

    generator: Generator
    owner: str
    request: EditRequest
    title: str
    spec: LatentSpec

    @classmethod
    def of(cls, visitor: Session) -> Question:
        """The visitor's draft, over so many fresh pictures.

        Raises:
            RequestError, LayerError, ModelMismatch: it is not complete.
        """
        generator = visitor.generator.pristine
        request = completed(visitor.request(), generator)
        return cls(generator, visitor.visitor, request, visitor.title, fresh_seeds(visitor))

    @property
    def key(self) -> Hashable:
        """By which its answer is kept."""
        return (self.generator.fingerprint, self.request.to_json(), self.title, self.spec)

    def answer(self, progress: Progress) -> Compared:
        """All sides, one after the other, in a job."""
        layer, store = str(self.request.layer), service().store
        statistics = statistics_of(self.generator, layer, progress, visitor=self.owner)
        direction = direction_of(self.generator, self.request, statistics)
        level = context_level(self.generator, direction, self.spec, store=store, progress=progress)
        names, sides = (OURS, *BASELINES), {}
        for number, name in enumerate(names):
            make = partial(
                self._side, name, statistics, direction, level, _Part(progress, number, len(names))
            )
            sides[name] = _sides.get((self.key, name), make)
        shown = replace(self.spec, seeds=self.spec.seeds[:SHOWN])
        return Compared(sides, self.generator.draw(shown), self.spec)

    def _side(
        self, name: str, statistics: LayerStatistics, direction: Direction, level: float, at: _Part
    ) -> Side:
        try:
            made = self._ours(statistics, at) if name == OURS else self._baseline(name, statistics, at)
        except PalimpsestError as problem:
            return replace(_empty(name), problem=str(problem))
        at.tick()  # a solver that is stopped gives its best so far: no side of a comparison
        view = self.generator.with_rules(stack_of(made.rules))
        effect = edit_effect(
            self.generator, view, direction, self.spec, level=level, request=self.request, progress=at.second
        )
        shown = replace(self.spec, seeds=self.spec.seeds[:SHOWN])
        return replace(made, effect=effect, pictures=view.draw(shown))

    def _ours(self, statistics: LayerStatistics, at: _Part) -> Side:
        started = time.perf_counter()
        edit = rewrite(
            self.generator, self.request, statistics=statistics, name=self.title, progress=at.first
        )
        solved, seconds = edit.solved, time.perf_counter() - started
        share = solved.loss / (solved.loss_before or 1.0)
        return replace(_empty(OURS), rules=(edit.rule,), share=share, seconds=seconds)

    def _baseline(self, name: str, statistics: LayerStatistics, at: _Part) -> Side:
        made = BASELINES[name].make(self.generator, self.request, statistics, at.first)
        share = made.loss / (made.loss_before or 1.0)
        return replace(_empty(name), rules=made.rules, share=share, seconds=made.seconds)


def compared_of(visitor: Session, question: Question) -> Compared | None:
    """The comparison, if it is there; else it is made in the background.

    Raises:
        RequestError: the visitor has too many jobs under way.
    """
    return brought(
        visitor, COMPARING, question.key, _compared, "Comparing with the baselines", question.answer
    )


class _Part:
    """The progress of one side among several: of its making and, a tenth of it, of measuring it."""

    def __init__(self, progress: Progress, number: int, count: int) -> None:
        self._progress, self._number, self._count = progress, number, count
        self._cancelled = False

    def first(self, done: int, total: int) -> None:
        """While it is made; that it was cancelled is remembered, since solvers return all the same."""
        try:
            self._report(0.9 * done / max(total, 1))
        except Cancelled:
            self._cancelled = True
            raise

    def second(self, done: int, total: int) -> None:
        """While it is measured."""
        self._report(0.9 + 0.1 * done / max(total, 1))

    def tick(self) -> None:
        """Raise `Cancelled` if that was raised before."""
        if self._cancelled:
            raise Cancelled

    def _report(self, share: float) -> None:
        self._progress(round(_FINE * (self._number + share)), _FINE * self._count)


def _empty(name: str) -> Side:
    if name == OURS:
        return Side("Ours", "Λ along the context's directions, with heed to what changes elsewhere.")
    return Side(BASELINES[name].title, BASELINES[name].about)


def _row(side: Side, effect: EditEffect) -> dict[str, object]:
    estimates = {"inside": effect.inside, "outside": effect.outside, "took_effect": effect.took_effect}
    numbers = {
        f"{name}{end}": getattr(each, end.strip("_") or "value")
        for name, each in estimates.items()
        for end in ("", "_low", "_high")
    }
    return {"method": side.title, "loss_left": side.share, **numbers, "seconds": side.seconds}
