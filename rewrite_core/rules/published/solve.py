"""The published solver: Adam on the whole weight, and a projection now and then.

    P(W)[o, i, y, x] = Σ_d Σ_j W[o, j, y, x] D[d, j] D[d, i]

    projected   W by Adam; every 10 steps, and after the last, W ← (W₀ - P(W₀)) + P(W)
    gradient    the same, and every gradient is projected too
    full        W by Adam, unconstrained
    linear      Λ by Adam from 0, W = W₀ + ΛD

Adam's state is kept across projections, so between them W leaves the subspace; the losses of those steps are not those
of any weight that is kept (`PublishedSolution.loss` is). The loss is the mean L1 in the goal's box, and differentiates
through the demodulation. Λ [O, R, kh, kw], D [R, C] with orthonormal rows, weights [O, C, kh, kw].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rewrite_core.generators import Generator
from rewrite_core.rules.goal import Goal
from rewrite_core.rules.low_rank import change
from rewrite_core.rules.published.layer import drawn
from rewrite_core.rules.published.settings import PublishedSettings, Split, Variant

__all__ = ["PublishedSolution", "Watch", "projection", "published_loss", "published_solve", "published_zero"]

Watch = Callable[[int, Tensor], None]
"""Called with the step and what Adam made of the unknown (W or Λ), before that step's projection."""


@dataclass(frozen=True, eq=False)
class PublishedSolution:
    """The weight kept, and what is true of it.

    Attributes:
        weight: [O, C, kh, kw].
        losses: [iterations] float64, each before its step: what the published code shows.
        loss_before: of the pristine weight.
        loss: of `weight`, after the last projection.
    """

    weight: Tensor
    losses: Tensor
    loss_before: float
    loss: float


def published_solve(
    generator: Generator,
    goal: Goal,
    directions: Tensor,
    settings: PublishedSettings | None = None,
    watch: Watch | None = None,
) -> PublishedSolution:
    """Minimise the loss of `goal` from the layer's present weight, along `directions` [R, C]."""
    settings = settings or PublishedSettings()
    weight = generator.weight(goal.at.layer)

    def loss(weight: Tensor) -> Tensor:
        return published_loss(generator, goal, weight, settings.split)

    found, losses = SOLVERS[settings.variant](_Problem(loss, weight, directions.to(weight), settings, watch))
    with torch.no_grad():
        return PublishedSolution(found, losses, float(loss(weight)), float(loss(found)))


def published_loss(generator: Generator, goal: Goal, weight: Tensor, split: Split = "usual") -> Tensor:
    """Mean L1 in the goal's box between the wanted values and those that `weight` draws: a scalar."""
    top, left, bottom, right = goal.box
    off = (goal.wanted - drawn(generator, goal.at, weight, split))[..., top:bottom, left:right]
    return off.abs().mean()


def projection(weight: Tensor, directions: Tensor) -> Tensor:
    """P(W): the part of `weight` that reads `directions` [R, C]."""
    return change(torch.einsum("ojyx,rj->oryx", weight, directions), directions)


def published_zero(weight: Tensor, directions: Tensor) -> Tensor:
    """``W - P(W)``; it leaves far more of a context than removing what its directions match: see the design."""
    return weight - projection(weight, directions)


# The variants


@dataclass(frozen=True)
class _Problem:
    loss: Callable[[Tensor], Tensor]
    weight: Tensor
    directions: Tensor
    settings: PublishedSettings
    watch: Watch | None

    def within(self, weight: Tensor) -> Tensor:
        return projection(weight, self.directions)

    def kept(self, weight: Tensor) -> Tensor:
        return published_zero(self.weight, self.directions) + self.within(weight)


Found = tuple[Tensor, Tensor]
"""A weight [O, C, kh, kw], and the losses [iterations]."""


def _projected(problem: _Problem) -> Found:
    return _adam(problem, problem.loss, problem.weight, keep=problem.kept)


def _gradient(problem: _Problem) -> Found:
    return _adam(problem, problem.loss, problem.weight, keep=problem.kept, steer=problem.within)


def _full(problem: _Problem) -> Found:
    return _adam(problem, problem.loss, problem.weight)


def _linear(problem: _Problem) -> Found:
    def edited(delta: Tensor) -> Tensor:
        return problem.weight + change(delta, problem.directions)

    outputs, _, *taps = problem.weight.shape
    nothing = problem.weight.new_zeros(outputs, len(problem.directions), *taps)  # [O, R, kh, kw]
    delta, losses = _adam(problem, lambda delta: problem.loss(edited(delta)), nothing)
    return edited(delta), losses


SOLVERS: Mapping[Variant, Callable[[_Problem], Found]] = {
    "projected": _projected,
    "gradient": _gradient,
    "full": _full,
    "linear": _linear,
}


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _adam(
    problem: _Problem,
    loss: Callable[[Tensor], Tensor],
    start: Tensor,
    *,
    keep: Callable[[Tensor], Tensor] = _same,
    steer: Callable[[Tensor], Tensor] = _same,
) -> Found:
    """Adam from `start` on `loss`, gradients through `steer`, the unknown through `keep` now and then."""
    unknown, settings, losses = start.clone().requires_grad_(), problem.settings, []
    adam = torch.optim.Adam([unknown], lr=settings.rate)
    for step in range(settings.iterations):
        value = loss(unknown)
        (slope,) = torch.autograd.grad(value, unknown)
        unknown.grad = steer(slope)
        adam.step()
        losses.append(value.item())
        if problem.watch:
            problem.watch(step, unknown.detach())
        if step % settings.every == 0 or step == settings.iterations - 1:
            with torch.no_grad():
                unknown.copy_(keep(unknown))
    return unknown.detach(), torch.tensor(losses, dtype=torch.float64)
