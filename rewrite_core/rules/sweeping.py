"""One request at several layers and ranks: which of them draws what was asked for, there and wherever it belongs.

    found = sweep(generator, request, ["l05", "l08"], [1, 3, 10])
    found.at("l08", 3).edit.rule     # exactly what `rewrite` gives at that layer and rank
    found.table()                    # a row for each: loss, elsewhere, generalisation, seconds
    found.problems()                 # and one for each that cannot be

Three numbers tell the cells apart, none of which needs units, so that layers can be compared:

    share            of the loss that is left, under the very rule of the cell
    elsewhere        the relative change of the layer's response over everything the generator draws
    generalisation   how much of the example's change the rule makes in the other painted contexts

The *change* of a region is the mean |after - before| of its pixels, as far as the mask covers them. The example is what
is pasted, in all pairs; for an erasure without a paste, and for a removal, the first context. The other contexts are
those painted on other pictures; without any, generalisation is 0. It may exceed 1: a rule may act more strongly on
pictures that nobody pasted into.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rewrite_core.errors import Cancelled, PalimpsestError, RequestError
from rewrite_core.generators import Generator, Progress
from rewrite_core.generators.own import PictureId
from rewrite_core.rules.painted import latents_of
from rewrite_core.rules.regions import Painted
from rewrite_core.rules.request import EditRequest
from rewrite_core.rules.rewrite import Edit, check_model, rewrite
from rewrite_core.rules.rule import Rule
from rewrite_core.statistics import LayerStatistics, Store, layer_statistics

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Cell", "Sweep", "sweep"]

StatisticsOf = Callable[[str], LayerStatistics]


@dataclass(frozen=True, eq=False)
class Cell:
    """The request at one layer and rank.

    Attributes:
        edit: what `rewrite` gives; None where it cannot be.
        generalisation: the change in the other contexts over that of the example; 0 where there is none.
        seconds: of `rewrite`, without statistics.
        problem: why it cannot be, in one line; empty otherwise.
    """

    layer: str
    rank: int
    edit: Edit | None
    generalisation: float
    seconds: float
    problem: str = ""

    @property
    def share(self) -> float:
        """The share of the loss that is left; 0 where there was none, or where it cannot be."""
        if self.edit is None or not self.edit.solved.loss_before:
            return 0.0
        return self.edit.solved.loss / self.edit.solved.loss_before


@dataclass(frozen=True, eq=False)
class Sweep:
    """A request at every layer × rank: the ranks of the first layer, then those of the next one.

    Attributes:
        request: without regard to the layer and rank that it names itself.
        contexts: how many other painted contexts generalisation is over.
    """

    request: EditRequest
    layers: tuple[str, ...]
    ranks: tuple[int, ...]
    cells: tuple[Cell, ...]
    contexts: int

    def at(self, layer: str, rank: int) -> Cell:
        """The cell of a layer and a rank that were asked for."""
        return self.cells[self.layers.index(layer) * len(self.ranks) + self.ranks.index(rank)]

    @property
    def solved(self) -> tuple[Cell, ...]:
        """The cells that have a rule, in order."""
        return tuple(cell for cell in self.cells if cell.edit)

    def table(self) -> pd.DataFrame:
        """A row for each cell that has a rule: where it is, its losses, `share` and so on, seconds."""
        import pandas as pd

        columns = (
            "layer", "rank", "loss_before", "loss", "share", "elsewhere", "generalisation", "seconds",
        )  # fmt: skip
        return pd.DataFrame([_row(cell, cell.edit) for cell in self.cells if cell.edit], columns=columns)

    def problems(self) -> pd.DataFrame:
        """A row for each cell that cannot be: layer, rank, problem."""
        import pandas as pd

        rows = [(cell.layer, cell.rank, cell.problem) for cell in self.cells if not cell.edit]
        return pd.DataFrame(rows, columns=["layer", "rank", "problem"])


def sweep(
    generator: Generator,
    request: EditRequest,
    layers: Sequence[str],
    ranks: Sequence[int],
    *,
    statistics_of: StatisticsOf | None = None,
    store: Store | None = None,
    name: str = "",
    beneath: Sequence[Rule] = (),
    progress: Progress | None = None,
) -> Sweep:
    """Solve `request` at each of `layers` by each of `ranks`, on the pristine network.

    Args:
        generator: what to rewrite.
        request: the painted regions and settings; its own layer and rank do not matter.
        layers: names of layers, each counted once.
        ranks: each counted once.
        statistics_of: gives those of a layer, if they are at hand; gathered through `store` otherwise.
        store: where statistics are kept, if not in the default store.
        name: what to call the rules.
        beneath: the rules that are on, for their provenance.
        progress: called with the cells solved, and in between; may raise `Cancelled`.

    Raises:
        LayerError: one of the layers is none of the generator's.
        RequestError: the request is incomplete, or there is no layer or no rank. What keeps a single cell from being
            solved is said in the cell.
        ModelMismatch: the request was made for another generator.
        Cancelled: from `progress`.
    """
    generator = generator.pristine
    layers, ranks = tuple(dict.fromkeys(layers)), tuple(dict.fromkeys(ranks))
    _require_cells(generator, layers, ranks)
    check_model(request, generator)
    request.require_complete()
    measured = _Measured.of(generator, request)
    total = len(layers) * len(ranks)
    cells: list[Cell] = []

    def tick(*_: int) -> None:
        if progress:
            progress(len(cells), total)

    for layer, statistics in _gathered(generator, layers, statistics_of, store, tick):
        for rank in ranks:
            tick()
            asked = request.model_copy(update={"layer": layer, "rank": rank})
            started = time.perf_counter()
            try:
                edit = rewrite(
                    generator, asked, statistics=_known(statistics), name=name, beneath=beneath, progress=tick
                )
            except PalimpsestError as problem:
                cells.append(Cell(layer, rank, None, 0.0, time.perf_counter() - started, str(problem)))
                continue
            seconds = time.perf_counter() - started
            if edit.solved.stopped == "cancelled":  # the solver keeps its best so far: no cell of a sweep
                raise Cancelled
            cells.append(Cell(layer, rank, edit, measured.generalisation(edit.rule), seconds))
    tick()
    return Sweep(request, layers, ranks, tuple(cells), len(measured.others))


def _gathered(
    generator: Generator,
    layers: Sequence[str],
    statistics_of: StatisticsOf | None,
    store: Store | None,
    tick: Progress,
) -> Iterator[tuple[str, LayerStatistics | PalimpsestError]]:
    """Each layer with its statistics, or with why there are none."""
    for layer in layers:
        try:
            if statistics_of:
                yield layer, statistics_of(layer)
            else:
                yield layer, layer_statistics(generator, layer, store=store, progress=tick)
        except PalimpsestError as problem:
            yield layer, problem


def _known(statistics: LayerStatistics | PalimpsestError) -> LayerStatistics:
    """The statistics, if they are not the problem."""
    if isinstance(statistics, PalimpsestError):
        raise statistics
    return statistics


@dataclass(frozen=True, eq=False)
class _Measured:
    """The example and the other contexts, and all their pictures as the pristine network draws them."""

    generator: Generator
    request: EditRequest
    example: tuple[Painted, ...]
    others: tuple[Painted, ...]
    before: dict[PictureId, Tensor]  # [3, H, W]

    @classmethod
    def of(cls, generator: Generator, request: EditRequest) -> _Measured:
        example = _example(request)
        pasted = {region.image for region in example}
        others = tuple(region for region in request.key if region.image not in pasted)
        images = dict.fromkeys(region.image for region in (*example, *others))
        return cls(generator, request, example, others, _drawn(generator, request, images))

    def generalisation(self, rule: Rule) -> float:
        """The change of the other contexts over that of the example."""
        if not self.others:
            return 0.0
        after = _drawn(self.generator.with_rules(rule), self.request, self.before)
        there = self._change(self.example, after)
        return self._change(self.others, after) / there if there else 0.0

    def _change(self, regions: Sequence[Painted], after: dict[PictureId, Tensor]) -> float:
        """The mean |after - before| over the pixels of all regions, as far as masks cover them."""
        changed = covered = 0.0
        for region in regions:
            apart = (after[region.image] - self.before[region.image]).abs().mean(0)  # [H, W]
            area = region.mask.area((apart.shape[0], apart.shape[1])).to(apart)
            changed, covered = changed + float((apart * area).sum()), covered + float(area.sum())
        return changed / covered if covered else 0.0


def _example(request: EditRequest) -> tuple[Painted, ...]:
    """Where the request shows what it wants; none where given directions stand alone."""
    if request.operation == "paste":
        return tuple(pair.paste for pair in request.pairs)
    if request.operation == "erase" and request.paste:
        return (request.paste,)
    return request.key[:1]


@torch.no_grad()
def _drawn(
    generator: Generator, request: EditRequest, images: Iterable[PictureId]
) -> dict[PictureId, Tensor]:
    """Pictures [3, H, W] by what they are called."""
    return {
        image: generator.pictures(latents_of(generator, request, image))[0].clamp(-1, 1) for image in images
    }


def _row(cell: Cell, edit: Edit) -> tuple[str | int | float, ...]:
    solved = edit.solved
    numbers = (solved.loss_before, solved.loss, cell.share, solved.elsewhere)
    return (cell.layer, cell.rank, *numbers, cell.generalisation, cell.seconds)


def _require_cells(generator: Generator, layers: Sequence[str], ranks: Sequence[int]) -> None:
    for layer in layers:
        generator.layer(layer)
    if not layers or not ranks or min(ranks) < 1:
        raise RequestError(
            found=f"{len(layers)} layers by the ranks {', '.join(map(str, ranks)) or 'none'}",
            expected="at least one layer, and ranks of at least 1",
            remedy="Name layers and ranks to try.",
        )
