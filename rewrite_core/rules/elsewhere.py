"""What a rule changes elsewhere: the expected squared change of a layer's response over everything the generator draws.

With ``W' = W + ΛD`` and the basis responses ``B = respond(D k, e_b)`` [B, …] of a sample of pictures, the response
changes by ``Λ B``. For a plain layer its expected square is exactly ``tr(Λ M Λᵀ)``, with ``M = E[B Bᵀ]`` over every
output position: correlation between neighbouring taps, phases of a stride, and borders are all in it.

Where the layer is demodulated, the response is scaled by ``r = (E + 1e-8)^-½`` with ``E`` the energy, and a rule
changes ``E`` in every picture, whether its keys are there or not. The change is ``r'(y + ΛB) - r y``, with ``y =
respond(k, W)``; its expected square is again closed, channel by channel, in ``p = E[y²]``, ``c = E[B y]``, ``M`` and
the growth of the energy ``E'/E = 1 + 2 Λ·b + ΛᵀGΛ``; with ``g = (E'/E)^-½``, and r² inside the expectations::

    g² (p + 2 c·Λ + ΛᵀMΛ)  -  2 g (p + c·Λ)  +  p

That is exact picture by picture. The solver's penalty averages each of p, c, M, b and G over the pictures first
(styles differ, growth hardly does), so that it costs next to nothing; what is reported is the exact figure.

Both are float64: a moment rounded to float32 has negative eigenvalues, along which a rule could grow without a penalty.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from rewrite_core.generators import EPSILON, Generator, LayerInput
from rewrite_core.rules.low_rank import basis_responses, response_moment
from rewrite_core.statistics import LayerStatistics

__all__ = ["Elsewhere", "Energy", "elsewhere", "energy_of"]


class Elsewhere(Protocol):
    """The change elsewhere of flat Λ [O, B], relative to the power of the response."""

    def penalty(self, flat: Tensor) -> Tensor:
        """The squared change, each output channel's share [O]."""
        ...

    def parabola(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Half the curvature [O or 1, B, B] of the parabola that touches the penalty at Λ; half its slope [O, B]."""
        ...

    def change(self, flat: Tensor) -> float:
        """The root of the squared change, exact over the sample."""
        ...


def elsewhere(generator: Generator, statistics: LayerStatistics, directions: Tensor) -> Elsewhere:
    """What a rule along `directions` [R, C] changes elsewhere at the layer of `statistics`."""
    layer, sample = statistics.layer, statistics.sample
    if generator.scales(sample) is None:
        moment = response_moment(generator, layer, sample.keys, directions)
        return _Plain(moment / (statistics.power or 1.0))
    seen, y = sample.first(len(statistics.responses)), statistics.responses.flatten(2)  # [N, O, P]
    basis = basis_responses(generator, layer, seen.keys, directions).flatten(2)  # [N, B, P]
    energy = energy_of(generator, seen, directions)
    gains = 1 / (energy.a + EPSILON)  # r² [N, O]
    weight = gains / (y.shape[2] * len(y) * (statistics.power or 1.0))
    pictures = _Pictures(
        power=weight * torch.stack([own.square().sum(1) for own in y]),
        cross=weight[..., None] * torch.stack([own @ of.T for own, of in zip(y, basis, strict=True)]),
        moment=torch.stack([of.double() @ of.double().T for of in basis]),
        weight=weight,
        growth=gains[..., None] * energy.b,
        curve=energy.G,
        gains=gains,
    )
    return _Demodulated(pictures, pictures.averaged())


@dataclass(frozen=True, eq=False)
class _Plain:
    moment: Tensor  # [B, B], over the power of the response

    def penalty(self, flat: Tensor) -> Tensor:
        changed: Tensor = ((flat.double() @ self.moment) * flat).sum(1)
        return changed

    def parabola(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        return self.moment[None], flat.double() @ self.moment

    def change(self, flat: Tensor) -> float:
        return math.sqrt(max(0.0, float(self.penalty(flat).sum())))


@dataclass(frozen=True, eq=False)
class _Pictures:
    """What the closed form needs, picture by picture, r² and the normalisation included in p, c and the weight of M."""

    power: Tensor  # p [N, O]
    cross: Tensor  # c [N, O, B]
    moment: Tensor  # M [N, B, B], to be weighted
    weight: Tensor  # [N, O] of M
    growth: Tensor  # b [N, O, B], over the energy
    curve: Tensor  # G [N, B, B], to be divided by the energy
    gains: Tensor  # 1 / energy [N, O]

    def averaged(self) -> _Average:
        """One stand-in for all pictures."""
        count = len(self.power)
        return _Average(
            power=self.power.sum(0),
            cross=self.cross.sum(0).double(),
            moment=torch.einsum("no,nbc->obc", self.weight, self.moment),
            growth=self.growth.mean(0),
            curve=torch.einsum("no,nbc->obc", self.gains, self.curve) / count,
        )

    def change(self, flat: Tensor) -> float:
        """The root of the exact squared change."""
        flat = flat.double()
        moving, bending = (
            torch.einsum("nob,ob->no", flat[None] @ matrix, flat) for matrix in (self.moment, self.curve)
        )
        mixed = torch.einsum("nob,ob->no", self.cross.double(), flat)
        grown = 1 + 2 * torch.einsum("nob,ob->no", self.growth, flat) + self.gains * bending
        g = grown.rsqrt()
        squared = (
            g**2 * (self.power + 2 * mixed + self.weight * moving) - 2 * g * (self.power + mixed) + self.power
        )
        return math.sqrt(max(0.0, float(squared.sum())))


@dataclass(frozen=True, eq=False)
class _Average:
    """The same, averaged over pictures: p [O], c [O, B], M [O, B, B], b [O, B], G [O, B, B]."""

    power: Tensor
    cross: Tensor
    moment: Tensor
    growth: Tensor
    curve: Tensor


@dataclass(frozen=True, eq=False)
class _Demodulated:
    pictures: _Pictures
    mean: _Average

    def penalty(self, flat: Tensor) -> Tensor:
        flat, mean = flat.double(), self.mean
        mixed = (mean.cross * flat).sum(1)  # c·Λ
        now = mean.power + 2 * mixed + (_times(mean.moment, flat) * flat).sum(1)  # E[(y + ΛB)²]
        g = (1 + 2 * (mean.growth * flat).sum(1) + (_times(mean.curve, flat) * flat).sum(1)).rsqrt()
        changed: Tensor = g**2 * now - 2 * g * (mean.power + mixed) + mean.power
        return changed

    def parabola(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Gauss–Newton: the change u has the slope J = g(B - γ (y + ΛB)), with γ half the slope of log E."""
        flat, mean = flat.double(), self.mean
        bent = _times(mean.curve, flat)
        g = (1 + 2 * (mean.growth * flat).sum(1) + (bent * flat).sum(1)).rsqrt()[:, None]  # [O, 1]
        gamma = (mean.growth + bent) * g**2  # γ [O, B]
        reach = _times(mean.moment, flat)  # MΛ
        seen = mean.cross + reach  # E[B (y + ΛB)]
        mixed = (mean.cross * flat).sum(1, keepdim=True)
        now = mean.power[:, None] + 2 * mixed + (reach * flat).sum(1, keepdim=True)  # [O, 1]
        outer = gamma[:, :, None] * seen[:, None]  # [O, B, B]
        both = gamma[:, :, None] * gamma[:, None] * now[:, :, None]
        curvature = (mean.moment - outer - outer.mT + both) * (g**2)[:, :, None]
        old = mean.cross - gamma * (mean.power[:, None] + mixed)
        return curvature, g**2 * (seen - gamma * now) - g * old

    def change(self, flat: Tensor) -> float:
        return self.pictures.change(flat)


def _times(matrices: Tensor, flat: Tensor) -> Tensor:
    """[O, B, B] times [O, B], channel by channel."""
    return (matrices @ flat[:, :, None]).squeeze(2)


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
