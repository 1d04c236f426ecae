"""What a folder of pictures in bulk is of: its ``sample.json``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self

import torch
from pydantic import Field

from rewrite_core.errors import FileError
from rewrite_core.files import read_json
from rewrite_core.generators.bulk_formats import FormatName
from rewrite_core.generators.generator import Generator
from rewrite_core.generators.latents import LatentSpec, Scheme
from rewrite_core.settings import Settings

__all__ = ["MANIFEST", "Manifest", "RuleRecord"]

MANIFEST = "sample.json"


class RuleRecord(Settings):
    """A rule that the pictures were drawn under: `digest` is SHA-256 of what it does."""

    name: str
    layer: str
    strength: float
    digest: str


class Manifest(Settings):
    """The content of ``sample.json``: everything that decides which bytes the pictures are.

    Attributes:
        model: the generator's name; only told, not compared. So is `torch`, its version.
        fingerprint: of the generator as drawn, with its rules.
        seeds: runs [first, last], both inclusive, in the order of the pictures.
        size: height and width.
    """

    schema_: Annotated[Literal["palimpsest-sample/1"], Field(alias="schema")] = "palimpsest-sample/1"
    model: str
    fingerprint: str
    rules: tuple[RuleRecord, ...]
    seeds: tuple[tuple[int, int], ...]
    scheme: Scheme
    truncation: float
    cutoff: int | None = None
    label: int | None = None
    format: FormatName
    size: tuple[int, int]
    micro_batch: int
    device: str
    precision: Literal["float32", "half"] = "float32"
    torch: str

    @classmethod
    def of(
        cls, generator: Generator, spec: LatentSpec, format: FormatName, rules: Sequence[RuleRecord]
    ) -> Self:
        """What a folder of these pictures says of itself."""
        return cls(
            model=generator.name,
            fingerprint=generator.fingerprint,
            rules=tuple(rules),
            seeds=tuple(_runs(spec.seeds)),
            scheme=spec.scheme,
            truncation=spec.truncation,
            cutoff=spec.cutoff,
            label=spec.label,
            format=format,
            size=generator.picture_size,
            micro_batch=generator.micro_batch,
            device=generator.device.type,
            precision=generator.precision,
            torch=torch.__version__,
        )

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The manifest of a folder.

        Raises:
            FileError: if there is none, or it is damaged.
        """
        what = f"{folder}/{MANIFEST}"
        return cls.parse(read_json(folder / MANIFEST, what=what), what, FileError)

    @property
    def spec(self) -> LatentSpec:
        """The latents of the pictures."""
        seeds = (seed for first, last in self.seeds for seed in range(first, last + 1))
        return LatentSpec.of(seeds, self.scheme, self.truncation, self.cutoff, self.label)

    def require(self, asked: Manifest, folder: Path) -> None:
        """Refuse to add other pictures than these.

        Raises:
            FileError: naming the first thing that differs.
        """
        told = {"model", "torch"}
        ours, theirs = (manifest.model_dump(mode="json", exclude=told) for manifest in (self, asked))
        for name, value in ours.items():
            if value != theirs[name]:
                raise FileError(
                    found=f"{folder} with pictures of {name} {_short(value)}",
                    expected=f"{name} {_short(theirs[name])}, or an empty folder",
                    remedy="Choose another folder, or delete this one.",
                )


def _runs(seeds: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Runs of consecutive seeds, first and last."""
    cuts = [0, *(at for at, (a, b) in enumerate(pairwise(seeds), 1) if b != a + 1), len(seeds)]
    yield from ((seeds[a], seeds[b - 1]) for a, b in pairwise(cuts) if b > a)


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:39]}…"
