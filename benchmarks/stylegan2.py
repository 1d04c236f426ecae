"""StyleGAN2: an edit of a 512 → 512 layer at 32 × 32 keys against the published loop; one of 30 M weights at 256 px.

Weights are random and seeded: no small pretrained network can be bundled, and the arithmetic is the same. The
published side (`rewrite_core.rules.published`) gets our direction and our goal: the keys of the whole map, the loss in
the pasted box. It takes 2,001 Adam steps, a projection every 10, and its loop alone is timed; so is our solver alone,
the layer's statistics at hand.

Losses are of the weights that are kept. At *matched effect* our locality is raised until our loss is as large as
theirs; then the mean change of 32 pictures that the edit does not name is compared. All of it takes some ten minutes.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.row import Row, best_seconds, each_thread_count
from rewrite_core import EditRequest, LatentSpec, Mask, Painted, Store, layer_statistics, open_generator
from rewrite_core.generators import Generator
from rewrite_core.generators.stylegan2 import StyleGAN2Generator
from rewrite_core.generators.stylegan2_network import Shape, StyleGAN2Network
from rewrite_core.rules.goal import Goal, copy_paste
from rewrite_core.rules.low_rank import change
from rewrite_core.rules.published import PublishedSettings, published_solve
from rewrite_core.rules.rewrite import completed, direction_of, rewrite
from rewrite_core.rules.settings import SolverSettings
from rewrite_core.rules.solve import loss_of, solve
from rewrite_core.statistics import LayerStatistics

__all__ = ["random_stylegan2", "rows"]

LAYER = "layer8"
UNRELATED = LatentSpec.of(range(1000, 1032))
WIDTHS = {4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256, 256: 128}
SPEED = 300


def rows() -> Iterable[Row]:
    """Rank 1 and 3 against the published loop, then the large network."""
    generator = random_stylegan2(64)
    with tempfile.TemporaryDirectory() as folder:
        statistics = layer_statistics(generator, LAYER, store=Store(Path(folder)), samples=100)
    for rank in (1, 3):
        yield from _against_published(generator, statistics, rank)
    yield from _large()


def _against_published(generator: Generator, statistics: LayerStatistics, rank: int) -> Iterable[Row]:
    request = completed(_request(rank), generator)
    directions = direction_of(generator, request, statistics).vectors.float()
    goal = copy_paste(generator, LAYER, request)

    def ours(locality: float = request.solver.locality, iterations: int = 30) -> Tensor:
        settings = SolverSettings(locality=locality, iterations=iterations)
        found = solve(generator, goal, directions, statistics, settings)
        return generator.weight(LAYER) + change(found.delta, directions)

    seconds, threads = best_seconds(ours, runs=3)
    theirs, other_seconds, other_threads = _published(generator, goal, directions)
    name, ratio = f"StyleGAN2 512→512 at 32², rank {rank}", other_seconds / seconds
    label = f"{name}: solve [s, {threads} and {other_threads} threads]"
    yield Row(label, seconds, other_seconds, ratio, "", True)

    loss, other_loss = (loss_of(generator, goal, weight) for weight in (ours(), theirs))
    yield Row(f"{name}: true loss", loss, other_loss, other_loss / loss, "≥ 1 ×", other_loss >= loss)
    enough = next(n for n in range(1, 31) if loss_of(generator, goal, ours(iterations=n)) <= other_loss)
    early, _ = best_seconds(lambda: ours(iterations=enough), runs=3)
    ratio, label = other_seconds / early, f"{name}: solve until no worse than theirs, {enough} steps [s]"
    yield Row(label, early, other_seconds, ratio, f"≥ {SPEED} ×", ratio >= SPEED)
    matched = _as_weak(generator, goal, ours, other_loss)
    changed, other_changed = (_change(generator, weight) for weight in (matched, theirs))
    label = f"{name}: change of 32 pictures at equal loss"
    yield Row(label, changed, other_changed, other_changed / changed, "≥ 1 ×", other_changed >= changed)


def _published(generator: Generator, goal: Goal, directions: Tensor) -> tuple[Tensor, float, int]:
    """The published loop's weight, seconds, and threads: those with which 20 steps are quickest."""
    short = PublishedSettings(iterations=20)
    _, threads = best_seconds(lambda: published_solve(generator, goal, directions, short), runs=2)
    for count in each_thread_count():
        if count == threads:
            start = time.perf_counter()
            weight = published_solve(generator, goal, directions).weight
            return weight, time.perf_counter() - start, threads
    raise AssertionError(threads)


def _as_weak(generator: Generator, goal: Goal, ours: Callable[[float], Tensor], loss: float) -> Tensor:
    """Our weight at the locality where its loss has risen to `loss`; the strongest one if it never is so low."""
    low, high = 1e-3, 1e3
    for _ in range(12):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if loss_of(generator, goal, ours(middle)) <= loss else (low, middle)
    return ours(low)


def _change(generator: Generator, weight: Tensor) -> float:
    """Mean |Δ| of the unrelated pictures, as a share of their mean distance from their average."""
    before = generator.sample(UNRELATED)
    after = generator.with_weights({LAYER: weight}).sample(UNRELATED)
    return float((after - before).abs().mean() / (before - before.mean()).abs().mean())


def _large() -> Iterable[Row]:
    with tempfile.TemporaryDirectory() as folder:
        for name, content in random_stylegan2(256).files().items():
            (Path(folder) / name).write_bytes(content)
        generator = open_generator(folder)
        statistics = layer_statistics(generator, LAYER, store=Store(Path(folder) / "cache"), samples=100)
    edit, threads = best_seconds(lambda: rewrite(generator, _request(1), statistics=statistics), runs=3)
    yield Row(f"StyleGAN2-256, 30 M: edit [s, {threads} threads]", edit, 2.0, 2.0 / edit, "< 2 s", edit < 2)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    yield Row("this process, most memory [GB]", peak, peak, 1.0, "", True)


def _request(rank: int) -> EditRequest:
    def box(seed: int, top: int, left: int) -> Painted:
        return Painted(seed, Mask.rectangle((256, 256), top, left, top + 80, left + 80))

    contexts = (box(7, 100, 90), box(2, 90, 100), box(5, 110, 80))
    return EditRequest(object=box(3, 60, 60), paste=contexts[0], key=contexts, layer=LAYER, rank=rank)


def random_stylegan2(resolution: int) -> StyleGAN2Generator:
    """A StyleGAN2 of published widths with seeded random weights."""
    draw = torch.Generator().manual_seed(0)
    widths = tuple(width for size, width in WIDTHS.items() if size <= resolution)
    shape = Shape(
        style_dim=512, depth=8, channels=widths, taps=4, picture_taps=4, stored_noise=True, average=True
    )
    network = StyleGAN2Network(shape)
    blur = torch.outer(*[torch.tensor([1.0, 3.0, 3.0, 1.0])] * 2) / 16  # sums to 4
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("kernel"):
                tensor.copy_(blur)
            elif name.endswith("modulation.bias"):
                tensor.fill_(1.0)
            else:
                spread = (
                    100.0
                    if name.startswith("style.")
                    else 0.1
                    if name.endswith(("bias", "noise.weight"))
                    else 1.0
                )
                tensor.normal_(0.0, spread, generator=draw)
    return StyleGAN2Generator(network, shape=shape, name=f"random-{resolution}")
