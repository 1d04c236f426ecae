"""Goal + directions → Λ: the low-rank change of a layer's weight that draws what is wanted (method.md, "Solving").

With ``W' = W + Λ D`` the response is linear in Λ::

    respond(k, W') = respond(k, W) + Σ_b Λ_b · respond(D k, e_b)

over the ``B = R·kh·kw`` one-hot weights ``e_b``. So the base response and the B basis responses are computed once, on
the whole map, and each step of the solver is a thin matrix product over the pasted box. This holds for any linear
map: stride, transposition, padding, crop and blur are inside `Generator.respond`.

The objective is unit-free::

    mean |wanted - value(Λ)| / (the same at Λ = 0)  +  locality · E‖respond(k, ΛD)‖² / E‖respond(k, W)‖²

With several goals (copy–paste examples) the first term is its mean over them (`term.py`). The second is the relative
squared change elsewhere (`elsewhere.py`; with the drift of the norm where the layer is demodulated). The demodulation's
sum of squares is a small quadratic in Λ, so no step touches the weight itself.

The minimiser is iteratively reweighted least squares: |x| is replaced by the parabola that touches √(x² + ε²) where x
is now, ε is halved from the starting residual down to `SMOOTHING` of it, and each parabola is minimised by one
Levenberg–Marquardt step. Output channels share no unknown, so each has a B × B system and a caution of its own. A
quasi-Newton method with a line search stalls at the kinks of the L1 norm.

Shapes: D [R, C], Λ [O, R, kh, kw]; flattened, Λ is [O, B].
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rewrite_core.errors import Cancelled, RequestError
from rewrite_core.generators import Generator, Progress
from rewrite_core.rules.elsewhere import Elsewhere, elsewhere
from rewrite_core.rules.goal import Goal
from rewrite_core.rules.low_rank import change
from rewrite_core.rules.settings import SolverSettings
from rewrite_core.rules.term import Term, term_of
from rewrite_core.statistics import LayerStatistics

__all__ = ["GoalLoss", "Solved", "loss_of", "solve"]

SMOOTHING = 1e-3
"""The smallest ε, as a share of the residual at the start."""
DAMPING = 1e-6
"""Added to the curvature, as a share of the penalty's largest: taps that nothing in the sample uses stay bounded."""
CAUTION, TRIALS = 1e-3, 3
"""Levenberg–Marquardt: damping at the start as a share of the curvature, and how often it is raised in one step."""
ROUNDING = 1e-6
"""A rise of the objective below this share is not one: channels that have arrived must not hold up the others."""
ENOUGH = 1e-3
"""Stop when a step at the smallest ε lowers the objective by less than this share."""
CURVATURE_BYTES = 1 << 30
"""The curvature [O, B, B], float64, takes at most this much memory."""


@dataclass(frozen=True)
class GoalLoss:
    """Mean L1 in one goal's box, under the pristine weight and under ``W + ΛD``."""

    before: float
    after: float


@dataclass(frozen=True)
class Solved:
    """Λ and what is true of it.

    Attributes:
        delta: Λ [O, R, kh, kw].
        loss_before: mean L1 between wanted and present values in the box, under the pristine weight; of several goals
            the mean.
        loss: the same under ``W + ΛD``, recomputed from that very weight.
        goals: both, of each goal; empty where a rule is no goal's (`remove`), whose losses are shares of what the
            layer draws for the pattern.
        elsewhere: relative change over everything the generator draws, ``(E‖respond(k, ΛD)‖² / E‖respond(k, W)‖²)^½``.
        iterations: solver iterations taken.
        stopped: ``converged``, ``iterations`` or ``cancelled``, in every case Λ is the best seen; or ``closed form``.
        seconds: time in the solver.
    """

    delta: Tensor
    loss_before: float
    loss: float
    elsewhere: float
    iterations: int
    stopped: str
    seconds: float
    goals: tuple[GoalLoss, ...] = ()

    def summary(self) -> dict[str, float | int | str]:
        """Everything but Λ, for files and scripts; of several goals also the losses of each, from 1 on."""
        several = self.goals if len(self.goals) > 1 else ()
        each = {
            f"{name}_{number}": loss
            for number, goal in enumerate(several, 1)
            for name, loss in (("loss_before", goal.before), ("loss", goal.after))
        }
        return {
            "loss_before": self.loss_before,
            "loss": self.loss,
            "elsewhere": self.elsewhere,
            "iterations": self.iterations,
            "stopped": self.stopped,
            "seconds": self.seconds,
            **each,
        }


@dataclass(frozen=True)
class _Problem:
    """The goals, the change elsewhere, and how they are weighed."""

    terms: Sequence[Term]
    elsewhere: Elsewhere
    damping: float
    locality: float

    def objective(self, flat: Tensor, smooth: float = 0.0) -> Tensor:
        """Mean loss plus the penalty, both unit-free: each output channel's share [O]."""
        loss = _mean(term.loss(flat, smooth) for term in self.terms)
        return loss + self.locality * self.elsewhere.penalty(flat)

    def parabola(self, flat: Tensor, smooth: float) -> tuple[Tensor, Tensor]:
        """Curvature [O, B, B] and downhill slope [O, B], float64, of the parabola that touches the objective at Λ."""
        found = [term.parabola(flat, smooth) for term in self.terms]
        penalty, uphill = self.elsewhere.parabola(flat)  # [O, B, B], [O, B]
        curvature = _mean(curved for curved, _ in found) + 2 * self.locality * penalty
        curvature = curvature + self.damping * torch.eye(flat.shape[1]).to(curvature)  # [O, B, B]
        downhill = _mean(falling for _, falling in found)
        return curvature, downhill - 2 * self.locality * uphill - self.damping * flat

    def descend(self, flat: Tensor, caution: Tensor, smooth: float) -> tuple[Tensor, Tensor]:
        """Λ one step down the smoothed objective, and the caution [O] for the next one.

        A channel that would rise is tried again with more caution; if it rises whatever the step, it stays.
        """
        curvature, downhill = self.parabola(flat, smooth)
        stiffness = torch.diag_embed(curvature.diagonal(dim1=1, dim2=2))  # [O, B, B]
        allowed = self.objective(flat, smooth) * (1 + ROUNDING)  # [O]
        rising = torch.ones_like(caution, dtype=torch.bool)
        for _ in range(TRIALS):
            stiff = curvature[rising] + caution[rising, None, None] * stiffness[rising]
            step = torch.zeros_like(flat)
            step[rising] = torch.linalg.solve(stiff, downhill[rising]).to(flat)  # [O, B]
            falls = rising & (self.objective(flat + step, smooth) <= allowed)
            flat = torch.where(falls[:, None], flat + step, flat)
            caution = torch.where(falls, caution / 4, torch.where(rising, caution * 8, caution))
            rising = rising & ~falls
            if not rising.any():
                break
        return flat, caution.clamp(1e-9, 1e9)


def solve(
    generator: Generator,
    goals: Goal | Sequence[Goal],
    directions: Tensor,
    statistics: LayerStatistics,
    settings: SolverSettings,
    progress: Progress | None = None,
) -> Solved:
    """Solve for Λ along `directions` [R, C]; `statistics` of the layer tell what else it draws.

    Several goals, all at that layer, count alike: each loss is relative to what it was.
    `progress(iteration, settings.iterations)` may raise `Cancelled`: the best Λ so far is returned.

    Raises:
        RequestError: if there are too many unknowns to hold their curvature.
    """
    started = time.perf_counter()
    goals = (goals,) if isinstance(goals, Goal) else tuple(goals)
    layer = generator.layer(statistics.layer)
    shape = (layer.out_channels, len(directions), *layer.convolution.kernel)
    _require_room(layer.name, shape)
    problem = _prepare(generator, goals, directions, statistics, settings.locality)
    flat, iterations, stopped = _minimise(problem, shape, settings.iterations, progress)
    delta = flat.reshape(shape)
    weight = generator.weight(layer.name) + change(delta, directions)
    losses = tuple(
        GoalLoss(term.loss_before, loss_of(generator, goal, weight))
        for term, goal in zip(problem.terms, goals, strict=True)
    )
    return Solved(
        delta=delta,
        loss_before=sum(loss.before for loss in losses) / len(losses),
        loss=sum(loss.after for loss in losses) / len(losses),
        elsewhere=problem.elsewhere.change(flat),
        iterations=iterations,
        stopped=stopped,
        seconds=time.perf_counter() - started,
        goals=losses,
    )


def loss_of(generator: Generator, goal: Goal, weight: Tensor) -> float:
    """Mean L1 in the box between the wanted values and those that `weight` draws."""
    top, left, bottom, right = goal.box
    off = (goal.wanted - generator.values(goal.at, weight))[..., top:bottom, left:right]
    return float(off.abs().mean())


def _require_room(layer: str, shape: tuple[int, ...]) -> None:
    """Check that the curvature [O, B, B] of Λ [O, R, kh, kw] fits into memory."""
    channels, rank, *taps = shape
    most = math.isqrt(CURVATURE_BYTES // (8 * channels)) // math.prod(taps)
    if rank > most:
        raise RequestError(
            found=f"rank {rank} at {layer}, which is {math.prod(shape):,} unknowns",
            expected=f"a rank of at most {most} there",
            remedy="Lower the rank, or choose another layer.",
        )


@torch.no_grad()
def _prepare(
    generator: Generator,
    goals: Sequence[Goal],
    directions: Tensor,
    statistics: LayerStatistics,
    locality: float,
) -> _Problem:
    terms = [term_of(generator, goal, directions) for goal in goals]
    changed = elsewhere(generator, statistics, directions)
    bases = [term.basis for term in terms]
    nothing = torch.zeros(terms[0].base.shape[1], bases[0].shape[1], device=bases[0].device)
    stiffest = changed.parabola(nothing)[0].diagonal(dim1=1, dim2=2).amax()
    for basis in bases:
        stiffest = torch.maximum(stiffest, basis.square().mean((0, 2, 3)).amax() / (statistics.power or 1.0))
    return _Problem(
        terms=terms,
        elsewhere=changed,
        damping=DAMPING * float(stiffest) or 1.0,  # any will do where nothing fires
        locality=locality,
    )


def _mean(shares: Iterable[Tensor]) -> Tensor:
    first, *others = shares
    return sum(others, first) / (1 + len(others)) if others else first


@torch.no_grad()
def _minimise(
    problem: _Problem, shape: tuple[int, ...], iterations: int, progress: Progress | None
) -> tuple[Tensor, int, str]:
    """Reweighted least squares from Λ = 0: the best Λ [O, B] seen, iterations taken, and why it ended."""
    flat = torch.zeros(shape[0], math.prod(shape[1:]), device=problem.terms[0].base.device)
    caution = torch.full((shape[0],), CAUTION, dtype=torch.float64, device=flat.device)
    smooth = 1.0  # ε, in each goal's own residual
    best, least = flat, problem.objective(flat)
    for iteration in range(iterations):
        try:
            if progress:
                progress(iteration, iterations)
        except Cancelled:
            return best, iteration, "cancelled"
        smooth = max(smooth / 2, SMOOTHING)
        flat, caution = problem.descend(flat, caution, smooth)
        value, previous = problem.objective(flat), float(least.sum())
        best = torch.where((value < least)[:, None], flat, best)
        least = torch.minimum(value, least)
        if smooth == SMOOTHING and previous - float(least.sum()) <= ENOUGH * previous:
            return best, iteration + 1, "converged"
    return best, iterations, "iterations"
