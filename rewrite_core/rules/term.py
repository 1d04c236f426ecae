"""One goal as the solver sees it: its loss as a function of Λ, and the parabola that touches it.

Base and basis responses are computed once, on the whole map, and cut to the box (`solve.py`). Λ is flat, [O, B] with
``B = R·kh·kw``; P = bh·bw positions. Losses are relative to that of Λ = 0, so terms of different goals can be added.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd import grad

from rewrite_core.generators import Generator
from rewrite_core.rules.elsewhere import Energy, energy_of
from rewrite_core.rules.goal import Goal
from rewrite_core.rules.low_rank import basis_responses

__all__ = ["Term", "term_of"]


@dataclass(frozen=True)
class Term:
    """One goal, and everything of it that is constant while Λ [O, B] changes; maps are cut to the box, P = bh·bw."""

    base: Tensor  # [1, O, bh, bw] respond(k, W)
    basis: Tensor  # [1, B, bh, bw]
    wanted: Tensor  # [1, O, bh, bw]
    finish: Callable[[Tensor, Tensor | None], Tensor]
    """Response and energy [1, O] → values [1, O, bh, bw], position by position."""
    energy: Energy | None
    loss_before: float

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

    def loss(self, flat: Tensor, smooth: float) -> Tensor:
        """Loss in its unit, its absolute values smoothed by `smooth` of them: each output channel's share [O]."""
        off = (self.wanted - self.value(flat)).flatten(2).squeeze(0)  # [O, P]
        near = (smooth * self.residual) ** 2
        return off.square().add(near).sqrt().sum(1) / (off.numel() * self.residual)

    def parabola(self, flat: Tensor, smooth: float) -> tuple[Tensor, Tensor]:
        """Curvature [O, B, B] and downhill slope [O, B], float64, of the parabola that touches the loss at Λ."""
        slopes = self.slopes(flat)  # [O, B, P]
        off = (self.wanted - self.value(flat)).flatten(2).squeeze(0)  # [O, P]
        near = (smooth * self.residual) ** 2
        weight = 1 / (off.square() + near).sqrt() / (off.numel() * self.residual)  # [O, P]
        scaled = slopes * weight.sqrt()[:, None]
        downhill = slopes @ (weight * off)[:, :, None]  # [O, B, 1]
        return (scaled @ scaled.mT).double(), downhill.squeeze(2).double()

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


@torch.no_grad()
def term_of(generator: Generator, goal: Goal, directions: Tensor) -> Term:
    """What of a goal does not change while Λ along `directions` [R, C] does."""
    at, box, weight = goal.at, goal.box, generator.weight(goal.at.layer)
    top, left, bottom, right = box
    cut = (..., slice(top, bottom), slice(left, right))
    base = generator.respond(at.layer, at.keys, weight)[cut]  # [1, O, bh, bw]
    wanted = goal.wanted[cut]  # [1, O, bh, bw]
    present = generator.finish(at, base, generator.energy(at, weight), box)
    return Term(
        base=base,
        basis=basis_responses(generator, at.layer, at.keys, directions)[cut],  # [1, B, bh, bw]
        wanted=wanted,
        finish=lambda response, energy: generator.finish(at, response, energy, box),
        energy=None if generator.scales(at) is None else energy_of(generator, at, directions),
        loss_before=float((wanted - present).abs().mean()),
    )
