"""Second moment: what the formula says to a stated error, whatever the batches; it goes on from its state."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rewrite_core.statistics import STATISTICS, Batch, SecondMoment, Statistic
from rewrite_core.statistics.second_moment import POSITIONS

ERROR = 4e-7
"""What "about 1e-7" is at most, relative to the power of the two units, √(E[k_i²] E[k_j²])."""

quick = settings(deadline=None, max_examples=40)


def some_keys(count: int = 12, seed: int = 0) -> Tensor:
    return torch.randn(count, 6, 5, 4, generator=torch.Generator().manual_seed(seed)) + 0.5


def direct(keys: Tensor) -> Tensor:
    """C in float64, straight from the formula."""
    flat = keys.double().movedim(1, -1).flatten(0, -2)  # [N·h·w, C]
    return flat.T @ flat / len(flat)


def seen(*batches: Tensor) -> SecondMoment:
    moment = SecondMoment()
    for keys in batches:
        moment = moment.update(Batch.of(keys))
    return moment


def error(moment: SecondMoment, keys: Tensor) -> float:
    """The largest error of C, relative to the power of the two units."""
    expected = direct(keys)
    scale = expected.diagonal().sqrt()
    return float(((moment.matrix - expected).abs() / scale / scale[:, None]).max())


def test_it_is_the_mean_outer_product_over_every_position():
    moment = seen(some_keys())
    assert isinstance(moment, Statistic)
    assert STATISTICS["second_moment"] is SecondMoment
    torch.testing.assert_close(moment.matrix, direct(some_keys()), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(moment.mean, some_keys().double().mean((0, 2, 3)), rtol=1e-6, atol=0)
    assert (moment.positions, moment.samples) == (12 * 20, 12)
    assert moment.matrix.dtype == moment.mean.dtype == torch.float64


HOSTILE = {
    "large mean, tiny variance": lambda draw: 1000 + 1e-3 * torch.randn(60, 4, 16, 16, generator=draw),
    "a long sum of positive numbers": lambda draw: torch.rand(400, 3, 16, 16, generator=draw),
    "units of very different power": lambda draw: (
        torch.randn(60, 4, 16, 16, generator=draw) * torch.tensor([1e-12, 1e-3, 1.0, 1e9])[:, None, None]
    ),
    "a few huge numbers among zeros": lambda draw: (
        1e6 * (torch.rand(60, 4, 16, 16, generator=draw) > 0.999).float() + 1e-3
    ),
    "one picture larger than a float32 sum": lambda draw: torch.rand(2, 3, 96, 96, generator=draw),
    "a single position": lambda draw: torch.randn(50, 5, 1, 1, generator=draw),
}


@pytest.mark.parametrize("which", HOSTILE)
def test_its_error_is_as_stated_on_hostile_keys(which: str):
    keys = HOSTILE[which](torch.Generator().manual_seed(0))
    assert error(seen(*keys.split(25)), keys) < ERROR


def test_a_running_float32_sum_would_drift_further_than_that():
    keys = HOSTILE["a long sum of positive numbers"](torch.Generator().manual_seed(0))
    running = torch.zeros(3, 3)
    for picture in keys.movedim(1, -1).flatten(1, 2):  # [hw, C]
        running += picture.T @ picture
    expected = direct(keys)
    assert float(((running / (400 * 256)).double() / expected - 1).abs().max()) > ERROR


def test_a_dead_unit_has_no_power_at_all():
    keys = some_keys()
    keys[:, 2] = 0
    assert not seen(keys).matrix[2].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_maps_are_accumulated_in_full(dtype: torch.dtype):
    keys = torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert error(seen(*keys.split(25)), keys) < ERROR  # against the same half-precision numbers, exactly


def test_more_positions_than_one_float32_sum_takes_are_split():
    keys = torch.rand(3, 2, 64, 64)
    assert keys[0, 0].numel() >= POSITIONS
    torch.testing.assert_close(seen(keys).total, seen(*keys.split(1)).total, rtol=1e-14, atol=0)


@quick
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_any_split_into_batches_gives_the_same(sizes: list[int], seed: int):
    keys = some_keys(sum(sizes), seed)
    moment = seen(*keys.split(sizes))
    assert error(moment, keys) < ERROR
    assert (moment.positions, moment.samples) == (20 * sum(sizes), sum(sizes))


@quick
@given(sizes=st.tuples(*[st.integers(0, 7)] * 3), seed=st.integers(0, 99), scale=st.floats(1e-6, 1e6))
def test_merging_is_associative_commutative_and_equals_having_seen_both(
    sizes: tuple[int, int, int], seed: int, scale: float
):
    keys = scale * some_keys(sum(sizes), seed)
    a, b, c = (seen(part) if len(part) else SecondMoment() for part in keys.split(sizes))
    merged = [a.merge(b).merge(c), a.merge(b.merge(c)), c.merge(a).merge(b)]
    for one in merged:
        assert (one.positions, one.samples) == (20 * sum(sizes), sum(sizes))
        if sum(sizes):
            assert error(one, keys) < ERROR
            torch.testing.assert_close(one.matrix, merged[0].matrix, rtol=1e-12, atol=1e-14 * scale**2)
            torch.testing.assert_close(one.mean, merged[0].mean, rtol=1e-12, atol=1e-14 * scale)


def test_the_empty_one_changes_nothing():
    moment = seen(some_keys())
    assert SecondMoment().merge(moment) is moment
    assert moment.merge(SecondMoment()) is moment
    assert SecondMoment().state() == {}
    assert SecondMoment().summary() == {"samples": 0}


def test_it_is_a_value():
    moment, other = seen(some_keys()), seen(some_keys(seed=2))
    kept = {name: tensor.clone() for name, tensor in moment.state().items()}
    moment.update(Batch.of(some_keys(seed=1)))
    moment.merge(other)
    other.merge(moment)
    for name, tensor in moment.state().items():
        assert torch.equal(tensor, kept[name])


def test_keys_are_left_as_they_are():
    keys = some_keys()
    seen(keys)
    assert torch.equal(keys, some_keys())


def test_it_goes_on_from_its_state():
    first, second = some_keys().split(6)
    resumed = SecondMoment().restore(seen(first).state()).update(Batch.of(second))
    assert torch.equal(resumed.matrix, seen(first, second).matrix)
    assert torch.equal(resumed.mean, seen(first, second).mean)
    assert (resumed.positions, resumed.samples) == (240, 12)
    assert SecondMoment().restore({}).state() == {}


@pytest.mark.parametrize(
    "change",
    [
        {"total": None},
        {"first": None},
        {"counts": None},
        {"total": torch.zeros(6, 5, dtype=torch.float64)},
        {"total": torch.zeros(6, 6)},
        {"total": torch.zeros(36, dtype=torch.float64)},
        {"counts": torch.zeros(3, dtype=torch.int64)},
        {"counts": torch.tensor(3)},
        {"first": torch.zeros(5, dtype=torch.float64)},
    ],
    ids=str,
)
def test_a_malformed_state_is_refused(change: dict[str, Tensor | None]):
    state = {**seen(some_keys()).state(), **change}
    with pytest.raises((KeyError, ValueError, TypeError)):
        SecondMoment().restore({name: tensor for name, tensor in state.items() if tensor is not None})


def test_its_summary_is_a_few_plain_numbers():
    summary = seen(some_keys()).summary()
    assert {"units": 6, "samples": 12, "positions": 240}.items() <= summary.items()
    assert summary["mean power"] == pytest.approx(float(direct(some_keys()).diagonal().mean()))
