"""Covariance of two layers' keys: that of the definition, on the coarser of both grids."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from rewrite_core.errors import LayerError, RequestError
from rewrite_core.generators import Generator
from rewrite_core.statistics import Batch, Store, fetch, key_of, sweep
from rewrite_core.statistics.cross_covariance import CrossCovariance
from tests.generators import DOWN, PLAIN, UP, Demodulated, small_generator, spec


def some_batch(count: int = 6, seed: int = 0, own: Any = (8, 6), other: Any = (4, 3)) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    keys = torch.randn(count, 5, *own, generator=draw) + 0.5
    beside = torch.randn(count, 4, *other, generator=draw)
    beside[:, 0] += functional.adaptive_avg_pool2d(keys, other)[:, 2] if own != other else keys[:, 2]
    return Batch(keys, tuple(range(count)), beside=beside)


def seen(batch: Batch) -> CrossCovariance:
    return CrossCovariance("other").update(batch)


def on_one_grid(batch: Batch) -> tuple[Tensor, Tensor]:
    """Both keys as observations [P, C] and [P, C'] in float64."""
    assert batch.beside is not None
    pairs = zip(batch.keys.shape[2:], batch.beside.shape[2:], strict=True)
    height, width = (min(pair) for pair in pairs)
    pooled = (
        functional.adaptive_avg_pool2d(maps.double(), (height, width)) for maps in (batch.keys, batch.beside)
    )
    own, other = (maps.movedim(1, -1).flatten(0, 2) for maps in pooled)
    return own, other


def direct(batch: Batch) -> tuple[Tensor, Tensor]:
    """Covariance and correlation by torch's own functions."""
    own, other = on_one_grid(batch)
    both = torch.cat([own, other], 1).T
    units = own.shape[1]
    return both.cov(correction=0)[:units, units:], both.corrcoef()[:units, units:]


@pytest.mark.parametrize(
    ("own", "other"),
    [
        ((8, 6), (4, 3)),
        ((4, 3), (8, 6)),
        ((7, 5), (3, 4)),
        ((4, 8), (8, 4)),
        ((5, 5), (5, 5)),
        ((1, 1), (6, 6)),
    ],
    ids=str,
)
def test_covariance_and_correlation_are_those_of_the_definition(own: tuple[int, int], other: tuple[int, int]):
    batch = some_batch(40, own=own, other=other)
    found = seen(batch)
    covariance, correlation = direct(batch)
    torch.testing.assert_close(found.covariance, covariance, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.correlation, correlation, rtol=1e-6, atol=3e-6)
    assert found.covariance.dtype == found.correlation.dtype == torch.float64
    assert found.positions == 40 * min(own[0], other[0]) * min(own[1], other[1])


def test_a_layer_correlates_fully_with_itself():
    keys = some_batch().keys
    found = CrossCovariance("itself").update(Batch(keys, tuple(range(6)), beside=keys))
    torch.testing.assert_close(found.correlation.diagonal(), torch.ones(5).double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1.0, -3.3, 1e4, 1e-30])
def test_a_constant_unit_correlates_with_nothing(value: float):
    batch = some_batch(100)
    batch.keys[:, 1] = value
    found = seen(batch).correlation
    assert torch.equal(found[1], torch.zeros(4, dtype=torch.float64))
    assert found.isfinite().all()
    assert found[2, 0] > 0.1  # the others still do
    everywhere = seen(replace(batch, keys=torch.full_like(batch.keys, value)))
    assert not everywhere.correlation.any()
    assert json.dumps(everywhere.summary(), allow_nan=False)


def test_a_long_sum_does_not_drift():
    draw = torch.Generator().manual_seed(0)
    keys, beside = torch.rand(400, 3, 16, 16, generator=draw), torch.rand(400, 2, 16, 16, generator=draw)
    found = CrossCovariance("other")
    for some, others in zip(keys.split(25), beside.split(25), strict=True):
        found = found.update(Batch(some, tuple(range(25)), beside=others))
    expected, _ = direct(Batch(keys, tuple(range(400)), beside=beside))
    torch.testing.assert_close(found.covariance, expected, rtol=0, atol=1e-7)


def test_half_precision_keys_are_summed_as_the_numbers_that_they_hold():
    batch = some_batch()
    assert batch.beside is not None
    for half in (torch.float16, torch.bfloat16):
        keys, beside = batch.keys.to(half), batch.beside.to(half)
        found = seen(replace(batch, keys=keys, beside=beside))
        expected = seen(replace(batch, keys=keys.float(), beside=beside.float()))
        assert torch.equal(found.covariance, expected.covariance)


@settings(derandomize=True, max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=3, max_size=3), st.integers(0, 9))
def test_merging_is_associative_and_commutative(sizes: list[int], seed: int):
    whole = some_batch(sum(sizes), seed)
    assert whole.beside is not None
    split = zip(whole.keys.split(sizes), whole.beside.split(sizes), strict=True)
    a, b, c = (seen(Batch(keys, tuple(range(len(keys))), beside=beside)) for keys, beside in split)
    one, *others = (a.merge(b).merge(c), a.merge(b.merge(c)), c.merge(a).merge(b))
    for other in others:
        for name, table in one.state().items():
            torch.testing.assert_close(other.state()[name], table, rtol=1e-12, atol=1e-12)
        assert (other.positions, other.samples) == (one.positions, one.samples)
    torch.testing.assert_close(one.covariance, seen(whole).covariance, rtol=1e-6, atol=1e-6)


def test_a_statistic_is_a_value_and_goes_on_from_its_state():
    first, second = some_batch(seed=1), some_batch(seed=2)
    found, empty = seen(first), CrossCovariance("other")
    kept = {name: table.clone() for name, table in found.state().items()}
    further = found.update(second)
    assert all(torch.equal(table, kept[name]) for name, table in found.state().items())
    resumed = empty.restore(found.state()).update(second)
    assert all(torch.equal(table, further.state()[name]) for name, table in resumed.state().items())
    assert empty.merge(found) is found
    assert found.merge(empty) is found
    assert empty.restore({}).summary() == {"samples": 0}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("total", torch.zeros(5, 5, dtype=torch.float64)),
        ("total", torch.zeros(5, 4)),
        ("own", torch.zeros(2, 4, dtype=torch.float64)),
        ("own", torch.zeros(5, dtype=torch.float64)),
        ("own", torch.zeros((), dtype=torch.float64)),
        ("others", torch.zeros(1, 4, dtype=torch.float64)),
        ("counts", torch.tensor([1, 2, 3])),
    ],
)
def test_a_malformed_state_is_refused(name: str, value: Tensor):
    state = seen(some_batch()).state()
    with pytest.raises(ValueError):  # noqa: PT011
        CrossCovariance("other").restore({**state, name: value})
    del state[name]
    with pytest.raises(KeyError):
        CrossCovariance("other").restore(state)


def test_the_other_layer_is_part_of_the_question():
    small = small_generator()
    assert key_of(small, PLAIN, spec(), CrossCovariance(UP)) != key_of(
        small, PLAIN, spec(), CrossCovariance(DOWN)
    )


def test_a_layer_that_is_not_there_is_refused():
    with pytest.raises(LayerError):
        sweep(small_generator(), spec(2), {PLAIN: [CrossCovariance("nowhere")]})
    with pytest.raises(RequestError, match="no keys of layer 'other'"):
        seen(replace(some_batch(), beside=None))


@pytest.mark.parametrize("layers", [(UP, DOWN), (DOWN, UP), (PLAIN, UP), (PLAIN, PLAIN)], ids=",".join)
@pytest.mark.parametrize("generator", [small_generator(), Demodulated.small()], ids=lambda one: one.name)
def test_a_pass_relates_the_layers_of_the_same_pictures(
    generator: Generator, layers: tuple[str, str], tmp_path: Any
):
    own, other = layers
    found = fetch(generator, own, spec(30), CrossCovariance(other), store=Store(tmp_path))
    inputs = generator.inputs(generator.latents(spec(30)), list(dict.fromkeys(layers)))
    batch = Batch(inputs[own].keys, spec(30).seeds, beside=inputs[other].keys)
    covariance, _ = direct(batch)
    torch.testing.assert_close(found.covariance, covariance, rtol=1e-5, atol=1e-5)
    turned = fetch(generator, other, spec(30), CrossCovariance(own), store=Store(tmp_path))
    torch.testing.assert_close(turned.covariance, found.covariance.T, rtol=1e-5, atol=1e-6)
