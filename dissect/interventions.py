"""Interventions: units or directions of a layer forced to a value, everywhere or in a region; and the picture drawn on.

Bau et al., *GAN Dissection* (ICLR 2019), sections 3.2 and 4.3: what units cause is seen by forcing them. *Ablation*
forces them to 0, *insertion* to a constant that stands for a concept: the mean of each unit where the concept is
(`concept_values`, the paper's choice), or a high quantile of the unit (`quantile_values`). At each position, with the M
readings ``r = D k`` of its key k [C], values v [M], and the share s of the position that is forced::

    k  ←  k + s · P (v - D k)

* *Units*: D picks them, and P puts them back. With s = 1 the unit is v, to the bit.
* *Directions* are queries; the pattern that a query stands for is ``C d``, so ``P = C Dᵀ (D C Dᵀ)⁻¹`` [C, M] with C the
  layer's second moment. Afterwards the readings are v, and what is not correlated with them stays.

s is `strength`, from 0 (untouched, to the bit) to 1 (forced), times the share of the position that `region` covers. A
strength above 1 would be another value, or an ablated unit turned negative; give the value instead. A region is painted
in pixels of the picture, is brought to the layer's grid by averaging over the area of each cell, as in GANPaint (Bau et
al. 2019b), and never touches a layer's margins. Without a region the whole map is forced, margins included: the unit is
gone.

A unit of a layer is a channel of its *keys*. Of StyleGAN2 these are modulated by the style, and its picture also takes
from the unmodulated map, through toRGB, what an intervention does not reach.

    eyes = ablate("l08", [3, 17])
    pictures = sample(generator, spec, [eyes])  # [N, 3, R, R]

    at = generator.keys(latents, "l08")  # for live pages: stop once, draw many variants
    picture = finished(generator, at, [insert("l08", [3], [2.5], region=brush)])

An intervention is a frozen value, and the generator is never changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor
from torch.nn import functional

from dissect.shares import concept_index
from dissect.targets import Directions, Target, Units
from rewrite_core.errors import LayerError, MaskError, RequestError
from rewrite_core.generators import Generator, Latents, LatentSpec, Layer, LayerInput, Progress
from rewrite_core.pictures import Mask
from rewrite_core.statistics import Conditional, Histogram

__all__ = [
    "Directions",
    "Intervention",
    "Units",
    "ablate",
    "ablate_directions",
    "apply",
    "check",
    "concept_values",
    "finished",
    "first_layer",
    "insert",
    "quantile_values",
    "sample",
]

LARGEST = torch.finfo(torch.float32).max


@dataclass(frozen=True, eq=False)
class Intervention:
    """The readings of `target` at `layer` forced to `values`; see the module's formula.

    Attributes:
        values: one a reading; all 0 is an ablation.
        strength: from 0 to 1.
        region: in pixels of the picture; None: everywhere.
    """

    layer: str
    target: Target
    values: tuple[float, ...]
    strength: float = 1.0
    region: Mask | None = None

    def __post_init__(self) -> None:
        if not self.values or len(self.values) != len(self.target):
            raise RequestError(
                found=f"{len(self.values)} values for {len(self.target)} units or directions",
                expected="at least one unit or direction, and a value for each",
                remedy="Choose some units, and give each its value.",
            )
        if not all(abs(value) <= LARGEST for value in self.values):  # NaN is neither
            raise RequestError(
                found="a value that is NaN or infinite, or too large for float32",
                expected="numbers",
                remedy="Take a mean or a quantile of the unit.",
            )
        if not 0 <= self.strength <= 1:
            raise RequestError(
                found=f"strength {self.strength:g}",
                expected="from 0 (untouched) to 1 (forced)",
                remedy="For a stronger insertion give a greater value.",
            )
        if self.region is not None and self.region.empty:
            raise MaskError(
                found="an empty region", expected="a painted one", remedy="Paint where to intervene."
            )

    def __str__(self) -> str:
        kind = "insert" if any(self.values) else "ablate"
        where = "" if self.region is None else " in a region"
        strength = "" if self.strength == 1 else f" at strength {self.strength:g}"
        return f"{kind} {self.target} of {self.layer}{where}{strength}"


def ablate(
    layer: str, units: Iterable[int], *, strength: float = 1.0, region: Mask | None = None
) -> Intervention:
    """Force `units` of `layer` to 0.

    Raises:
        RequestError: no unit, or a strength that is not from 0 to 1.
        MaskError: an empty region.
    """
    target = Units(tuple(units))
    return Intervention(layer, target, (0.0,) * len(target), strength, region)


def insert(
    layer: str,
    units: Iterable[int],
    values: Iterable[float],
    *,
    strength: float = 1.0,
    region: Mask | None = None,
) -> Intervention:
    """Force `units` of `layer` to `values`, one each.

    Raises:
        RequestError: not one finite value a unit, no unit, or a strength that is not from 0 to 1.
        MaskError: an empty region.
    """
    return Intervention(layer, Units(tuple(units)), tuple(map(float, values)), strength, region)


def ablate_directions(
    layer: str,
    directions: Tensor,
    second_moment: Tensor,
    *,
    strength: float = 1.0,
    region: Mask | None = None,
) -> Intervention:
    """Take what the queries `directions` [M, C] match out of the keys of `layer`.

    Raises:
        RequestError: see `Directions.of`; or a strength that is not from 0 to 1.
        MaskError: an empty region.
    """
    target = Directions.of(directions, second_moment)
    return Intervention(layer, target, (0.0,) * len(target), strength, region)


# Values to insert


def concept_values(conditional: Conditional, concept: str, units: Sequence[int]) -> tuple[float, ...]:
    """The mean of each of `units` where `concept` is (Bau et al. 2019, section 3.2).

    Raises:
        RequestError: no such concept or unit, or the concept was never seen.
    """
    label = concept_index(conditional.labeller.names, concept)
    if not conditional.share(label):
        raise RequestError(
            found=f"'{concept}' in none of {conditional.samples:,} samples",
            expected="a concept that is in some",
            remedy="Give the values by hand, or draw more samples.",
        )
    return _taken(conditional.mean(label), units)


def quantile_values(histogram: Histogram, units: Sequence[int], quantile: float = 0.995) -> tuple[float, ...]:
    """A high quantile of each of `units` over everything, which the published interface inserts.

    Raises:
        RequestError: no such unit, or a quantile that is not from 0 to 1.
    """
    return _taken(histogram.quantile([quantile])[:, 0], units)


def _taken(values: Tensor, units: Sequence[int]) -> tuple[float, ...]:
    wrong = [unit for unit in units if not 0 <= unit < len(values)]
    if wrong:
        raise RequestError(
            found=f"unit {wrong[0]}", expected=f"units from 0 to {len(values) - 1}", remedy="Choose others."
        )
    return tuple(values[list(units)].tolist())


# Applying


def check(generator: Generator, interventions: Iterable[Intervention]) -> None:
    """See that `generator` has what they force, and pictures of their regions' size.

    Raises:
        LayerError: no such layer.
        RequestError: no such unit, or directions of another width.
        MaskError: a region of another size.
    """
    for one in interventions:
        one.target.check(generator.layer(one.layer))
        if one.region is not None and one.region.size != generator.picture_size:
            (height, width), (tall, wide) = one.region.size, generator.picture_size
            raise MaskError(
                found=f"a region of {height}×{width} pixels",
                expected=f"{tall}×{wide}, as {generator.name} draws",
                remedy="Paint it on a picture of this generator.",
            )


@torch.no_grad()
def apply(generator: Generator, at: LayerInput, intervention: Intervention) -> LayerInput:
    """The batch with its keys intervened upon; `at` itself where the strength is 0.

    Raises:
        LayerError: `at` was stopped at another layer.
        RequestError, MaskError: see `check`.
    """
    check(generator, [intervention])
    if at.layer != intervention.layer:
        raise LayerError(
            found=f"an intervention at '{intervention.layer}' for a batch at '{at.layer}'",
            expected="the same layer",
            remedy="Use `finished`, which draws on to it.",
        )
    if not intervention.strength:
        return at
    values = torch.tensor(intervention.values, dtype=at.keys.dtype, device=at.keys.device)
    share = _share(generator.layer(at.layer), intervention).to(values)
    return replace(at, keys=intervention.target.forced(at.keys, values, share))


@torch.no_grad()
def finished(generator: Generator, at: LayerInput, interventions: Sequence[Intervention]) -> Tensor:
    """The pictures [N, 3, R, R] of a batch, with interventions at its layer and at later ones.

    At each layer they are applied in the order in which they are given.

    Raises:
        LayerError: one is at an earlier layer than the batch.
        RequestError, MaskError: see `check`.
    """
    check(generator, interventions)
    depth = list(generator.layers).index
    ordered = sorted(interventions, key=lambda one: depth(one.layer))  # stable
    for layer, here in groupby(ordered, key=lambda one: one.layer):
        at = generator.onward(at, layer)
        for one in here:
            at = apply(generator, at, one)
    return generator.render(at, generator.values(at))


def first_layer(generator: Generator, interventions: Iterable[Intervention]) -> str:
    """Where to stop for them: the earliest of their layers, or any if there are none."""
    layers = [one.layer for one in interventions] or [generator.default_layer]
    return min(layers, key=list(generator.layers).index)


@torch.no_grad()
def sample(
    generator: Generator,
    spec: LatentSpec | Latents,
    interventions: Sequence[Intervention],
    progress: Progress | None = None,
) -> Tensor:
    """Pictures [N, 3, R, R] of `spec` on the CPU, with the interventions; a micro-batch at a time.

    Raises:
        LayerError, RequestError, MaskError: see `check`.
        Cancelled: from `progress`.
    """
    check(generator, interventions)
    layer, done = first_layer(generator, interventions), 0
    drawn = [torch.empty(0, 3, *generator.picture_size)]
    for block in spec.blocks(generator.micro_batch):
        at = generator.keys(generator.latents(block), layer)
        drawn.append(finished(generator, at, interventions).cpu())
        done += len(block)
        if progress:
            progress(done, len(spec))
    return torch.cat(drawn)


def _share(layer: Layer, intervention: Intervention) -> Tensor:
    """How much of each position of the layer's keys is forced, float32 [h, w]."""
    if intervention.region is None:
        return torch.full(layer.key_size, intervention.strength)
    painted = torch.from_numpy(intervention.region.pixels.copy()).float() / 255  # [R, R]
    share = torch.zeros(layer.key_size)
    inside = layer.inside(share)  # a view
    inside += functional.adaptive_avg_pool2d(painted[None], (inside.shape[0], inside.shape[1]))[0]
    return intervention.strength * share
