"""Exact quantiles: two passes give what sorting every position gives."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rewrite_core.errors import Cancelled, RequestError
from rewrite_core.statistics import Batch, Store, key_of
from rewrite_core.statistics.exact import Within, exact_quantiles
from rewrite_core.statistics.histogram import Histogram
from rewrite_core.statistics.kernels import kernel
from tests.generators import DOWN, PLAIN, UP, small_generator, spec

REFERENCE = Path(__file__).parent / "reference"
SHARES = (0.0, 0.001, 0.01, 0.25, 0.5, 0.75, 0.99, 0.999, 1.0)

quick = settings(max_examples=60, deadline=None, derandomize=True, database=None)
floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
few = st.sampled_from([0.0, 1.0, 1.0078125, -2.0, -2.015625, 3e38, 1e-40])  # ties, and neighbours in one bin
rows = st.lists(st.one_of(floats, few), min_size=1, max_size=30)


@pytest.fixture
def without_numba() -> Iterator[None]:
    """A Python in which numba is not installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "numba", None)
        for name in ("histogram", "within"):
            patch.delitem(sys.modules, f"rewrite_core.statistics.{name}_kernel", raising=False)
        kernel.cache_clear()
        yield
    kernel.cache_clear()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "statistics")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_sorting(keys: Tensor, shares: Sequence[float]) -> Tensor:
    """The same quantiles from all values: the i-th of n sits at (i - ½)/n, the ends at 0 and 1 too."""
    ordered = keys.double().movedim(1, 0).flatten(1).sort(dim=1).values  # [C, n]
    n = ordered.shape[1]
    place = torch.tensor(shares, dtype=torch.float64) * n + 0.5
    lower, upper = (ordered[:, (rank.long().clamp(1, n) - 1)] for rank in (place.floor(), place.floor() + 1))
    return lower + (place - place.floor()) * (upper - lower)


def in_two_passes(parts: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """Without a generator: both passes over the same batches."""
    histogram = Histogram()
    for part in parts:
        histogram = histogram.update(Batch.of(part))
    within = Within.of(histogram, shares)
    for part in parts if within.open else ():
        within = within.update(Batch.of(part))
    return within.quantile(histogram)


def some_within() -> Within:
    keys = drawn(4, 3, 8, 8)
    return Within.of(Histogram().update(Batch.of(keys)), [0.3, 0.9]).update(Batch.of(keys))


def same(one: Within, other: Within) -> bool:
    a, b = one.state(), other.state()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# From a generator


@pytest.mark.parametrize("layer", [UP, PLAIN, DOWN])
def test_exact_quantiles_are_those_of_sorting_every_position(layer: str, store: Store):
    small = small_generator()
    found = exact_quantiles(small, layer, spec(130), SHARES, store=store)
    blocks = spec(130).blocks(small.micro_batch)
    keys = torch.cat([small.keys(small.latents(block), layer).keys for block in blocks])
    assert torch.equal(found, by_sorting(keys, SHARES))
    assert found.dtype == torch.float64


def test_both_passes_are_kept_and_not_made_again(store: Store):
    small, calls = small_generator(), []
    first = exact_quantiles(small, PLAIN, spec(30), [0.9], store=store)
    assert {entry.key["statistic"] for entry in store.entries()} == {"histogram", "within"}
    again = exact_quantiles(
        small, PLAIN, spec(30), [0.9], store=store, progress=lambda done, total: calls.append(done)
    )
    assert torch.equal(first, again)
    assert calls == []


def test_progress_sees_both_passes_as_one(store: Store):
    calls: list[tuple[int, int]] = []
    exact_quantiles(
        small_generator(), PLAIN, spec(30), [0.9], store=store, progress=lambda *now: calls.append(now)
    )
    done = [one for one, _ in calls]
    assert {total for _, total in calls} == {60}
    assert done == sorted(done)
    assert 30 in done
    assert done[-1] == 60


def test_a_cancelled_pass_leaves_what_it_has(store: Store):
    def stop(done: int, total: int) -> None:
        if done > total // 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        exact_quantiles(small_generator(), PLAIN, spec(30), [0.9], store=store, progress=stop)
    assert [entry.key["statistic"] for entry in store.entries()] == ["histogram"]


def test_nothing_is_kept_where_the_histogram_knows_the_answer(store: Store):
    exact_quantiles(small_generator(), PLAIN, spec(30), [0.0, 1.0], store=store)
    assert [entry.key["statistic"] for entry in store.entries()] == ["histogram"]
    keys = torch.stack([torch.full((9,), 0.5), torch.tensor([-1.0, *[0.0] * 7, 1.0])]).reshape(1, 2, 3, 3)
    histogram = Histogram().update(Batch.of(keys))
    within = Within.of(histogram, [0.5])
    assert not within.open
    assert torch.equal(within.quantile(histogram), by_sorting(keys, [0.5]))


def test_more_values_than_the_limit_are_refused_in_one_line(store: Store):
    with pytest.raises(RequestError, match=r"more than 100 different values.*fewer quantiles") as caught:
        exact_quantiles(small_generator(), PLAIN, spec(30), [0.9], store=store, limit=100)
    assert "\n" not in str(caught.value)


def test_a_quantile_that_does_not_exist_is_refused_before_anything_is_drawn(store: Store):
    with pytest.raises(RequestError, match="quantiles from 0 to 1"):
        exact_quantiles(small_generator(), PLAIN, spec(30), [1.5], store=store)
    assert store.entries() == []


# Any values


@quick
@given(st.lists(rows, min_size=1, max_size=3), st.lists(st.floats(0, 1), min_size=1, max_size=4))
def test_any_values_in_any_batches_have_no_rank_error(parts: list[list[float]], shares: list[float]):
    batches = [torch.tensor(part).reshape(1, 1, 1, -1) for part in parts]
    everything = torch.cat([batch.flatten() for batch in batches]).reshape(1, 1, 1, -1)
    assert torch.equal(in_two_passes(batches, shares), by_sorting(everything, shares))


def test_equal_values_are_kept_once(store: Store):
    keys = torch.where(drawn(8, 2, 16, 16) > 0, 1.5, -2.5)
    within = Within.of(Histogram().update(Batch.of(keys)), [0.2, 0.8])
    for part in keys.split(2):
        within = within.update(Batch.of(part))
    assert within.summary()["values"] <= 4
    assert within.summary()["positions"] == keys.numel()


def test_plain_torch_keeps_what_the_compiled_kernel_keeps(request: pytest.FixtureRequest):
    parts = [drawn(3, 4, 9, 7, seed=seed).relu() + 1e-30 * seed for seed in range(3)]
    compiled, kept = in_two_passes(parts, SHARES), some_within()
    merged = kept.merge(kept.update(Batch.of(drawn(2, 3, 8, 8, seed=5))))
    request.getfixturevalue("without_numba")
    assert kernel("within") is None
    assert torch.equal(in_two_passes(parts, SHARES), compiled)
    plain = some_within()
    assert same(plain, kept)
    assert same(plain.merge(plain.update(Batch.of(drawn(2, 3, 8, 8, seed=5)))), merged)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_taken(dtype: torch.dtype):
    keys = drawn(5, 3, 6, 6).to(dtype)
    assert torch.equal(in_two_passes([keys], SHARES), by_sorting(keys, SHARES))


@quick
@given(rows, rows, rows)
def test_merging_is_associative_and_commutative(one: list[float], two: list[float], three: list[float]):
    batches = [Batch.of(torch.tensor(part).reshape(1, 1, 1, -1)) for part in (one, two, three)]
    histogram = Histogram()
    for batch in batches:
        histogram = histogram.update(batch)
    empty = Within.of(histogram, [0.1, 0.5, 0.8])
    a, b, c = (empty.update(batch) for batch in batches)
    together = a.merge(b).merge(c)
    assert same(together, a.merge(b.merge(c)))
    assert same(together, c.merge(b).merge(a))
    assert same(empty.merge(a), a)
    assert same(a.merge(empty), a)
    assert same(empty.restore(together.state()), together)


def test_what_is_kept_is_a_value():
    first = some_within()
    kept = {name: tensor.clone() for name, tensor in first.state().items()}
    first.update(Batch.of(drawn(4, 3, 8, 8, seed=1)))
    assert all(torch.equal(tensor, kept[name]) for name, tensor in first.state().items())
    assert first.restore({}).state() == {}


def test_the_key_depends_on_quantiles_and_bins():
    small = small_generator()
    one, two = (Histogram().update(Batch.of(drawn(4, 3, 8, 8, seed=seed))) for seed in range(2))
    asked = [Within.of(one, [0.5]), Within.of(one, [0.6]), Within.of(two, [0.5])]
    keys = [json.dumps(key_of(small, PLAIN, spec(4), statistic)) for statistic in asked]
    assert len(set(keys)) == 3
    assert keys[0] == json.dumps(key_of(small, PLAIN, spec(4), Within.of(one, (0.5,))))
    with pytest.raises(ValueError, match=r"Within\.of"):
        Within().parameters()


@pytest.mark.parametrize(
    ("name", "spoilt"),
    [
        ("found", lambda found: found.flip(0)),
        ("found", lambda found: found + (3 << 32)),
        ("found", lambda found: found - (1 << 40)),
        ("found", lambda found: found[1:]),
        ("found", lambda found: found.int()),
        ("times", lambda times: times - 1),
        ("times", lambda times: times.float()),
    ],
)
def test_a_state_of_something_else_is_refused(name: str, spoilt):
    within = some_within()
    state = within.state()
    with pytest.raises(ValueError, match="values"):
        within.restore({**state, name: spoilt(state[name])})


def test_passes_that_differ_in_the_last_bits_still_answer_from_the_right_bins():
    keys = drawn(4, 3, 8, 8)
    histogram = Histogram().update(Batch.of(keys))
    moved = Within.of(histogram, SHARES).update(Batch.of(keys * (1 + 1e-6)))
    torch.testing.assert_close(moved.quantile(histogram), by_sorting(keys, SHARES), rtol=0.05, atol=1e-3)
    empty_handed = Within.of(histogram, SHARES).update(Batch.of(torch.full_like(keys, 1e9)))
    low, high = histogram.quantile([0])[:, 0], histogram.quantile([1])[:, 0]
    answers = empty_handed.quantile(histogram)
    assert ((answers >= low[:, None]) & (answers <= high[:, None])).all()


# Published


def test_the_published_quantiles_are_met():
    with np.load(REFERENCE / "quantile_sketch.npz") as arrays:
        data, shares, expected = (
            torch.from_numpy(arrays[name]) for name in ("small_data", "ps", "small_quantiles")
        )
    found = in_two_passes([data[:, :, None, None]], shares.double().tolist())
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=4e-6)  # theirs is computed in float32
