"""A layer as a linear associative memory: its keys, what is asked of them, and the metric to compare them in.

At every position a convolution looks up a *key* `k` (its input there) and draws a *value* `W k`. Bau et al.,
*Rewriting a Deep Generative Model* (ECCV 2020, arXiv 2007.15646), section 3, compare keys by the second
moment of everything the generator draws, `C = E[k kᵀ]`: uncentred, over every position of every sample. The
update that writes a value at `k*` and disturbs the rest least is `W' = W + Λ (C⁻¹ k*)ᵀ`: `C⁻¹ k*` is the
*query* for `k*`. The ZCA whitening `Z = C^(-1/2)` is the change of basis in which every direction of key
space is equally common.

Axes: pictures `N`, units (channels of the key) `C`, positions `h × w`, selected positions `M`. Keys are
`[N, C, h, w]`, observations `[M, C]`, the second moment and everything made of it `[C, C]`.

Numbers: observations and matrices are float64 on the CPU, whatever comes in; float32 is simply wrong at the
condition numbers of real layers. Only heat maps, made by the thousand, keep their keys' dtype and device.

    seen = observe(keys, areas)                    # keys [N, C, h, w], areas [N, h, w]: what was painted
    query = matching_query(seen, whiten(second_moment, ridge=0.1))
    found = heat(gallery_keys, query)              # [N, h, w]
    best = rank_images(score(found), k=12)         # the pictures that show the context most clearly
    shown = found > level(found, 0.999)            # and where they show it

Every function is pure. What cannot be used (NaN, an empty mask) is refused with a `PalimpsestError`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rewrite_core.errors import MaskError, PalimpsestError, RequestError

__all__ = [
    "SPECTRAL_CUT",
    "Observations",
    "Whitening",
    "heat",
    "level",
    "matching_query",
    "observe",
    "outside",
    "rank_images",
    "regularised",
    "score",
    "second_moment_of",
    "unit_energy",
    "unit_quantile",
    "weighted_mean",
    "whiten",
]

SPECTRAL_CUT = 1e-10
"""Eigenvalues of a second moment below this share of the largest are rounding, and discarded."""


# The metric of key space


@dataclass(frozen=True, eq=False)
class Whitening:
    """Inverse and inverse root of a second moment on the subspace that it spans; zero outside it."""

    zca: Tensor  # [C, C] C^(-1/2)
    inverse: Tensor  # [C, C] C⁻¹
    eigenvalues: Tensor  # [alive units], descending, never negative
    alive: Tensor  # [C] bool: units whose key is not always zero

    @property
    def rank(self) -> int:
        """How many directions of key space are used at all."""
        return len(_kept(self.eigenvalues))

    @property
    def effective_rank(self) -> float:
        """Exponential of the spectrum's entropy (Roy & Vetterli 2007): how many are used in earnest."""
        share = _kept(self.eigenvalues) / self.eigenvalues.sum()
        return math.exp(-(share * share.log()).sum()) if self.rank else 0.0

    @property
    def condition(self) -> float:
        """Largest eigenvalue over the smallest that is kept; infinite where none is."""
        kept = _kept(self.eigenvalues)
        return float(kept[0] / kept[-1]) if self.rank else math.inf


def whiten(second_moment: Tensor, *, ridge: float = 0.0) -> Whitening:
    """Whitening of `second_moment` [C, C], after `ridge` times its mean eigenvalue is added to it.

    Units that never fire are left out, negative rounding is clamped before the root is taken, and the
    spectrum is cut at `SPECTRAL_CUT`: a singular second moment lowers the rank and gives no NaN.
    """
    moment = regularised(second_moment, ridge)
    alive = moment.diagonal() > 0
    units = alive.nonzero().squeeze(1)  # [A]
    eigenvalues, vectors = torch.linalg.eigh(moment[units[:, None], units])  # [A] ascending, [A, A]
    eigenvalues, vectors = eigenvalues.flip(0).clamp(min=0), vectors.flip(1)
    kept = _kept(eigenvalues)  # [K]
    basis = moment.new_zeros(len(moment), len(kept)).index_copy(0, units, vectors[:, : len(kept)])  # [C, K]
    return Whitening((basis / kept.sqrt()) @ basis.T, (basis / kept) @ basis.T, eigenvalues, alive)


def regularised(second_moment: Tensor, ridge: float) -> Tensor:
    """`C + ridge · (tr C / n) · I` over the `n` units that ever fire: dead units stay exactly dead."""
    moment = _double(second_moment, "the second moment")
    alive = (moment.diagonal() > 0).to(moment.dtype)  # [C]
    mean_power = moment.trace() / alive.sum().clamp(min=1)
    return moment + torch.diag(ridge * mean_power * alive)


# What was painted


@dataclass(frozen=True, eq=False)
class Observations:
    """Keys at the positions that matter, and how much each matters: the soft area of a mask there."""

    keys: Tensor  # [M, C] float64
    weights: Tensor  # [M] float64


def observe(keys: Tensor, areas: Tensor) -> Observations:
    """The keys [N, C, h, w] where `areas` [N, h, w] is above zero, picture by picture and row by row.

    One picture may come without its `N` axis. Areas that cover nothing give no observations, which is for the
    reader to judge: no context is an error, nothing to protect is not.
    """
    keys = keys.reshape(-1, *keys.shape[-3:])  # [N, C, h, w]
    areas = areas.reshape(-1, *areas.shape[-2:])  # [N, h, w]
    if areas.shape != keys[:, 0].shape:
        raise MaskError(
            found=f"masks of shape {list(areas.shape)}",
            expected=f"one area for each key, {list(keys[:, 0].shape)}",
            remedy="Resize the masks to the layer's key grid.",
        )
    painted = areas > 0
    chosen = keys.permute(0, 2, 3, 1)[painted.to(keys.device)]  # [M, C]
    return Observations(_double(chosen, "the keys"), _double(areas[painted], "the mask"))


def outside(areas: Tensor) -> Tensor:
    """The areas [..., h, w] of everything left unpainted: 1 where no part of a position is covered, else 0.

    Join the masks of one picture (their maximum) before asking: one mask's inside is not another's outside.
    """
    return (areas <= 0).to(areas.dtype)


def weighted_mean(observations: Observations, values: Tensor) -> Tensor:
    """`Σ w v / Σ w` of `values` [M] or [M, C], one for each observation.

    Raises:
        MaskError: there is no weight to average with.
    """
    total = observations.weights.sum()
    if total <= 0:
        raise MaskError(
            found="masks that cover no position of the layer",
            expected="a painted area",
            remedy="Paint a larger area, or choose a layer of finer resolution.",
        )
    return observations.weights @ values / total  # [...]


def second_moment_of(observations: Observations) -> Tensor:
    """`Σ w k kᵀ / Σ w` [C, C]: the second moment of a region alone; zero where there is no region."""
    total = observations.weights.sum().item() or 1.0
    return (observations.weights[:, None] * observations.keys).T @ observations.keys / total  # [C, C]


def unit_energy(observations: Observations, second_moment: Tensor) -> Tensor:
    """How much more than usual each unit fires [C]: the weighted mean of `k² / E[k²]`; 0 for dead units.

    The units of greatest energy are those that the erase goal sets to zero.
    """
    usual = _double(second_moment, "the second moment").diagonal()  # [C]
    return torch.where(usual > 0, weighted_mean(observations, observations.keys.square()) / usual, 0.0)


def unit_quantile(sample: Tensor, values: Tensor) -> Tensor:
    """The share of `sample` [M, C] below each of `values` [K, C], unit by unit: [K, C].

    It is a midrank: ties count half, so that the i-th of n sorted values sits at (i - ½)/n and all zeros of a
    ReLU share one rank. It is kept within [1/2n, 1 - 1/2n]: `-log(1 - q)` is finite whatever the value.
    """
    ordered = _double(sample, "the sample of keys").T.contiguous().sort(dim=1).values  # [C, M]
    if not (n := ordered.shape[1]):
        raise RequestError(found="an empty sample of keys", expected="some keys", remedy="Draw more samples.")
    wanted = _double(values, "the keys").T.contiguous()  # [C, K]
    below = torch.searchsorted(ordered, wanted)  # [C, K] how many are smaller
    upto = torch.searchsorted(ordered, wanted, right=True)  # [C, K] and how many smaller or equal
    return ((below + upto).double() / (2 * n)).clamp(0.5 / n, 1 - 0.5 / n).T  # [K, C]


# Asking


def matching_query(observations: Observations, whitening: Whitening) -> Tensor:
    """`C⁻¹ ·` (weighted mean key), of unit length [C]: the single query that stands for what was painted.

    Raises:
        MaskError: nothing was painted, or the generator's keys there are zero or cancel.
    """
    query = whitening.inverse @ weighted_mean(observations, observations.keys)
    length: Tensor = torch.linalg.vector_norm(query)
    if length == 0:
        raise MaskError(
            found="a painted area where the layer's keys are zero or cancel",
            expected="an area where the layer responds",
            remedy="Paint elsewhere, or choose another layer.",
        )
    return query / length


def heat(keys: Tensor, query: Tensor) -> Tensor:
    """`k · q` at every position of keys [N, C, h, w]: [N, h, w], in the keys' own dtype and device."""
    found = query.to(keys) @ keys.flatten(2)  # [C] @ [N, C, hw] -> [N, hw]
    return found.reshape(len(keys), *keys.shape[2:])  # [N, h, w]


def score(heat: Tensor) -> Tensor:
    """How well each picture matches [N]: the maximum over the positions of its heat [N, h, w]."""
    return heat.flatten(1).amax(1)


def rank_images(scores: Tensor, k: int) -> Tensor:
    """Indices of the `k` greatest of `scores` [N], best first; of equals the lower index comes first."""
    return scores.argsort(descending=True, stable=True)[:k]


def level(heat: Tensor, quantile: float) -> float:
    """The exact `quantile` of all values of `heat`, of any shape and size: an overlay shows what is above it.

    The convention is numpy's default: of n sorted values the smallest sits at quantile 0, the greatest at 1,
    neighbours 1/(n - 1) apart, with linear interpolation between them.
    """
    if not (0 <= quantile <= 1 and heat.numel()):
        raise RequestError(
            found=f"quantile {quantile} of {heat.numel()} values",
            expected="a quantile from 0 to 1, of at least one value",
            remedy="Correct the quantile, or draw more samples.",
        )
    values = heat.flatten()
    rank = quantile * (len(values) - 1)
    low, high = (values.kthvalue(1 + round_(rank)).values.item() for round_ in (math.floor, math.ceil))
    return low + (rank - math.floor(rank)) * (high - low)


def _kept(eigenvalues: Tensor) -> Tensor:
    """The leading part of a descending spectrum that is above the cut."""
    return eigenvalues[eigenvalues > SPECTRAL_CUT * eigenvalues[:1]]


def _double(tensor: Tensor, what: str) -> Tensor:
    """The same numbers as float64 on the CPU, once they are known to be numbers."""
    tensor = tensor.detach().to("cpu", torch.float64)
    if not tensor.isfinite().all():
        raise PalimpsestError(
            found=f"NaN or infinite values in {what}",
            expected="finite numbers",
            remedy="The generator's weights are probably damaged: open another file.",
        )
    return tensor
