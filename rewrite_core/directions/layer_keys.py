"""The keys of one layer, as those see them who look for directions in them without being shown a context.

The second moment is over every position of every picture; the sample is a uniform draw of a few thousand of those
positions (`rewrite_core.statistics.Reservoir`), each with the picture and the place that it is from. Both come from
one pass over the pictures, and from the store where they are there already.

    keys = layer_keys(generator, "l08", LatentSpec.of(range(1000)))
    principal(keys, 8), independent(keys, 8), centres(keys, 8)
    learn_dictionary(keys, DictionarySettings())

Axes: keys of the sample `k`, units `C`, directions `M`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from rewrite_core.directions.direction import Direction
from rewrite_core.errors import RequestError
from rewrite_core.generators import Generator, LatentSpec, Layer, Progress
from rewrite_core.statistics.gather import gather
from rewrite_core.statistics.reservoir import SIZE, Reservoir
from rewrite_core.statistics.second_moment import SecondMoment
from rewrite_core.statistics.store import Store

__all__ = ["LayerKeys", "layer_keys", "rare_side"]


@dataclass(frozen=True, eq=False)
class LayerKeys:
    """What is known of a layer's keys.

    Attributes:
        layer: its name.
        model: name of the generator.
        fingerprint: of the pristine generator, whose keys these are.
        spec: the pictures.
        moment: the second moment over every position of every picture.
        sample: keys [k, C] in random order, and their places; of a layer that reaches beyond the picture only those
            inside it, by row and column of the grid inside.
    """

    layer: str
    model: str
    fingerprint: str
    spec: LatentSpec
    moment: SecondMoment
    sample: Reservoir

    @property
    def units(self) -> int:
        """Channels of the key."""
        return self.rows.shape[1]

    @cached_property
    def rows(self) -> Tensor:
        """The sampled keys, [k, C] float64."""
        assert self.sample.keys is not None, "no sample was seen"
        return self.sample.keys.double()

    def require(self, count: int, least: int, what: str) -> None:
        """Refuse to look for fewer than one of `what`, or in fewer than `least` keys.

        Raises:
            RequestError: in one line.
        """
        if count < 1:
            raise RequestError(found=f"{count} {what}", expected="at least 1", remedy="Ask for one or more.")
        if len(self.rows) < least:
            raise RequestError(
                found=f"a sample of {len(self.rows):,} keys of {self.layer} for {count:,} {what}",
                expected=f"at least {least:,} keys",
                remedy="Draw more pictures, take a larger sample, or ask for fewer.",
            )

    def direction(
        self,
        vector: Tensor,
        method: str,
        strengths: Tensor,
        name: str,
        provenance: Mapping[str, Any],
        key: Tensor | None = None,
    ) -> Direction:
        """The direction of `vector` [C], at unit length, with what is the same for all that come from these keys."""
        query = vector / torch.linalg.vector_norm(vector)  # [C]
        return Direction(
            vectors=query[None],  # [1, C]
            layer=self.layer,
            method=method,
            singular_values=strengths,
            name=name,
            provenance={**provenance, "keys": self.origin()},
            model=self.model,
            fingerprint=self.fingerprint,
            key=key,
        )

    def origin(self) -> dict[str, Any]:
        """Which keys these are, as JSON: pictures, size and salt of the sample."""
        seeds = self.spec.seeds
        run = len(seeds) > 2 and seeds == tuple(range(seeds[0], seeds[0] + len(seeds)))
        return {
            "seeds": f"{seeds[0]}..{seeds[-1]}" if run else list(seeds),
            "scheme": self.spec.scheme,
            "truncation": self.spec.truncation,
            "cutoff": self.spec.cutoff,
            "label": self.spec.label,
            "size": self.sample.size,
            "salt": self.sample.salt,
        }


def layer_keys(
    generator: Generator,
    layer: str,
    spec: LatentSpec,
    *,
    size: int = SIZE,
    store: Store | None = None,
    progress: Progress | None = None,
) -> LayerKeys:
    """Second moment and a sample of `size` keys of `layer` of the pristine `generator`, in one pass over `spec`.

    Raises:
        LayerError: if there is no such layer.
        RequestError: if `spec` is empty, or `size` is not positive.
        Cancelled: from `progress`.
    """
    pristine = generator.pristine
    wanted = {layer: [SecondMoment(), Reservoir(size)]}
    moment, sample = gather(pristine, spec, wanted, store=store, progress=progress)[layer]
    assert isinstance(moment, SecondMoment)
    assert isinstance(sample, Reservoir)
    found = pristine.layer(layer)
    return LayerKeys(layer, pristine.name, pristine.fingerprint, spec, moment, _inside(sample, found))


def rare_side(vectors: Tensor, rows: Tensor) -> Tensor:
    """`vectors` [M, C], each turned so that its heat over `rows` [k, C] has a positive skew.

    A sign is arbitrary for most origins. This one makes what a direction finds the rare, strong side: a few positions
    far above the others. A heat without any skew leaves its direction as it was.
    """
    heat = (rows - rows.mean(0)) @ vectors.T  # [k, M]
    skew = heat.pow(3).sum(0)  # [M]
    return torch.where((skew < 0)[:, None], -vectors, vectors)


def _inside(sample: Reservoir, layer: Layer) -> Reservoir:
    """The keys of `sample` that are in the picture, and their places there."""
    assert sample.keys is not None
    assert sample.places is not None
    assert sample.priorities is not None
    if not layer.key_margin:
        return sample
    places = sample.places - torch.tensor([0, layer.key_margin, layer.key_margin])  # [k, 3]
    size = torch.tensor(layer.key_size) - 2 * layer.key_margin  # [2]
    kept = ((places[:, 1:] >= 0) & (places[:, 1:] < size)).all(1)  # [k]
    return replace(sample, keys=sample.keys[kept], places=places[kept], priorities=sample.priorities[kept])
