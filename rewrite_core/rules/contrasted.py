"""Two painted contexts, and the direction that tells the one from the other.

    found = difference_of(generator, eyes, mouths, layer_statistics(generator, "l08"), name="eyes, not mouths")

What is painted in requests becomes the observations, steered and protected as the first request says, of
`rewrite_core.directions.difference`.
"""

from __future__ import annotations

from rewrite_core.directions import Direction
from rewrite_core.directions.difference import difference
from rewrite_core.generators import Generator
from rewrite_core.memory import observe, outside, second_moment_of
from rewrite_core.rules.painted import observations_of, painted_keys, protected_moment
from rewrite_core.rules.request import EditRequest
from rewrite_core.rules.rule import versions
from rewrite_core.statistics import LayerStatistics

__all__ = ["difference_of"]


def difference_of(
    generator: Generator, this: EditRequest, that: EditRequest, statistics: LayerStatistics, name: str = ""
) -> Direction:
    """The direction at the layer of `statistics` that is high on the context of `this`, and low on that of `that`.

    Ridge, contrast, protect and the protected regions are those of `this`.

    Raises:
        RequestError: one of them has no context.
        MaskError: a context covers no position of the layer, or the mean keys of the two are the same.
    """
    generator, layer = generator.pristine, statistics.layer
    this.painted("key")
    keys, areas = painted_keys(generator, layer, this, this.key)  # [N, C, h, w], [N, h, w]
    return difference(
        observe(keys, areas),
        observations_of(generator, layer, that),
        statistics.second_moment,
        this.direction,
        layer=layer,
        name=name,
        rest=second_moment_of(observe(keys, outside(areas))) if this.direction.contrast else None,
        protected=protected_moment(generator, layer, this),
        provenance={"this": _context(this), "that": _context(that), "made_with": versions()},
        model=generator.name,
        fingerprint=generator.fingerprint,
    )


def _context(request: EditRequest) -> dict[str, object]:
    """A request without what is copied and pasted, as JSON."""
    return request.model_copy(update={"object": None, "paste": None, "query": None}).to_dict()
