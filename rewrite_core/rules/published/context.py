"""The second moment, the context and its directions, and the search, as published.

What differs from `directions.context`: there is no ridge; every mask is read from its own picture drawn alone, and
masks of one picture are not joined; signs are those of ``D · Σ w Z k`` (``zca``), which mixes whitened and raw space,
or of ``D · Σ Y`` with ``Y = C⁻¹ w k`` (``svd``, whose later rows have no sign of their own). In the split ``pre`` Y is
``(C · diag(s))⁻¹ w k`` with the style s of each key's picture.

Axes: observations M, units C, rank R; float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rewrite_core.directions.context import METHODS, Evidence, oriented
from rewrite_core.directions.matches import Matches
from rewrite_core.generators import Generator, LatentSpec
from rewrite_core.memory import Observations, heat, observe, whiten
from rewrite_core.rules.painted import latents_of
from rewrite_core.rules.published.layer import batches, memory_keys
from rewrite_core.rules.published.settings import Split
from rewrite_core.rules.request import EditRequest

__all__ = [
    "published_context",
    "published_directions",
    "published_matches",
    "published_second_moment",
    "published_units",
]

PICTURES = 1000


@torch.no_grad()
def published_second_moment(
    generator: Generator, layer: str, pictures: int = PICTURES, split: Split = "usual"
) -> Tensor:
    """C [C, C] over all positions of the first `pictures`.

    It is added up in float32 key by key, as theirs was: that errs by up to 1e-4, and 2,001 steps make much of it.
    """
    units, positions = generator.layer(layer).in_channels, 0
    total = torch.zeros(units, units, device=generator.device)
    for at in batches(generator, layer, pictures):
        keys = memory_keys(at, split).movedim(1, -1).reshape(-1, units)  # [10·h·w, C]
        total, positions = total.addbmm_(keys[:, :, None], keys[:, None, :]), positions + len(keys)
    return total / positions


def published_units(
    generator: Generator, layer: str, pictures: int = PICTURES, split: Split = "usual"
) -> Tensor:
    """Every key of the first `pictures`, [M·h·w, C]: what ``gandissect`` ranks units by."""
    keys = [memory_keys(at, split) for at in batches(generator, layer, pictures)]
    return torch.cat(keys).movedim(1, -1).flatten(0, 2)  # [M·h·w, C]


def published_matches(generator: Generator, layer: str, query: Tensor, pictures: int = PICTURES) -> Matches:
    """Heat of `query` [C] over the first `pictures`."""
    maps = [heat(at.keys, query).cpu() for at in batches(generator, layer, pictures)]
    return Matches(LatentSpec.of(range(pictures), "rows"), torch.cat(maps))


def published_context(
    generator: Generator, layer: str, request: EditRequest, split: Split = "usual"
) -> tuple[Observations, Tensor]:
    """Keys and areas under the context masks, mask by mask, and the style of each key's picture [M, C]."""
    seen, styles = [], []
    for painted in request.key:
        at = generator.keys(latents_of(generator, request, painted.image), layer)
        keys = memory_keys(at, split)
        seen.append(observe(keys, painted.mask.area(generator.layer(layer).key_size)))
        style = at.rest.get("style", torch.ones(keys.shape[:2]))  # [1, C]
        styles.append(style.to("cpu", torch.float64).expand_as(seen[-1].keys))  # [M, C]
    keys, weights = torch.cat([one.keys for one in seen]), torch.cat([one.weights for one in seen])
    return Observations(keys, weights), torch.cat(styles)


def published_directions(
    generator: Generator,
    layer: str,
    request: EditRequest,
    second_moment: Tensor,
    *,
    units: Tensor | None = None,
    split: Split = "usual",
) -> Tensor:
    """The directions D [R, C] of the request's context, by its method and rank.

    `units` [M, C] are the keys that ``gandissect`` ranks by (`published_units`).
    """
    seen, styles = published_context(generator, layer, request, split)
    whitening, method, rank = whiten(second_moment), request.direction.method, request.rank
    if method in ("svd", "mean"):
        queries = seen.weights[:, None] * seen.keys @ whitening.inverse  # [M, C]
        queries = queries / styles if split == "pre" else queries
        towards = queries.sum(0)  # [C]
        span = torch.linalg.svd(queries, full_matrices=False).Vh[:rank]  # [R, C]
        return oriented(span, towards) if method == "svd" else (towards / towards.norm())[None]
    vectors, _ = METHODS[method](Evidence(seen, whitening, units), rank)  # [R, C]
    return oriented(vectors, seen.weights @ seen.keys @ whitening.zca) if method == "zca" else vectors
