"""Patches: the right part of a picture, of any shape, the border repeated beyond it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dissect.patches import patch_average, patch_side, patches
from rewrite_core.errors import RequestError


def numbered(count: int, height: int, width: int) -> np.ndarray:
    """Pictures whose pixels say where they are: picture, row and column."""
    grid = np.meshgrid(np.arange(count), np.arange(height), np.arange(width), indexing="ij")
    return np.stack(grid, -1).astype(np.uint8)  # [N, H, W, 3]


def test_a_patch_is_three_cells_around_its_own():
    crop = patches(numbered(1, 32, 32), np.array([[3, 4]]), (8, 8))[0]
    assert crop.shape == (12, 12, 3)
    assert crop[:, 0, 1].tolist() == list(range(8, 20))  # cells 2, 3 and 4 of four pixels
    assert crop[0, :, 2].tolist() == list(range(12, 24))


def test_each_picture_has_its_own_place():
    places = np.array([[1, 1], [6, 2], [3, 5]])
    crops = patches(numbered(3, 64, 64), places, (8, 8), side=8)
    assert crops[:, 0, 0].tolist() == [
        [number, 8 * row, 8 * column] for number, (row, column) in enumerate(places)
    ]


def test_beyond_the_border_the_border_is_repeated():
    crop = patches(numbered(1, 16, 16), np.array([[0, 7]]), (8, 8))[0]  # 6 × 6, two pixels beyond two borders
    assert crop[:, 0, 1].tolist() == [0, 0, 0, 1, 2, 3]
    assert crop[0, :, 2].tolist() == [12, 13, 14, 15, 15, 15]


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(1, 12), st.integers(1, 12), st.data()
)  # also grids finer than the pictures
def test_a_patch_is_centred_on_its_cell(height, width, rows, columns, data):
    row, column = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1))
    side = data.draw(st.integers(1, 20))
    crop = patches(numbered(1, height, width), np.array([[row, column]]), (rows, columns), side)[0]
    padded = np.pad(numbered(1, height, width)[0], ((30, 30), (30, 30), (0, 0)), mode="edge")
    top, left = (
        30 + int(np.floor((place + 0.5) * pixels / cells - side / 2 + 0.5))
        for place, pixels, cells in ((row, height, rows), (column, width, columns))
    )
    np.testing.assert_array_equal(crop, padded[top : top + side, left : left + side])


@pytest.mark.parametrize(
    ("size", "grid", "side"),
    [
        ((64, 64), (16, 16), 12),  # three cells
        ((64, 64), (64, 64), 11),  # a sixth of the picture
        ((64, 64), (2, 2), 64),  # no more than the picture
        ((32, 64), (4, 16), 24),  # the longer side of a cell counts
        ((32, 64), (32, 64), 6),  # and the shorter of a picture
        ((1, 1), (1, 1), 1),
    ],
)
def test_the_side_of_a_patch(size, grid, side):
    assert patch_side(size, grid) == side


def test_an_average_is_rounded_once():
    crops = np.array([254, 255, 255], np.uint8)[:, None, None, None] * np.ones((3, 2, 2, 3), np.uint8)
    assert (patch_average(crops) == 255).all()
    assert patch_average(crops).dtype == np.uint8
    assert (patch_average(crops[:1]) == 254).all()


@pytest.mark.parametrize("place", [[8, 0], [-1, 0], [0, 8]])
def test_a_place_outside_the_grid_is_refused(place):
    with pytest.raises(RequestError, match=r"grid of 8 × 8"):
        patches(numbered(1, 16, 16), np.array([place]), (8, 8))


def test_a_place_for_each_picture_is_wanted():
    with pytest.raises(RequestError, match=r"\[2, 2\]"):
        patches(numbered(2, 16, 16), np.array([[0, 0]]), (8, 8))
    with pytest.raises(RequestError, match="no patches"):
        patch_average(np.empty((0, 4, 4, 3), np.uint8))


def test_no_pictures_have_no_patches():
    assert patches(numbered(0, 16, 16), np.empty((0, 2), int), (8, 8)).shape == (0, 6, 6, 3)
