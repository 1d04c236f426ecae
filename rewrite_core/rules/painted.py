"""What was painted, as the layer sees it: latents, keys and soft areas of the pictures a request names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from rewrite_core.generators import Generator, Latents
from rewrite_core.rules.request import EditRequest, Painted

__all__ = ["latents_of", "painted_keys"]


def latents_of(generator: Generator, request: EditRequest, images: Iterable[int]) -> Latents:
    """Latents of the pictures `images`, as the request names them."""
    return generator.latents(request.latents.spec(images))


def painted_keys(
    generator: Generator, layer: str, request: EditRequest, regions: Sequence[Painted]
) -> tuple[Tensor, Tensor]:
    """Keys [N, C, h, w] and areas [N, h, w] of the pictures painted on; masks of one picture are joined."""
    grid = generator.layer(layer)
    images = list(dict.fromkeys(painted.image for painted in regions))
    areas = [
        torch.stack(
            [
                painted.mask.area(grid.key_size, grid.key_margin)
                for painted in regions
                if painted.image == image
            ]
        ).amax(0)  # [h, w]
        for image in images
    ]
    return generator.keys(latents_of(generator, request, images), layer).keys, torch.stack(areas)
