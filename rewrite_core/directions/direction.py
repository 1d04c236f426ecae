"""Directions of key space, as values and as files.

A direction `d` is a *query*: its heat at a position is `d · k`. The pattern that it stands for, what the keys
that it finds look like, is `C d`, with `C` the layer's second moment. A rule of rank `R` changes what `R`
directions write: `W' = W + Λ D`.

    eyes = context_direction(seen, second_moment, 1, settings, layer="l08", name="eyes")
    eyes.save(path)                                # a small safetensors file, nothing executable
    same = Direction.load(path)                    # to the last bit: same == eyes
    same.check(generator)                          # made for it, and as wide as its layer

Whatever its origin (a painted context, a unit, a rule, a component of the layer's keys), a direction is this one
type; `method` names the origin and `provenance` holds what it takes to compute it again. Two are equal if all that a
file would hold is.

Axes: directions (the rank) `R`, units (channels of the key) `C`; float64 on the CPU.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from rewrite_core.directions.direction_file import (
    FORMAT,
    LARGEST_FILE,
    VERSION,
    read_header,
    require_sound,
    short,
)
from rewrite_core.errors import FileError, LayerError, ModelMismatch, RequestError
from rewrite_core.files import read_safetensors, to_safetensors_bytes, write_bytes
from rewrite_core.generators import Generator

__all__ = ["Direction"]


@dataclass(frozen=True, eq=False)
class Direction:
    """The directions `D` of one context at one layer, most telling first, and where they came from."""

    vectors: Tensor  # [R, C] orthonormal rows
    layer: str
    method: str  # its origin: zca, svd, mean, gandissect, plain, difference, unit, rule, pca, …
    singular_values: Tensor  # [K], K ≥ R, descending: those beyond R tell what a higher rank would add
    name: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)  # what it takes to compute it again; JSON
    model: str = ""  # name of the generator
    fingerprint: str = ""  # of the pristine generator; empty: tied to none
    key: Tensor | None = None  # [C] the (mean) key it was made from; without one, its pattern stands for it

    @property
    def rank(self) -> int:
        """How many directions there are."""
        return len(self.vectors)

    @property
    def units(self) -> int:
        """How many channels the layer's keys have."""
        return self.vectors.shape[1]

    @property
    def digest(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of the layer's name and the vectors: what it looks for."""
        content = hashlib.sha256(self.layer.encode("utf-8", "surrogatepass"))
        content.update(f"{tuple(self.vectors.shape)}".encode())
        content.update(_own(self.vectors).numpy().astype("<f8").tobytes())
        return content.hexdigest()[:16]

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Direction):
            return NotImplemented
        mine, theirs = self._tensors(), other._tensors()
        return (
            mine.keys() == theirs.keys()
            and all(torch.equal(mine[name], theirs[name]) for name in mine)
            and self._header() == other._header()
        )

    def __hash__(self) -> int:
        return hash(self.digest)

    def head(self, rank: int) -> Self:
        """The first `rank` of them: just what asking for that rank would have given.

        Raises:
            RequestError: there are not so many.
        """
        if not 1 <= rank <= self.rank:
            raise RequestError(
                found=f"rank {rank} of the direction {self._called()}",
                expected=f"1 to {self.rank}, as many as it holds",
                remedy="Lower the rank, or make the direction again with a higher one.",
            )
        return self if rank == self.rank else replace(self, vectors=self.vectors[:rank])

    def pattern(self, second_moment: Tensor) -> Tensor:
        """The keys that they stand for: rows `C d` [R, C]."""
        return self.vectors @ second_moment.to(self.vectors)

    def renamed(self, name: str) -> Self:
        """The same under another name."""
        return replace(self, name=name)

    def adopted_by(self, generator: Generator) -> Self:
        """The same for another generator with such a layer: the caller vouches for it.

        Raises:
            LayerError: it has no such layer, or one of another width.
        """
        self._check_width(generator)
        return replace(self, model=generator.name, fingerprint=generator.pristine.fingerprint)

    def check(self, generator: Generator) -> None:
        """Raise unless it was made for `generator` (or is tied to none) and fits its layer.

        Raises:
            ModelMismatch: with both fingerprints.
            LayerError: the layer is missing, or of another width.
        """
        have = generator.pristine.fingerprint
        if self.fingerprint and self.fingerprint != have:
            raise ModelMismatch(
                found=f"direction {self._called()} made for {self.model} ({self.fingerprint[:12]})",
                expected=f"one for {generator.name} ({have[:12]})",
                remedy="Open the generator it was made for.",
            )
        self._check_width(generator)

    def save(self, path: Path | str) -> None:
        """Write its file, whole or not at all. A `FileError` says why it cannot be."""
        write_bytes(Path(path), self.to_bytes())

    def to_bytes(self) -> bytes:
        """Its file's content: the same direction always gives the same bytes.

        Raises:
            FileError: it is one that `load` would refuse.
        """
        what = f"direction {self._called()}"
        tensors, text = self._tensors(), self._header()
        require_sound(tensors, what)
        read_header(text, what)
        content = to_safetensors_bytes(tensors, {"palimpsest": text})
        if len(content) > LARGEST_FILE:
            raise FileError(
                found=f"{what} takes {len(content):,} bytes",
                expected=f"at most {LARGEST_FILE:,}",
                remedy="Keep fewer directions of it.",
            )
        return content

    @classmethod
    def load(cls, source: Path | str | bytes, what: str = "direction file") -> Direction:
        """Read a direction's file, or its content; `what` names the latter in errors.

        Raises:
            FileError: it is none, of a newer version, damaged, not finite or not orthonormal; nothing in it is ever
                executed.
        """
        if not isinstance(source, bytes):
            source = Path(source)
            what = source.name
        tensors, header = read_safetensors(source, what=what, limit_bytes=LARGEST_FILE)
        if "palimpsest" not in header or not {"vectors", "singular_values"} <= set(tensors):
            raise FileError(
                found=f"{what}: tensors {_some(sorted(tensors))}",
                expected="a direction's file (vectors, singular_values, and a palimpsest header)",
                remedy="Choose a file that Palimpsest saved as a direction.",
            )
        told = read_header(header["palimpsest"], what)
        require_sound(tensors, what)
        return cls(
            vectors=tensors["vectors"],
            singular_values=tensors["singular_values"],
            key=tensors.get("key"),
            **told.model_dump(exclude={"format", "version"}),
        )

    def _called(self) -> str:
        return f"'{short(self.name or self.method)}'"

    def _check_width(self, generator: Generator) -> None:
        have = generator.layer(self.layer).in_channels
        if self.units != have:
            raise LayerError(
                found=f"direction {self._called()} of {self.units} units",
                expected=f"{have}, the width of the keys of {self.layer} in {generator.name}",
                remedy="Open the generator it was made for.",
            )

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {"vectors": self.vectors, "singular_values": self.singular_values}
        if self.key is not None:
            tensors["key"] = self.key
        return {name: _own(tensor) for name, tensor in tensors.items()}

    def _header(self) -> str:
        told = {
            "format": FORMAT,
            "version": VERSION,
            "layer": self.layer,
            "method": self.method,
            "name": self.name,
            "model": self.model,
            "fingerprint": self.fingerprint,
            "provenance": dict(self.provenance),
        }
        return json.dumps(told, sort_keys=True, allow_nan=False)


def _own(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous()


def _some(names: list[str]) -> str:
    return ", ".join(map(short, names[:4])) or "none"
