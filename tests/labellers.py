"""Small real labellers that tests share: concepts read off the pictures themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from rewrite_core.statistics import Scene

__all__ = ["Bright", "Counted", "Tints"]


@dataclass(frozen=True)
class Bright:
    """Where a picture is brighter than each of some levels in [-1, 1]: bool, and each label holds the next."""

    levels: tuple[float, ...] = (-0.2, -0.1)
    layers: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"brighter than {level}" for level in self.levels)

    def identity(self) -> Mapping[str, Any]:
        return {"labeller": "bright", "levels": list(self.levels)}

    def __call__(self, scene: Scene) -> Tensor:
        levels = torch.tensor(self.levels, device=scene.pictures.device)
        return scene.pictures.mean(1, keepdim=True) > levels[:, None, None]  # [N, L, R, R]


@dataclass(frozen=True)
class Tints:
    """How red, green and blue a picture is, softly, as area averages on a grid of its own."""

    grid: tuple[int, int] = (5, 7)
    names: tuple[str, ...] = ("red", "green", "blue")
    layers: tuple[str, ...] = ()

    def identity(self) -> Mapping[str, Any]:
        return {"labeller": "tints", "grid": list(self.grid)}

    def __call__(self, scene: Scene) -> Tensor:
        return functional.adaptive_avg_pool2d((scene.pictures + 1) / 2, self.grid).clamp(
            0, 1
        )  # [N, 3, *grid]


@dataclass
class Counted:
    """The labels of another labeller; keeps every micro-batch of pictures and its seeds."""

    labeller: Bright | Tints
    pictures: list[Tensor] = field(default_factory=list)
    seeds: list[tuple[int, ...]] = field(default_factory=list)
    layers: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return self.labeller.names

    def identity(self) -> Mapping[str, Any]:
        return self.labeller.identity()

    def __call__(self, scene: Scene) -> Tensor:
        self.pictures.append(scene.pictures.clone())
        self.seeds.append(scene.latents.spec.seeds)
        return self.labeller(scene)
