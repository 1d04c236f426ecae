"""What tells two contexts apart: "this, not that".

With the mean keys `k̄` of both, weighted by area as everywhere, the direction is

    d ∝ C'⁻¹ (k̄_this − k̄_that)

of unit length, with the steered second moment `C'` of `rewrite_core/directions/context.py`. It is Fisher's linear
discriminant (1936) in the metric of everything that the layer draws: of all queries with `dᵀ C' d = 1` it is the one
whose mean heat differs most between the two contexts. What they share, and what is common anyway, drops out.

Its heat is always higher on *this* than on *that*, on average. It need not be positive on *this*: where *that* has more
of something that *this* has too, it looks for its absence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rewrite_core.directions.context import ContextSettings, steered
from rewrite_core.directions.direction import Direction
from rewrite_core.errors import MaskError
from rewrite_core.memory import Observations, weighted_mean, whiten

__all__ = ["difference"]

_RESOLUTION = 1e-10
"""Means nearer to each other than this share of their whitened lengths are the same."""


def difference(
    this: Observations,
    that: Observations,
    second_moment: Tensor,
    settings: ContextSettings,
    *,
    layer: str,
    name: str = "",
    rest: Tensor | None = None,
    protected: Tensor | None = None,
    provenance: Mapping[str, Any] | None = None,
    model: str = "",
    fingerprint: str = "",
) -> Direction:
    """The one direction that tells the context `this` from the context `that`.

    Args:
        this: what it is to be high on, keys [M, C].
        that: what it is to be low on, keys [M', C].
        second_moment: of everything the layer draws, [C, C].
        settings: `ridge`, `contrast` and `protect` steer; the method is always this one.
        layer: whose keys these are.
        name: what to call it.
        rest: second moment [C, C] of the context pictures outside the masks, which `contrast` needs.
        protected: that of the regions that must not change, [C, C].
        provenance: what it was computed from (seeds, masks), kept with the result.
        model: the generator's name.
        fingerprint: of the pristine generator.

    Returns:
        Its `key` is the difference of the mean keys, and its one singular value their distance after whitening.

    Raises:
        MaskError: either covers no position of the layer, or the mean keys of the two are the same.
        RequestError: contrast without the rest of the context pictures.
    """
    whitening = whiten(steered(second_moment, settings, rest=rest, protected=protected))
    here, there = weighted_mean(this, this.keys), weighted_mean(that, that.keys)  # [C], [C]
    apart = here - there  # [C]
    distance, *lengths = (torch.linalg.vector_norm(whitening.zca @ key) for key in (apart, here, there))
    if distance <= _RESOLUTION * sum(lengths):
        raise MaskError(
            found="two contexts whose mean keys are the same",
            expected="contexts that the layer tells apart",
            remedy="Paint other regions, or choose another layer.",
        )
    query = whitening.inverse @ apart  # [C]
    origin = {
        **(provenance or {}),
        "settings": settings.model_dump(),
        "observations": [len(this.weights), len(that.weights)],
        "effective_rank": whitening.effective_rank,
    }
    return Direction(
        vectors=(query / torch.linalg.vector_norm(query))[None],  # [1, C]
        layer=layer,
        method="difference",
        singular_values=distance[None],
        name=name,
        provenance=origin,
        model=model,
        fingerprint=fingerprint,
        key=apart,
    )
