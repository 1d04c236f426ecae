"""Sets of units to intervene on: those most like a concept.

    best_units(found.layers["l08"], "hair", 4)  # rows of four units, by IoU

Which of them cause it is for `dissect.ranking` to say.
"""

from __future__ import annotations

from dissect.layer import LayerDissection
from dissect.shares import concept_index

__all__ = ["best_units"]


def best_units(found: LayerDissection, concept: str, count: int) -> tuple[int, ...]:
    """The rows of `count` units of the best tuned IoU with `concept`, best first; only units that meet it at all.

    The IoU is that on the first half of the samples, so the held-out IoU of what is chosen does not flatter. Units that
    detect the concept come before the others.

    Raises:
        RequestError: no such concept.
    """
    place = concept_index(found.concepts, concept)
    iou = found.tuned_iou[:, place]
    detects = found.detector & (found.concept == place)
    order = (iou + 2 * detects).sort(descending=True, stable=True).indices.tolist()
    return tuple(unit for unit in order[:count] if iou[unit] > 0)
