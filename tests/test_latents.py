"""Latents: a seed is a picture, in either scheme, for ever."""

from typing import Any

import numpy as np
import pytest
import torch

from rewrite_core.errors import RequestError
from rewrite_core.generators import LatentSpec
from rewrite_core.generators.latents import LAST_ROW, LAST_SEED, draw


def test_each_seed_has_a_random_state_of_its_own():
    z = draw(LatentSpec((7, 3, 7)), 5)
    assert z.dtype == torch.float32
    for row, seed in zip(z, (7, 3, 7), strict=True):
        expected = np.random.RandomState(seed).standard_normal(5).astype(np.float32)
        np.testing.assert_array_equal(row.numpy(), expected)


def test_scheme_rows_takes_the_rows_of_one_matrix_however_many_are_asked_for():
    matrix = np.random.RandomState(1).standard_normal(100 * 32).reshape(100, 32).astype(np.float32)
    for rows in ((0, 1, 2), (99, 4, 99), (63,), (64,)):
        z = draw(LatentSpec(rows, "rows"), 32)
        np.testing.assert_array_equal(z.numpy(), matrix[list(rows)])


@pytest.mark.parametrize("scheme", ["seed", "rows"])
def test_uniform_latents_fill_minus_one_to_one(scheme: Any):
    z = draw(LatentSpec.of(range(200), scheme), 50, "uniform")
    assert -1 <= z.min() < -0.99
    assert 0.99 < z.max() <= 1
    assert abs(z.mean()) < 0.02


@pytest.mark.parametrize("scheme", ["seed", "rows"])
def test_no_seeds_are_no_latents(scheme: Any):
    assert draw(LatentSpec((), scheme), 4).shape == (0, 4)


@pytest.mark.parametrize("seed", [-1, LAST_SEED + 1])
def test_a_seed_out_of_range_is_refused(seed: int):
    with pytest.raises(RequestError, match=f"picture number {seed}; expected numbers from 0 to {LAST_SEED}"):
        LatentSpec((0, seed))


def test_a_row_that_would_cost_too_much_is_refused():
    with pytest.raises(RequestError, match=r"expected numbers from 0 to .*scheme 'rows'"):
        LatentSpec((LAST_ROW + 1,), "rows")
    with pytest.raises(RequestError, match="or the scheme 'seed'"):
        draw(LatentSpec((LAST_ROW,), "rows"), 1 << 16)


@pytest.mark.parametrize("truncation", [-0.1, 2.1, float("nan")])
def test_a_truncation_out_of_range_is_refused(truncation: float):
    with pytest.raises(RequestError, match="expected 0 to 2"):
        LatentSpec((0,), truncation=truncation)


def test_blocks_are_the_same_pictures_in_order():
    blocks = LatentSpec.of(range(7), "rows", 0.5).blocks(3)
    assert [block.seeds for block in blocks] == [(0, 1, 2), (3, 4, 5), (6,)]
    assert {(block.scheme, block.truncation) for block in blocks} == {("rows", 0.5)}
