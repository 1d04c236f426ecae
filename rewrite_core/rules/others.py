"""The second moment of everything that the context is *not*: what a direction should stay away from.

`C` is over everything that the layer shows, the context's own kind among it. Whitened by it, a direction turns away
from what the painted keys have in common with all others of their kind, which is the very thing it is to find. So they
are left out::

    query = C⁻¹ k̄                               the whitened mean of the painted keys
    heat > its (1 - share) quantile             taken for the context's kind, over the sampled pictures
    C_others = E[k kᵀ | all other positions]    and once more from the top, with C_others for C

`share` is the part of their pictures that the context masks cover. It needs no painting of what the context is not, as
contrast does ("I painted all of it"): what looks like the context is left out, painted or not.

    statistics = layer_statistics(generator, layer)
    edit = rewrite(generator, request, statistics=others(generator, request, statistics))

Measured in docs/rewriting.md.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from rewrite_core.generators import Generator
from rewrite_core.memory import level, matching_query, observe, whiten
from rewrite_core.rules.painted import painted_keys
from rewrite_core.rules.request import EditRequest
from rewrite_core.statistics import LayerStatistics

__all__ = ["ROUNDS", "others", "second_moment_of_others"]

ROUNDS = 3
MOST = 0.9
"""At most this share of all positions is taken for the context's kind."""


def others(
    generator: Generator, request: EditRequest, statistics: LayerStatistics, rounds: int = ROUNDS
) -> LayerStatistics:
    """The statistics with the second moment of what `request`'s context is not.

    Raises:
        RequestError: the request has no context.
        MaskError: it covers no position of the layer.
    """
    request.painted("key")
    layer = generator.layer(statistics.layer)
    keys, areas = painted_keys(generator, layer.name, request, request.key)  # [N, C, h, w], [N, h, w]
    seen, share = observe(keys, areas), float(layer.inside(areas).mean())
    sample = layer.inside(statistics.sample.keys).movedim(1, -1).flatten(0, 2)  # [M·h·w, C]
    moment = statistics.second_moment
    for _ in range(rounds):
        query = matching_query(seen, whiten(moment, ridge=request.direction.ridge))
        moment = second_moment_of_others(sample.to("cpu", torch.float64), query, share)
    return replace(statistics, second_moment=moment)


def second_moment_of_others(sample: Tensor, query: Tensor, share: float) -> Tensor:
    """E[k kᵀ] [C, C] over the keys `sample` [M, C] but for the `share` of them that match `query` [C] best."""
    heat = sample @ query  # [M]
    rest = sample[heat <= level(heat, 1 - min(share, MOST))]
    return rest.T @ rest / len(rest)
