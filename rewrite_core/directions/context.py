"""The directions of a painted context: what the keys there have in common and the others have not.

Bau et al., *Rewriting a Deep Generative Model* (ECCV 2020, arXiv 2007.15646): every key `k_p` under a context
mask, weighted by its area `w_p`, is whitened by `Z = C^(-1/2)`; the leading right singular vectors `V` of the
rows `w_p · Z k_p` span the context; the rows of `V Z`, made orthonormal, are the directions `D`. One
direction is `C⁻¹ k*` up to scale, with `k*` the leading singular combination of the keys (not their mean).

Five methods, one simple function each, in `METHODS`: from the evidence and a rank to `D` [R, C] and the
strengths [K] that tell how many directions are worth having.

    zca         as above: the default
    svd         leading singular vectors of the rows `w_p · C⁻¹ k_p`
    mean        their mean, normalised: one direction
    gandissect  single units, by how high in their own distribution they are under the mask
    plain       the mean key itself, not whitened: one direction, to show what whitening is for

All but the last measure by a steered second moment, of which `C` is the first term:

    C' = C + ridge · (tr C / n) · I + contrast · C_rest + protect · C_protected

`C_rest` is the second moment of the context pictures outside the masks: use it only when *all* of the concept
was painted in them. `C_protected` is that of regions which must not change. With ridge and contrast 0 and
nothing protected, `C' = C`: the paper's own mode.

Signs: a direction is positive on what was painted, `d · Σ w_p k_p ≥ 0`, so that its heat is high there. (The
published code takes them from `d · Σ w_p Z k_p`, which mixes whitened and raw space.)

Axes: observations `M`, units (channels of the key) `C`, rank `R`. Everything is float64 on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from rewrite_core.directions.direction import Direction
from rewrite_core.errors import MaskError, RequestError
from rewrite_core.memory import (
    Observations,
    Whitening,
    matching_query,
    regularised,
    unit_quantile,
    weighted_mean,
    whiten,
)
from rewrite_core.settings import Settings

__all__ = ["METHODS", "ContextSettings", "Evidence", "Method", "context_direction", "oriented", "steered"]

_RESOLUTION = 1e-10  # singular values below this share of the first are rounding


class ContextSettings(Settings):
    """How a context becomes directions."""

    method: Literal["zca", "svd", "mean", "gandissect", "plain"] = "zca"
    ridge: float = Field(default=0.1, ge=0)
    """In mean eigenvalues of C: evens out what the samples hardly know; 0 is the paper's own mode."""
    contrast: float = Field(default=0.0, ge=0)
    """Weight of the context pictures' unpainted positions; above 0 says "I painted all of it in these"."""
    protect: float = Field(default=3.0, ge=0)
    """Weight of the protected regions, where there are any; 10 where they matter most."""


def context_direction(
    observations: Observations,
    second_moment: Tensor,
    rank: int,
    settings: ContextSettings,
    *,
    layer: str,
    name: str = "",
    rest: Tensor | None = None,
    protected: Tensor | None = None,
    unit_sample: Tensor | None = None,
    provenance: Mapping[str, Any] | None = None,
    model: str = "",
    fingerprint: str = "",
) -> Direction:
    """The directions of the context that `observations` show, in the metric of `second_moment` [C, C].

    `rest` [C, C] is the second moment of the context pictures outside the masks, which `contrast` needs;
    `protected` [C, C] that of the regions which must not change; `unit_sample` [S, C] holds keys from
    anywhere in many pictures, which `gandissect` needs. `provenance` (seeds, masks) is kept with the result, as are
    the generator's name `model` and its `fingerprint`; its `key` is the mean key under the masks, weighted by area.

    Raises:
        MaskError: the context covers no position of the layer, or the keys there are zero.
        RequestError: the context does not show as many directions as `rank`, or a setting lacks its input.
    """
    whitening = whiten(steered(second_moment, settings, rest=rest, protected=protected))
    vectors, strengths = METHODS[settings.method](Evidence(observations, whitening, unit_sample), rank)
    origin = {
        **(provenance or {}),
        "settings": settings.model_dump(),
        "observations": len(observations.weights),
        "effective_rank": whitening.effective_rank,
    }
    return Direction(
        vectors=vectors,
        layer=layer,
        method=settings.method,
        singular_values=strengths,
        name=name,
        provenance=origin,
        model=model,
        fingerprint=fingerprint,
        key=weighted_mean(observations, observations.keys),  # [C]
    )


def steered(
    second_moment: Tensor,
    settings: ContextSettings,
    *,
    rest: Tensor | None = None,
    protected: Tensor | None = None,
) -> Tensor:
    """`C' = C + ridge · (tr C / n) · I + contrast · C_rest + protect · C_protected` [C, C]."""
    if settings.contrast and rest is None:
        raise RequestError(
            found=f"contrast {settings.contrast:g} without the rest of the context pictures",
            expected="the keys outside the masks",
            remedy="Give them, or set contrast to 0.",
        )
    moment = regularised(second_moment, settings.ridge)
    for weight, region in ((settings.contrast, rest), (settings.protect, protected)):
        if region is not None:
            moment = moment + weight * region.to(moment)
    return moment


# The methods


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that a method may look at."""

    observations: Observations
    whitening: Whitening
    unit_sample: Tensor | None = None  # [S, C]


Method = Callable[[Evidence, int], tuple[Tensor, Tensor]]


def zca(evidence: Evidence, rank: int) -> tuple[Tensor, Tensor]:
    """Leading right singular vectors `V` of the whitened keys, as queries: rows `V Z`, orthonormalised."""
    seen, whitening = evidence.observations, evidence.whitening
    towards = weighted_mean(seen, seen.keys)  # [C]
    span, strengths = _leading(seen.weights[:, None] * (seen.keys @ whitening.zca), rank)  # [R, C], [K]
    queries = torch.linalg.qr((span @ whitening.zca).T).Q.T  # [R, C]
    return oriented(queries, towards), strengths


def svd(evidence: Evidence, rank: int) -> tuple[Tensor, Tensor]:
    """Leading singular vectors of the queries `C⁻¹ k_p`."""
    seen, whitening = evidence.observations, evidence.whitening
    towards = weighted_mean(seen, seen.keys)  # [C]
    span, strengths = _leading(seen.weights[:, None] * (seen.keys @ whitening.inverse), rank)  # [R, C], [K]
    return oriented(span, towards), strengths


def mean(evidence: Evidence, rank: int) -> tuple[Tensor, Tensor]:
    """The mean of the queries `C⁻¹ k_p`: one direction, and a strength of 1."""
    query = matching_query(evidence.observations, evidence.whitening)  # [C]
    _check_rank(rank, 1)
    return query[None], query.new_ones(1)


def gandissect(evidence: Evidence, rank: int) -> tuple[Tensor, Tensor]:
    """One-hot units, by the weighted mean of `-log(1 - quantile)` under the mask.

    Units that never fire are left out: all that a dead unit does is tie with its own zeros.
    """
    if evidence.unit_sample is None:
        raise RequestError(
            found="method gandissect without a sample of keys",
            expected="keys from many pictures to rank the units by",
            remedy="Give a sample, or choose another method.",
        )
    seen, alive = evidence.observations, evidence.whitening.alive
    surprise = -torch.log1p(-unit_quantile(evidence.unit_sample, seen.keys))  # [M, C]
    strengths = torch.where(alive, weighted_mean(seen, surprise), 0.0)  # [C]
    _check_rank(rank, int(alive.sum()))
    strengths, units = strengths.sort(descending=True, stable=True)
    return torch.eye(len(units), dtype=strengths.dtype)[units[:rank]], strengths  # [R, C], [C]


def plain(evidence: Evidence, rank: int) -> tuple[Tensor, Tensor]:
    """The mean key, normalised, as if every direction of key space were equally common: a strength of 1."""
    key = weighted_mean(evidence.observations, evidence.observations.keys)  # [C]
    length = torch.linalg.vector_norm(key)
    _check_rank(rank, int(length > 0))
    return key[None] / length, key.new_ones(1)


METHODS: Mapping[str, Method] = {
    "zca": zca,
    "svd": svd,
    "mean": mean,
    "gandissect": gandissect,
    "plain": plain,
}


def oriented(vectors: Tensor, towards: Tensor) -> Tensor:
    """The rows of `vectors` [R, C], each turned the way of `towards` [C]; perpendicular ones stay."""
    return torch.where((vectors @ towards < 0)[:, None], -vectors, vectors)


def _leading(rows: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The leading right singular vectors of `rows` [M, C], as rows [R, C], and all singular values [K]."""
    triangle = torch.linalg.qr(rows, mode="r").R  # [min(M, C), C] has the same, and no side as long as M
    _, strengths, right = torch.linalg.svd(triangle, full_matrices=False)  # [K], [K, C]
    _check_rank(rank, int((strengths > _RESOLUTION * strengths[:1]).sum()))
    return right[:rank], strengths


def _check_rank(rank: int, available: int) -> None:
    if not available:
        raise MaskError(
            found="a context where the layer's keys are all zero",
            expected="an area where the layer responds",
            remedy="Paint elsewhere, or choose another layer.",
        )
    if not 1 <= rank <= available:
        raise RequestError(
            found=f"rank {rank}",
            expected=f"1 to {available}: no more directions than the method finds in this context",
            remedy="Lower the rank, paint more of the context, or choose another method.",
        )
