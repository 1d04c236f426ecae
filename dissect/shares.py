"""How much of each picture a concept covers: the measure of interventions and of comparisons.

A concept source labels the pictures; a soft label counts where it is above 0.5, as in
`rewrite_core.statistics.intersection`. Counts are exact, and kept for each picture: everything said of them (means,
paired differences, intervals) can be computed afterwards, and those of other pictures joined on.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dissect.concepts.source import ConceptSource
from rewrite_core.errors import PalimpsestError, RequestError
from rewrite_core.generators import Latents
from rewrite_core.statistics import Batch, Scene
from rewrite_core.statistics.intersection import labels_of

__all__ = ["concept_index", "concept_masks"]


def concept_masks(source: ConceptSource, pictures: Tensor, latents: Latents) -> Tensor:
    """Where each concept is in `pictures` [N, 3, R, R]: bool [N, L, H, W], on the labels' own grid.

    Raises:
        PalimpsestError: pictures or labels are NaN or infinite, or the labels are not one map for each concept.
    """
    _require_finite(
        pictures, "pixels", latents, "Nothing can be said of such pictures: force smaller values."
    )
    labels = labels_of(Batch.of(pictures, labels=source(Scene(pictures, latents))), source)
    if labels.dtype == torch.bool:
        return labels
    _require_finite(labels, "labels", latents, "Check where the labels come from.")
    return labels > 0.5


def _require_finite(numbers: Tensor, what: str, latents: Latents, remedy: str) -> None:
    if not bool(numbers.isfinite().all()):
        seeds = latents.spec.seeds
        raise PalimpsestError(
            found=f"{what} that are NaN or infinite in pictures {seeds[0]} to {seeds[-1]}",
            expected="finite numbers",
            remedy=remedy,
        )


def concept_index(names: tuple[str, ...], concept: str) -> int:
    """The place of `concept` among `names`.

    Raises:
        RequestError: it is not there.
    """
    if concept not in names:
        raise RequestError(
            found=f"concept '{concept}'",
            expected=f"one of {', '.join(names)}",
            remedy="Choose one of these concepts.",
        )
    return names.index(concept)
