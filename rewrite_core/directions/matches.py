"""Where a query matches: its heat over many pictures, which of them show it most, and the level that outlines it.

    found = matches(generator, "l08", query, spec)                  # draws every picture as far as the layer
    found = search(generator, "l08", query, spec, store=store)      # reads an index, made the first time
    found = nearest(generator, "l08", 7, (3, 9), spec, store=store) # what else the layer treats as this place

`matches` is exact. `search` and `nearest` read rounded heat off an index (`rewrite_core.directions.index`) and then
draw again every picture whose place among the best could be due to rounding: its map and its score are exact. So the
best `ranks` pictures are those of `matches`, in its order, up to float rounding; `Matches.sure` says how far that
holds. All else (the level that outlines, the distribution, the worst and middle pictures) carries the rounding of the
index, whose size is `Matches.error`. Few pictures, or too many for an index, are drawn.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rewrite_core.directions.index import INDEX_BYTES, Reading, index_bytes, key_index, moment_of
from rewrite_core.directions.swept import Look, require_room, swept
from rewrite_core.errors import RequestError
from rewrite_core.generators import Generator, LatentSpec, Progress
from rewrite_core.memory import heat, level, rank_images, score
from rewrite_core.statistics.along import Along
from rewrite_core.statistics.compact import CompactKeys
from rewrite_core.statistics.gather import fetch
from rewrite_core.statistics.maps import Maps
from rewrite_core.statistics.store import Store

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["OUTLINE", "RANKS", "Matches", "matches", "nearest", "search"]

OUTLINE = 0.999
"""Overlays outline what exceeds this quantile of the heat over all positions of all samples, as published."""
RANKS = 24
"""As many of the best pictures are exact, unless more are asked for."""
SPARE = 4
"""Times as many are drawn again at once."""
MOST = 1000
"""And this many at most, where rounding leaves more in doubt."""
SURE = 6.0
"""Standard deviations by which rounding is taken to move a value, at most."""


@dataclass(frozen=True, eq=False)
class Matches:
    """Heat [N, h, w] of a query over the pictures of `spec`, on the CPU; what is outside a picture is left out.

    Attributes:
        exact: whether all of it was computed from the keys themselves; else most of it from compact ones.
        error: the RMS rounding error of a position that was read off compact keys; 0 where none was.
        ranks: of how many leading ranks picture and score are exact; None: of all.
    """

    spec: LatentSpec
    heat: Tensor
    exact: bool = True
    error: float = 0.0
    ranks: int | None = None

    @property
    def sure(self) -> int:
        """How many of the leading ranks are exact."""
        return len(self.spec) if self.ranks is None else self.ranks

    # Pictures.

    @cached_property
    def scores(self) -> Tensor:
        """How well each picture matches, [N]: its greatest heat."""
        return score(self.heat)

    @cached_property
    def order(self) -> Tensor:
        """The places of the pictures in `spec`, best first, [N]; of equals the earlier one first."""
        return rank_images(self.scores, len(self.spec))

    def top(self, count: int) -> list[int]:
        """The pictures (seeds) that match best, best first; of equals the earlier one first."""
        return self._seeds(self.order[:count])

    def bottom(self, count: int) -> list[int]:
        """The pictures that match least, the least first; of equals the earlier one first."""
        return self._seeds(self.scores.argsort(stable=True)[:count])

    def middle(self, count: int) -> list[int]:
        """The pictures around the median score, the better first."""
        start = max(0, (len(self.spec) - count) // 2)
        return self._seeds(self.order[start : start + count])

    def table(self) -> DataFrame:
        """One row a picture, best first: seed, score, rank from 1, row and column of its greatest heat."""
        from pandas import DataFrame

        width = self.heat.shape[2]
        places = self.heat.flatten(1).argmax(1)[self.order] if len(self.spec) else self.order  # [N]
        return DataFrame(
            {
                "seed": self.top(len(self.spec)),
                "score": self.scores[self.order].double().numpy(),
                "rank": range(1, len(self.spec) + 1),
                "row": (places // width).numpy(),
                "column": (places % width).numpy(),
            }
        )

    # Positions.

    def level(self, quantile: float = OUTLINE) -> float:
        """The quantile of the heat over all positions of all pictures; exact where the heat is."""
        return level(self.heat, quantile)

    @cached_property
    def outline(self) -> float:
        """The level that overlays outline, found once: a page asks for it in every run."""
        return self.level()

    def quantile_of(self, value: float) -> float:
        """The share of all positions of all pictures whose heat is below `value`; 0 where there are none."""
        return float((self.heat < value).sum()) / max(1, self.heat.numel())

    def of(self, seed: int) -> Tensor:
        """The heat map [h, w] of one picture."""
        return self.heat[self.spec.seeds.index(seed)]

    def best(self, seed: int) -> tuple[int, int]:
        """Row and column of a picture's greatest heat; of equals the first."""
        row, column = divmod(int(self.of(seed).flatten().argmax()), self.heat.shape[2])
        return row, column

    def _seeds(self, places: Tensor) -> list[int]:
        return [self.spec.seeds[place] for place in places.tolist()]


def matches(
    generator: Generator,
    layer: str,
    query: Tensor,
    spec: LatentSpec,
    progress: Progress | None = None,
    *,
    store: Store | None = None,
) -> Matches:
    """Heat of `query` [C] at `layer` over every picture of `spec`, from the keys themselves.

    With a `store` it is kept there: asked for again it is read, and a search that was stopped goes on.

    Raises:
        LayerError: if there is no such layer.
        RequestError: if the heat takes more memory than `rewrite_core.directions.swept` grants.
        PalimpsestError: if it is not finite.
        Cancelled: from `progress`.
    """
    if store is None:
        return Matches(spec, swept(generator, layer, spec, lambda keys: heat(keys, query), progress))
    require_room(generator, layer, spec)
    found = fetch(generator, layer, spec, Along(query[None], Maps()), store=store, progress=progress)
    return Matches(spec, generator.layer(layer).inside(found.inner.maps[:, 0]))  # [N, M, h, w] -> [N, h, w]


def search(
    generator: Generator,
    layer: str,
    query: Tensor,
    spec: LatentSpec,
    *,
    store: Store,
    ranks: int = RANKS,
    progress: Progress | None = None,
) -> Matches:
    """As `matches`, off an index: in a fraction of the time once it is made, with the best `ranks` exact.

    Raises:
        LayerError, RequestError, PalimpsestError: as `matches`.
        Cancelled: from `progress`; what is finished of the index by then is kept.
    """
    if len(spec) <= SPARE * ranks:
        return matches(generator, layer, query, spec, progress)
    if index_bytes(generator.layer(layer), len(spec)) > INDEX_BYTES:
        return matches(generator, layer, query, spec, progress, store=store)
    reading = key_index(generator, layer, spec, store=store, progress=progress).read(query)
    return _refined(generator, layer, spec, reading, lambda keys: heat(keys, query), ranks)


def nearest(
    generator: Generator,
    layer: str,
    seed: int,
    place: tuple[int, int],
    spec: LatentSpec,
    *,
    store: Store,
    ranks: int = RANKS,
    progress: Progress | None = None,
) -> Matches:
    """How alike every key of `spec` is to the one at `place` (row, column) of picture `seed`, to the layer.

    The heat is the whitened cosine ``k_pᵀ C⁻¹ k_q / (|Z k_p| |Z k_q|)``, with Z = C^(-1/2) and 0 where a key is zero;
    `C` has the ridge of `rewrite_core.statistics.compact`. Picture `seed` is drawn as all of `spec` are, and need not
    be among them.

    Raises:
        LayerError, RequestError, PalimpsestError: as `matches`; or the place is none of the layer's, or its key zero.
        Cancelled: from `progress`.
    """
    key = _key_at(generator, layer, replace(spec, seeds=(seed,)), place)
    compact = CompactKeys(moment_of(generator, layer, store=store, progress=progress).matrix)

    def look(keys: Tensor) -> Tensor:
        return compact.exact_cosine(keys, key)

    few = len(spec) <= SPARE * ranks
    if few or index_bytes(generator.layer(layer), len(spec)) > INDEX_BYTES:
        return Matches(spec, swept(generator, layer, spec, look, progress))
    reading = key_index(generator, layer, spec, store=store, progress=progress).compare(key)
    return _refined(generator, layer, spec, reading, look, ranks)


def _refined(
    generator: Generator, layer: str, spec: LatentSpec, reading: Reading, look: Look, ranks: int
) -> Matches:
    """What was read, with every picture drawn again that may be among the best `ranks`."""
    values, scores = reading.values.clone(), score(reading.values)  # [N, h, w], [N]
    upper = scores + SURE * reading.error  # [N]; of those drawn again: -∞

    def draw(places: Tensor) -> None:
        chosen = replace(spec, seeds=tuple(spec.seeds[place] for place in places.tolist()))
        values[places] = swept(generator, layer, chosen, look)
        scores[places] = score(values[places])
        upper[places] = -torch.inf

    draw(rank_images(scores, SPARE * ranks))
    bar = scores[upper.isinf()].sort(descending=True).values[ranks - 1]
    draw(rank_images(upper, min(MOST, int((upper > bar).sum()))))
    sure = int((scores[upper.isinf()] > upper.max()).sum())
    return Matches(spec, values, exact=False, error=reading.typical, ranks=sure)


@torch.no_grad()
def _key_at(generator: Generator, layer: str, spec: LatentSpec, place: tuple[int, int]) -> Tensor:
    """The key [C] at a place of the one picture of `spec`."""
    keys = generator.layer(layer).inside(generator.keys(generator.latents(spec), layer).keys)[0]  # [C, h, w]
    height, width = keys.shape[1:]
    row, column = place
    if not (0 <= row < height and 0 <= column < width):
        raise RequestError(
            found=f"row {row}, column {column}",
            expected=f"a place of the layer's {height} × {width} positions, counted from 0",
            remedy="Choose a place in the picture.",
        )
    key = keys[:, row, column]
    if not bool(key.any()):
        raise RequestError(
            found=f"a key of nothing but zeros at row {row}, column {column} of picture {spec.seeds[0]}",
            expected="a place where the layer responds",
            remedy="Choose another place, or another layer.",
        )
    return key.cpu()
