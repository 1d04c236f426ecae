"""The spectrum of a layer's keys, and how much of it the samples really know.

The second moment `C = E[k kᵀ]` of C units has eigenvalues λ: the power of the keys along each of its eigenvectors.
Directions are `C⁻¹ k`, so what a sample gets wrong of the *weakest* eigenvectors counts most. Positions of a picture
are correlated, and counting them says little of what a sample knows. Instead the samples are halved, and the halves
are asked about each other::

    ratio_i = v_iᵀ C₂ v_i / v_iᵀ C₁ v_i        v_i the eigenvectors of the first half's C₁, strongest first

With endless samples each ratio is 1. With few, the first half finds directions along which *it* happens to vary little;
the second shows more power there, and the ratios rise towards the weak end.

    found = spectra(generator, list(generator.layers), LatentSpec.of(range(1000)))["l08"]
    found.effective_rank, found.condition, found.stable, found.warning

`stability` judges one direction: each half is asked for the query of its pattern `p = C d`, and the two queries' heat
is compared. Inverting C makes every query about as noisy as every other, strong or weak: of normal keys, n independent
ones a half, two halves agree to 1 - C/n (by the mean and the power of an inverse Wishart matrix times a vector). Less
is known of contexts that few pictures show, and of eigenvectors so weak that float32 rounding drowns them; more where
a ridge steadies C. `noise_warning` says in a line when too little is known.

Numbers are float64 on the CPU. What is called positions is what the statistic has seen: pictures × key positions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from rewrite_core.directions.direction import Direction
from rewrite_core.errors import RequestError
from rewrite_core.generators import Generator, LatentSpec, Progress
from rewrite_core.memory import SPECTRAL_CUT, regularised, whiten
from rewrite_core.statistics import SecondMoment, Statistic, Store, gather

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "AGREEMENT",
    "FARTHEST",
    "SPREAD",
    "TOLERATED",
    "Halves",
    "Spectrum",
    "halves_of",
    "noise_warning",
    "spectra",
    "stability",
]

Halves = tuple[SecondMoment, SecondMoment]
"""Second moments of a layer over the first half of the samples, and over the second; merged they are that of all."""

SPREAD = 0.5
"""An eigenvector is stable where the halves' powers differ by no more than this share of the smaller one."""
TOLERATED = 0.05
"""Of a spectrum, this share may be unstable: weak ends of real layers always are a little."""
FARTHEST = 100.0
"""Greatest ratio that is told, and one over it the least."""
AGREEMENT = 0.9
"""A direction rests on noise where the halves agree less on it: fewer than ten independent keys for each unit."""


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The spectrum of one layer.

    Attributes:
        layer: its name.
        units: channels of its keys, C.
        alive: how many of them are not always 0.
        samples, positions: what it is over.
        eigenvalues: of the second moment over all samples, descending, [K] with K ≤ C its rank.
        effective_rank: exponential of their entropy (Roy & Vetterli 2007).
        condition: the first over the last; infinite where there is none.
        ratio: power of the first half's eigenvectors in the second half ÷ in the first, [K]; see the module.
            It is cut at `FARTHEST` either way: the first half may know nothing of a direction.
        stable: how many of the K differ by no more than `SPREAD`.
        enough: whether all but `TOLERATED` of them do.
        warning: in a line what is wrong if not; else empty.
    """

    layer: str
    units: int
    alive: int
    samples: int
    positions: int
    eigenvalues: Tensor
    effective_rank: float
    condition: float
    ratio: Tensor
    stable: int
    enough: bool
    warning: str

    @classmethod
    def of(cls, layer: str, halves: Halves) -> Self:
        """From the second moments of both halves."""
        whole = halves[0].merge(halves[1])
        whitening = whiten(whole.matrix)
        kept = whitening.eigenvalues[: whitening.rank]  # [K]
        ratio = _ratio(whole.matrix, halves)
        noisy = int(((ratio > 1 + SPREAD) | (ratio < 1 / (1 + SPREAD))).sum())
        enough = len(kept) > 0 and noisy <= TOLERATED * len(kept)
        return cls(
            layer=layer,
            units=len(whole.matrix),
            alive=int(whitening.alive.sum()),
            samples=whole.samples,
            positions=whole.positions,
            eigenvalues=kept,
            effective_rank=whitening.effective_rank,
            condition=whitening.condition,
            ratio=ratio,
            stable=len(kept) - noisy,
            enough=enough,
            warning="" if enough else _warning(layer, whole, noisy, len(kept)),
        )

    def table(self) -> pd.DataFrame:
        """A row for each eigenvector, strongest first: index, eigenvalue, share, cumulative (of the power), ratio."""
        import pandas as pd

        share = self.eigenvalues / self.eigenvalues.sum()  # [K]; without any there is nothing to divide
        columns = {
            "index": torch.arange(len(share)),
            "eigenvalue": self.eigenvalues,
            "share": share,
            "cumulative": share.cumsum(0),
            "ratio": self.ratio,
        }
        return pd.DataFrame({name: column.numpy() for name, column in columns.items()})


def spectra(
    generator: Generator,
    layers: Iterable[str],
    spec: LatentSpec,
    *,
    store: Store | None = None,
    progress: Progress | None = None,
) -> dict[str, Spectrum]:
    """The spectrum of each of `layers` over the pictures of `spec`, in their order.

    Raises:
        LayerError: no such layer.
        RequestError: fewer than 2 samples.
        Cancelled: from `progress`.
    """
    found = _halves(generator, tuple(layers), spec, store, progress)
    return {layer: Spectrum.of(layer, halves) for layer, halves in found.items()}


def halves_of(
    generator: Generator,
    layer: str,
    spec: LatentSpec,
    *,
    store: Store | None = None,
    progress: Progress | None = None,
) -> Halves:
    """The second moments of `layer` over the first half of the seeds, and over the second (with the odd one).

    Raises:
        As `spectra`.
    """
    return _halves(generator, [layer], spec, store, progress)[layer]


def stability(direction: Direction, halves: Halves) -> Tensor:
    """How well two halves of the samples agree on what `direction` matches, from -1 to 1, each vector's own [R].

    Each half is asked for the query of the pattern p that a vector d stands for, ``q_i = C_i⁻¹ p`` with ``p = C d``;
    what is returned is their cosine in the metric of C, the correlation of their heat over everything the generator
    draws. A context that was found with a ridge is asked for with the same ridge, on both sides. 0 for a vector that
    matches nothing.

    Raises:
        RequestError: the direction is of another width than the halves.
    """
    moment = halves[0].merge(halves[1]).matrix
    if direction.vectors.shape[1] != len(moment):
        raise RequestError(
            found=f"a direction of {direction.vectors.shape[1]} units",
            expected=f"one of {len(moment)}, as the second moments have",
            remedy=f"Take those of {direction.layer}.",
        )
    ridge = _ridge(direction)
    patterns = direction.vectors @ regularised(moment, ridge)  # [R, C]
    first, second = (patterns @ whiten(half.matrix, ridge=ridge).inverse for half in halves)
    crossed, *own = (_inner(a, b, moment) for a, b in ((first, second), (first, first), (second, second)))
    lengths = (own[0] * own[1]).clamp(min=0).sqrt()  # [R]
    tiny = torch.finfo(lengths.dtype).tiny
    return torch.where(lengths > tiny, crossed / lengths.clamp(min=tiny), 0.0).clamp(-1, 1)


def noise_warning(direction: Direction, halves: Halves) -> str:
    """One line where `direction` rests on noise: the halves agree less than `AGREEMENT` on a vector; else empty.

    Raises:
        As `stability`.
    """
    agreed = stability(direction, halves)  # [R]
    noisy = int((agreed < AGREEMENT).sum())
    if not noisy:
        return ""
    name = direction.name or f"{direction.method} at {direction.layer}"
    which = "" if direction.rank == 1 else f" in {noisy} of its {direction.rank} vectors"
    samples = halves[0].samples + halves[1].samples
    moment = halves[0].merge(halves[1]).matrix
    if not bool((direction.vectors @ moment * direction.vectors).sum(1).any()):
        return f"'{name}' matches nothing: in {samples:,} samples its heat is 0 everywhere; choose another."
    return (
        f"'{name}' rests on noise{which}: two halves of {samples:,} samples agree only to {float(agreed.min()):.2f} on"
        " where it matches; draw more samples, or raise the ridge."
    )


def _halves(
    generator: Generator,
    layers: Sequence[str],
    spec: LatentSpec,
    store: Store | None,
    progress: Progress | None,
) -> dict[str, Halves]:
    if len(spec) < 2:
        raise RequestError(
            found="1 sample" if len(spec) else "no sample",
            expected="at least 2, a half against a half",
            remedy="1,000 is a sound number.",
        )
    middle, done, parts = len(spec) // 2, 0, []
    for seeds in (spec.seeds[:middle], spec.seeds[middle:]):
        told = None if progress is None else _after(progress, done, len(spec))
        wanted = {layer: [SecondMoment()] for layer in layers}
        found = gather(generator, replace(spec, seeds=seeds), wanted, store=store, progress=told)
        parts.append({layer: _moment(answers[0]) for layer, answers in found.items()})
        done += len(seeds)
    return {layer: (parts[0][layer], parts[1][layer]) for layer in layers}


def _after(progress: Progress, done: int, total: int) -> Progress:
    """`progress` of a part, told as that of the whole."""
    return lambda more, _: progress(done + more, total)


def _moment(answer: Statistic) -> SecondMoment:
    assert isinstance(answer, SecondMoment)
    return answer


def _ratio(moment: Tensor, halves: Halves) -> Tensor:
    """Power of the first half's eigenvectors in the second ÷ in the first, [K], within what `moment` [C, C] spans."""
    alive = moment.diagonal() > 0
    units = alive.nonzero().squeeze(1)
    values, vectors = torch.linalg.eigh(moment[units[:, None], units])  # [A] ascending, [A, A]
    span = vectors[:, values > SPECTRAL_CUT * values[-1:]]  # [A, K]
    first, second = (span.T @ half.matrix[units[:, None], units] @ span for half in halves)  # [K, K]
    powers, own = torch.linalg.eigh(first)  # [K] ascending, [K, K]
    other = (own.T @ second * own.T).sum(1)  # [K]
    floor = max(SPECTRAL_CUT * float(values.max()), torch.finfo(values.dtype).tiny) if len(values) else 1.0
    ratio: Tensor = other.clamp(min=floor) / powers.clamp(min=floor)
    return ratio.clamp(1 / FARTHEST, FARTHEST).flip(0)


def _warning(layer: str, whole: SecondMoment, noisy: int, rank: int) -> str:
    if not rank:
        return f"{layer}: the keys of {whole.samples:,} samples are all zero; it tells nothing apart."
    return (
        f"{layer}: {whole.samples:,} samples ({whole.positions:,} positions) are too few: along {noisy} of {rank}"
        " eigenvectors their halves differ in power by more than half, and what rests on these is noise; draw more."
    )


def _ridge(direction: Direction) -> float:
    """The ridge that a context was found with, in mean eigenvalues of C; 0 for other origins."""
    settings = direction.provenance.get("settings")
    ridge = settings.get("ridge", 0.0) if isinstance(settings, Mapping) else 0.0
    return float(ridge) if isinstance(ridge, int | float) and ridge >= 0 else 0.0


def _inner(first: Tensor, second: Tensor, metric: Tensor) -> Tensor:
    """Row by row, [R]."""
    return (first @ metric * second).sum(1)
