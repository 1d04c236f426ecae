"""Planted truth: a small generator of which every unit is known, and a labeller that sees its shapes by their colour.

A picture of 48 × 48 has 4 × 4 places. In each of them, each unit of layer ``places`` is switched on by a latent of its
own in one case of twenty, and stamps its shape [6, 6] there into the unit of layer ``shapes`` of the same number. Layer
``shapes`` mixes these into four channels, which are enlarged bilinearly; layer ``colours`` makes red, green and blue of
the first three of them, and nothing of the fourth::

    z [128] ─► places [8, 4, 4] ─► shapes [8, 24, 24] ─► ×2 ─► colours [4, 48, 48] ─► picture [3, 48, 48]

Units of ``places`` and ``shapes``:

    0 a red disc, in the even places        4 MUTE: fires in cells of its own, draws nothing
    1 a green square                        5 a red dot, in the odd places
    2 a blue bar                            6 constant: 1 everywhere, draws nothing (in ``places`` it is 0)
    3 dead: 0 everywhere                    7 WIDE: fires everywhere in five pictures of six, draws nothing

A colour is drawn exactly where a unit's map, enlarged bilinearly, is above `DRAWN`; shapes do not touch, so the two
units that draw red do so in different pixels. Ablating a unit therefore takes away just the pixels that `drawn_by`
counts, and writing `LOUD` into it draws its colour wherever it is written. Whatever draws nothing is independent of
whatever draws, at every pixel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rewrite_core import LatentSpec
from rewrite_core.generators import Generator, SequentialGenerator, from_sequential
from rewrite_core.statistics import Scene

__all__ = [
    "COLOURS",
    "CONSTANT",
    "DEAD",
    "DRAWN",
    "DRAWS",
    "LAYERS",
    "LOUD",
    "MUTE",
    "PLACES",
    "SHAPES",
    "SILENT",
    "UNITS",
    "WIDE",
    "Shapes",
    "drawn_by",
    "planted_generator",
]

PLACES, SHAPES, COLOURS = "places", "shapes", "colours"
LAYERS = (PLACES, SHAPES, COLOURS)
UNITS = 8
"""Of layers ``places`` and ``shapes``; ``colours`` has four."""

DEAD, MUTE, CONSTANT, WIDE = 3, 4, 6, 7
SILENT = (DEAD, MUTE, CONSTANT, WIDE)
"""Units of ``places`` and ``shapes`` that draw nothing."""

DRAWS: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    PLACES: {"red": (0, 5), "green": (1,), "blue": (2,)},
    SHAPES: {"red": (0, 5), "green": (1,), "blue": (2,)},
    COLOURS: {"red": (0,), "green": (1,), "blue": (2,)},
}
"""Layer → colour → the units that draw it, the one that draws most of it first."""

DRAWN = 0.05
"""A colour is drawn where a unit's enlarged map is above this."""
LOUD = 1.0
"""A value that draws."""

_SIDE, _CELL = 4, 6
_RARE = -1.6  # a normal latent is above 1.6 in one case of twenty


def _stamps() -> Tensor:
    """What each unit stamps into its place, [8, 6, 6]; the last row and column of a shape that draws are empty."""
    stamps = torch.zeros(UNITS, _CELL, _CELL)
    stamps[0, :5, :5] = torch.tensor(
        [[0, 1, 1, 1, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [0, 1, 1, 1, 0]]
    )
    stamps[1, :4, :4] = 1
    stamps[2, 2, :5] = 1
    stamps[5, 1:4, 1:4] = torch.tensor([[0, 1, 0], [1, 1, 1], [0, 1, 0]])
    stamps[[MUTE, WIDE]] = 1
    return stamps


def _switches() -> nn.Linear:
    """Latents [128] → how much each unit is on in each place, before the ReLU, [8 × 16]."""
    count = _SIDE * _SIDE
    weight, bias = torch.eye(UNITS * count), torch.full((UNITS, _SIDE, _SIDE), _RARE)
    even = torch.arange(_SIDE)[:, None].add(torch.arange(_SIDE)) % 2 == 0  # [4, 4]
    off = torch.tensor(-100.0)
    bias[0] = bias[0].where(even, off)
    bias[5] = bias[5].where(~even, off)
    bias[[DEAD, CONSTANT]] = off
    wide = slice(WIDE * count, (WIDE + 1) * count)
    weight[wide] = weight[wide][:1]  # one latent for all places
    bias[WIDE] = 1.0
    layer = nn.Linear(UNITS * count, UNITS * count)
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias.flatten())
    return layer


def planted_generator() -> SequentialGenerator:
    """The generator described above."""
    places = nn.ConvTranspose2d(UNITS, UNITS, _CELL, stride=_CELL)
    shapes = nn.Conv2d(UNITS, 4, 1)
    colours = nn.Conv2d(4, 3, 1)
    with torch.no_grad():
        places.weight.zero_()
        places.weight[range(UNITS), range(UNITS)] = _stamps()
        places.bias = nn.Parameter(torch.zeros(UNITS))
        places.bias[CONSTANT] = 1.0
        shapes.weight.zero_()
        shapes.bias = nn.Parameter(torch.zeros(4))
        for channel, units in enumerate([*DRAWS[SHAPES].values(), (MUTE,)]):
            shapes.weight[channel, list(units)] = 1.0
        colours.weight.zero_()
        colours.weight[range(3), range(3)] = 2.0 / DRAWN
        colours.bias = nn.Parameter(torch.full((3,), -2.0))  # dark: tanh(-2)
    stack = nn.Sequential()
    stack.add_module("switches", _switches())
    stack.add_module("grid", nn.Unflatten(1, (UNITS, _SIDE, _SIDE)))
    stack.add_module("on", nn.ReLU())
    stack.add_module(PLACES, places)
    stack.add_module(SHAPES, shapes)
    stack.add_module("larger", nn.Upsample(scale_factor=2, mode="bilinear"))
    stack.add_module(COLOURS, colours)
    stack.add_module("picture", nn.Tanh())
    return from_sequential(stack.eval(), name="planted")


@dataclass(frozen=True)
class Shapes:
    """Where a picture is red, green or blue (each by its own channel; they may overlap), and where it is dark.

    `dark` covers more than nine tenths of all pixels. With `unseen`, there is a concept that no picture shows.
    """

    unseen: bool = False
    title: str = "shapes"
    pixels_only: bool = True
    layers: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return ("red", "green", "blue", "dark", *(["purple"] if self.unseen else []))

    def identity(self) -> Mapping[str, Any]:
        return {"source": "shapes", "names": list(self.names)}

    def check(self, generator: Generator) -> None:
        """Any pictures will do."""

    def __call__(self, scene: Scene) -> Tensor:
        bright = scene.pictures > 0  # [N, 3, 48, 48]
        dark = ~bright.any(1, keepdim=True)  # [N, 1, 48, 48]
        never = [torch.zeros_like(dark)] if self.unseen else []
        return torch.cat([bright, dark, *never], 1)  # [N, L, 48, 48]


@torch.no_grad()
def drawn_by(generator: Generator, spec: LatentSpec, layer: str = SHAPES) -> Tensor:
    """How many pixels of its colour each unit of ``shapes`` or ``colours`` draws in each picture, int64 [N, C].

    Ablating the unit takes away just these; 0 for a unit that draws nothing.
    """
    keys = generator.keys(generator.latents(spec), layer).keys
    large = functional.interpolate(keys, generator.picture_size, mode="bilinear", align_corners=False)
    count = (large > DRAWN).sum((2, 3))  # [N, C]
    drawing = [unit for units in DRAWS[layer].values() for unit in units]
    silent = torch.ones(count.shape[1], dtype=torch.bool)
    silent[drawing] = False
    return count.masked_fill(silent, 0)
