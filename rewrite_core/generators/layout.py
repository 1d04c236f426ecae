"""How a file called, shaped and typed the tensors of a network, so that an edited network is written the same way.

A family opens a file under names of its own (`Generator.stored`) and notes in a `Layout` where each of them came from.
`Layout.written` goes back: same names, same shapes, same types, in the same order, with the counters that no picture
depends on as they were. What else a training checkpoint holds (the generator in training, the discriminator,
optimisers, arguments) is not kept: it belongs to weights that the edited ones are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rewrite_core.errors import FileError

__all__ = ["WRITTEN", "Layout", "Place"]

WRITTEN = (".pt", ".pth", ".safetensors")
"""Endings of the files that can be written anew as they came."""


@dataclass(frozen=True)
class Place:
    """Where one tensor is in a file, and as what; `shape` may have axes of length 1 that ours lacks."""

    name: str
    shape: torch.Size
    dtype: torch.dtype


@dataclass(frozen=True)
class Layout:
    """A file's way of holding a network.

    Attributes:
        suffix: of the file: ``.pt``, ``.pth`` or ``.safetensors``.
        order: the names of the network's tensors as the file lists them.
        places: by the family's name of each tensor.
        rest: the file's name → a tensor of the network that no picture depends on: a counter, an absent average.
        nested: names of dictionaries in the file; the tensors in them are called by both names, joined with a dot.
        description: the decoded ``model.json`` beside the file or in it, None without one.
        original: the file itself, where it is not written anew: numbers are changed in a copy of it.
    """

    suffix: str
    order: tuple[str, ...]
    places: Mapping[str, Place]
    rest: Mapping[str, Tensor] = field(default_factory=dict)
    nested: frozenset[str] = frozenset()
    description: Any = None
    original: Path | None = None

    @property
    def ours(self) -> bool:
        """Whether it is that of our own exports: ``model.json`` and ``model.safetensors``."""
        return self.description is not None and self.suffix == ".safetensors"

    def written(self, stored: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
        """Tensors under the family's names → the same as the file has them, on the CPU; `what` names them in errors.

        Raises:
            FileError: if an edited weight is too large for the file's own precision.
        """
        found = {place.name: _placed(stored[ours], place, what) for ours, place in self.places.items()}
        found |= self.rest
        return {name: found[name] for name in self.order}

    def tree(self, written: Mapping[str, Tensor]) -> dict[str, Any]:
        """The same tensors with their dictionaries: ``g_ema.conv1…`` becomes ``{"g_ema": {"conv1…": …}}``."""
        grown: dict[str, Any] = {}
        for name, tensor in written.items():
            top, _, inner = name.partition(".")
            if top in self.nested:
                grown.setdefault(top, {})[inner] = tensor
            else:
                grown[name] = tensor
        return grown


def _placed(tensor: Tensor, place: Place, what: str) -> Tensor:
    cast = tensor.detach().cpu().to(place.dtype)
    if not torch.isfinite(cast.float()).all():
        raise FileError(
            found=f"{what}: a weight {place.name!r} that {str(place.dtype).removeprefix('torch.')} cannot hold",
            expected="rules that keep it within the precision of the file",
            remedy="Lower their strength, or export safetensors in float32.",
        )
    return cast.reshape(place.shape).contiguous()
