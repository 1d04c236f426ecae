"""A statistic along directions is that statistic of the projected keys."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rewrite_core.errors import RequestError
from rewrite_core.statistics import (
    STATISTICS,
    Along,
    Batch,
    Conditional,
    CrossCovariance,
    Histogram,
    Intersection,
    Maxima,
    Reservoir,
    SecondMoment,
    Statistic,
    Store,
    fetch,
    key_of,
    sweep,
)
from rewrite_core.statistics.compact import CompactKeys
from rewrite_core.statistics.key import name_of
from rewrite_core.statistics.labels import Labels
from rewrite_core.statistics.maps import Maps
from tests.generators import DOWN, PLAIN, small_generator, spec
from tests.labellers import Bright, Tints

UNITS, NUMBER, LABELLER = 6, 4, Tints()
DIRECTIONS = torch.randn(NUMBER, UNITS, generator=torch.Generator().manual_seed(9))
LEVELS = torch.linspace(-1, 1, 3).expand(NUMBER, 3)


def inner_statistics() -> list[Statistic]:
    """Every statistic there is, asked of `NUMBER` maps."""
    return [
        SecondMoment(),
        Histogram(),
        Maxima(),
        Reservoir(50),
        Intersection(LEVELS, LABELLER),
        Conditional(LABELLER),
        Labels(LABELLER, (2, 2)),
        CrossCovariance("l01"),
        Maps(),
        CompactKeys(torch.eye(NUMBER)),
    ]


def some_batch(count: int = 4, seed: int = 0) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    keys, beside = (torch.randn(count, units, 5, 4, generator=draw) for units in (UNITS, 3))
    labels = torch.rand(count, 3, 8, 8, generator=draw)
    return Batch(keys, tuple(range(10 * seed, 10 * seed + count)), labels, beside)


def projected(batch: Batch, directions: Tensor = DIRECTIONS) -> Batch:
    return replace(batch, keys=(directions @ batch.keys.flatten(2)).reshape(len(batch.keys), -1, 5, 4))


def same(one: Statistic, other: Statistic) -> bool:
    first, second = one.state(), other.state()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_every_statistic_can_be_asked_along_directions():
    assert {type(inner) for inner in inner_statistics()} | {Along} == set(STATISTICS.values())


@pytest.mark.parametrize("inner", inner_statistics(), ids=lambda inner: inner.kind)
def test_it_is_the_statistic_of_the_projected_keys(inner: Statistic):
    found = Along(DIRECTIONS, inner).update(some_batch()).update(some_batch(seed=1))
    expected = inner.update(projected(some_batch())).update(projected(some_batch(seed=1)))
    assert same(found, expected)
    assert same(found.inner, expected)
    assert found.needs() == inner.needs()
    assert json.dumps(found.summary(), allow_nan=False)
    assert found.summary().get("directions") == expected.summary().get("units")


@pytest.mark.parametrize("inner", inner_statistics(), ids=lambda inner: inner.kind)
def test_one_hot_directions_are_the_units_themselves(inner: Statistic):
    chosen = torch.tensor([4, 0, 5, 1])
    batch = some_batch()
    units = inner.update(replace(batch, keys=batch.keys[:, chosen]))
    assert same(Along(torch.eye(UNITS)[chosen], inner).update(batch), units)


def test_a_map_along_a_direction_is_the_sum_of_its_units():
    batch = some_batch()
    found = Along(DIRECTIONS, SecondMoment()).update(batch).inner
    maps = torch.einsum("mc,nchw->mnhw", DIRECTIONS.double(), batch.keys.double()).flatten(1)  # [M, P]
    torch.testing.assert_close(found.matrix, maps @ maps.T / maps.shape[1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.mean, maps.mean(1), rtol=1e-5, atol=1e-5)


def test_half_precision_is_projected_in_float32():
    batch = some_batch()
    half = replace(batch, keys=batch.keys.half())
    single = replace(batch, keys=batch.keys.half().float())
    asked = Along(DIRECTIONS.double(), SecondMoment())
    assert same(asked.update(half), asked.update(single))


@settings(derandomize=True, max_examples=30, deadline=None)
@given(st.integers(0, 6), st.lists(st.integers(1, 4), min_size=3, max_size=3))
def test_merging_is_that_of_the_statistic_within(place: int, sizes: list[int]):
    inner = inner_statistics()[place]
    empty = Along(DIRECTIONS, inner)
    batches = [some_batch(size, seed) for seed, size in enumerate(sizes)]
    a, b, c = (empty.update(batch) for batch in batches)
    x, y, z = (inner.update(projected(batch)) for batch in batches)
    assert same(a.merge(b).merge(c), x.merge(y).merge(z))
    assert same(a.merge(b.merge(c)), x.merge(y.merge(z)))
    assert same(empty.merge(a), a)
    assert same(a.merge(empty), a)
    assert empty.state() == {}
    assert same(empty.restore(a.state()).merge(b), a.merge(b))
    assert empty.restore({}).summary() == {"samples": 0}


def test_an_answer_is_stored_and_served(tmp_path: Any):
    generator, store, labeller = small_generator(), Store(tmp_path), Bright()
    directions = torch.randn(3, 10, generator=torch.Generator().manual_seed(2))

    def asked(directions: Tensor) -> Along[Intersection]:
        empty = Along(directions, Intersection(torch.zeros(3), labeller))
        return fetch(generator, PLAIN, spec(30), empty, store=store)

    computed = asked(directions)
    assert same(asked(directions), computed)
    assert len(store.entries()) == 1
    assert computed.inner.best()[0].shape == (3,)
    assert not same(asked(-directions), computed)
    assert len(store.entries()) == 2


def test_a_pass_shows_it_labels_and_another_layer():
    generator = small_generator()
    eye = torch.eye(10)
    wanted = [Intersection(torch.zeros(10), Bright()), CrossCovariance(DOWN), Histogram()]
    found = sweep(generator, spec(30), {PLAIN: [*wanted, *(Along(eye, inner) for inner in wanted)]})[PLAIN]
    for units, directions in zip(found[:3], found[3:], strict=True):
        assert same(units, directions)


def test_directions_and_what_is_asked_are_part_of_the_key():
    generator, directions = small_generator(), torch.randn(3, 10)
    asked: list[Statistic] = [
        Along(directions, SecondMoment()),
        Along(-directions, SecondMoment()),
        Along(directions[:2], SecondMoment()),
        Along(directions.reshape(5, 6), SecondMoment()),
        Along(directions, Histogram()),
        Along(directions, Histogram(6)),
        Along(directions, Maxima()),
        SecondMoment(),
    ]
    assert len({name_of(key_of(generator, PLAIN, spec(), one)) for one in asked}) == len(asked)
    again = Along(directions.double(), SecondMoment())
    assert key_of(generator, PLAIN, spec(), again) == key_of(generator, PLAIN, spec(), asked[0])


def test_a_state_that_is_not_of_the_statistic_within_is_refused():
    state = Along(DIRECTIONS, SecondMoment()).update(some_batch()).state()
    with pytest.raises(KeyError):
        Along(DIRECTIONS, Maxima()).restore(state)


@pytest.mark.parametrize(
    ("attempt", "found"),
    [
        (lambda: Along(torch.zeros(UNITS), SecondMoment()), r"shape \[6\]"),
        (lambda: Along(torch.zeros(0, UNITS), SecondMoment()), r"shape \[0, 6\]"),
        (lambda: Along(torch.tensor([[0.0, torch.nan]]), SecondMoment()), "not finite"),
        (lambda: Along(torch.tensor([[1e300]], dtype=torch.float64), SecondMoment()), "not finite"),
        (lambda: Along(DIRECTIONS, Along(torch.eye(NUMBER), SecondMoment())), "directions of directions"),
        (
            lambda: Along(torch.eye(UNITS + 1), SecondMoment()).update(some_batch()),
            "directions of 7 units for a layer of 6 units",
        ),
        (
            lambda: Along(DIRECTIONS, Intersection(torch.zeros(3), LABELLER)).update(some_batch()),
            "3 thresholds",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_line(attempt: Any, found: str):
    with pytest.raises(RequestError, match=found) as refusal:
        attempt()
    assert "\n" not in str(refusal.value)
