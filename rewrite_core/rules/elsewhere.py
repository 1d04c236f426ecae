"""What a rule changes elsewhere: the expected squared change of a layer's response over everything the generator draws.

With ``W' = W + ΛD`` and the basis responses ``B = respond(D k, e_b)`` [B, …] of a sample of pictures, the response
changes by ``Λ B``. For a plain layer its expected square is exactly ``tr(Λ M Λᵀ)``, with ``M = E[B Bᵀ]`` over every
output position: correlation between neighbouring taps, phases of a stride, and borders are all in it.

Where the layer is demodulated, the response is scaled by ``r = (E + 1e-8)^-½`` with ``E`` the energy, and a rule
changes ``E`` in every picture, whether its keys are there or not. The change is ``r'(y + ΛB) - r y``, with ``y =
respond(k, W)``; its expected square is again closed, picture by picture and channel by channel, in ``p = E[y²]``,
``c = E[B y]``, ``M`` and the energy's own quadratic::

    r'² (p + 2 c·Λ + ΛᵀMΛ)  -  2 r r' (p + c·Λ)  +  r² p

Both give, for flat Λ [O, B], the relative change of each output channel and the parabola that the solver needs. All is
float64: a moment rounded to float32 has negative eigenvalues, along which a rule could grow without a penalty.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from rewrite_core.generators import EPSILON, Generator, LayerInput
from rewrite_core.rules.low_rank import basis_responses, response_moment
from rewrite_core.statistics import LayerStatistics

__all__ = ["Elsewhere", "Energy", "elsewhere", "energy_of"]


class Elsewhere(Protocol):
    """Relative squared change elsewhere, of flat Λ [O, B]."""

    def spread(self, flat: Tensor) -> Tensor:
        """Each output channel's share [O]."""
        ...

    def parabola(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Half the curvature [O or 1, B, B] of the parabola that touches it at Λ, and half its slope [O, B]."""
        ...


def elsewhere(generator: Generator, statistics: LayerStatistics, directions: Tensor) -> Elsewhere:
    """What a rule along `directions` [R, C] changes elsewhere at the layer of `statistics`."""
    layer, sample = statistics.layer, statistics.sample
    if generator.scales(sample) is None:
        moment = response_moment(generator, layer, sample.keys, directions)
        return _Plain(moment / (statistics.power or 1.0))
    seen, y = sample.first(len(statistics.responses)), statistics.responses.flatten(2)  # [N, O, P]
    basis = basis_responses(generator, layer, seen.keys, directions).flatten(2)  # [N, B, P]
    positions = y.shape[2]
    cross = torch.stack([(own @ of.T) for own, of in zip(y, basis, strict=True)])  # [N, O, B]
    return _Demodulated(
        energy=energy_of(generator, seen, directions),
        power=torch.stack([own.double().square().sum(1) for own in y]) / positions,  # [N, O]
        cross=cross.double() / positions,
        moment=torch.einsum("nbp,ncp->nbc", basis.double(), basis.double()) / positions,
        scale=statistics.power or 1.0,
    )


@dataclass(frozen=True, eq=False)
class _Plain:
    moment: Tensor  # [B, B], over the power of the response

    def spread(self, flat: Tensor) -> Tensor:
        changed: Tensor = ((flat.double() @ self.moment) * flat).sum(1)
        return changed

    def parabola(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        return self.moment[None], flat.double() @ self.moment


@dataclass(frozen=True, eq=False)
class _Demodulated:
    energy: Energy
    power: Tensor  # p [N, O]
    cross: Tensor  # c [N, O, B]
    moment: Tensor  # M [N, B, B]
    scale: float

    def spread(self, flat: Tensor) -> Tensor:
        flat = flat.double()
        before, after = (
            self.energy.at(point).add(EPSILON).rsqrt() for point in (torch.zeros_like(flat), flat)
        )
        mixed = torch.einsum("nob,ob->no", self.cross, flat)  # c·Λ
        spread = torch.einsum("ob,nbc,oc->no", flat, self.moment, flat)  # ΛᵀMΛ
        changed = (
            after**2 * (self.power + 2 * mixed + spread)
            - 2 * before * after * (self.power + mixed)
            + before**2 * self.power
        )
        return changed.mean(0) / self.scale

    def parabola(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Gauss–Newton: the change u has the slope J = r'(B - γ (y + ΛB)), with γ the half slope of log E."""
        flat = flat.double()
        drawn = self.energy.at(flat).add(EPSILON)  # [N, O]
        before, after = self.energy.at(torch.zeros_like(flat)).add(EPSILON).rsqrt(), drawn.rsqrt()
        gamma = self.energy.half_slope(flat) / drawn[..., None]  # γ [N, O, B]
        reach = torch.einsum("nbc,oc->nob", self.moment, flat)  # MΛ
        seen = self.cross + reach  # E[B (y + ΛB)]
        mixed = torch.einsum("nob,ob->no", self.cross, flat)
        now = self.power + 2 * mixed + torch.einsum("nob,ob->no", reach, flat)  # E[(y + ΛB)²]
        weight = after**2 / (len(drawn) * self.scale)  # [N, O]
        outer = torch.einsum("no,nob,noc->obc", weight, gamma, seen)
        curvature = (
            torch.einsum("no,nbc->obc", weight, self.moment)
            - outer
            - outer.mT
            + torch.einsum("no,nob,noc->obc", weight * now, gamma, gamma)
        )
        ratio = before / after  # r / r'
        pull = (
            seen
            - gamma * now[..., None]
            - ratio[..., None] * (self.cross - gamma * (self.power + mixed)[..., None])
        )
        return curvature, torch.einsum("no,nob->ob", weight, pull)


@dataclass(frozen=True, eq=False)
class Energy:
    """The energy of ``W + ΛD`` as a quadratic in flat Λ [O, B]: ``a + 2 Λ·b + ΛᵀGΛ``, float64."""

    a: Tensor  # [N, O]
    b: Tensor  # [N, O, B]
    G: Tensor  # [N, B, B]

    def at(self, flat: Tensor) -> Tensor:
        """The energy [N, O]."""
        flat = flat.double()
        linear = torch.einsum("nob,ob->no", self.b, flat)
        return self.a + 2 * linear + torch.einsum("ob,nbc,oc->no", flat, self.G, flat)

    def half_slope(self, flat: Tensor) -> Tensor:
        """Half of ∂energy/∂Λ, [N, O, B]."""
        return self.b + torch.einsum("nbc,oc->nob", self.G, flat.double())


def energy_of(generator: Generator, at: LayerInput, directions: Tensor) -> Energy:
    """The energy's coefficients for the batch `at` [N], with s its scales: Σ s²W², Σ s² W d, Σ s² d dᵀ."""
    scales, weight = generator.scales(at), generator.weight(at.layer).double()
    assert scales is not None, "the layer is not demodulated"
    squares, D = scales.double().square(), directions.double()  # [N, C], [R, C]
    taps = weight.shape[2] * weight.shape[3]
    read = torch.einsum("nc,rc->nrc", squares, D)  # s² d
    b = torch.einsum("nrc,ocyx->noryx", read, weight)  # [N, O, R, kh, kw]
    G = torch.einsum("nrc,qc->nrq", read, D)  # [N, R, R], the same for each tap
    return Energy(
        a=squares @ weight.square().sum((2, 3)).T,
        b=b.flatten(2),
        G=torch.kron(G.contiguous(), torch.eye(taps).to(G)[None]),
    )
