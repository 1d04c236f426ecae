"""Distilled concepts as a concept source: a small network that sees pixels alone, and so may label edited pictures.

    distilled = distil(generator, teacher, LatentSpec.of(range(100_000, 102_000)))  # dissect.concepts.distilling
    distilled.held_out.table()        # concept by concept, on samples that it did not learn from
    distilled.save(path)
    distilled = open_distilled(path)  # or open_concepts("….safetensors", generator)

A painted concept reads the feature maps of the unedited generator, in which an erased eye would still be an eye. The
network that learns its labels from pixels is asked instead wherever an edit or an intervention is measured. It labels
pictures of the generator that it learned from, with or without rules, and those of no other.

The file is safetensors: the weights by name, and a header in JSON that says what they are of::

    {"format": "distilled-concepts/1", "model": {"name": …, "fingerprint": …}, "names": ["hair", …], "exclusive": true,
     "architecture": {…}, "teacher": {"title": …, "identity": {…}}, "latents": {…}, "learned_from": [100000, …],
     "held_out": {…}, "made_with": {"palimpsest": "0.1.0", "torch": "2.13.0"}}
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from dissect.concepts.held_out import HeldOut
from dissect.concepts.pixel_network import Architecture, PixelNetwork
from rewrite_core.errors import FileError, ModelMismatch
from rewrite_core.files import read_json, read_safetensors, require_finite, to_safetensors_bytes, write_bytes
from rewrite_core.generators import Generator
from rewrite_core.rules.rule import versions
from rewrite_core.rules.settings import LatentSettings, ModelRef
from rewrite_core.settings import Settings
from rewrite_core.statistics import Scene

__all__ = ["FORMAT", "DistilledConcepts", "Header", "Teacher", "open_distilled"]

FORMAT: Literal["distilled-concepts/1"] = "distilled-concepts/1"
VERSION = 1
"""Raised whenever the same weights would give other labels."""
LIMIT = 16 << 20
"""Bytes of a file."""


class Teacher(Settings):
    """Where the labels came from: what it is called, and all that they depend on."""

    title: str
    identity: dict[str, Any]


class Header(Settings):
    """What the weights are of.

    Attributes:
        model: the generator whose pictures were learned from.
        names: of the concepts.
        exclusive: whether each pixel has just one of them.
        architecture: of the network.
        teacher: whose labels were learned.
        latents: which picture a seed names.
        learned_from: seeds of the samples.
        held_out: how far it agrees with its teacher on other samples.
        made_with: versions of the software.
    """

    format: Literal["distilled-concepts/1"] = FORMAT
    model: ModelRef
    names: tuple[str, ...] = Field(min_length=1)
    exclusive: bool
    architecture: Architecture
    teacher: Teacher
    latents: LatentSettings
    learned_from: tuple[int, ...]
    held_out: HeldOut
    made_with: dict[str, str] = Field(default_factory=versions)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.names)) != self.architecture.labels or self.held_out.names != self.names:
            raise ValueError(
                f"the same {len(self.names)} names throughout, one for each label of the network"
            )
        return self


@dataclass(frozen=True, eq=False)
class DistilledConcepts:
    """A concept source (`dissect.concepts.source`) that sees pixels alone.

    Attributes:
        header: what the weights are of.
        weights: of a `PixelNetwork`, float32 on the CPU.
    """

    header: Header
    weights: Mapping[str, Tensor]

    pixels_only = True
    layers: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What it is called on screen."""
        return f"distilled: {self.header.model.name}"

    @property
    def names(self) -> tuple[str, ...]:
        """The concepts."""
        return self.header.names

    @property
    def held_out(self) -> HeldOut:
        """How far it agrees with its teacher on samples that it did not learn from."""
        return self.header.held_out

    def identity(self) -> Mapping[str, Any]:
        """What its labels depend on: the weights, and how they are read."""
        return {
            "source": "distilled",
            "version": VERSION,
            "names": list(self.names),
            "exclusive": self.header.exclusive,
            "architecture": self.header.architecture.model_dump(mode="json"),
            "weights": self.digest,
        }

    @property
    def digest(self) -> str:
        """SHA-256 of the weights."""
        content = hashlib.sha256()
        for name, tensor in sorted(self.weights.items()):
            content.update(f"{name}{tuple(tensor.shape)}".encode())
            content.update(tensor.contiguous().numpy().astype("<f4", copy=False).tobytes())
        return content.hexdigest()

    def check(self, generator: Generator) -> None:
        """See that it learned from pictures of `generator`, which may have rules.

        Raises:
            ModelMismatch: it learned from another's.
        """
        made_for, have = self.header.model, generator.pristine
        if made_for.fingerprint != have.fingerprint:
            raise ModelMismatch(
                found=f"concepts distilled from pictures of {made_for.name} ({made_for.fingerprint[:12]})",
                expected=f"concepts distilled from pictures of {have.name} ({have.fingerprint[:12]})",
                remedy="Distil them for this generator: nothing is known of how they do on its pictures.",
            )

    @torch.no_grad()
    def __call__(self, scene: Scene) -> Tensor:
        """Labels [N, L, R, R] of the scene's pictures, bool."""
        pictures = scene.pictures.float()
        size, (height, width) = pictures.shape[2:], self.header.architecture.size
        if size[0] > height or size[1] > width:
            pictures = functional.adaptive_avg_pool2d(pictures, (height, width))
        scores: Tensor = self._network(pictures.device)(pictures)  # [N, L, h, w]
        if scores.shape[2:] != size:
            scores = functional.interpolate(scores, size, mode="bilinear", align_corners=False)
        if not self.header.exclusive:
            return scores > 0
        numbers = torch.arange(len(self.names), device=scores.device)[:, None, None]  # [L, 1, 1]
        labels: Tensor = scores.argmax(1, keepdim=True) == numbers
        return labels

    def to_bytes(self) -> bytes:
        """The file's content."""
        return to_safetensors_bytes(self.weights, {"palimpsest": self.header.model_dump_json()})

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all. A `FileError` says why it cannot be."""
        write_bytes(path, self.to_bytes())

    def _network(self, device: torch.device) -> PixelNetwork:
        """A network of its own for each call, so any number of threads may label at once; it shares the weights."""
        weights = {name: tensor.to(device) for name, tensor in self.weights.items()}
        return PixelNetwork.holding(self.header.architecture, weights)


def open_distilled(
    source: Path | bytes, generator: Generator | None = None, what: str = "the file of distilled concepts"
) -> DistilledConcepts:
    """Read a file or an upload; `what` names the latter in errors.

    Raises:
        FileError: it is something else, damaged, or its weights do not fit its header or are not finite.
        ModelMismatch: it is for another generator than `generator`.
    """
    what = source.name if isinstance(source, Path) else what
    tensors, metadata = read_safetensors(source, what=what, limit_bytes=LIMIT)
    header = _header(metadata, what)
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    shapes = PixelNetwork.shapes(header.architecture)
    if found != shapes or any(tensor.dtype != torch.float32 for tensor in tensors.values()):
        wrong = next((name for name in (*shapes, *found) if found.get(name) != shapes.get(name)), "a type")
        raise FileError(
            found=f"{what}: weights that do not fit its header ({wrong})",
            expected=f"{len(shapes)} tensors in float32, as its architecture says",
            remedy="Save it again, or distil the concepts again.",
        )
    require_finite(tensors, what)
    if any(bool((tensor < 0).any()) for name, tensor in tensors.items() if name.endswith("variance")):
        raise FileError(
            found=f"{what}: a variance below 0", expected="0 or more", remedy="Distil the concepts again."
        )
    distilled = DistilledConcepts(header, tensors)
    if generator is not None:
        distilled.check(generator)
    return distilled


def _header(metadata: Mapping[str, str], what: str) -> Header:
    data = read_json(metadata.get("palimpsest", "null"), what=f"the header of {what}")
    kind = data.get("format") if isinstance(data, dict) else None
    if kind != FORMAT:
        newer = isinstance(kind, str) and kind.startswith("distilled-concepts/")
        raise FileError(
            found=f"{what}: format {kind!r:.40}" if kind is not None else f"{what}, which names no format",
            expected=f"the format {FORMAT!r}",
            remedy="Update Palimpsest to open it." if newer else "Choose a file of distilled concepts.",
        )
    return Header.parse(data, what, FileError)
