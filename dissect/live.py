"""Pictures stopped at a layer once, to be drawn on again and again: what a page shows while a visitor tries things.

    stopped = stop(generator, LatentSpec.of(range(12)), "l08")
    stopped.pictures                                   # uint8 [N, H, W, 3], as they are
    stopped.drawn([insert("l08", [3, 17], values)])    # the same with an intervention

Everything below the layer is computed once. `stopped.nbytes` says what that takes to keep.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dissect.interventions import Intervention, finished
from rewrite_core.generators import Generator, LatentSpec, LayerInput
from rewrite_core.pictures import Picture, to_uint8

__all__ = ["Stopped", "stop"]


@dataclass(frozen=True, eq=False)
class Stopped:
    """The N pictures of `spec`, stopped at `layer`.

    Attributes:
        batches: of a micro-batch each.
        pictures: uint8 [N, H, W, 3].
    """

    generator: Generator
    spec: LatentSpec
    layer: str
    batches: tuple[LayerInput, ...]
    pictures: Picture

    def drawn(self, interventions: Sequence[Intervention]) -> Picture:
        """The pictures [N, H, W, 3] with interventions at this layer or at later ones.

        Raises:
            LayerError: one is at an earlier layer.
            RequestError, MaskError: the generator has no such unit, or draws pictures of another size.
        """
        return _drawn(self.generator, self.batches, interventions)

    @property
    def nbytes(self) -> int:
        """What it takes to keep it."""
        tensors = (tensor for at in self.batches for tensor in (at.keys, *at.rest.values()))
        return self.pictures.nbytes + sum(tensor.nbytes for tensor in tensors)


@torch.no_grad()
def stop(generator: Generator, spec: LatentSpec, layer: str) -> Stopped:
    """The pictures of `spec` at `layer`.

    Raises:
        LayerError: no such layer.
    """
    batches = tuple(
        generator.keys(generator.latents(block), layer) for block in spec.blocks(generator.micro_batch)
    )
    return Stopped(generator, spec, layer, batches, _drawn(generator, batches, []))


def _drawn(
    generator: Generator, batches: Sequence[LayerInput], interventions: Sequence[Intervention]
) -> Picture:
    drawn = [to_uint8(finished(generator, at, interventions)) for at in batches]
    return np.concatenate([np.empty((0, *generator.picture_size, 3), dtype=np.uint8), *drawn])
