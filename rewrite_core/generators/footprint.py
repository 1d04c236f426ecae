"""Memory: what a generator takes, what a device has free, and drawing a micro-batch within it.

A micro-batch is drawn whole, because batches of different sizes differ in the last bits. Only where memory is short is
it drawn in parts; its pictures then agree with those drawn whole to about 3e-6, and the log says so.
"""

from __future__ import annotations

import logging
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil
import torch
from torch import Tensor

from rewrite_core.errors import RequestError

if TYPE_CHECKING:
    from rewrite_core.generators.generator import Generator
    from rewrite_core.generators.latents import Latents, LatentSpec

__all__ = ["Footprint", "draw_block", "footprint", "free_memory"]

WORKING_MAPS = 8
"""Drawing a picture takes at most so many times its largest map: measured 1.2 to 7.5 over the families."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Footprint:
    """Bytes: of the weights, and of drawing one micro-batch beside them."""

    weights: int
    drawing: int


def footprint(generator: Generator) -> Footprint:
    """An estimate, made without drawing anything."""
    tensors = [tensor for _, tensor in generator.tensors()]
    weights = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return Footprint(weights, _picture(generator) * generator.micro_batch)


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be taken on a device; None where it does not tell."""
    if device.type == "cpu":
        return int(psutil.virtual_memory().available)
    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # ours to use again
        return int(torch.cuda.mem_get_info(device)[0]) + held
    return None


@torch.no_grad()
def draw_block(generator: Generator, block: LatentSpec | Latents) -> Tensor:
    """Pictures [N, 3, R, R] on the CPU, float32, of a micro-batch; in parts where memory is short.

    Raises:
        RequestError: if there is no memory for a single picture.
    """
    free = free_memory(generator.device)
    at_once = len(block) if free is None else max(1, min(len(block), free // _picture(generator)))
    while len(block):
        if at_once < len(block):
            log.warning(
                "%s: memory for %d of %d pictures at a time; they agree to 3e-6 only",
                generator.name,
                at_once,
                len(block),
            )
        try:
            return torch.cat([_drawn(generator, part) for part in block.blocks(at_once)])
        except RuntimeError as problem:  # of which torch.OutOfMemoryError is one
            if not _out_of_memory(problem):
                raise
        if at_once == 1:
            raise RequestError(
                found=f"{generator.device.type}: no memory for one picture of {generator.name}",
                expected=f"about {_picture(generator) / 1e6:,.0f} MB free",
                remedy="Close other programs, or choose another --device.",
            )
        at_once //= 2
        if generator.device.type == "cuda":
            torch.cuda.empty_cache()
    return torch.empty(0, 3, *generator.picture_size)


def _drawn(generator: Generator, part: LatentSpec | Latents) -> Tensor:
    half = generator.precision == "half"
    with torch.autocast(generator.device.type, torch.float16) if half else nullcontext():
        return generator.pictures(generator.latents(part)).float().cpu()


def _picture(generator: Generator) -> int:
    """Bytes that drawing one picture takes."""
    return 4 * WORKING_MAPS * generator.largest_map


def _out_of_memory(problem: RuntimeError) -> bool:
    return isinstance(problem, torch.OutOfMemoryError) or "can't allocate memory" in str(problem)
