"""The same context by every method: what each direction finds, and how well that is the concept meant.

    request = EditRequest.load(example_contexts(generator.name)["eyes"])
    found = compare_methods(generator, "l08", request, spec, open_concepts("embedded", generator), "eyes")
    found.precision        # a row for each method: average precision, its interval, chance, hits among the top pictures
    found.curves           # precision against recall
    found.top_overlap      # how many of their top pictures two methods share
    found.rankings         # the top pictures of each
    found.matches["zca"]   # its heat over all pictures

Methods compete at rank 1: a heat is that of the first direction. The *variants* that compete are settings by name:
usually every method of `METHODS` as the request sets them, and ``zca`` without its ridge, the paper's own mode.

Pictures that were painted on are left out of everything that is counted. A position is the concept's where labels
cover half of it or more, on the grid of the layer's keys. A source that reads feature maps of the same generator
(painted concepts) is a probe of the same network, and kinder to its directions than eyes would be: judge by a source
that sees pixels alone as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dissect.concepts.source import ConceptSource
from dissect.precision import Precision, average_precision, place_alone, precision_of
from dissect.shares import concept_index
from rewrite_core.directions import METHODS, ContextSettings, Direction
from rewrite_core.directions.matches import Matches
from rewrite_core.directions.swept import require_room, swept
from rewrite_core.errors import RequestError
from rewrite_core.generators import Generator, LatentSpec
from rewrite_core.jobs import Progress
from rewrite_core.memory import heat
from rewrite_core.rules.request import EditRequest
from rewrite_core.rules.rewrite import direction_of
from rewrite_core.statistics import Store, fetch, layer_statistics
from rewrite_core.statistics.labels import Labels

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COVERED", "TOP", "WITHOUT_RIDGE", "MethodComparison", "compare_methods", "usual_variants"]

TOP = 24
"""Pictures at the head of a ranking that are compared."""
COVERED = 0.5
"""The share of a position that labels must cover for it to be the concept's."""
WITHOUT_RIDGE = "zca, ridge 0"


@dataclass(frozen=True, eq=False)
class MethodComparison:
    """What the variants find at one layer, over the pictures of `spec` (those that were painted on are not among them).

    Attributes:
        directions: variant → its direction, of rank 1.
        matches: variant → its heat over the pictures.
        concept, source: what it was judged by, and the title of its source; both empty if by nothing.
        judged: variant → how well it finds the concept; empty if there is none.
        hits: variant → of its `TOP` pictures, in how many the position of greatest heat is the concept's.
        place: average precision of knowing where the concept mostly is (`place_alone`); 0 if there is none.
    """

    layer: str
    spec: LatentSpec
    directions: Mapping[str, Direction]
    matches: Mapping[str, Matches]
    concept: str
    source: str
    judged: Mapping[str, Precision]
    hits: Mapping[str, int]
    place: float

    @property
    def top(self) -> int:
        """How many pictures head each ranking: `TOP`, or all if there are fewer."""
        return min(TOP, len(self.spec))

    @property
    def precision(self) -> pd.DataFrame:
        """A row for each variant, best first.

        Columns method, average_precision, low, high (95 % over pictures), share (the concept's: chance), place_alone,
        hits, top, top_precision (hits / top). No rows if nothing was judged.
        """
        import pandas as pd

        rows = [
            (
                method, one.average, one.low, one.high, one.share, self.place,
                self.hits[method], self.top, self.hits[method] / self.top,
            )
            for method, one in self.judged.items()
        ]  # fmt: skip
        return pd.DataFrame(rows, columns=list(_PRECISION)).sort_values(
            "average_precision", ascending=False, kind="stable", ignore_index=True
        )

    @property
    def curves(self) -> pd.DataFrame:
        """Columns method, recall, precision; recall ascends within a method. No rows if nothing was judged."""
        import pandas as pd

        tables = [one.curve().assign(method=method) for method, one in self.judged.items()]
        columns = ["method", "recall", "precision"]
        return pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)

    @property
    def top_overlap(self) -> pd.DataFrame:
        """Jaccard index of the top pictures of two variants, a row and a column for each."""
        import pandas as pd

        tops = {method: set(found.top(self.top)) for method, found in self.matches.items()}
        rows = [[len(one & other) / len(one | other) for other in tops.values()] for one in tops.values()]
        return pd.DataFrame(rows, index=list(tops), columns=list(tops))

    @property
    def rankings(self) -> pd.DataFrame:
        """The top pictures of each variant: columns method, rank (from 1), seed."""
        import pandas as pd

        rows = [
            (method, rank, seed)
            for method, found in self.matches.items()
            for rank, seed in enumerate(found.top(self.top), 1)
        ]
        return pd.DataFrame(rows, columns=["method", "rank", "seed"])


_PRECISION = (
    "method", "average_precision", "low", "high", "share", "place_alone", "hits", "top", "top_precision",
)  # fmt: skip


def usual_variants(settings: ContextSettings) -> dict[str, ContextSettings]:
    """Every method with the ridge, contrast and protection of `settings`; and ``zca`` without ridge."""
    methods = {method: settings.model_copy(update={"method": method}) for method in METHODS}
    return {**methods, WITHOUT_RIDGE: settings.model_copy(update={"method": "zca", "ridge": 0.0})}


def compare_methods(
    generator: Generator,
    layer: str,
    request: EditRequest,
    spec: LatentSpec,
    source: ConceptSource | None = None,
    concept: str = "",
    *,
    variants: Mapping[str, ContextSettings] | None = None,
    store: Store | None = None,
    progress: Progress | None = None,
) -> MethodComparison:
    """The context of `request` at `layer` by all `variants`, over `spec`, judged by `concept` of `source` if given.

    The pristine generator is looked at, whatever rules `generator` is a view with. Steps of progress are pictures, once
    for the heat, and before that once for the labels, if there are any.

    Raises:
        RequestError: no context, no variant, no picture that was not painted on, too many; a concept that is nowhere.
        MaskError: the context covers no position of the layer.
        LayerError: there is no such layer.
        PalimpsestError: the source cannot label what this generator draws.
        Cancelled: from `progress`.
    """
    generator = generator.pristine
    spec = _others(request, spec)
    directions = _directions(generator, layer, request, variants, store)
    require_room(generator, layer, spec, len(directions))
    steps = _Steps(progress, len(spec) * (1 if source is None else 2))
    truth = None
    if source is not None:
        truth = _truth(generator, layer, spec, source, concept, store, steps.after(0))
    queries = torch.cat([direction.vectors[:1] for direction in directions.values()])  # [V, C]
    maps = _heats(generator, layer, queries, spec, steps.after(0 if source is None else len(spec)))
    found = dict(zip(directions, maps, strict=True))  # variant → [N, h, w]
    matches = {method: Matches(spec, some) for method, some in found.items()}
    return MethodComparison(
        layer=layer,
        spec=spec,
        directions=directions,
        matches=matches,
        concept="" if truth is None else concept,
        source="" if source is None else source.title,
        judged={} if truth is None else {name: precision_of(some, truth) for name, some in found.items()},
        hits={} if truth is None else {name: _hits(some, truth) for name, some in matches.items()},
        place=0.0 if truth is None else average_precision(place_alone(truth), truth),
    )


# What competes


def _others(request: EditRequest, spec: LatentSpec) -> LatentSpec:
    """`spec` without the pictures that `request` is painted on."""
    request.painted("key")
    painted = {region.image for region in request.key}
    if request.latents.spec(spec.seeds) != spec:  # its numbers name other pictures
        return spec
    seeds = tuple(seed for seed in spec.seeds if seed not in painted)
    if not seeds:
        raise RequestError(
            found=f"{len(spec)} pictures, all of them painted on",
            expected="others to look for the context in",
            remedy="Take more seeds; 1,000 is a sound number.",
        )
    return replace(spec, seeds=seeds)


def _directions(
    generator: Generator,
    layer: str,
    request: EditRequest,
    variants: Mapping[str, ContextSettings] | None,
    store: Store | None,
) -> dict[str, Direction]:
    """Variant → the direction [1, C] of the request's context."""
    variants = usual_variants(request.direction) if variants is None else variants
    if not variants:
        raise RequestError(
            found="no method",
            expected="at least one to compare",
            remedy=f"Name some of {', '.join(METHODS)}.",
        )
    statistics = layer_statistics(generator, layer, store=store)
    alone = {"given": None, "rank": 1}
    return {
        name: direction_of(
            generator, request.model_copy(update={**alone, "direction": settings}), statistics
        ).renamed(name)
        for name, settings in variants.items()
    }


# What they find


def _truth(
    generator: Generator,
    layer: str,
    spec: LatentSpec,
    source: ConceptSource,
    concept: str,
    store: Store | None,
    progress: Progress | None,
) -> Tensor:
    """Where the concept is, bool [N, h, w], on the grid of the layer's keys inside the picture."""
    index = concept_index(source.names, concept)
    source.check(generator)
    grid = generator.layer(layer)
    height, width = grid.inside(torch.empty(1, *grid.key_size)).shape[1:]
    empty = Labels(source, (height, width))
    seen = fetch(generator, layer, spec, empty, store=store, progress=progress)
    return seen.at_least(COVERED, spec.seeds)[:, index].cpu()


@torch.no_grad()
def _heats(
    generator: Generator, layer: str, queries: Tensor, spec: LatentSpec, progress: Progress | None
) -> Tensor:
    """The heat of each of `queries` [V, C] over the pictures of `spec`, [V, N, h, w] on the CPU, in one pass."""

    def look(keys: Tensor) -> Tensor:
        return torch.stack([heat(keys, query) for query in queries], 1)  # [n, V, h, w]

    return swept(generator, layer, spec, look, progress).transpose(0, 1)  # [V, N, h, w]


def _hits(found: Matches, truth: Tensor) -> int:
    """In how many of the top pictures the position of greatest heat is the concept's."""
    rows = torch.tensor([found.spec.seeds.index(seed) for seed in found.top(TOP)])
    best = found.heat[rows].flatten(1).argmax(1, keepdim=True)  # [T, 1]
    return int(truth[rows].flatten(1).gather(1, best).sum())


@dataclass(frozen=True)
class _Steps:
    """Progress of several passes as one."""

    progress: Progress | None
    total: int

    def after(self, before: int) -> Progress | None:
        """The progress of a pass that comes after `before` steps of others."""
        if self.progress is None:
            return None
        report = self.progress
        return lambda done, _: report(before + done, self.total)
