"""What the context is not: the second moment without the context's own kind."""

from __future__ import annotations

import pytest
import torch

from rewrite_core import EditRequest
from rewrite_core.errors import RequestError
from rewrite_core.rules.others import others, second_moment_of_others
from rewrite_core.rules.rewrite import direction_of, rewrite
from rewrite_core.statistics import LayerStatistics, layer_statistics
from tests.generators import PLAIN, painted, small_generator


@pytest.fixture(scope="module")
def statistics() -> LayerStatistics:
    return layer_statistics(small_generator(), PLAIN, samples=60)


def asked() -> EditRequest:
    context = (painted(1, 4, 4, 10, 10), painted(2, 6, 2, 12, 8))
    return EditRequest(
        object=painted(0, 4, 6, 10, 12), paste=painted(1, 4, 4, 10, 10), key=context, layer=PLAIN
    )


def test_what_matches_best_is_left_out():
    sample = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0], [0.0, 4.0]], dtype=torch.float64)
    query = torch.tensor([0.0, 1.0], dtype=torch.float64)
    half = second_moment_of_others(sample, query, 0.5)
    torch.testing.assert_close(half, torch.tensor([[2.5, 0.0], [0.0, 0.0]], dtype=torch.float64))
    torch.testing.assert_close(second_moment_of_others(sample, query, 0.0), sample.T @ sample / 4)


def test_nearly_everything_painted_leaves_something():
    sample = torch.randn(200, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    moment = second_moment_of_others(sample, torch.ones(3, dtype=torch.float64), 1.0)
    assert moment.isfinite().all()
    assert torch.linalg.matrix_rank(moment) == 3


def test_the_context_stands_out_further_from_what_it_is_not(statistics):
    """Along the direction, the context's mean key stands out further from the root mean square of other keys."""
    generator, request = small_generator(), asked()
    apart = others(generator, request, statistics)

    def standing_out(with_statistics: LayerStatistics) -> float:
        direction = direction_of(generator, request, with_statistics)
        (query,) = direction.vectors
        assert direction.key is not None
        return float((query @ direction.key) / (query @ apart.second_moment @ query).sqrt())

    assert standing_out(apart) > standing_out(statistics)


def test_only_the_second_moment_changes(statistics):
    generator = small_generator()
    apart = others(generator, asked(), statistics)
    assert apart.second_moment.shape == statistics.second_moment.shape
    assert not torch.allclose(apart.second_moment, statistics.second_moment)
    torch.testing.assert_close(apart.second_moment, apart.second_moment.T)
    assert apart.sample is statistics.sample
    assert (apart.power, apart.fingerprint) == (statistics.power, statistics.fingerprint)
    edit = rewrite(generator, asked(), statistics=apart)
    assert edit.solved.loss < edit.solved.loss_before


def test_without_a_round_it_is_the_second_moment_of_everything(statistics):
    unchanged = others(small_generator(), asked(), statistics, rounds=0)
    assert torch.equal(unchanged.second_moment, statistics.second_moment)


def test_a_request_without_context_is_refused(statistics):
    with pytest.raises(RequestError, match="context"):
        others(small_generator(), EditRequest(object=painted(0, 4, 6, 10, 12)), statistics)
