"""What is looked for in the keys of many pictures, which are drawn as far as the layer, in lanes; nothing is kept."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

import torch
from torch import Tensor

from rewrite_core.errors import PalimpsestError, RequestError
from rewrite_core.generators import Generator, LatentSpec, Progress
from rewrite_core.generators.lanes import Lanes

__all__ = ["HEAT_BYTES", "Look", "require_room", "swept"]

HEAT_BYTES = 2 << 30
"""The heat of a search takes at most this much memory."""

Look = Callable[[Tensor], Tensor]
"""Keys [N, C, h, w], without a layer's margins → what is looked for at each position, [N, …, h, w]."""


def swept(
    generator: Generator, layer: str, spec: LatentSpec, look: Look, progress: Progress | None = None
) -> Tensor:
    """What `look` sees [N, …, h, w] in every picture of `spec`, on the CPU.

    Raises:
        LayerError: if there is no such layer.
        RequestError: see `require_room`.
        PalimpsestError: if what is seen is not finite.
        Cancelled: from `progress`.
    """
    require_room(generator, layer, spec)
    grid, lanes = generator.layer(layer), Lanes(generator)
    maps: list[Tensor] = []
    under_way: deque[tuple[LatentSpec, Future[Tensor]]] = deque()

    @torch.no_grad()
    def see(block: LatentSpec) -> Tensor:
        keys = generator.keys(generator.latents(block), layer).keys  # [N, C, h, w]
        return look(grid.inside(keys)).cpu()  # [N, …, h, w]

    def take() -> None:
        block, future = under_way.popleft()
        maps.append(_finite(future.result(), layer, block))
        if progress:
            progress(sum(map(len, maps)), len(spec))

    try:
        for block in spec.blocks(generator.micro_batch):
            if len(under_way) == lanes.count:
                take()
            under_way.append((block, lanes.submit(see, block)))
        while under_way:
            take()
    finally:
        lanes.close()
    return torch.cat(maps) if maps else torch.empty(0, *grid.inside(torch.empty(grid.key_size)).shape)


def _finite(found: Tensor, layer: str, block: LatentSpec) -> Tensor:
    if not bool(found.isfinite().all()):
        raise PalimpsestError(
            found=f"heat that is NaN or infinite at layer '{layer}' in pictures {block.seeds[0]} to {block.seeds[-1]}",
            expected="finite feature maps and a finite query",
            remedy="The weights are probably damaged: `palimpsest models` says which file is open.",
        )
    return found


def require_room(generator: Generator, layer: str, spec: LatentSpec, queries: int = 1) -> None:
    """Refuse more pictures than a map each of every query, [queries, N, h, w] float32, has room for.

    Raises:
        RequestError: saying how many there may be.
    """
    height, width = generator.layer(layer).key_size
    if len(spec) * (each := 4 * height * width * queries) > HEAT_BYTES:
        raise RequestError(
            found=f"heat of {len(spec):,} pictures at {height} × {width} positions: {len(spec) * each / 1e9:.1f} GB",
            expected=f"at most {HEAT_BYTES // each:,} pictures at this layer",
            remedy="Search fewer pictures at once, or a layer with smaller maps.",
        )
