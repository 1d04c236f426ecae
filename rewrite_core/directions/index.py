"""An index of a layer's keys: thousands of pictures searched in a fraction of a second instead of drawn again.

    index = key_index(generator, "l08", LatentSpec.of(range(10_000)))
    found = index.heat(query)            # [N, h, w], what the query says everywhere
    alike = index.similarity(key)        # [N, h, w], whitened cosine with a key

It is made once, by one pass over the pictures, and kept in the store as `CompactKeys`: in *shards* of at most `SHARD`
pictures, each a statistic of its own. So what is finished is never written again, a search among the first 10,000
uses what one among the first 1,000 has made, and neither memory nor the disk sees more than a shard at a time. To read
it is to map its files. One thread does the arithmetic, `beside` the lanes: it is done before others would have begun.

Measured on two cores (`benchmarks/directions.py`), 10,000 pictures at the default layer of anime64-dcgan: an index is
made in 1.6 times the time of drawing them once, takes 174 MB, and is searched in 0.24 s by a fresh process and 0.15 s
from then on, exact ranks included; drawing them takes 2.6 s for each query.

What it says is rounded, and it knows how much (`Reading.error`). `rewrite_core.directions.matches` looks at the best
again, exactly.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from rewrite_core.errors import RequestError
from rewrite_core.generators import Generator, LatentSpec, Progress
from rewrite_core.generators.generator import Layer
from rewrite_core.generators.lanes import beside
from rewrite_core.statistics.compact import CompactKeys, compact_bytes
from rewrite_core.statistics.gather import fetch
from rewrite_core.statistics.layer import SAMPLES
from rewrite_core.statistics.second_moment import SecondMoment
from rewrite_core.statistics.store import Store
from rewrite_core.statistics.sweep import MICRO_BATCHES

__all__ = ["INDEX_BYTES", "KeyIndex", "Reading", "index_bytes", "key_index", "moment_of"]

INDEX_BYTES = 1 << 30
"""An index is at most so large: beyond, the pictures are drawn again."""
SHARD, SHARD_BYTES = 1000, 64 << 20
"""Pictures in a shard, and its bytes, at most; at least one block of a pass."""


@dataclass(frozen=True, eq=False)
class Reading:
    """What an index says of every position.

    Attributes:
        values: [N, h, w] float32.
        error: the RMS rounding error of `values` where it is greatest, of each picture: [N] float32.
        typical: the RMS rounding error over all positions.
    """

    values: Tensor
    error: Tensor
    typical: float


@dataclass(frozen=True, eq=False)
class KeyIndex:
    """The compact keys of the pictures of `spec` at `layer`, in their order, without a layer's margins."""

    layer: str
    spec: LatentSpec
    shards: tuple[CompactKeys, ...]

    @property
    def nbytes(self) -> int:
        """What it takes on disk, but for headers."""
        return sum(tensor.nbytes for shard in self.shards for tensor in shard.state().values())

    def heat(self, query: Tensor) -> Tensor:
        """``d · k`` [N, h, w] of a query [C]."""
        return self.read(query).values

    def similarity(self, key: Tensor) -> Tensor:
        """Whitened cosine [N, h, w] of every key with `key` [C]; 0 where either is zero."""
        return self.compare(key).values

    def read(self, query: Tensor) -> Reading:
        """The heat of a query [C], and how far it may be off."""
        return beside(_joined, ((shard.heat(query), shard.error(query)) for shard in self.shards))

    def compare(self, key: Tensor) -> Reading:
        """The whitened cosine with a key [C], and how far it may be off."""
        return beside(_joined, (shard.cosine(key) for shard in self.shards))


def index_bytes(layer: Layer, samples: int) -> int:
    """What an index of so many pictures of a layer takes."""
    height, width = (side - 2 * layer.key_margin for side in layer.key_size)
    return samples * compact_bytes(layer.in_channels, height * width)


def key_index(
    generator: Generator,
    layer: str,
    spec: LatentSpec,
    *,
    store: Store | None = None,
    progress: Progress | None = None,
) -> KeyIndex:
    """The index of `spec`, from `store` (the default one if not given); what it lacks is made now, and kept.

    Raises:
        LayerError: if there is no such layer.
        RequestError: if `spec` is empty, or the index would be larger than `INDEX_BYTES`.
        Cancelled: from `progress`; what is finished by then is kept.
    """
    found = generator.layer(layer)
    if not 0 < (size := index_bytes(found, len(spec))) <= INDEX_BYTES:
        each = index_bytes(found, 1)
        raise RequestError(
            found=f"an index of {len(spec):,} pictures of layer '{layer}', {size / 1e9:.1f} GB",
            expected=f"1 to {INDEX_BYTES // each:,} pictures, {each:,} bytes each",
            remedy="Index fewer pictures, or a layer with smaller maps.",
        )
    empty = CompactKeys(moment_of(generator, layer, store=store).matrix, found.key_margin)
    shards: list[CompactKeys] = []
    for shard in spec.blocks(_shard(generator, found)):
        before = sum(kept.samples for kept in shards)

        def advance(done: int, total: int, before: int = before) -> None:
            if progress:
                progress(before + done, len(spec))

        shards.append(fetch(generator, layer, shard, empty, store=store, progress=advance))
    return KeyIndex(layer, spec, tuple(shards))


def moment_of(
    generator: Generator, layer: str, *, store: Store | None = None, progress: Progress | None = None
) -> SecondMoment:
    """The second moment of the pristine layer, by which its keys are whitened."""
    return fetch(
        generator.pristine,
        layer,
        LatentSpec.of(range(SAMPLES)),
        SecondMoment(),
        store=store,
        progress=progress,
    )


def _shard(generator: Generator, layer: Layer) -> int:
    """Pictures in a shard: whole blocks, as many as there may be."""
    block = MICRO_BATCHES * generator.micro_batch
    return max(1, min(SHARD, SHARD_BYTES // index_bytes(layer, 1)) // block) * block


def _joined(parts: Iterable[tuple[Tensor, Tensor]]) -> Reading:
    """The readings of all shards: values and RMS errors, [n, h, w] each."""
    values, worst, power = [], [], 0.0
    for found, errors in parts:
        values.append(found)
        worst.append(errors.flatten(1).amax(1))
        power += float(errors.square().sum())
    joined = torch.cat(values)
    return Reading(joined, torch.cat(worst), (power / joined.numel()) ** 0.5)
