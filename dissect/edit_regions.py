"""Where an edit is to act in a picture and where it is not, and by how much it changes: the pixels of `edit_effect`.

    inside = regions_of(generator, direction, context_level(generator, direction, spec), spec)  # bool [N, H, W]
    example_change(generator, edited, request)                                                  # from 0 to 1
    counts = counted(generator, edited, direction, level, block)                                # of a micro-batch

Everything is counted in whole numbers: the bytes by which pictures differ, and pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from dissect.concepts.source import ConceptSource
from dissect.scaled import INSIDE
from dissect.shares import concept_index
from rewrite_core.directions import Direction
from rewrite_core.errors import PalimpsestError, RequestError
from rewrite_core.generators import Generator, LatentSpec, Progress
from rewrite_core.memory import heat
from rewrite_core.pictures import to_uint8
from rewrite_core.rules.painted import latents_of
from rewrite_core.rules.request import EditRequest
from rewrite_core.statistics import Along, Batch, Histogram, Scene, Store, fetch
from rewrite_core.statistics.intersection import labels_of

__all__ = ["FULL", "KINDS", "Counts", "Protected", "counted", "example_change", "context_level", "regions_of"]

FULL = 3 * 255
"""The greatest change of a pixel: bytes, summed over channels."""
KINDS = ("inside", "outside", "protected")


@dataclass(frozen=True)
class Protected:
    """Concepts of a source that an edit is to leave as they are, wherever the pictures before it show them."""

    source: ConceptSource
    concepts: tuple[str, ...]

    def check(self, generator: Generator) -> None:
        """See that pictures of `generator` can be labelled so.

        Raises:
            PalimpsestError: the source cannot label this generator's pictures.
            RequestError: no concept, or one that it has not.
        """
        self.source.check(generator)
        if not self._places():
            raise RequestError(
                found="nothing to protect", expected="a concept", remedy="Name one, or protect nothing."
            )

    def masks(self, scene: Scene) -> Tensor:
        """Where any of the concepts is, bool [N, H, W] on the CPU; labels of another grid as the nearest has them.

        Raises:
            PalimpsestError: labels are NaN or infinite, or not a map for each picture and concept.
        """
        labels = labels_of(Batch.of(scene.pictures, labels=self.source(scene)), self.source)  # [N, L, h, w]
        _require_finite(labels, "labels", "Check where the labels come from.")
        shown = labels if labels.dtype == torch.bool else labels > 0.5
        joined = shown[:, self._places()].any(1, keepdim=True).float()  # [N, 1, h, w]
        large = functional.interpolate(joined, scene.pictures.shape[2:], mode="nearest-exact")
        return large[:, 0].cpu() > 0.5  # [N, H, W]

    def _places(self) -> list[int]:
        return [concept_index(self.source.names, name) for name in self.concepts]


@dataclass(frozen=True, eq=False)
class Counts:
    """What is counted of N pictures, each before and after.

    Attributes:
        sums: |after - before| over channels and the pixels of each of `KINDS`, [N, 3] int64.
        pixels: how many there are of each kind, [N, 3] int64.
        total: |after - before| over channels and pictures, [H, W] int64.
    """

    sums: Tensor
    pixels: Tensor
    total: Tensor

    @classmethod
    def joined(cls, parts: Iterable[Counts]) -> Counts:
        """Counts of pictures one after the other, at least one of them; of their maps only the sum is kept."""
        sums, pixels, total = [], [], torch.zeros((), dtype=torch.int64)
        for part in parts:
            sums.append(part.sums)
            pixels.append(part.pixels)
            total = total + part.total
        return cls(torch.cat(sums), torch.cat(pixels), total)


@torch.no_grad()
def counted(
    before: Generator,
    after: Generator,
    direction: Direction,
    level: float,
    block: LatentSpec,
    protect: Protected | None = None,
) -> Counts:
    """The counts of one micro-batch; kinds are told by the pictures before.

    Raises:
        PalimpsestError: pixels, labels or heat are NaN or infinite.
    """
    scene, keys = _scene(before, block, direction.layer, protect.source.layers if protect else ())
    second = after.pictures(after.latents(block))
    apart = _apart(_bytes(scene.pictures), _bytes(second))  # [N, H, W]
    inside = _regions(before, direction, level, keys)
    kept = protect.masks(scene) if protect else torch.zeros_like(inside)
    kinds = torch.stack([inside, ~inside, kept], 1)  # [N, 3, H, W]
    return Counts((kinds * apart[:, None]).sum((2, 3)), kinds.sum((2, 3)), apart.sum(0))


def context_level(
    generator: Generator,
    direction: Direction,
    spec: LatentSpec,
    quantile: float = INSIDE,
    *,
    store: Store | None = None,
    progress: Progress | None = None,
) -> float:
    """The level of heat above which a direction matches: its quantile over all positions of all pictures of `spec`.

    It is counted, so that memory does not grow with the pictures; `Histogram` says how exact that is. Of maps that
    reach beyond the picture (StyleGAN3) the margins are counted too.

    Raises:
        LayerError: no such layer.
        Cancelled: from `progress`.
    """
    along = Along(direction.vectors[:1], Histogram())
    found = fetch(generator, direction.layer, spec, along, store=store, progress=progress)
    return float(found.inner.quantile([quantile])[0, 0])


@torch.no_grad()
def regions_of(generator: Generator, direction: Direction, level: float, spec: LatentSpec) -> Tensor:
    """Where heat of the direction's first vector is above `level` in pictures, bool [N, H, W] on the CPU.

    Heat is brought to the pictures' size bilinearly, as overlays show it.

    Raises:
        LayerError: no such layer.
        PalimpsestError: heat is NaN or infinite.
    """
    found = [torch.zeros(0, *generator.picture_size, dtype=torch.bool)]
    for block in spec.blocks(generator.micro_batch):
        keys = generator.keys(generator.latents(block), direction.layer).keys
        found.append(_regions(generator, direction, level, keys))
    return torch.cat(found)


@torch.no_grad()
def example_change(before: Generator, after: Generator, request: EditRequest) -> float:
    """The change of what was painted, from 0 to 1: over its pixels, each as far as the mask covers it.

    What was painted is the pasted region; for an erasure without one, the context. Without either, it is 0.

    Raises:
        PalimpsestError: pixels are NaN or infinite.
    """
    painted = [request.paste] if request.paste else list(request.key) * (request.operation == "erase")
    changed = covered = 0.0
    for region in painted:
        latents = latents_of(before, request, region.image)
        apart = _apart(*(_bytes(one.pictures(latents)) for one in (before, after)))[0]  # [H, W]
        area = region.mask.area(before.picture_size).double()  # [H, W]
        changed += float((apart * area).sum()) / FULL
        covered += float(area.sum())
    return changed / covered if covered else 0.0


def _scene(generator: Generator, block: LatentSpec, layer: str, read: Sequence[str]) -> tuple[Scene, Tensor]:
    """A micro-batch as a labeller sees it that reads some layers, and its keys [N, C, h, w] at `layer`."""
    latents = generator.latents(block)
    stopped = generator.inputs(latents, list(dict.fromkeys([layer, *read])))
    last = stopped[max(stopped, key=list(generator.layers).index)]
    maps = {name: generator.layer(name).inside(stopped[name].keys) for name in read}
    return Scene(generator.render(last, generator.values(last)), latents, maps), stopped[layer].keys


def _regions(generator: Generator, direction: Direction, level: float, keys: Tensor) -> Tensor:
    """Where heat over keys [N, C, h, w] is above `level` in their pictures, bool [N, H, W] on the CPU."""
    found = generator.layer(direction.layer).inside(heat(keys, direction.vectors[0])).float()  # [N, h, w]
    damaged = "The weights are probably damaged: `palimpsest models` says which file is open."
    _require_finite(found, f"heat at layer '{direction.layer}'", damaged)
    large = functional.interpolate(
        found[:, None], generator.picture_size, mode="bilinear", align_corners=False
    )
    return (large[:, 0] > level).cpu()  # [N, H, W]


def _apart(before: Tensor, after: Tensor) -> Tensor:
    """|after - before| of bytes [N, H, W, 3], summed over channels: int64 [N, H, W]."""
    return (after.to(torch.int16) - before).abs().sum(3)


def _bytes(pictures: Tensor) -> Tensor:
    """Pictures [N, 3, H, W] as they are shown, uint8 [N, H, W, 3] on the CPU."""
    _require_finite(
        pictures, "pixels", "Nothing can be said of such pictures: lower the strength of the rules."
    )
    return torch.from_numpy(to_uint8(pictures))


def _require_finite(numbers: Tensor, what: str, remedy: str) -> None:
    if not bool(numbers.isfinite().all()):
        raise PalimpsestError(
            found=f"{what}: some are NaN or infinite", expected="finite numbers", remedy=remedy
        )
