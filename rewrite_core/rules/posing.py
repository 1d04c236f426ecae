"""What is copied, made larger or smaller and turned over, on the grid that it is pasted on.

Values and their soft area are resampled alike: bilinearly, and antialiased where they shrink (the triangle filter that
masks are brought to a grid with). Without scale or flip nothing is resampled.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional

from rewrite_core.errors import MaskError
from rewrite_core.rules.example import Example

__all__ = ["posed"]

_AXES = {"none": (), "horizontal": (-1,), "vertical": (-2,), "both": (-2, -1)}


def posed(
    values: Tensor, alpha: Tensor, example: Example, size: tuple[int, int], fitting: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Values [1, O, h, w] and area [h, w] as `example` has them, scaled by `fitting` besides.

    Of what is larger than a map of `size`, the middle is left.

    Raises:
        MaskError: nothing is left.
    """
    height, width = (_side(side, example.scale * fitting) for side in alpha.shape)
    if min(height, width) < 1:
        found = f"a copy of {alpha.shape[0]}×{alpha.shape[1]} cells at scale {example.scale:g}"
        raise _gone(found, "a cell of it at least")
    if (height, width) != tuple(alpha.shape):
        values = _resampled(values, (height, width))
        alpha = _resampled(alpha[None, None], (height, width))[0, 0].clamp(0, 1)
    axes = _AXES[example.flip]
    if axes:
        values, alpha = values.flip(axes), alpha.flip(axes)
    top, left = max(0, height - size[0]) // 2, max(0, width - size[1]) // 2
    middle = (..., slice(top, top + size[0]), slice(left, left + size[1]))
    if not alpha[middle].any():
        raise _gone("a copy whose middle is empty, larger than the map", "some of it on the map")
    return values[middle], alpha[middle]


def _side(cells: int, scale: float) -> int:
    return math.floor(cells * scale + 0.5)


def _resampled(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(maps, size=size, mode="bilinear", align_corners=False, antialias=True)


def _gone(found: str, expected: str) -> MaskError:
    return MaskError(found=found, expected=expected, remedy="Change the scale, or copy another region.")
