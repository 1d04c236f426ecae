"""The face mesh: which of its 468 points go round an eye, a brow, the nose, the mouth and the face.

The numbering is that of Kartynnik et al. 2019 (*Real-time Facial Surface Geometry from Monocular Video on Mobile
GPUs*), as MediaPipe publishes it: the outlines of face, eyes, brows and lips are its own, each closed into a ring.
It has no outline of the nose; the ring here follows edges of the mesh from the bridge between the eyes, down the sides,
round the wings and below the nostrils. What lies inside a ring is the concept, so the mouth includes what lips enclose.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["POINTS", "RINGS", "filled", "inside"]

POINTS = 468

RINGS: dict[str, tuple[tuple[int, ...], ...]] = {
    "face": (
        (10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149,
         150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
    ),
    "eyes": (
        (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
        (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466),
    ),
    "brows": (
        (46, 53, 52, 65, 55, 107, 66, 105, 63, 70),
        (276, 283, 282, 295, 285, 336, 296, 334, 293, 300),
    ),
    "nose": (
        (168, 122, 196, 236, 134, 131, 49, 64, 98, 97, 2, 326, 327, 294, 279, 360, 363, 456, 419, 351),
    ),
    "mouth": (
        (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185),
    ),
}  # fmt: skip
"""Concept → rings of points."""


def filled(points: NDArray[np.floating], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The concepts of `RINGS` [5, H, W] in a picture of `size` (H, W), the x and y of whose points are [468, 2]."""
    masks = [
        np.logical_or.reduce([inside(points[list(ring)], size) for ring in rings]) for rings in RINGS.values()
    ]
    return np.stack(masks)


def inside(ring: NDArray[np.floating], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Which pixels of a picture of `size` (H, W) have their centre inside the polygon `ring` [K, 2] of x and y.

    By the even-odd rule. Pixel (row, column) has its centre at x = column + ½, y = row + ½; a thin shape keeps its
    area on the average, however coarse the pixels.
    """
    mask = np.zeros(size, dtype=bool)
    (left, top), (right, bottom) = np.floor(ring.min(0)).astype(int), np.ceil(ring.max(0)).astype(int)
    rows = slice(max(top, 0), min(max(bottom, 0), size[0]))
    columns = slice(max(left, 0), min(max(right, 0), size[1]))
    y, x = np.arange(size[0])[rows] + 0.5, np.arange(size[1])[columns] + 0.5
    part = mask[rows, columns]
    for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        crossed = (y0 <= y) != (y1 <= y)  # rows in which the edge lies
        at = x0 + (y[crossed] - y0) * (x1 - x0) / (y1 - y0)
        part[crossed] ^= x < at[:, None]
    return mask
