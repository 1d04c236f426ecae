"""Distil a concept source into a small network that sees pixels alone.

    distilled = distil(generator, teacher, LatentSpec.of(range(100_000, 102_000)), progress=progress)
    distilled.held_out.sentence

Samples of the unedited generator are drawn once, with the teacher's labels of them. A `PixelNetwork` learns these from
the pictures alone, half of them disturbed as `dissect.concepts.augmented` says, and is then compared with the teacher
on the last of the samples, from which it learned nothing.

Concepts of which each pixel has just one are learned with a softmax, others each by itself. Rare concepts count for
more than their pixels, in inverse proportion to the square root of their share (`EXPONENT`).

Each step's pictures are learned from in `CHUNKS` parts, each in a lane of its own (`rewrite_core.generators.lanes`),
whose gradients are added in order: one machine always gives the same weights, however many lanes it has. They are
learned on the CPU, wherever the generator is.
"""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from dissect.concepts.augmented import disturbed
from dissect.concepts.distilled import DistilledConcepts, Header, Teacher
from dissect.concepts.held_out import HeldOut
from dissect.concepts.overlay import labelled
from dissect.concepts.pixel_network import Architecture, PixelNetwork
from dissect.concepts.source import ConceptSource
from rewrite_core.errors import RequestError
from rewrite_core.generators import Generator, LatentSpec, Progress
from rewrite_core.generators.lanes import Lanes
from rewrite_core.rules.settings import LatentSettings, ModelRef
from rewrite_core.settings import Settings

__all__ = ["SAMPLES", "DistillingSettings", "distil"]

SAMPLES = LatentSpec.of(range(100_000, 102_000))
"""What is learned from unless said otherwise: far from the first thousands, which statistics and effects are of."""
CHUNKS, CHUNK = 2, 8
"""Parts of a step, and pictures in each."""
FASTEST, WARMING, DECAY = 1e-2, 0.15, 1e-4
"""The greatest learning rate, the share of all steps after which it is reached, and the weights' decay."""
MOST_BYTES = 2 << 30
"""That the samples and their labels may take."""
RAREST = 1e-4
"""A concept that covers less of the pixels counts as one that covers so much."""

EXPONENT = -0.5
"""Of a concept's share of all pixels, in what its pixels count for."""

T = TypeVar("T")
R = TypeVar("R")


class DistillingSettings(Settings):
    """How concepts are distilled.

    Attributes:
        steps: how often the weights are changed; 16 pictures each time.
        held_out: the share of the samples, the last of them, that nothing is learned from.
        seed: of the first weights, and of all that is drawn by chance.
    """

    steps: int = Field(default=1000, ge=1, le=100_000)
    held_out: float = Field(default=0.15, gt=0, lt=1)
    seed: int = Field(default=0, ge=0, lt=2**31)


def distil(
    generator: Generator,
    teacher: ConceptSource,
    spec: LatentSpec = SAMPLES,
    settings: DistillingSettings | None = None,
    progress: Progress | None = None,
) -> DistilledConcepts:
    """A network that tells the teacher's concepts from pixels, and how far it agrees with the teacher.

    Args:
        generator: without rules, if the teacher knows unedited samples only.
        teacher: may be any source.
        spec: samples to learn from; the last of them are held out.
        settings: the defaults if not given.
        progress: counts pictures, drawn and learned from.

    Raises:
        RequestError: fewer than two samples, or too many for memory.
        PalimpsestError: the teacher cannot label what this generator draws.
        Cancelled: from `progress`.
    """
    settings = settings or DistillingSettings()
    teacher.check(generator)
    learned_from, held_out = _divided(spec, settings.held_out)
    work = _Work(generator, progress, len(learned_from) + 2 * len(held_out) + settings.steps * CHUNKS * CHUNK)
    shape = Architecture.fit(generator.picture_size, len(teacher.names))
    _require_room(shape, len(learned_from))
    try:
        examples = _drawn(work, teacher, learned_from, shape)
        weights = _learned(work, examples, shape, settings)
        header = _described(generator, teacher, learned_from, examples.exclusive, shape)
        distilled = DistilledConcepts(header, weights)
        judged = _judged(work, teacher, distilled, held_out)
    finally:
        work.close()
    return replace(distilled, header=header.model_copy(update={"held_out": judged}))


def _described(
    generator: Generator, teacher: ConceptSource, spec: LatentSpec, exclusive: bool, shape: Architecture
) -> Header:
    """The header of a network that learned from `spec`, and is still to be judged."""
    latents = LatentSettings(
        scheme=spec.scheme, truncation=spec.truncation, cutoff=spec.cutoff, label=spec.label
    )
    return Header(
        model=ModelRef(name=generator.pristine.name, fingerprint=generator.pristine.fingerprint),
        names=teacher.names,
        exclusive=exclusive,
        architecture=shape,
        teacher=Teacher(title=teacher.title, identity=dict(teacher.identity())),
        latents=latents,
        learned_from=spec.seeds,
        held_out=HeldOut.nothing(teacher.names),
    )


@dataclass(frozen=True, eq=False)
class _Examples:
    """What is learned from, on the grid that the network works on, as shares of 255.

    Attributes:
        pictures: uint8 [N, 3, h, w].
        labels: uint8 [N, L, h, w].
        exclusive: whether every pixel has just one label.
    """

    pictures: Tensor
    labels: Tensor
    exclusive: bool

    def at(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Some of the pictures in [-1, 1], and their labels from 0 to 1."""
        return self.pictures[places].float() / 127.5 - 1, self.labels[places].float() / 255

    def weights(self) -> Tensor:
        """What a pixel of each concept counts for, [L]: 1 on average over all pixels."""
        share = self.labels.double().mean((0, 2, 3)) / 255  # [L]
        weights = share.clamp(min=RAREST) ** EXPONENT
        return (weights / (weights * share).sum().clamp(min=RAREST)).float()


class _Work:
    """The lanes that the work is done in, and how much of it is done."""

    def __init__(self, generator: Generator, progress: Progress | None, total: int) -> None:
        self.generator, self._progress = generator, progress
        self._done, self._total = 0, total
        self._drawing, self._learning = Lanes(generator), Lanes(generator, torch.device("cpu"))

    def advance(self, pictures: int) -> None:
        """So many more are done."""
        self._done += pictures
        if self._progress:
            self._progress(self._done, self._total)

    def drawn(self, work: Callable[[LatentSpec], R], spec: LatentSpec) -> Iterator[R]:
        """`work` done on each micro-batch of `spec`, in order."""
        return _in_order(self._drawing, work, spec.blocks(self.generator.micro_batch))

    def learned(self, work: Callable[[int], R]) -> list[R]:
        """`work` done on each chunk of a step, in order."""
        return list(_in_order(self._learning, work, range(CHUNKS)))

    def close(self) -> None:
        """Wait for what is under way."""
        self._drawing.close()
        self._learning.close()


def _in_order(lanes: Lanes, work: Callable[[T], R], parts: Sequence[T]) -> Iterator[R]:
    """`work` done on each of the parts, as many at once as there are lanes, in their order."""
    waiting = iter(parts)
    under_way = deque(lanes.submit(work, part) for part in islice(waiting, lanes.count))
    while under_way:
        found = under_way.popleft().result()
        under_way.extend(lanes.submit(work, part) for part in islice(waiting, 1))
        yield found


def _divided(spec: LatentSpec, share: float) -> tuple[LatentSpec, LatentSpec]:
    """Samples to learn from and samples to judge by, at least one each."""
    if len(set(spec.seeds)) < max(2, len(spec)):
        raise RequestError(
            found=f"{len(spec)} samples, {len(set(spec.seeds))} of them different",
            expected="at least two, each once, so that some can be held out",
            remedy="A thousand or more are customary.",
        )
    count = min(max(round(share * len(spec)), 1), len(spec) - 1)
    return replace(spec, seeds=spec.seeds[:-count]), replace(spec, seeds=spec.seeds[-count:])


def _require_room(shape: Architecture, samples: int) -> None:
    picture = (3 + shape.labels) * shape.size[0] * shape.size[1]
    if samples * picture > MOST_BYTES:
        raise RequestError(
            found=f"{samples:,} samples with {shape.labels} labels each, {samples * picture / 2**30:.1f} GiB",
            expected=f"at most {MOST_BYTES // picture:,} such samples",
            remedy="Name fewer samples.",
        )


def _drawn(work: _Work, teacher: ConceptSource, spec: LatentSpec, shape: Architecture) -> _Examples:
    pictures, labels, exclusive = [], [], True
    for found in work.drawn(lambda block: labelled(work.generator, block, teacher), spec):
        work.advance(len(found.spec))
        shown = torch.from_numpy(found.pictures).permute(0, 3, 1, 2).float()  # [N, 3, R, R]
        pictures.append(functional.adaptive_avg_pool2d(shown, shape.size).round().to(torch.uint8))
        shares = _on_grid(found.labels, shape.size)
        labels.append((shares * 255).round().to(torch.uint8))
        exclusive &= bool(((found.labels.float().sum(1) - 1).abs() < 1e-3).all())
    return _Examples(torch.cat(pictures), torch.cat(labels), exclusive)


def _on_grid(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """The share of each label [N, L, h, w] in each cell of a grid of `size`, float32."""
    if labels.shape[2] >= size[0] and labels.shape[3] >= size[1]:
        return functional.adaptive_avg_pool2d(labels.float(), size)
    return functional.interpolate(labels.float(), size, mode="nearest-exact")


def _learned(
    work: _Work, examples: _Examples, shape: Architecture, settings: DistillingSettings
) -> dict[str, Tensor]:
    """The weights of a network that learned from the examples, ready to be held."""
    network = PixelNetwork.drawn(shape, settings.seed).train()
    copies = [copy.deepcopy(network) for _ in range(CHUNKS)]
    optimiser = torch.optim.AdamW(network.parameters(), FASTEST, weight_decay=DECAY)
    counts_for = examples.weights()[:, None, None]  # [L, 1, 1]
    for step in range(settings.steps):
        rate = FASTEST * _pace((step + 1) / settings.steps)
        for group in optimiser.param_groups:
            group["lr"] = rate

        def gradient(chunk: int, step: int = step) -> list[Tensor]:
            copies[chunk].load_state_dict(network.state_dict())
            random = torch.Generator().manual_seed(settings.seed << 32 | step * CHUNKS + chunk)
            return _gradient(copies[chunk], examples, counts_for, random)

        found = work.learned(gradient)
        for parameter, *parts in zip(network.parameters(), *found, strict=True):
            parameter.grad = torch.stack(parts).mean(0)
        optimiser.step()
        for buffer, *seen in zip(network.buffers(), *(each.buffers() for each in copies), strict=True):
            buffer.copy_(torch.stack(seen).mean(0))
        work.advance(CHUNKS * CHUNK)
    return network.weights()


def _pace(done: float) -> float:
    """The learning rate as a share of the greatest, when a share of the steps is `done`: up, then down as a cosine."""
    if done < WARMING:
        return done / WARMING
    return (1 + math.cos(math.pi * (done - WARMING) / (1 - WARMING))) / 2


@torch.enable_grad()
def _gradient(
    network: PixelNetwork, examples: _Examples, counts_for: Tensor, random: torch.Generator
) -> list[Tensor]:
    """Of the loss on pictures that are drawn and disturbed by chance; by parameter."""
    places = torch.randint(len(examples.pictures), (CHUNK,), generator=random)
    pictures, labels = disturbed(*examples.at(places), random)
    pictures = pictures.contiguous(memory_format=torch.channels_last)  # a quarter quicker on a CPU
    scores = network(pictures)  # [N, L, h, w]
    if examples.exclusive:
        loss = -(counts_for * labels * scores.log_softmax(1)).sum(1).mean()
    else:
        loss = functional.binary_cross_entropy_with_logits(scores, labels, pos_weight=counts_for)
    return list(torch.autograd.grad(loss, list(network.parameters())))


def _judged(work: _Work, teacher: ConceptSource, distilled: DistilledConcepts, spec: LatentSpec) -> HeldOut:
    """How far the two agree on the samples of `spec`, on the pictures' own grid."""
    generator = work.generator

    def judged(block: LatentSpec) -> HeldOut:
        pair = (labelled(generator, block, source) for source in (teacher, distilled))
        return HeldOut.of(
            teacher.names, *(_on_grid(found.labels, generator.picture_size) > 0.5 for found in pair)
        )

    parts = []
    for part in work.drawn(judged, spec):
        parts.append(part)
        work.advance(2 * part.samples)
    return HeldOut.total(parts)
