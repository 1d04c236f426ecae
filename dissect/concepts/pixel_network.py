"""A small network that labels every pixel from the pixels around it, and from nothing else.

    pictures ─► cells of s × s pixels, a conv ─► D residual 3 × 3 convs ─┐
            └─► a 3 × 3 conv at full size ──────────────────────────────┴─► enlarged, joined, 3 × 3 conv ─► scores

A picture has some 32 cells along its longer side whatever its size, and the convs over cells are as many as see about
a third of the picture. What a label depends on is therefore nearby: that a face usually has an eye here is out of
sight. For the same reason nothing is normalised over the picture, and no pixel is told its place.
"""

from __future__ import annotations

from typing import Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from rewrite_core.settings import Settings

__all__ = ["Architecture", "PixelNetwork"]

CELLS, FIELD = 32, 1 / 3
"""Along a picture's longer side; and the share of that side which a label depends on, about."""
WIDTH, FINE = 40, 12
"""Channels of the convs over cells, and of those at full size."""
DEEPEST = 6


class Architecture(Settings):
    """What a network's tensors are shaped by.

    Attributes:
        labels: L, how many labels it tells.
        size: height and width of the pictures that it works on.
        cell: s, pixels along the side of a cell.
        width: channels of the convs over cells.
        fine: channels of the convs at full size.
        depth: D, how many convs there are over cells.
    """

    labels: int = Field(ge=1, le=1024)
    size: tuple[int, int]
    cell: int = Field(ge=1, le=16)
    width: int = Field(ge=1, le=256)
    fine: int = Field(ge=1, le=256)
    depth: int = Field(ge=1, le=DEEPEST)

    @classmethod
    def fit(cls, size: tuple[int, int], labels: int) -> Self:
        """The one for pictures of `size`."""
        longer = max(size)
        cell = max(1, longer // CELLS)
        depth = (round(FIELD * longer / cell) - 1) // 2
        depth = min(max(depth, 1), DEEPEST)
        return cls(labels=labels, size=size, cell=cell, width=WIDTH, fine=FINE, depth=depth)

    @property
    def reach(self) -> int:
        """How many pixels away a label may depend on a pixel, at most."""
        return self.cell * (self.depth + 1) + 1


class PixelNetwork(nn.Module):
    """Pictures [N, 3, h, w] in [-1, 1] → scores [N, L, h, w]."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.shape = shape
        width, fine = shape.width, shape.fine
        self.cells = nn.Conv2d(3, width, shape.cell, stride=shape.cell)
        self.trunk = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(shape.depth))
        self.back = nn.ConvTranspose2d(width, fine, shape.cell, stride=shape.cell)
        self.pixels = nn.Conv2d(3, fine, 3, padding=1)
        self.joined = nn.Conv2d(2 * fine, 2 * fine, 3, padding=1)
        self.scores = nn.Conv2d(2 * fine, shape.labels, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        height, width = pictures.shape[2:]
        rest = (0, -width % self.shape.cell, 0, -height % self.shape.cell)
        whole = functional.pad(pictures, rest, mode="replicate") if any(rest) else pictures
        seen = functional.relu(self.cells(whole))  # [N, W, h / s, w / s]
        for conv in self.trunk:
            seen = seen + functional.relu(conv(seen))
        coarse = self.back(seen)[:, :, :height, :width]  # [N, F, h, w]
        both = functional.relu(torch.cat([coarse, self.pixels(pictures)], 1))  # [N, 2 F, h, w]
        scores: Tensor = self.scores(functional.relu(self.joined(both)))  # [N, L, h, w]
        return scores
