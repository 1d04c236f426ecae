"""Goal + directions → Λ: the low-rank change of a layer's weight that draws what is wanted (method.md, "Solving").

With ``W' = W + Λ D`` the response is linear in Λ::

    respond(k, W') = respond(k, W) + Σ_b Λ_b · respond(D k, e_b)

over the ``B = R·kh·kw`` one-hot weights ``e_b``. So the base response and the B basis responses are computed once, on
the whole map, and each step of the solver is a thin matrix product over the pasted box. This holds for any linear
map: stride, transposition, padding, crop and blur are inside `Generator.respond`.

The objective is unit-free::

    mean |wanted - value(Λ)| / (the same at Λ = 0)  +  locality · E‖respond(k, ΛD)‖² / E‖respond(k, W)‖²

Both expectations are over every output position of a sample of pictures, so the second term is the relative squared
change elsewhere. It is the exact quadratic ``tr(Λ M Λᵀ)`` with ``M`` [B, B] the second moment of the basis responses:
correlation between neighbouring taps, phases of a stride, and borders are all in it.

The minimiser is iteratively reweighted least squares: |x| is replaced by the parabola that touches √(x² + ε²) where x
is now, ε is halved from the starting residual down to `SMOOTHING` of it, and each parabola is minimised by one
Gauss–Newton step (exact where the value is linear in Λ). A quasi-Newton method with a line search stalls at the kinks
of the L1 norm.

Shapes: D [R, C], Λ [O, R, kh, kw]; flattened, Λ is [O, B].
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rewrite_core.errors import Cancelled
from rewrite_core.generators import Generator, Progress
from rewrite_core.rules.goal import Goal
from rewrite_core.rules.settings import SolverSettings
from rewrite_core.statistics import LayerStatistics

__all__ = ["Solved", "basis_responses", "change", "loss_of", "response_moment", "solve"]

SMOOTHING = 1e-3
"""The smallest ε, as a share of the residual at the start."""
DAMPING = 1e-6
"""Added to the penalty's diagonal, as a share of M's largest: taps that nothing in the sample uses stay bounded."""
HALVINGS = 8
ENOUGH = 1e-3
"""Stop when a step at the smallest ε lowers the objective by less than this share."""


@dataclass(frozen=True)
class Solved:
    """Λ and what is true of it.

    Attributes:
        delta: Λ [O, R, kh, kw].
        loss_before: mean L1 between wanted and present values in the box, under the pristine weight.
        loss: the same under ``W + ΛD``, recomputed from that very weight.
        elsewhere: relative change over everything the generator draws, ``(E‖respond(k, ΛD)‖² / E‖respond(k, W)‖²)^½``.
        iterations: solver iterations taken.
        stopped: ``converged``, ``iterations`` or ``cancelled``; in every case Λ is the best seen.
        seconds: time in the solver.
    """

    delta: Tensor
    loss_before: float
    loss: float
    elsewhere: float
    iterations: int
    stopped: str
    seconds: float

    def summary(self) -> dict[str, float | int | str]:
        """Everything but Λ, for files and scripts."""
        return {
            "loss_before": self.loss_before,
            "loss": self.loss,
            "elsewhere": self.elsewhere,
            "iterations": self.iterations,
            "stopped": self.stopped,
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class _Problem:
    """Everything that is constant while Λ changes."""

    value: Callable[[Tensor], Tensor]
    """Λ [O, B] → values in the box [1, O, bh, bw]."""
    wanted: Tensor
    moment: Tensor
    scale: float
    residual: float
    locality: float

    def spread(self, flat: Tensor) -> Tensor:
        """Relative squared change elsewhere."""
        changed: Tensor = ((flat @ self.moment) * flat).sum() / self.scale
        return changed

    def objective(self, flat: Tensor, smooth: float = 0.0) -> float:
        """Loss (its absolute values smoothed) plus the penalty, both unit-free."""
        off = self.wanted - self.value(flat)
        loss = off.square().add(smooth**2).sqrt().mean() / self.residual
        return float(loss + self.locality * self.spread(flat))

    def descend(self, flat: Tensor, smooth: float) -> Tensor:
        """One step down the smoothed objective, halved until it is one."""
        start, step = self.objective(flat, smooth), self.step(flat, smooth)
        for halving in range(HALVINGS):
            if self.objective(flat + step / 2**halving, smooth) <= start:
                return flat + step / 2**halving
        return flat

    def step(self, flat: Tensor, smooth: float) -> Tensor:
        """Gauss–Newton step [O, B] of the reweighted least squares that touches the smoothed objective at Λ.

        Output channels do not share any unknown, so each has a B × B system of its own.
        """
        directions = torch.eye(flat.shape[1], device=flat.device)[:, None].expand(
            -1, *flat.shape
        )  # [B, O, B]
        slopes = torch.func.vmap(lambda along: torch.func.jvp(self.value, (flat,), (along,))[1])(directions)
        slopes = slopes.flatten(3).squeeze(1).transpose(0, 1)  # [B, 1, O, bh, bw] → [O, B, P]
        off = (self.wanted - self.value(flat)).flatten(2).squeeze(0)  # [O, P]
        weight = 1 / (off.square() + smooth**2).sqrt() / (off.numel() * self.residual)  # [O, P]
        penalty = 2 * self.locality / self.scale * self.moment
        penalty = penalty + DAMPING * self.moment.diagonal().amax() / self.scale * torch.eye(len(penalty)).to(
            penalty
        )
        curvature = (slopes * weight[:, None]) @ slopes.transpose(1, 2) + penalty  # [O, B, B]
        downhill = (slopes @ (weight * off).unsqueeze(2)).squeeze(2) - flat @ penalty  # [O, B]
        step: Tensor = torch.linalg.solve(curvature, downhill)
        return step


def solve(
    generator: Generator,
    goal: Goal,
    directions: Tensor,
    statistics: LayerStatistics,
    settings: SolverSettings,
    progress: Progress | None = None,
) -> Solved:
    """Solve for Λ along `directions` [R, C]; `statistics` of the layer tell what else it draws.

    `progress(iteration, settings.iterations)` may raise `Cancelled`: the best Λ so far is returned.
    """
    started = time.perf_counter()
    layer = generator.layer(goal.at.layer)
    shape = (layer.out_channels, len(directions), *layer.convolution.kernel)
    problem = _prepare(generator, goal, directions, statistics, settings.locality)
    flat, iterations, stopped = _minimise(problem, shape, settings.iterations, progress)
    delta = flat.reshape(shape)
    return Solved(
        delta=delta,
        loss_before=loss_of(generator, goal, generator.weight(layer.name)),
        loss=loss_of(generator, goal, generator.weight(layer.name) + change(delta, directions)),
        elsewhere=math.sqrt(max(0.0, float(problem.spread(flat)))),
        iterations=iterations,
        stopped=stopped,
        seconds=time.perf_counter() - started,
    )


def change(delta: Tensor, directions: Tensor) -> Tensor:
    """ΛD: delta [O, R, kh, kw] and directions [R, C] → the change of the weight [O, C, kh, kw]."""
    return torch.einsum("oryx,rc->ocyx", delta, directions)


def loss_of(generator: Generator, goal: Goal, weight: Tensor) -> float:
    """Mean L1 in the box between the wanted values and those that `weight` draws."""
    top, left, bottom, right = goal.box
    off = (goal.wanted - generator.values(goal.at, weight))[..., top:bottom, left:right]
    return float(off.abs().mean())


def basis_responses(generator: Generator, layer: str, keys: Tensor, directions: Tensor) -> Tensor:
    """Responses to every one-hot Λ: keys [N, C, h, w] → [N, B, H, W] with B = R·kh·kw, in Λ's order."""
    rank, taps = len(directions), generator.layer(layer).convolution.kernel
    projected = torch.einsum("nchw,rc->nrhw", keys, directions)  # [N, R, h, w]
    one_hot = torch.eye(rank * math.prod(taps), device=keys.device).reshape(-1, rank, *taps)  # [B, R, kh, kw]
    return generator.respond(layer, projected, one_hot)


def response_moment(generator: Generator, layer: str, sample: Tensor, directions: Tensor) -> Tensor:
    """Second moment [B, B] of the basis responses over every output position of the keys `sample` [M, C, h, w]."""
    size = len(directions) * math.prod(generator.layer(layer).convolution.kernel)
    moment, positions = torch.zeros(size, size, device=sample.device), 0
    for keys in torch.split(sample, 25):
        basis = basis_responses(generator, layer, keys, directions).transpose(0, 1).flatten(1)  # [B, N·H·W]
        moment, positions = moment + basis @ basis.T, positions + basis.shape[1]
    return moment / positions


@torch.no_grad()
def _prepare(
    generator: Generator, goal: Goal, directions: Tensor, statistics: LayerStatistics, locality: float
) -> _Problem:
    at, box, weight = goal.at, goal.box, generator.weight(goal.at.layer)
    top, left, bottom, right = box
    cut = (..., slice(top, bottom), slice(left, right))
    base = generator.respond(at.layer, at.keys, weight)[cut]  # [1, O, bh, bw]
    basis = basis_responses(generator, at.layer, at.keys, directions)[cut]  # [1, B, bh, bw]
    demodulated = generator.energy(at, weight) is not None

    def value(flat: Tensor) -> Tensor:
        response = base + torch.einsum("ob,nbyx->noyx", flat, basis)
        if not demodulated:
            return generator.finish(at, response, None, box)
        delta = flat.reshape(len(flat), len(directions), *weight.shape[2:])
        return generator.finish(at, response, generator.energy(at, weight + change(delta, directions)), box)

    wanted = goal.wanted[cut]
    nothing = torch.zeros(weight.shape[0], basis.shape[1], device=weight.device)
    return _Problem(
        value=value,
        wanted=wanted,
        moment=response_moment(generator, at.layer, statistics.sample, directions),
        scale=max(statistics.power, torch.finfo(torch.float32).tiny),
        residual=max(float((wanted - value(nothing)).abs().mean()), torch.finfo(torch.float32).tiny),
        locality=locality,
    )


@torch.no_grad()
def _minimise(
    problem: _Problem, shape: tuple[int, ...], iterations: int, progress: Progress | None
) -> tuple[Tensor, int, str]:
    """Reweighted Gauss–Newton from Λ = 0: the best Λ [O, B] seen, iterations taken, and why it ended."""
    flat = torch.zeros(shape[0], len(problem.moment), device=problem.moment.device)
    smooth, floor = problem.residual, SMOOTHING * problem.residual
    best, least = flat, problem.objective(flat)
    for iteration in range(iterations):
        try:
            if progress:
                progress(iteration, iterations)
        except Cancelled:
            return best, iteration, "cancelled"
        smooth = max(smooth / 2, floor)
        flat = problem.descend(flat, smooth)
        value, previous = problem.objective(flat), least
        if value < least:
            best, least = flat, value
        if smooth == floor and previous - value <= ENOUGH * previous:
            return best, iteration + 1, "converged"
    return best, iterations, "iterations"
