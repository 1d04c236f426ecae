"""A map of a layer's keys in the plane: contexts that the layer tells apart lie apart, each a patch of its picture.

    found = key_map(generator, layer_keys(generator, "l08", spec), source=open_concepts("embedded", generator))
    found.table()          # x, y, seed, row, column, concept
    found.purity()         # how far neighbours on the map are of one concept, and by chance

Keys are compared whitened by `(C + 10·(tr C / n)·I)^(-1/2)`, with much shrinkage. With none, every direction of key
space has the same power: a principal component is then a direction of chance, and what little the layer says with its
weakest directions drowns what it says with its strongest. The shrinkage was chosen by how many of the ten nearest
points on the map are of a point's own concept; `docs/directions.md` has the numbers.

* ``PCA``: the first two principal components, at once; of keys whose length l is made log(1 + l / median), for a few
  are so long that the others would share a corner. Distances are true, but for what other components add.
* ``t-SNE`` (van der Maaten and Hinton 2008): neighbours by cosine stay neighbours; distances beyond mean nothing. It
  starts from the components and is computed by one thread, so no chance is in it: the same keys give the same map. It
  is turned so that it is widest from left to right.

A point has a concept where that covers at least half of its cell; of several the first in the source's order. Keys and
pictures are those of the unedited generator.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from dissect.concepts.overlay import labelled
from dissect.concepts.source import ConceptSource
from dissect.patches import patches
from rewrite_core.directions.layer_keys import LayerKeys
from rewrite_core.errors import ModelMismatch, RequestError
from rewrite_core.generators import Generator, LatentSpec
from rewrite_core.generators.lanes import Lanes
from rewrite_core.jobs import Progress
from rewrite_core.memory import whiten
from rewrite_core.pictures import Picture

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["METHODS", "POINTS", "SHRINKAGE", "THUMBNAIL", "KeyMap", "Method", "Purity", "key_map", "purity"]

Seen = tuple[list[Picture], list[str]]
"""Patches, and a concept of each."""
Method = Literal["PCA", "t-SNE"]
METHODS: tuple[Method, ...] = ("PCA", "t-SNE")
POINTS = 2_000
"""Points that a map has, at most."""
FEWEST = 5
"""And at least."""
SHRINKAGE = 10.0
"""Ridge of the whitening, in mean eigenvalues of the second moment."""
THUMBNAIL = 48
"""Pixels that a patch is wide, at most."""
PERPLEXITY = 30.0
"""Neighbours that t-SNE heeds, about; fewer on a small map."""
COVERED = 0.5
"""Share of a cell that a concept covers to be that of its point."""


class Purity(NamedTuple):
    """How far neighbours are of one concept: the mean share among a point's nearest, and that by chance."""

    share: float
    chance: float


@dataclass(frozen=True, eq=False)
class KeyMap:
    """Keys as points in the plane.

    Attributes:
        points: [k, 2] float64.
        places: seed, row and column of each, [k, 3] int64; of the grid inside the picture.
        method: how they were placed.
        patches: around each place, uint8 [k, s, s, 3]; s is at most `THUMBNAIL`.
        concepts: of each point; "" where there is none.
        layer: of which layer.
        model: of which generator.
    """

    points: NDArray[np.float64]
    places: NDArray[np.int64]
    method: Method
    patches: Picture
    concepts: tuple[str, ...]
    layer: str
    model: str

    def table(self) -> pd.DataFrame:
        """A row for each point: x, y, seed, row, column, concept."""
        import pandas as pd

        columns = [*self.points.T, *self.places.T, list(self.concepts)]
        return pd.DataFrame(dict(zip(("x", "y", "seed", "row", "column", "concept"), columns, strict=True)))

    def purity(self, neighbours: int = 10) -> Purity:
        """How far neighbours on the map are of one concept; see `purity`."""
        return purity(self.points, self.concepts, neighbours)


def key_map(
    generator: Generator,
    keys: LayerKeys,
    *,
    method: Method = "PCA",
    points: int = 1000,
    source: ConceptSource | None = None,
    progress: Progress | None = None,
) -> KeyMap:
    """A map of the first keys of a layer's sample, which is in random order.

    Only the pictures that these keys are from are drawn. Of `progress`, half is drawing.

    Args:
        generator: whose keys they are.
        keys: second moment and sample of a layer.
        method: how to place them.
        points: how many keys; fewer where the sample has no more.
        source: where concepts come from; none: no point has one.
        progress: told of each micro-batch.

    Raises:
        RequestError: no such method, too many points, or too few keys.
        ModelMismatch: the keys are of another generator.
        PalimpsestError: from `source`.
        Cancelled: from `progress`.
    """
    pristine = generator.pristine
    _check(pristine, keys, method, points)
    if source is not None:
        source.check(pristine)
    rows = keys.rows[:points]  # [k, C]
    assert keys.sample.places is not None
    places = keys.sample.places[: len(rows)].numpy()  # [k, 3]
    crops, concepts = _seen(pristine, keys, places, source, progress)
    whitened = rows @ whiten(keys.moment.matrix, ridge=SHRINKAGE).zca  # [k, C]
    placed = _principal(_shortened(whitened))
    if method == "t-SNE":
        placed = _stochastic(whitened, placed)
    if progress:
        total = 2 * len(np.unique(places[:, 0]))
        progress(total, total)
    return KeyMap(placed, places, method, crops, concepts, keys.layer, pristine.name)


def purity(points: NDArray[np.float64], concepts: tuple[str, ...], neighbours: int = 10) -> Purity:
    """Of points [k, D] that have a concept, how many of each one's nearest share it, and how many would by chance.

    Both are 0 where no two points have a concept.
    """
    names = np.array(concepts, dtype=np.str_)
    named, counts = np.unique(names[names != ""], return_counts=True)
    total = int(counts.sum())
    if total < 2:
        return Purity(0.0, 0.0)
    chosen = torch.from_numpy(points[names != ""])  # [n, D]
    which = torch.from_numpy(np.searchsorted(named, names[names != ""]))  # [n]
    distances = torch.cdist(chosen, chosen).fill_diagonal_(torch.inf)
    nearest = distances.topk(min(neighbours, total - 1), largest=False).indices  # [n, neighbours]
    share = float((which[nearest] == which[:, None]).double().mean())
    return Purity(share, float((counts * (counts - 1)).sum() / (total * (total - 1))))


def _shortened(rows: Tensor) -> Tensor:
    """Rows [k, C] in their own directions, their lengths l made log(1 + l / median)."""
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True)  # [k, 1]
    typical = lengths[lengths > 0].median() if lengths.any() else 1.0
    factors: Tensor = (lengths / typical).log1p() / lengths.where(lengths > 0, 1.0)  # [k, 1]
    return rows * factors


def _principal(rows: Tensor) -> NDArray[np.float64]:
    """The first two principal components of rows [k, C]: [k, 2]; each rises with the unit that weighs most in it."""
    centred = rows - rows.mean(0)
    left, strengths, axes = torch.linalg.svd(centred, full_matrices=False)  # [k, r], [r], [r, C]
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()[:, 0]  # [r]
    scores = left * strengths * torch.where(largest == 0, 1.0, largest)  # [k, r]
    return functional.pad(scores, (0, max(0, 2 - scores.shape[1])))[:, :2].numpy()


def _stochastic(rows: Tensor, start: NDArray[np.float64]) -> NDArray[np.float64]:
    """t-SNE of rows [k, C] by cosine, from points `start` [k, 2]: [k, 2]."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    scale = 1e-4 / (start[:, 0].std() or 1.0)  # small, so that early steps decide (Kobak and Berens 2019)
    embedding: Any = TSNE(
        metric="cosine",
        init=(scale * start).astype(np.float32),
        perplexity=min(PERPLEXITY, (len(rows) - 1) / 3),
    )
    with threadpool_limits(1):  # sums of several threads come in any order, and t-SNE magnifies the last bit
        placed = torch.from_numpy(embedding.fit_transform(rows.numpy())).double()  # [k, 2]
    return _principal(placed)


def _seen(
    generator: Generator,
    keys: LayerKeys,
    places: NDArray[np.int64],
    source: ConceptSource | None,
    progress: Progress | None,
) -> tuple[Picture, tuple[str, ...]]:
    """Patch and concept at each of `places` [k, 3]; pictures are drawn a micro-batch at a time, and let go."""
    layer = generator.layer(keys.layer)
    height, width = (side - 2 * layer.key_margin for side in layer.key_size)
    grid = (height, width)
    seeds = np.unique(places[:, 0])
    blocks = replace(keys.spec, seeds=tuple(seeds.tolist())).blocks(generator.micro_batch)
    parts = [np.flatnonzero(np.isin(places[:, 0], block.seeds)) for block in blocks]  # rows, [m] each
    lanes, done = Lanes(generator), 0
    crops: dict[int, Picture] = {}
    concepts = [""] * len(places)
    under_way: deque[tuple[NDArray[np.intp], Future[Seen]]] = deque()

    def take() -> None:
        rows, future = under_way.popleft()
        for row, crop, concept in zip(rows.tolist(), *future.result(), strict=True):
            crops[row], concepts[row] = crop, concept

    try:
        for block, rows in zip(blocks, parts, strict=True):
            if len(under_way) == lanes.count:
                take()
            under_way.append((rows, lanes.submit(_look, generator, block, source, grid, places[rows])))
            done += len(block)
            if progress:
                progress(done, 2 * len(seeds))
        while under_way:
            take()
    finally:
        lanes.close()
    return np.stack([crops[row] for row in range(len(places))]), tuple(concepts)


def _look(
    generator: Generator,
    block: LatentSpec,
    source: ConceptSource | None,
    grid: tuple[int, int],
    places: NDArray[np.int64],
) -> Seen:
    """Patch and concept at each of `places` [m, 3] in the pictures of a micro-batch, whose seeds ascend."""
    at, cells = np.searchsorted(block.seeds, places[:, 0]), places[:, 1:]  # [m], [m, 2]
    if source is None:
        return _small(patches(generator.draw(block)[at], cells, grid)), [""] * len(places)
    seen = labelled(generator, block, source)
    covers = functional.adaptive_avg_pool2d(seen.labels.float(), grid) >= COVERED  # [N, L, *grid]
    chosen = covers.numpy()[at, :, cells[:, 0], cells[:, 1]]  # [m, L]
    names = np.array(["", *source.names], dtype=np.str_)
    first = np.where(chosen.any(1), chosen.argmax(1) + 1, 0)  # [m]
    return _small(patches(seen.pictures[at], cells, grid)), names[first].tolist()


def _small(crops: Picture) -> list[Picture]:
    """Patches [m, s, s, 3], those that are too large reduced to `THUMBNAIL`."""
    size = (min(THUMBNAIL, crops.shape[2]), min(THUMBNAIL, crops.shape[1]))
    if size == (crops.shape[2], crops.shape[1]):
        return list(crops)
    return [np.asarray(Image.fromarray(crop).resize(size, Image.Resampling.BOX)) for crop in crops]


def _check(generator: Generator, keys: LayerKeys, method: str, points: int) -> None:
    """Refuse what no map can be made of, before anything is drawn."""
    if method not in METHODS:
        raise RequestError(
            found=f"a map by '{method}'",
            expected=f"one of {', '.join(METHODS)}",
            remedy="Choose one of these methods.",
        )
    if not FEWEST <= points <= POINTS or len(keys.rows) < FEWEST:
        raise RequestError(
            found=f"a map of {points:,} points, of a sample of {len(keys.rows):,} keys",
            expected=f"{FEWEST} to {POINTS:,} points, and as many keys",
            remedy="1,000 points are sound; draw more pictures for more keys.",
        )
    if keys.fingerprint != generator.fingerprint:
        raise ModelMismatch(
            found=f"keys of {keys.model}",
            expected=f"keys of {generator.name} as it was opened",
            remedy="Draw the keys of this generator.",
        )
