"""Matches: heat over many pictures, the pictures that show most of it, and the level that outlines it."""

import numpy as np
import pytest
import torch

from rewrite_core.directions.matches import Matches, matches
from rewrite_core.errors import Cancelled, LayerError, RequestError
from rewrite_core.generators import Generator
from tests.generators import PLAIN, small_generator, spec


@pytest.fixture(scope="module")
def small() -> Generator:
    return small_generator()


@pytest.fixture(scope="module")
def query() -> torch.Tensor:
    return torch.randn(10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture(scope="module")
def found(small: Generator, query: torch.Tensor) -> Matches:
    return matches(small, PLAIN, query, spec(60, first=100))


def test_heat_is_the_query_at_every_position_of_every_picture(
    small: Generator, query: torch.Tensor, found: Matches
):
    keys = small.keys(small.latents(found.spec), PLAIN).keys.double()
    expected = torch.einsum("nchw,c->nhw", keys, query)
    torch.testing.assert_close(found.heat.double(), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(found.of(103), found.heat[3])


def test_the_best_pictures_come_first_by_their_seeds(found: Matches):
    peaks = {seed: float(found.of(seed).max()) for seed in found.spec.seeds}
    best = found.top(60)
    assert best == sorted(peaks, key=lambda seed: -peaks[seed])
    assert found.top(5) == best[:5]
    assert set(best) == set(range(100, 160))


def test_equal_pictures_keep_their_order():
    assert Matches(spec(4, first=9), torch.zeros(4, 2, 2)).top(3) == [9, 10, 11]


def test_the_level_is_the_quantile_over_all_positions_of_all_pictures(found: Matches):
    for quantile in (0.5, 0.999):
        expected = float(np.quantile(found.heat.numpy().astype(np.float64), quantile))
        assert found.level(quantile) == pytest.approx(expected, abs=1e-6)
    share = float((found.heat > found.level()).float().mean())
    assert 0.0005 < share <= 0.0015


def test_any_block_of_pictures_matches_the_same(small: Generator, query: torch.Tensor, found: Matches):
    part = matches(small, PLAIN, query, spec(25, first=125))
    assert torch.equal(part.heat, found.heat[25:50])


def test_progress_is_told_and_may_cancel(small: Generator, query: torch.Tensor):
    told: list[tuple[int, int]] = []
    matches(small, PLAIN, query, spec(30), lambda done, total: told.append((done, total)))
    assert told == [(25, 30), (30, 30)]

    def stop(done: int, total: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        matches(small, PLAIN, query, spec(30), stop)


def test_no_pictures_match_nothing(small: Generator, query: torch.Tensor):
    nothing = matches(small, PLAIN, query, spec(0))
    assert nothing.heat.shape == (0, 8, 8)
    assert nothing.top(3) == []
    with pytest.raises(RequestError, match="of 0 values"):
        nothing.level()


def test_an_unknown_layer_is_refused(small: Generator, query: torch.Tensor):
    with pytest.raises(LayerError, match="layer 'nose'"):
        matches(small, "nose", query, spec())
