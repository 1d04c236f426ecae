"""Which latents a set of pictures is drawn from.

A picture is named by its seed. Two schemes turn seeds into latents `z`, shape [N, D], float32:

* ``seed`` (default): each picture's z comes from its own ``numpy.random.RandomState(seed)``, a stream that numpy
  keeps frozen for ever, so the same seed is the same picture in every batch, process, device and release. It is also
  what the published measurements use.
* ``rows``: picture *i* is row *i* of the one matrix that ``RandomState(1)`` fills. Image numbers in the published
  interface's files mean this.

Truncation ψ moves a latent towards the average one: families with a mapping network do it in w,
``w̄ + ψ (w - w̄)``; the others in z, whose average is 0. With a cutoff, only the w of so many of the first layers move.

A conditional generator draws a class beside z: the one that the spec names, or, by default, one of its own for each
picture, drawn from the same seed. So the pictures of a spec without a class show all classes alike, as training did, a
statistic over them is one of the whole generator, and a seed still is one picture.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from rewrite_core.errors import RequestError

__all__ = ["LAST_ROW", "LAST_SEED", "Distribution", "LatentSpec", "Latents", "Scheme", "draw", "draw_labels"]

Scheme = Literal["seed", "rows"]
Distribution = Literal["normal", "uniform"]

LAST_SEED = 2**32 - 1
LAST_ROW = 2**17 - 1
_LABELS = zlib.crc32(b"label")  # keeps the stream of classes apart from those of noise
LARGEST_MATRIX = 2**26
"""Numbers that scheme ``rows`` may draw: whoever asks for row i pays for all before it."""


@dataclass(frozen=True)
class LatentSpec:
    """The pictures asked for.

    Attributes:
        seeds: one a picture.
        scheme: how seeds become latents.
        truncation: ψ.
        cutoff: how many of the w that layers take are truncated, from the first on; None: all.
        label: the class of a conditional generator; None: each picture's own, from its seed.
    """

    seeds: tuple[int, ...]
    scheme: Scheme = "seed"
    truncation: float = 1.0
    cutoff: int | None = None
    label: int | None = None

    def __post_init__(self) -> None:
        last = LAST_SEED if self.scheme == "seed" else LAST_ROW
        wrong = [seed for seed in self.seeds if not 0 <= seed <= last]
        if wrong:
            raise RequestError(
                found=f"picture number {wrong[0]}",
                expected=f"numbers from 0 to {last} (scheme '{self.scheme}')",
                remedy="Choose pictures in that range.",
            )
        if not 0.0 <= self.truncation <= 2.0:
            raise RequestError(
                found=f"truncation {self.truncation}",
                expected="0 to 2",
                remedy="1 leaves the latents as they are.",
            )
        for name, value in (("cutoff", self.cutoff), ("class", self.label)):
            if value is not None and value < 0:
                raise RequestError(
                    found=f"{name} {value}", expected="0 or more", remedy=f"Choose another {name}."
                )

    @classmethod
    def of(
        cls,
        seeds: Iterable[int],
        scheme: Scheme = "seed",
        truncation: float = 1.0,
        cutoff: int | None = None,
        label: int | None = None,
    ) -> LatentSpec:
        """The spec of any iterable of seeds, e.g. ``LatentSpec.of(range(8))``."""
        return cls(tuple(int(seed) for seed in seeds), scheme, truncation, cutoff, label)

    def __len__(self) -> int:
        return len(self.seeds)

    def blocks(self, size: int) -> list[LatentSpec]:
        """The same pictures in order, at most `size` at a time."""
        starts = range(0, len(self.seeds), size)
        return [replace(self, seeds=self.seeds[at : at + size]) for at in starts]


@dataclass(frozen=True)
class Latents:
    """Drawn latents: `z` [N, D] beside the spec that names them (noise is drawn from the same seeds).

    A family with a mapping network takes `w` in place of what z is mapped to: [N, D], or [N, L, D] with one for each of
    the L places where a style enters. No spec names such latents, so nothing that is kept under a spec's name
    (statistics, cached pictures) can be of them.
    """

    z: Tensor
    spec: LatentSpec
    w: Tensor | None = None

    def __len__(self) -> int:
        return len(self.z)

    def first(self, count: int) -> Latents:
        """The first `count`."""
        return self.part(0, count)

    def part(self, start: int, end: int) -> Latents:
        """Those from `start` to before `end`."""
        spec = replace(self.spec, seeds=self.spec.seeds[start:end])
        return Latents(self.z[start:end], spec, None if self.w is None else self.w[start:end])

    def blocks(self, size: int) -> list[Latents]:
        """The same latents in order, at most `size` at a time."""
        return [self.part(at, at + size) for at in range(0, len(self), size)]


def draw(spec: LatentSpec, dim: int, distribution: Distribution = "normal") -> Tensor:
    """Latents z [N, dim] of `spec`, float32 on the CPU; `uniform` means [-1, 1)."""
    if spec.scheme == "rows":
        rows = _rows(_power_of_two(max(spec.seeds, default=0) + 1), dim, distribution)
        z = rows[list(spec.seeds)]  # [N, dim]
    else:
        z = np.stack(
            [_fill(np.random.RandomState(seed), dim, distribution) for seed in spec.seeds] or [np.zeros(dim)]
        )
        z = z[: len(spec.seeds)]
    return torch.from_numpy(z.astype(np.float32))


def draw_labels(spec: LatentSpec, classes: int) -> Tensor:
    """The pictures' classes, one-hot [N, classes], float32 on the CPU.

    Raises:
        RequestError: the spec names a class that there is not.
    """
    if spec.label is not None and spec.label >= classes:
        raise RequestError(
            found=f"class {spec.label}",
            expected=f"a class from 0 to {classes - 1}",
            remedy="Choose another class.",
        )
    own = [
        np.random.RandomState([seed, _LABELS]).randint(classes) if spec.label is None else spec.label
        for seed in spec.seeds
    ]
    return torch.eye(classes)[torch.tensor(own, dtype=torch.int64)]  # [N, classes]


@lru_cache(maxsize=2)
def _rows(count: int, dim: int, distribution: Distribution) -> np.ndarray:
    if count * dim > LARGEST_MATRIX:
        raise RequestError(
            found=f"a picture number up to {count:,} with latents of {dim:,} numbers (scheme 'rows')",
            expected=f"numbers below {LARGEST_MATRIX // dim:,}",
            remedy="Choose pictures in that range, or the scheme 'seed'.",
        )
    flat = _fill(np.random.RandomState(1), count * dim, distribution)
    return flat.reshape(count, dim).astype(np.float32)  # the first rows are the same for every count


def _fill(random: np.random.RandomState, size: int, distribution: Distribution) -> np.ndarray:
    return random.standard_normal(size) if distribution == "normal" else random.uniform(-1.0, 1.0, size)


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()
