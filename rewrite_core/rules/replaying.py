"""A workspace made again: every rule that a request was solved for is solved anew, and compared with the file's.

    for one in replay(generator, workspace):
        print(one.rule.name, one.outcome, one.difference)

At the number of threads that the file names, with the versions that it names, on the kind of device that it was made
on, a rule comes out the same to the bit, and its digest says so. Elsewhere sums are added in another order: then
`difference` tells how far the two changes of the weight are apart. What is drawn, saved and compared further is always
the file's rule, so the pictures differ by no more than rounding.

Rules that no request was solved for (merged, scaled, brought as files, made by a baseline) are taken from the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch

from rewrite_core.generators import Generator
from rewrite_core.jobs import Progress
from rewrite_core.rules.request import EditRequest
from rewrite_core.rules.rewrite import rewrite
from rewrite_core.rules.rule import Rule
from rewrite_core.rules.workspace import Workspace
from rewrite_core.statistics import Store

__all__ = ["TOLERANCE", "Outcome", "Replayed", "replay", "solvable"]

TOLERANCE = 1e-3
"""Relative difference of two changes of a weight up to which they are called the same but for rounding."""
MOST_THREADS = 256

Outcome = Literal["same", "rounding", "differs", "from the file"]


@dataclass(frozen=True, eq=False)
class Replayed:
    """A rule of the file, and what came out when it was solved again.

    Attributes:
        rule: the file's.
        on: whether it is switched on; the trial is.
        outcome: ``same`` to the bit, different by ``rounding``, or it ``differs``; or it is ``from the file``.
        difference: ``‖Δ' - Δ‖ / ‖Δ‖`` of the changes of the weight, Frobenius; None where it was not solved again.
    """

    rule: Rule
    on: bool
    outcome: Outcome
    difference: float | None = None


def replay(
    generator: Generator,
    workspace: Workspace,
    *,
    store: Store | None = None,
    progress: Progress | None = None,
) -> list[Replayed]:
    """Solve the rules of `workspace` again, the trial last.

    Raises:
        ModelMismatch, LayerError, RequestError: the workspace does not fit `generator`, or a request cannot be solved.
        Cancelled: from `progress`, which is called with the rules that are done.
    """
    workspace.check(generator)
    rules = [(entry.rule, entry.on) for entry in workspace.entries]
    rules += [(workspace.trial, True)] if workspace.trial else []
    found = []
    with _threads(workspace.made_with.get("threads", "")):
        for number, (rule, on) in enumerate(rules, 1):
            found.append(_again(generator, rule, on, store))
            if progress:
                progress(number, len(rules))
    return found


def solvable(rule: Rule) -> bool:
    """Whether a rule is what `rewrite` makes of its request, and not what something else made of it."""
    origin = rule.provenance
    return origin.request is not None and not origin.merged and "stopped" in origin.result


def _again(generator: Generator, rule: Rule, on: bool, store: Store | None) -> Replayed:
    if not solvable(rule):
        return Replayed(rule, on, "from the file")
    request = EditRequest.from_json(rule.provenance.request or {}, f"the request of rule '{rule.name}'")
    solved = rewrite(generator, request, store=store, name=rule.name).rule.with_strength(rule.strength)
    if solved.digest == rule.digest:
        return Replayed(rule, on, "same", 0.0)
    difference = _difference(solved, rule)
    return Replayed(rule, on, "rounding" if difference <= TOLERANCE else "differs", difference)


def _difference(one: Rule, other: Rule) -> float:
    """Of the changes at strength 1; infinite where they are of different weights, or of nothing."""
    mine, theirs = (rule.with_strength(1.0).change().cpu().double() for rule in (one, other))
    if one.layer != other.layer or mine.shape != theirs.shape or not bool(theirs.any()):
        return float("inf")
    return float((mine - theirs).norm() / theirs.norm())


@contextmanager
def _threads(named: str) -> Iterator[None]:
    """As many threads as the file names, for as long as this takes; as many as there are if it names none."""
    before = torch.get_num_threads()
    count = int(named) if named.isdecimal() and 0 < int(named[:4]) <= MOST_THREADS else before
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
