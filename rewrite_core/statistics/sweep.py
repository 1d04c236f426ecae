"""One pass over the samples feeds every statistic of every layer asked for.

Samples go through the network a *micro-batch* at a time (fixed for a generator, because batches of different sizes
differ in the last bits), and are counted in *blocks* of `MICRO_BATCHES` micro-batches. A statistic of a block is folded
over its micro-batches, starting empty; a statistic of a pass is folded over its blocks. Blocks are the unit of work,
of checkpoints and of distribution: whoever computes a block, and whenever, the result is the same to the bit. On a CPU
a block is always computed by one thread (`rewrite_core.generators.lanes`).

    found = sweep(generator, LatentSpec.of(range(1000)), {"l08": [SecondMoment(), Histogram()], "l11": [Maxima()]})
    moment, histogram = found["l08"]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from rewrite_core.errors import PalimpsestError
from rewrite_core.generators import Generator, LatentSpec, LayerInput, Progress
from rewrite_core.generators.lanes import Lanes
from rewrite_core.statistics.statistic import Batch, Labeller, Scene, Statistic

__all__ = ["MICRO_BATCHES", "Answers", "Wanted", "blocks_of", "see", "sweep"]

MICRO_BATCHES = 4
"""Micro-batches in a block."""

Wanted = Mapping[str, Sequence[Statistic]]
"""Layer → the empty statistics wanted of it."""
Answers = dict[str, list[Statistic]]
"""The same, having seen the samples."""


def blocks_of(generator: Generator, spec: LatentSpec) -> list[LatentSpec]:
    """The blocks in which `spec` is computed, checkpointed and merged."""
    return spec.blocks(MICRO_BATCHES * generator.micro_batch)


def sweep(
    generator: Generator, spec: LatentSpec, wanted: Wanted, progress: Progress | None = None
) -> Answers:
    """The statistics `wanted` over every sample in `spec`, computed here and now, one block after the other.

    Raises:
        LayerError: if there is no such layer.
        PalimpsestError: if a layer's keys are not finite, naming layer and unit.
        Cancelled: from `progress`.
    """
    done = 0

    def advance(samples: int) -> None:
        nonlocal done
        done += samples
        if progress:
            progress(done, len(spec))

    seen = {layer: list(statistics) for layer, statistics in wanted.items()}
    lanes = Lanes(generator)
    for block in blocks_of(generator, spec):
        found = lanes.submit(see, generator, block, wanted, advance).result()
        for layer, statistics in found.items():
            seen[layer] = [old.merge(new) for old, new in zip(seen[layer], statistics, strict=True)]
    return seen


@torch.no_grad()
def see(
    generator: Generator, block: LatentSpec, wanted: Wanted, advance: Callable[[int], None] | None = None
) -> Answers:
    """The statistics of one block, on the CPU; `advance` is called after each micro-batch with its size.

    Raises:
        PalimpsestError: if a layer's keys are not finite, naming layer and unit; or labels are not.
    """
    needs = [empty.needs() for statistics in wanted.values() for empty in statistics]
    asked = [layer for layer, statistics in wanted.items() if statistics]
    labellers = {id(need.labeller): need.labeller for need in needs if need.labeller is not None}
    read = [layer for labeller in labellers.values() for layer in labeller.layers]
    layers = [*dict.fromkeys([*asked, *(need.beside for need in needs if need.beside), *read])]
    for layer in {*wanted, *layers}:
        generator.layer(layer)
    seen: Answers = {layer: list(statistics) for layer, statistics in wanted.items()}
    if not layers:
        return seen
    sums: dict[str, Tensor] = {}
    unlabelled = torch.zeros((), device=generator.device)
    for samples in block.blocks(generator.micro_batch):
        stopped = generator.inputs(generator.latents(samples), layers)
        labels = _labelled(generator, stopped, labellers)
        for label in labels.values():
            unlabelled = unlabelled + label.sum(dtype=torch.float32)
        for layer, at in stopped.items():
            total = at.keys.sum((0, 2, 3), dtype=torch.float32)  # [C]; NaN and infinity survive a sum
            sums[layer] = sums[layer] + total if layer in sums else total
        for layer, statistics in seen.items():
            seen[layer] = [
                statistic.update(_batch(generator, statistic, layer, stopped, labels))
                for statistic in statistics
            ]
        if advance:
            advance(len(samples))
    for layer, total in sums.items():  # once a block: it waits for the device
        if not bool(total.isfinite().all()):
            _refuse(generator, block, layer)
    if not bool(unlabelled.isfinite()):
        raise PalimpsestError(
            found=f"labels that are NaN or infinite in pictures {block.seeds[0]} to {block.seeds[-1]}",
            expected="labels from 0 to 1",
            remedy="Check where the labels come from.",
        )
    return {
        layer: [_on_cpu(statistic, layer) for statistic in statistics] for layer, statistics in seen.items()
    }


def _batch(
    generator: Generator,
    statistic: Statistic,
    layer: str,
    stopped: Mapping[str, LayerInput],
    labels: Mapping[int, Tensor],
) -> Batch:
    """What the statistic is shown; keys that are to be laid over something else are those in the picture."""
    needs, at = statistic.needs(), stopped[layer]
    labelled, beside = needs.labeller, needs.beside
    return Batch(
        at.keys if labelled is None and beside is None else generator.layer(layer).inside(at.keys),
        at.latents.spec.seeds,
        labels=None if labelled is None else labels[id(labelled)],
        beside=None if beside is None else generator.layer(beside).inside(stopped[beside].keys),
    )


def _labelled(
    generator: Generator, stopped: Mapping[str, LayerInput], labellers: Mapping[int, Labeller]
) -> dict[int, Tensor]:
    """Each labeller's labels of the batch; the pictures are drawn by going on from the last layer."""
    if not labellers:
        return {}
    last = max(stopped, key=list(generator.layers).index)
    at = stopped[last]
    pictures = generator.render(at, generator.values(at))  # [N, 3, R, R]

    def scene(labeller: Labeller) -> Scene:
        maps = {layer: generator.layer(layer).inside(stopped[layer].keys) for layer in labeller.layers}
        return Scene(pictures, at.latents, maps)

    return {number: labeller(scene(labeller)) for number, labeller in labellers.items()}


def _refuse(generator: Generator, block: LatentSpec, layer: str) -> None:
    """Raise the error that names the first unit that is not finite, if any is: a sum alone may overflow."""
    for samples in block.blocks(generator.micro_batch):
        keys = generator.keys(generator.latents(samples), layer).keys
        wrong = (~keys.isfinite()).any(3).any(2).nonzero()  # [n, 2]: picture, unit
        if len(wrong):
            picture, unit = wrong[0].tolist()
            raise PalimpsestError(
                found=f"unit {unit} of layer '{layer}' is NaN or infinite in picture {samples.seeds[picture]}",
                expected="finite feature maps",
                remedy="The weights are probably damaged: `palimpsest models` says which file is open.",
            )


def _on_cpu(statistic: Statistic, layer: str) -> Statistic:
    state = {name: tensor.cpu() for name, tensor in statistic.state().items()}
    for name, tensor in state.items():
        if not bool(tensor.isfinite().all()):
            raise PalimpsestError(
                found=f"'{name}' of the {statistic.kind} of layer '{layer}' is too large for a number",
                expected="keys below 1e19",
                remedy="The weights are probably damaged: `palimpsest models` says which file is open.",
            )
    return statistic.restore(state)
