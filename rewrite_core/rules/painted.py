"""What was painted, as the layer sees it: latents, keys and soft areas of the pictures a request names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rewrite_core.generators import Generator, Latents
from rewrite_core.generators.own import OwnPicture, PictureId
from rewrite_core.memory import Observations, observe, second_moment_of
from rewrite_core.rules.request import EditRequest, Painted

__all__ = ["latents_of", "observations_of", "painted_keys", "protected_moment"]


def latents_of(generator: Generator, request: EditRequest, image: PictureId) -> Latents:
    """Latents of one picture: a number as the request counts them, a picture of one's own as it is."""
    if isinstance(image, OwnPicture):
        return image.latents(generator)
    return generator.latents(request.latents.spec([image]))


def observations_of(generator: Generator, layer: str, request: EditRequest) -> Observations:
    """What the request's context shows at `layer`: the keys [M, C] under its masks, each weighted by its area.

    Raises:
        RequestError: the request has no context.
        LayerError: the generator has no such layer.
    """
    request.painted("key")
    return observe(*painted_keys(generator, layer, request, request.key))


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
    return _keys(generator, layer, request, images), torch.stack(areas)


def protected_moment(generator: Generator, layer: str, request: EditRequest) -> Tensor | None:
    """Second moment [C, C] of the keys that the request protects; None where nothing is, or its weight is 0."""
    if not (request.protect and request.direction.protect):
        return None
    return second_moment_of(observe(*painted_keys(generator, layer, request, request.protect)))


def _keys(generator: Generator, layer: str, request: EditRequest, images: Sequence[PictureId]) -> Tensor:
    """Keys [N, C, h, w] of `images`: numbered ones in one batch, each other alone with latents of its kind."""
    numbers = [image for image in images if isinstance(image, int)]
    keys: dict[PictureId, Tensor] = {}
    if numbers:
        together = generator.keys(generator.latents(request.latents.spec(numbers)), layer).keys
        keys.update(zip(numbers, together, strict=True))
    for image in set(images).difference(numbers):
        keys[image] = generator.keys(latents_of(generator, request, image), layer).keys[0]  # [C, h, w]
    return torch.stack([keys[image] for image in images])
