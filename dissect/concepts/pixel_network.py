"""A small network that labels every pixel from the pixels around it, and from nothing else.

    pictures ─► cells of s × s pixels, a conv ─► D residual 3 × 3 convs ─┐
            └─► a 3 × 3 conv at full size ──────────────────────────────┴─► enlarged, joined, 3 × 3 conv ─► scores

A picture has some 32 cells along its longer side whatever its size, and the convs over cells are as many as see about
a third of the picture. What a label depends on is therefore nearby: that a face usually has an eye here is out of
sight. No pixel is told its place, and once learned, batch normalisation is a constant scale and shift, so it tells
nothing of the rest of the picture either.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from rewrite_core.settings import Settings

__all__ = ["LARGEST", "Architecture", "PixelNetwork"]

CELLS, FIELD = 32, 1 / 3
"""Along a picture's longer side; and the share of that side which a label depends on, about."""
LARGEST = 128
"""Longer side of a picture that it works on; larger ones are made smaller."""
WIDTH, FINE = 40, 12
"""Channels of the convs over cells, and of those at full size."""
DEEPEST = 6
"""Convs over cells, at most."""

Side = Annotated[int, Field(ge=1, le=LARGEST)]


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
    size: tuple[Side, Side]
    cell: int = Field(ge=1, le=16)
    width: int = Field(ge=1, le=256)
    fine: int = Field(ge=1, le=256)
    depth: int = Field(ge=1, le=DEEPEST)

    @classmethod
    def fit(cls, picture_size: tuple[int, int], labels: int) -> Self:
        """The one for pictures of that size: a whole number of times smaller if they are large."""
        factor = -(-max(picture_size) // LARGEST)
        height, width = (max(1, side // factor) for side in picture_size)
        cell = max(1, round(max(height, width) / CELLS))
        depth = min(max(round(FIELD * max(height, width) / (2 * cell)) - 1, 1), DEEPEST)
        return cls(labels=labels, size=(height, width), cell=cell, width=WIDTH, fine=FINE, depth=depth)

    @property
    def reach(self) -> int:
        """How many pixels away, at most, a pixel is that a label depends on."""
        return max(2, self.cell * (self.depth + 1))


class PixelNetwork(nn.Module):
    """Pictures [N, 3, h, w] in [-1, 1] → scores [N, L, h, w]; its tensors are to be `drawn` or `holding` some."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.shape = shape
        width, fine = shape.width, shape.fine
        with torch.device("meta"):  # nothing is drawn from torch's own random numbers
            self.cells = _Normalised(3, width, shape.cell, stride=shape.cell)
            self.trunk = nn.ModuleList(_Normalised(width, width, 3) for _ in range(shape.depth))
            self.back = nn.ConvTranspose2d(width, fine, shape.cell, stride=shape.cell)
            self.pixels = nn.Conv2d(3, fine, 3, padding=1)
            self.joined = _Normalised(2 * fine, 2 * fine, 3)
            self.scores = nn.Conv2d(2 * fine, shape.labels, 1)

    @classmethod
    def drawn(cls, shape: Architecture, seed: int) -> Self:
        """One that has learned nothing: He initialisation from `seed`."""
        network, random = cls(shape).to_empty(device="cpu"), torch.Generator().manual_seed(seed)
        for name, tensor in network.state_dict().items():
            if name.endswith("weight"):
                nn.init.kaiming_normal_(tensor, generator=random)
            else:
                nn.init.constant_(tensor, name.endswith(("scale", "variance")))
        return network

    @classmethod
    def holding(cls, shape: Architecture, weights: Mapping[str, Tensor]) -> Self:
        """One with these `weights`, ready to label."""
        network = cls(shape)
        network.load_state_dict(dict(weights), strict=True, assign=True)
        return network.eval().requires_grad_(False)

    @classmethod
    def shapes(cls, shape: Architecture) -> dict[str, tuple[int, ...]]:
        """The shapes of its weights, by name."""
        return {name: tuple(tensor.shape) for name, tensor in cls(shape).state_dict().items()}

    def weights(self) -> dict[str, Tensor]:
        """A copy of all that it has learned, in the order of `shapes`."""
        return {name: tensor.detach().clone().contiguous() for name, tensor in self.state_dict().items()}

    def forward(self, pictures: Tensor) -> Tensor:
        """See the class."""
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


class _Normalised(nn.Conv2d):
    """A conv and its batch normalisation."""

    mean: Tensor
    variance: Tensor

    def __init__(self, channels: int, to: int, side: int, stride: int = 1) -> None:
        super().__init__(channels, to, side, stride, padding=side // 2 if stride == 1 else 0, bias=False)
        self.scale, self.shift = nn.Parameter(torch.ones(to)), nn.Parameter(torch.zeros(to))
        self.register_buffer("mean", torch.zeros(to))
        self.register_buffer("variance", torch.ones(to))

    def forward(self, maps: Tensor) -> Tensor:
        """Maps [N, C, h, w] → [N, O, h / stride, w / stride]."""
        found = super().forward(maps)
        return functional.batch_norm(
            found, self.mean, self.variance, self.scale, self.shift, training=self.training
        )
