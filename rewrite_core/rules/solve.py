"""Goal + directions → Λ: the low-rank change of a layer's weight that draws what is wanted (method.md, "Solving").

With ``W' = W + Λ D`` the response is linear in Λ::

    respond(k, W') = respond(k, W) + Σ_b Λ_b · respond(D k, e_b)

over the ``B = R·kh·kw`` one-hot weights ``e_b``. So the base response and the B basis responses are computed once, on
the whole map, and each step of the solver is a thin matrix product over the pasted box. This holds for any linear
map: stride, transposition, padding, crop and blur are inside `Generator.respond`.

The objective is unit-free::

    mean |wanted - value(Λ)| / (the same at Λ = 0)  +  locality · E‖respond(k, ΛD)‖² / E‖respond(k, W)‖²

The second term is the relative squared change elsewhere (`elsewhere.py`; with the drift of the norm where the layer is
demodulated). The demodulation's sum of squares is a small quadratic in Λ, so no step touches the weight itself.

The minimiser is iteratively reweighted least squares: |x| is replaced by the parabola that touches √(x² + ε²) where x
is now, ε is halved from the starting residual down to `SMOOTHING` of it, and each parabola is minimised by one
Levenberg–Marquardt step. Output channels share no unknown, so each has a B × B system and a caution of its own. A
quasi-Newton method with a line search stalls at the kinks of the L1 norm.

Shapes: D [R, C], Λ [O, R, kh, kw]; flattened, Λ is [O, B].
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd import grad

from rewrite_core.errors import Cancelled, RequestError
from rewrite_core.generators import Generator, Progress
from rewrite_core.rules.elsewhere import Elsewhere, Energy, elsewhere, energy_of
from rewrite_core.rules.goal import Goal
from rewrite_core.rules.low_rank import basis_responses, change
from rewrite_core.rules.settings import SolverSettings
from rewrite_core.statistics import LayerStatistics

__all__ = ["Solved", "loss_of", "solve"]

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
    """Everything that is constant while Λ [O, B] changes; maps are cut to the box, P = bh·bw."""

    base: Tensor  # [1, O, bh, bw] respond(k, W)
    basis: Tensor  # [1, B, bh, bw]
    wanted: Tensor  # [1, O, bh, bw]
    finish: Callable[[Tensor, Tensor | None], Tensor]
    """Response and energy [1, O] → values [1, O, bh, bw], position by position."""
    energy: Energy | None
    elsewhere: Elsewhere
    damping: float
    loss_before: float
    locality: float

    @property
    def residual(self) -> float:
        """The unit of the loss."""
        return self.loss_before or 1.0

    def response(self, flat: Tensor) -> Tensor:
        """``respond(k, W + ΛD)``, [1, O, bh, bw]."""
        return self.base + torch.einsum("ob,nbyx->noyx", flat, self.basis)

    def value(self, flat: Tensor) -> Tensor:
        """What ``W + ΛD`` draws, [1, O, bh, bw]."""
        return self.finish(self.response(flat), self.drawn(flat))

    def drawn(self, flat: Tensor) -> Tensor | None:
        """The energy of ``W + ΛD`` [1, O]; None where nothing is demodulated."""
        return None if self.energy is None else self.energy.at(flat).to(self.base)

    def objective(self, flat: Tensor, smooth: float = 0.0) -> Tensor:
        """Loss (its absolute values smoothed) plus the penalty, both unit-free: each output channel's share [O]."""
        off = (self.wanted - self.value(flat)).flatten(2).squeeze(0)  # [O, P]
        loss = off.square().add(smooth**2).sqrt().sum(1) / (off.numel() * self.residual)
        return loss + self.locality * self.elsewhere.penalty(flat)

    def parabola(self, flat: Tensor, smooth: float) -> tuple[Tensor, Tensor]:
        """Curvature [O, B, B] and downhill slope [O, B], float64, of the parabola that touches the objective at Λ."""
        slopes = self.slopes(flat)  # [O, B, P]
        off = (self.wanted - self.value(flat)).flatten(2).squeeze(0)  # [O, P]
        weight = 1 / (off.square() + smooth**2).sqrt() / (off.numel() * self.residual)  # [O, P]
        penalty, uphill = self.elsewhere.parabola(flat)  # [O, B, B], [O, B]
        scaled = slopes * weight.sqrt()[:, None]
        curvature = (scaled @ scaled.mT).double() + 2 * self.locality * penalty
        curvature = curvature + self.damping * torch.eye(flat.shape[1]).to(curvature)  # [O, B, B]
        downhill = (slopes @ (weight * off)[:, :, None]).squeeze(2).double()  # [O, B]
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

    def slopes(self, flat: Tensor) -> Tensor:
        """∂value/∂Λ at each position [O, B, P]: through the response, and through the energy if there is one."""
        basis = self.basis.flatten(2)  # [1, B, P]
        with torch.enable_grad():
            response, energy = self.response(flat).detach().requires_grad_(), self.drawn(flat)
            if self.energy is None or energy is None:
                (gain,) = grad(self.finish(response, None).sum(), response)  # [1, O, bh, bw]
                return gain.flatten(2).transpose(0, 1) * basis  # [O, 1, P] · [1, B, P]
            drawn = energy.detach().requires_grad_()
            value = self.finish(response, drawn)
            probe = torch.ones_like(value, requires_grad=True)
            gain, pull = grad(value, (response, drawn), probe, create_graph=True)  # [1, O, bh, bw], [1, O]
            (fading,) = grad(pull.sum(), probe)  # [1, O, bh, bw] ∂value/∂energy, read off its transpose
        growth = 2 * self.energy.half_slope(flat)[0].to(flat)  # [O, B] ∂energy/∂Λ
        through_energy = fading.flatten(2).transpose(0, 1) * growth[:, :, None]  # [O, 1, P] · [O, B, 1]
        return gain.detach().flatten(2).transpose(0, 1) * basis + through_energy


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

    Raises:
        RequestError: if there are too many unknowns to hold their curvature.
    """
    started = time.perf_counter()
    layer = generator.layer(goal.at.layer)
    shape = (layer.out_channels, len(directions), *layer.convolution.kernel)
    _require_room(layer.name, shape)
    problem = _prepare(generator, goal, directions, statistics, settings.locality)
    flat, iterations, stopped = _minimise(problem, shape, settings.iterations, progress)
    delta = flat.reshape(shape)
    return Solved(
        delta=delta,
        loss_before=problem.loss_before,
        loss=loss_of(generator, goal, generator.weight(layer.name) + change(delta, directions)),
        elsewhere=problem.elsewhere.change(flat),
        iterations=iterations,
        stopped=stopped,
        seconds=time.perf_counter() - started,
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
    generator: Generator, goal: Goal, directions: Tensor, statistics: LayerStatistics, locality: float
) -> _Problem:
    at, box, weight = goal.at, goal.box, generator.weight(goal.at.layer)
    top, left, bottom, right = box
    cut = (..., slice(top, bottom), slice(left, right))
    base = generator.respond(at.layer, at.keys, weight)[cut]  # [1, O, bh, bw]
    basis = basis_responses(generator, at.layer, at.keys, directions)[cut]  # [1, B, bh, bw]
    wanted = goal.wanted[cut]  # [1, O, bh, bw]
    present = generator.finish(at, base, generator.energy(at, weight), box)
    changed = elsewhere(generator, statistics, directions)
    nothing = torch.zeros(len(weight), basis.shape[1], device=weight.device)
    stiffest = changed.parabola(nothing)[0].diagonal(dim1=1, dim2=2).amax()
    stiffest = torch.maximum(stiffest, basis.square().mean((0, 2, 3)).amax() / (statistics.power or 1.0))
    return _Problem(
        base=base,
        basis=basis,
        wanted=wanted,
        finish=lambda response, energy: generator.finish(at, response, energy, box),
        energy=None if generator.scales(at) is None else energy_of(generator, at, directions),
        elsewhere=changed,
        damping=DAMPING * float(stiffest) or 1.0,  # any will do where nothing fires
        loss_before=float((wanted - present).abs().mean()),
        locality=locality,
    )


@torch.no_grad()
def _minimise(
    problem: _Problem, shape: tuple[int, ...], iterations: int, progress: Progress | None
) -> tuple[Tensor, int, str]:
    """Reweighted least squares from Λ = 0: the best Λ [O, B] seen, iterations taken, and why it ended."""
    flat = torch.zeros(shape[0], math.prod(shape[1:]), device=problem.base.device)
    caution = torch.full((shape[0],), CAUTION, dtype=torch.float64, device=flat.device)
    smooth, floor = problem.residual, SMOOTHING * problem.residual
    best, least = flat, problem.objective(flat)
    for iteration in range(iterations):
        try:
            if progress:
                progress(iteration, iterations)
        except Cancelled:
            return best, iteration, "cancelled"
        smooth = max(smooth / 2, floor)
        flat, caution = problem.descend(flat, caution, smooth)
        value, previous = problem.objective(flat), float(least.sum())
        best = torch.where((value < least)[:, None], flat, best)
        least = torch.minimum(value, least)
        if smooth == floor and previous - float(least.sum()) <= ENOUGH * previous:
            return best, iteration + 1, "converged"
    return best, iterations, "iterations"
