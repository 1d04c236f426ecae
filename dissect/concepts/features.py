"""What a pixel looks like to the generator itself: its own feature maps there.

The feature vector of a pixel is every chosen layer's keys at that place, maps enlarged bilinearly and stacked (Zhang
et al., *DatasetGAN*, CVPR 2021; Xu and Zheng, *Linear Semantics in Generative Adversarial Networks*, CVPR 2021).
Nothing is enlarged to get them: a layer [C, h, w] is read at the painted pixels alone, as ``interpolate`` in mode
``bilinear`` without aligned corners would have it there.

Every picture is drawn by itself, so what is learned from it does not depend on the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from dissect.concepts.concept_file import ConceptFile
from dissect.concepts.strokes import UNKNOWN, Strokes
from rewrite_core.errors import LayerError
from rewrite_core.generators import Generator

__all__ = ["Features", "at_pixels", "default_layers", "features_of", "painted_maps"]

MOST_PIXELS, MOST_NUMBERS = 20_000, 1 << 26
"""Of all pictures together, which keeps learning to seconds; and numbers in their features, 256 MiB."""


@dataclass(frozen=True, eq=False)
class Features:
    """Painted pixels as they are learned from.

    Attributes:
        values: [P, F] float32; the channels of each layer, one layer after the other.
        concepts: the concept's number of each pixel, [P].
        pictures: the picture that each pixel is in, as its place among the painted ones, [P].
    """

    values: NDArray[np.float32]
    concepts: NDArray[np.int64]
    pictures: NDArray[np.int64]

    def of(self, chosen: NDArray[np.bool_]) -> Features:
        """Some of the pixels."""
        return Features(self.values[chosen], self.concepts[chosen], self.pictures[chosen])


def default_layers(generator: Generator) -> tuple[str, ...]:
    """All layers that say something about a place: those with more than one position.

    Raises:
        LayerError: there is none.
    """
    layers = tuple(layer.name for layer in generator.layers.values() if max(layer.key_size) > 1)
    if not layers:
        raise LayerError(
            found=f"{generator.name}: no layer with more than one position",
            expected="at least one, to tell the pixels of a picture apart",
            remedy="Open another generator.",
        )
    return layers


def at_pixels(maps: Tensor, pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps [C, h, w], enlarged bilinearly to `size`, at `pixels` [P, 2] (row, column) alone: [P, C]."""
    sides = torch.tensor(size, device=maps.device)
    centres = (2 * pixels + 1) / sides - 1  # [P, 2], from -1 to 1 across the picture
    grid = centres.flip(1)[None, None]  # [1, 1, P, 2]: x, y
    found = functional.grid_sample(maps[None], grid, padding_mode="border", align_corners=False)
    return found[0, :, 0].T  # [1, C, 1, P] → [P, C]


@torch.no_grad()
def painted_maps(
    generator: Generator, file: ConceptFile, layers: Sequence[str]
) -> Iterator[tuple[Strokes, dict[str, Tensor]]]:
    """Each painted picture: its strokes, and each layer's keys [C, h, w] within it."""
    for strokes, spec in zip(file.strokes, file.spec.blocks(1), strict=True):
        stopped = generator.inputs(generator.latents(spec), layers)
        yield strokes, {layer: generator.layer(layer).inside(stopped[layer].keys)[0] for layer in layers}


def features_of(generator: Generator, file: ConceptFile, layers: Sequence[str], most: int) -> Features:
    """The features of painted pixels: at most `most` of each concept on each picture, fewer where there are many."""
    length = sum(generator.layer(layer).in_channels for layer in layers)
    regions = sum(len(np.unique(strokes.labels[strokes.labels != UNKNOWN])) for strokes in file.strokes)
    most = max(1, min(most, MOST_PIXELS // regions, MOST_NUMBERS // (length * regions)))
    values, concepts, pictures = [], [], []
    for place, (strokes, maps) in enumerate(painted_maps(generator, file, layers)):
        pixels = _chosen(strokes, most)  # [P, 2]
        where = torch.from_numpy(pixels).to(generator.device)
        read = [at_pixels(maps[layer].float(), where, file.size) for layer in layers]
        values.append(torch.cat(read, 1).cpu().numpy())  # [P, F]
        concepts.append(strokes.labels[pixels[:, 0], pixels[:, 1]].astype(np.int64))
        pictures.append(np.full(len(pixels), place))
    return Features(np.concatenate(values), np.concatenate(concepts), np.concatenate(pictures))


def _chosen(strokes: Strokes, most: int) -> NDArray[np.int64]:
    """Painted pixels [P, 2] (row, column), at most `most` of each concept, drawn from the picture's own seed."""
    chosen = []
    for number in range(strokes.labels.max() + 1):
        found = np.argwhere(strokes.labels == number)
        if len(found) > most:
            random = np.random.RandomState([strokes.seed, number])
            found = found[np.sort(random.permutation(len(found))[:most])]
        chosen.append(found)
    return np.concatenate(chosen)
