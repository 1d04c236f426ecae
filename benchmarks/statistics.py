"""The statistics service: each statistic against its published form and against the machine, and a whole sweep.

Features are synthetic and of realistic scale where a statistic alone is timed; sweeps run on real generators. Both
sides of a ratio see the same numbers on the same number of threads.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from benchmarks.published_statistics import LabelLoop, Sketch, TopBuffer
from benchmarks.row import Row
from benchmarks.stylegan2 import random_stylegan2
from rewrite_core.generators import Generator, LatentSpec, open_generator
from rewrite_core.generators.lanes import Lanes, beside
from rewrite_core.statistics import (
    Batch,
    Histogram,
    Intersection,
    Maxima,
    Scene,
    SecondMoment,
    Statistic,
    Store,
    gather,
)
from rewrite_core.statistics.sweep import MICRO_BATCHES, Wanted, blocks_of

__all__ = ["rows"]

S = TypeVar("S", bound=Statistic)
GRIDS = ((512, 8), (512, 16), (512, 32), (128, 64))
BATCH, BATCHES = 25, 40
LARGE = 1 << 29
"""Bytes: of larger features a part is made, and shown several times."""
WANTED = [0.99, 0.995, 0.999]


def rows() -> Iterable[Row]:
    """Every figure of the service, on all cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    try:
        yield from _second_moment()
        yield from _quantiles()
        yield from _top_pictures()
        yield from _intersection()
        yield from _embedded_sweep()
        yield from _large_sweep()
    finally:
        torch.set_num_threads(before)


def _second_moment() -> Iterable[Row]:
    for channels, grid in GRIDS[:3]:
        batches = _features(channels, grid)
        ours = _best(_fed, SecondMoment(), batches)
        wide = torch.randn(channels, BATCH * grid * grid)
        together = len(batches) * _best(
            torch.mm, wide, wide.T
        )  # the same multiplications, one product a batch
        other = min(together, _best(_product, wide, len(batches)))
        yield _row(f"second moment, {channels} × {grid}² [s], against the GEMM", ours, other, 0.8)


def _quantiles() -> Iterable[Row]:
    for channels, grid in GRIDS:
        batches = _features(channels, grid)
        ours = _best(_fed, Histogram(), batches)
        other = _seconds(_sketch, batches)
        yield _row(f"quantiles, {channels} × {grid}² [s], against a sketch", ours, other, 20)
        found, sketched = _fed(Histogram(), batches).quantile(WANTED), _sketch(batches).quantile(WANTED)
        error, theirs = (_rank_error(batches, values) for values in (found, sketched))
        yield Row(
            f"quantiles, {channels} × {grid}², mean rank error",
            error,
            theirs,
            theirs / error,
            "≥ 1 ×",
            theirs >= error,
        )


def _top_pictures() -> Iterable[Row]:
    for channels, grid in GRIDS:
        batches = _features(channels, grid)
        ours = _best(_topped, batches, runs=9)
        other = _best(_buffered, batches, runs=9)
        yield _row(f"top 100 pictures, {channels} × {grid}² [s], against a buffer", ours, other, 3)


def _intersection() -> Iterable[Row]:
    labels, size = 148, 64
    for grid in (8, 16):
        batches = _features(512, grid)
        levels = _fed(Histogram(), batches).quantile([0.99])[:, 0].float()
        draw = torch.Generator().manual_seed(1)
        maps = torch.randint(1, labels + 1, (BATCH, 3, size, size), generator=draw)
        maps *= torch.rand(maps.shape, generator=draw) < 0.01
        masks = torch.stack([(maps == label + 1).any(1) for label in range(labels)], 1)  # [N, L, H, W]
        empty = Intersection(thresholds=levels, labeller=_Labels(masks))
        ours = _best(_fed, empty, batches, masks) / len(batches)
        loop = LabelLoop(levels, labels)
        other = _best(loop.add, batches[0], maps, runs=1)
        yield _row(f"IoU, 512 × {grid}² × {labels} labels on {size}² [s a batch]", ours, other, 100)


class _Labels:
    """Fixed labels, whatever the pictures."""

    layers = ()

    def __init__(self, masks: Tensor) -> None:
        self.masks = masks

    @property
    def names(self) -> tuple[str, ...]:
        """Numbers."""
        return tuple(f"label {index}" for index in range(self.masks.shape[1]))

    def identity(self) -> dict[str, str]:
        """Never stored."""
        return {"labels": "synthetic"}

    def __call__(self, scene: Scene) -> Tensor:
        """The same for all."""
        return self.masks[: len(scene.pictures)]


def _embedded_sweep() -> Iterable[Row]:
    generator, spec = open_generator(), LatentSpec.of(range(1000))
    wanted: dict[str, list[Statistic]] = {
        layer: [SecondMoment(), Histogram(), Maxima()] for layer in generator.layers
    }

    def asked(wanted: Wanted = wanted) -> None:
        with tempfile.TemporaryDirectory() as folder:
            gather(generator, spec, wanted, store=Store(Path(folder)))

    ours, other = _alternating(asked, lambda: _drawn(generator, spec))
    yield _at_most("anime64, 3 statistics of all layers [s], against drawing", ours, other, 1.25)
    apart = sum(_best(asked, {layer: wanted[layer]}, runs=1) for layer in wanted)
    yield _row("anime64, one sweep [s], against one for each layer", ours, apart, 1)


def _large_sweep() -> Iterable[Row]:
    generator, layer = random_stylegan2(256), "layer8"
    spec = LatentSpec.of(range(10 * MICRO_BATCHES * generator.micro_batch))

    def asked() -> None:
        with tempfile.TemporaryDirectory() as folder:
            gather(generator, spec, {layer: [SecondMoment()]}, store=Store(Path(folder)))

    ours, other = _alternating(asked, lambda: _bare(generator, spec, layer), 3)
    yield _at_most("StyleGAN2-256, second moment of layer8 [s], against the bare pass", ours, other, 1.1)


def _drawn(generator: Generator, spec: LatentSpec) -> None:
    """Pictures of `spec`, in as many lanes as a sweep has."""
    lanes = Lanes(generator)
    for done in [lanes.submit(generator.sample, block) for block in blocks_of(generator, spec)]:
        done.result()


def _bare(generator: Generator, spec: LatentSpec, layer: str) -> None:
    """The forward pass to `layer`, in as many lanes as a sweep has."""
    lanes = Lanes(generator)

    @torch.no_grad()
    def block(samples: LatentSpec) -> None:
        for part in samples.blocks(generator.micro_batch):
            generator.inputs(generator.latents(part), [layer])

    for done in [lanes.submit(block, samples) for samples in blocks_of(generator, spec)]:
        done.result()


def _features(channels: int, grid: int) -> list[Tensor]:
    """Micro-batches of rectified, smooth maps, of another scale for each unit."""
    draw = torch.Generator().manual_seed(0)
    scale = torch.rand(channels, 1, 1, generator=draw) * 3 + 0.1
    shape = (BATCH, channels, grid, grid)
    count = min(BATCHES, LARGE // (4 * BATCH * channels * grid * grid))
    made = [torch.relu(torch.randn(shape, generator=draw) * scale - 0.3) for _ in range(count)]
    return [made[index % count] for index in range(BATCHES)]


def _fed(empty: S, batches: list[Tensor], labels: Tensor | None = None) -> S:
    """Folded block by block in as many lanes as there are, as by `gather`."""

    def block(start: int) -> S:
        seen = empty
        for index, keys in enumerate(batches[start : start + MICRO_BATCHES], start):
            seen = seen.update(Batch.of(keys, index * BATCH, labels))
        return seen

    lanes, seen = _lanes(), empty
    for found in [lanes.submit(block, start) for start in range(0, len(batches), MICRO_BATCHES)]:
        seen = beside(seen.merge, found.result())
    return seen


@lru_cache
def _lanes() -> Lanes:
    return Lanes(open_generator())


def _product(wide: Tensor, times: int) -> None:
    """`times` matrix products, as many at once as there are lanes."""
    lanes = _lanes()
    for done in [lanes.submit(torch.mm, wide, wide.T) for _ in range(times)]:
        done.result()


def _sketch(batches: list[Tensor]) -> Sketch:
    sketch = Sketch()
    for keys in batches:
        sketch.add(keys.permute(0, 2, 3, 1).reshape(-1, keys.shape[1]))  # [N·h·w, C]
    return sketch


def _buffered(batches: list[Tensor]) -> Tensor | None:
    buffer = TopBuffer(100)
    for index, keys in enumerate(batches):
        buffer.add(keys, index * BATCH)
    return buffer.pictures


def _rank_error(batches: list[Tensor], values: Tensor) -> float:
    """How far the shares below `values` [C, Q] are from `WANTED`, on average over the first 16 units."""
    kept = [keys[:, :16].transpose(0, 1).flatten(1) for keys in batches]
    flat, values = torch.cat(kept, 1).sort(1).values, values[:16].float()  # [16, n]
    below, upto = (torch.searchsorted(flat, values, right=right) for right in (False, True))
    wanted = torch.tensor(WANTED, dtype=torch.float64)
    low, high = below.double() / flat.shape[1], upto.double() / flat.shape[1]
    return float(torch.maximum((low - wanted), (wanted - high)).clamp(min=0).mean())


def _topped(batches: list[Tensor]) -> Tensor:
    return _fed(Maxima(), batches).top_seeds(100)


def _best(work: Callable[..., object], *given: object, runs: int = 3) -> float:
    work(*given)
    return min(_seconds(work, *given) for _ in range(runs))


def _alternating(
    ours: Callable[[], object], other: Callable[[], object], runs: int = 3
) -> tuple[float, float]:
    """The best of several runs of each, taken in turns."""
    ours(), other()
    times = [(_seconds(ours), _seconds(other)) for _ in range(runs)]
    return min(time for time, _ in times), min(time for _, time in times)


def _seconds(work: Callable[..., object], *given: object) -> float:
    start = time.perf_counter()
    work(*given)
    return time.perf_counter() - start


def _row(name: str, ours: float, other: float, goal: float) -> Row:
    return Row(name, ours, other, other / ours, f"≥ {goal:g} ×", other / ours >= goal)


def _at_most(name: str, ours: float, other: float, goal: float) -> Row:
    return Row(name, ours, other, ours / other, f"≤ {goal:g} × the time", ours / other <= goal)
