"""Patches: the part of a picture that a key stands for, cropped around its cell.

A layer's key at row r and column c of a grid h × w lies over the cell of the picture from (r·H/h, c·W/w) on. What that
cell alone shows is too little to recognise, and the key was computed from more than it: a patch is a square around the
cell's centre, whose side is three cells or a sixth of the picture, whichever is more (`patch_side`). Beyond the
picture's border it repeats the border.

    crops = patches(pictures, places, (16, 16))  # [N, s, s, 3] of pictures [N, H, W, 3] and places [N, 2]
    patch_average(crops)                         # [s, s, 3]: what the best matches of a direction have in common
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from rewrite_core.errors import RequestError
from rewrite_core.pictures import Picture

__all__ = ["CELLS", "SHARE", "patch_average", "patch_side", "patches"]

CELLS = 3
"""Cells of the grid that a patch is wide, at least."""
SHARE = 1 / 6
"""Part of the picture's shorter side that a patch is wide, at least."""


def patch_side(size: tuple[int, int], grid: tuple[int, int]) -> int:
    """Pixels that a patch is wide and high, in pictures of `size` (height, width) under a `grid` of cells.

    `CELLS` of the longer side of a cell or `SHARE` of the picture, whichever is more; never more than the picture's
    shorter side.
    """
    cell = max(size[0] / grid[0], size[1] / grid[1])
    return min(min(size), max(1, math.ceil(max(CELLS * cell, SHARE * min(size)))))


def patches(
    pictures: Picture, places: NDArray[np.integer], grid: tuple[int, int], side: int | None = None
) -> Picture:
    """The patch around one cell of each picture.

    Args:
        pictures: uint8 [N, H, W, 3].
        places: row and column of a cell in each, [N, 2].
        grid: rows and columns of cells, over the whole picture.
        side: of a patch, in pixels; `patch_side` if not given.

    Returns:
        uint8 [N, side, side, 3].

    Raises:
        RequestError: there is not one place for each picture, or one lies outside the grid.
    """
    size = (pictures.shape[1], pictures.shape[2])
    _require_places(len(pictures), places, grid)
    side = side or patch_side(size, grid)
    rows, columns = (
        _window(places[:, axis], grid[axis], size[axis], side) for axis in (0, 1)
    )  # [N, side] each
    return pictures[np.arange(len(pictures))[:, None, None], rows[:, :, None], columns[:, None, :]]


def patch_average(patches: Picture) -> Picture:
    """The mean of patches [N, s, s, 3], rounded: uint8 [s, s, 3].

    Raises:
        RequestError: there are none.
    """
    if not len(patches):
        raise RequestError(
            found="no patches to average", expected="at least one", remedy="Show more pictures."
        )
    average: Picture = patches.mean(0, dtype=np.float64).round().astype(np.uint8)  # [s, s, 3]
    return average


def _window(cells: NDArray[np.integer], count: int, pixels: int, side: int) -> NDArray[np.int64]:
    """The pixels along one axis that a patch shows around each of `cells` [N], of `count` in all: [N, side]."""
    centres = (cells.astype(np.float64) + 0.5) * pixels / count  # [N]
    first = np.floor(centres - side / 2 + 0.5).astype(np.int64)  # [N]
    inside: NDArray[np.int64] = np.clip(first[:, None] + np.arange(side), 0, pixels - 1)  # [N, side]
    return inside


def _require_places(count: int, places: NDArray[np.integer], grid: tuple[int, int]) -> None:
    if places.shape != (count, 2):
        raise RequestError(
            found=f"places of shape {list(places.shape)} for {count} pictures",
            expected=f"a row and a column for each, [{count}, 2]",
            remedy="Name one place in each picture.",
        )
    outside = ((places < 0) | (places >= np.array(grid))).any(1)
    if outside.any():
        row, column = places[outside.argmax()].tolist()
        raise RequestError(
            found=f"row {row}, column {column}",
            expected=f"a cell of the grid of {grid[0]} × {grid[1]}",
            remedy="Choose a place inside the picture.",
        )
