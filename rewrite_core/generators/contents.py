"""What a checkpoint holds once its files are decoded, and how a family takes its tensors out of it.

The door (`checkpoint.py`) decodes; a family sees names and tensors, whatever kind of file they came in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import torch
from torch import Tensor, nn

from rewrite_core.errors import FileError
from rewrite_core.files import require_finite
from rewrite_core.generators.layout import WRITTEN, Layout, Place

__all__ = ["LARGEST_NETWORK", "Contents", "PREFIXES", "Stored", "extent", "fill"]

PREFIXES = (
    "g_ema.module.",
    "g_ema.",
    "state_dict.module.",
    "state_dict.",
    "g.module.",
    "g.",
    "module.",
    "",
)
"""What may stand before a generator's tensors: a key of a checkpoint, ``module.`` of `torch.nn.DataParallel`.

An averaged generator comes before the one in training.
"""

MOST_NETWORKS = 32
"""First parts of names that are tried as prefixes."""

LARGEST_NETWORK = 2 << 30
"""Bytes of float32 weights. A tensor may claim more numbers than its file holds, by strides of 0."""


@dataclass(frozen=True)
class Stored:
    """The tensors of one file by name; `owned`: nothing else has their memory, least of all the file.

    `nested` are the dictionaries that some of them were in, `description` is what the file itself says of the network.
    `original` is the file, where an edited network is written by changing its numbers in a copy of it.
    """

    tensors: Mapping[str, Tensor]
    owned: bool
    nested: frozenset[str] = frozenset()
    description: Any = None
    original: Path | None = None


@dataclass(frozen=True)
class Contents:
    """A decoded checkpoint: nothing in its files was executed.

    Attributes:
        name: what the generator is called unless its description says otherwise.
        weights: the file with the tensors, as errors name it.
        tensors: by name; nested dictionaries are joined with a dot (``g_ema.conv1.conv.weight``).
        description: the decoded ``model.json``, None without one.
        nested: names of the dictionaries that some tensors were in.
        owned: whether nothing else has the tensors' memory; else they may lie in the file itself, and `floats` copies.
        original: the file with the tensors, where an export changes numbers in a copy of it.
    """

    name: str
    weights: str
    tensors: Mapping[str, Tensor]
    description: Any = None
    nested: frozenset[str] = frozenset()
    owned: bool = False
    original: Path | None = None

    @property
    def suffix(self) -> str:
        """Of the file with the tensors: ``.pt``."""
        return PurePath(self.weights).suffix.lower()

    @property
    def schema(self) -> str:
        """What the description is of: ``stylegan2`` for the schema ``stylegan2/1``; empty without a description."""
        named = self.description.get("schema", "") if isinstance(self.description, Mapping) else ""
        return str(named).partition("/")[0]

    @property
    def prefixes(self) -> list[str]:
        """All that may stand before a network's names: `PREFIXES`, then the first parts of names, so many at most."""
        tops = dict.fromkeys(name.partition(".")[0] + "." for name in self.tensors if "." in name)
        return [*PREFIXES, *(top for top in [*tops][:MOST_NETWORKS] if top not in PREFIXES)]

    def prefix(self, sign: str) -> str | None:
        """The first of `PREFIXES` under which there is a tensor called `sign`; None if there is none."""
        return next((prefix for prefix in PREFIXES if prefix + sign in self.tensors), None)

    def under(self, prefix: str) -> dict[str, str]:
        """The tensors whose names start with `prefix`: name without it → name."""
        return {name.removeprefix(prefix): name for name in self.tensors if name.startswith(prefix)}

    def called(self, names: Mapping[str, str]) -> Contents:
        """Only the tensors that `names` lists, new name → name in the file."""
        return replace(self, tensors={ours: self.tensors[theirs] for ours, theirs in names.items()})

    def layout(self, names: Mapping[str, str], rest: Iterable[str] = ()) -> Layout | None:
        """How the file holds the tensors that `names` lists, our name → name in the file; None if we do not write such.

        Those that are not of floating point, and those called in `rest`, are kept as they are.
        """
        if self.suffix not in WRITTEN and self.original is None:
            return None
        found = {ours: (theirs, self.tensors[theirs]) for ours, theirs in names.items()}
        places = {
            ours: Place(name, tensor.shape, tensor.dtype)
            for ours, (name, tensor) in found.items()
            if tensor.is_floating_point()
        }
        counters = [name for name, tensor in found.values() if not tensor.is_floating_point()]
        kept = {name: self.tensors[name].clone() for name in (*counters, *rest)}
        held = {*names.values(), *kept}
        order = tuple(name for name in self.tensors if name in held)
        return Layout(self.suffix, order, places, kept, self.nested, self.description, self.original)

    def floats(self) -> dict[str, Tensor]:
        """The floating point tensors in float32, each with memory of its own.

        Raises:
            FileError: if they are too large together, or not all finite.
        """
        wanted = {
            name: tensor.detach() for name, tensor in self.tensors.items() if tensor.is_floating_point()
        }
        size = sum(4 * tensor.numel() for tensor in wanted.values())
        if size > LARGEST_NETWORK:
            raise FileError(
                found=f"{self.weights}: {size:,} bytes of weights",
                expected=f"at most {LARGEST_NETWORK:,}",
                remedy="Check that it is the right file.",
            )
        copies = {
            name: tensor.to(torch.float32, copy=not self.owned).contiguous()
            for name, tensor in wanted.items()
        }
        require_finite(copies, self.weights)
        return copies


def extent(tensors: Mapping[str, Tensor], name: str, axis: int, what: str) -> int:
    """How long a tensor is along an axis: a size of the network that is read off its tensors.

    Raises:
        FileError: if there is no such tensor or axis, or it is empty.
    """
    shape = list(tensors[name].shape) if name in tensors else None
    if shape is None or len(shape) <= axis or not shape[axis]:
        raise FileError(
            found=f"{what}: {f'no tensor {name!r}' if shape is None else f'{name!r} {shape}'}",
            expected=f"{name!r}, whose axis {axis} tells a size of the network",
            remedy="Check that the file is whole and of this family.",
        )
    return shape[axis]


def fill(network: nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    """Give a network that was built on the meta device its tensors, not copied; `what` names their file.

    Raises:
        FileError: naming the first tensor that is missing, of another shape, or not the network's.
    """
    places = network.state_dict()
    for name in sorted(places.keys() | tensors.keys()):
        have = f"'{name}' {list(tensors[name].shape)}" if name in tensors else f"no tensor '{name}'"
        need = f"'{name}' {list(places[name].shape)}" if name in places else f"no tensor '{name}'"
        if have != need:
            raise FileError(
                found=f"{what}: {have}",
                expected=f"{need}, as the other tensors have it",
                remedy="Check that the file is whole and of this family.",
            )
    network.load_state_dict(dict(tensors), assign=True)
