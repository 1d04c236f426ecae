"""Histograms: the same counts in every way of counting, and quantiles within the error that they promise."""

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

from rewrite_core.errors import PalimpsestError, RequestError
from rewrite_core.generators import from_sequential, open_generator
from rewrite_core.rules.published import as_published, published_units
from rewrite_core.statistics import Batch, sweep
from rewrite_core.statistics.bins import bins_of, edges_of, ordered_bits, ordered_values, total_bins, zero_bin
from rewrite_core.statistics.histogram import Histogram
from rewrite_core.statistics.kernels import kernel
from tests.generators import DOWN, PLAIN, UP, small_generator, small_stack, spec

REFERENCE = Path(__file__).parent / "reference"
SHARES = (0.0, 0.001, 0.01, 0.25, 0.5, 0.75, 0.99, 0.999, 1.0)

quick = settings(max_examples=60, deadline=None, derandomize=True, database=None)
floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
rows = st.lists(floats, min_size=1, max_size=40)


@pytest.fixture
def without_numba() -> Iterator[None]:
    """A Python in which numba is not installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "numba", None)
        patch.delitem(sys.modules, "rewrite_core.statistics.histogram_kernel", raising=False)
        kernel.cache_clear()
        yield
    kernel.cache_clear()


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def hostile() -> dict[str, Tensor]:
    """Unit by unit [6, 15, 20]: whatever a layer may hold."""
    normal = drawn(6, 15, 20)
    steps = torch.arange(1800).reshape(6, 15, 20)
    return {
        "constant": torch.full((6, 15, 20), -3.7),
        "all zero": torch.zeros(6, 15, 20),
        "zeros of both signs": torch.where(steps % 2 == 0, 0.0, -0.0),
        "heavy tails": torch.tan(
            1.5707 * (2 * torch.rand(6, 15, 20, generator=torch.Generator().manual_seed(1)) - 1)
        ),
        "up to the greatest float": normal.sign() * torch.logspace(-38, 38, 1800).reshape(6, 15, 20),
        "denormals": (steps.int() + 1).view(torch.float32),
        "negative only": -normal.abs() - 0.1,
        "after a ReLU": normal.relu(),
        "after a leaky ReLU": torch.nn.functional.leaky_relu(normal, 0.2),
        "two values": torch.where(normal > 1, 2.0, -1.0),
        "one far away": torch.where(steps == 7, 1e30, normal),
        "mixed": torch.cat([normal[:2].relu(), 1e-20 * normal[2:4], 1e9 * normal[4:]]),
    }


def hostile_keys() -> Tensor:
    return torch.stack(list(hostile().values()), dim=1)  # [6, C, 15, 20]


def seen(keys: Tensor, mantissa_bits: int = 5) -> Histogram:
    return Histogram(mantissa_bits).update(Batch.of(keys))


def per_unit(keys: Tensor) -> Tensor:
    return keys.double().movedim(1, 0).flatten(1).contiguous()  # [C, N·h·w]


def rank_distance(keys: Tensor, values: Tensor, shares: Sequence[float]) -> Tensor:
    """How far each share lies from the ranks that its value has, [C, Q]."""
    ordered = per_unit(keys).sort(dim=1).values
    n, wanted = ordered.shape[1], torch.tensor(shares, dtype=torch.float64)
    below = torch.searchsorted(ordered, values.contiguous()).double() / n
    upto = torch.searchsorted(ordered, values.contiguous(), right=True).double() / n
    return torch.maximum(below - wanted, wanted - upto).clamp(min=0)


def same(one: Histogram, other: Histogram) -> bool:
    a, b = one.state(), other.state()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# Bins


@pytest.mark.parametrize("mantissa_bits", [1, 5, 7])
def test_bins_are_in_the_order_of_the_values_and_lie_between_their_edges(mantissa_bits: int):
    values = torch.cat([hostile_keys().flatten(), torch.logspace(-6, 6, 999), -torch.logspace(-6, 6, 999)])
    values = values.sort().values
    bins = bins_of(values, mantissa_bits).long()
    low, high = edges_of(mantissa_bits)
    assert len(low) == len(high) == total_bins(mantissa_bits)
    assert (bins.diff() >= 0).all()
    assert (low[bins] <= values).all()
    assert (values <= high[bins]).all()
    assert torch.equal(low[1:], high[:-1])
    assert (bins[values == 0] == zero_bin(mantissa_bits)).all()


def test_between_the_outermost_bins_all_are_as_narrow_as_promised():
    low, high = edges_of(5)
    first = zero_bin(5) + 1
    assert (float(high[first]), float(low[-1])) == (2.0**-16 * (1 + 2.0**-5), 2.0**16 * (1 - 2.0**-6))
    inner = slice(first + 1, -1)
    assert ((high - low)[inner] <= 2.0**-5 * low[inner]).all()


def test_ordered_bits_are_in_the_order_of_the_values():
    values = hostile_keys().flatten().sort().values
    assert (ordered_bits(values).diff()[values.diff() > 0] > 0).all()
    assert torch.equal(ordered_values(ordered_bits(values)), values)


def test_a_width_that_does_not_exist_is_refused():
    with pytest.raises(RequestError, match="expected 1 to 8"):
        Histogram(9)


# Counting


def test_every_position_is_counted_in_its_bin():
    keys = hostile_keys()
    histogram = seen(keys)
    assert histogram.counts is not None
    for unit, values in enumerate(keys.unbind(1)):
        expected = torch.bincount(bins_of(values.flatten(), 5), minlength=total_bins(5))
        counted = torch.nn.functional.pad(
            histogram.counts[unit],
            (histogram.first, total_bins(5) - histogram.first - histogram.counts.shape[1]),
        )
        assert torch.equal(counted.long(), expected)
    assert torch.equal(histogram.least, keys.amin((0, 2, 3)).double())
    assert torch.equal(histogram.greatest, keys.amax((0, 2, 3)).double())
    assert torch.equal(histogram.zeros, (keys == 0).sum((0, 2, 3)))
    assert (histogram.positions, histogram.samples) == (1800, 6)


@pytest.mark.parametrize("mantissa_bits", [1, 5, 8])
@pytest.mark.parametrize("threads", [1, 2])
def test_plain_torch_counts_as_the_compiled_kernel_does(
    mantissa_bits: int, threads: int, request: pytest.FixtureRequest
):
    before = torch.get_num_threads()
    assert kernel("histogram") is not None
    torch.set_num_threads(threads)
    try:
        compiled = seen(hostile_keys(), mantissa_bits)
    finally:
        torch.set_num_threads(before)
    request.getfixturevalue("without_numba")
    assert kernel("histogram") is None
    assert same(compiled, seen(hostile_keys(), mantissa_bits))


def test_keys_need_not_be_contiguous():
    keys = drawn(3, 5, 4, 6)
    assert same(seen(keys.movedim(1, -1).contiguous().movedim(-1, 1)), seen(keys))
    assert same(seen(drawn(3, 1, 4, 6).expand(3, 5, 4, 6)), seen(drawn(3, 1, 4, 6).repeat(1, 5, 1, 1)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_keys_of_other_types_are_counted_as_float32(dtype: torch.dtype):
    keys = drawn(3, 5, 4, 6).to(dtype)
    assert same(seen(keys), seen(keys.float()))


@quick
@given(st.lists(rows, min_size=3, max_size=3))
def test_merging_is_associative_and_commutative_and_equals_having_seen_all(parts: list[list[float]]):
    a, b, c = (seen(torch.tensor(part).reshape(1, 1, 1, -1)) for part in parts)
    together = a.merge(b).merge(c)
    assert same(together, a.merge(b.merge(c)))
    assert same(together, c.merge(a).merge(b))
    everything = seen(torch.tensor([value for part in parts for value in part]).reshape(1, 1, 1, -1)).state()
    assert torch.equal(together.state()["counts"], everything["counts"])
    assert torch.equal(together.state()["extremes"], everything["extremes"])


def test_the_empty_histogram_is_neutral():
    histogram = seen(hostile_keys())
    assert Histogram().merge(histogram) is histogram
    assert histogram.merge(Histogram()) is histogram
    assert Histogram().state() == {}
    assert Histogram().summary() == {"samples": 0}
    assert histogram.restore({}).counts is None


def test_a_histogram_is_a_value():
    first = seen(drawn(4, 3, 5, 5))
    kept = {name: tensor.clone() for name, tensor in first.state().items()}
    first.update(Batch.of(100 * drawn(4, 3, 5, 5, seed=1)))
    first.merge(seen(drawn(4, 3, 5, 5, seed=2)))
    assert all(torch.equal(tensor, kept[name]) for name, tensor in first.state().items())


@quick
@given(rows, rows)
def test_a_histogram_goes_on_from_its_state(one: list[float], two: list[float]):
    first, second = (torch.tensor(values).reshape(1, 1, -1, 1) for values in (one, two))
    resumed = Histogram().restore(seen(first).state()).update(Batch.of(second))
    assert same(resumed, seen(first).update(Batch.of(second)))


def test_only_octaves_in_use_are_kept():
    counts = seen(drawn(4, 512, 8, 8).relu()).state()["counts"]
    assert counts.shape[1] < 1 + 32 * 20
    assert counts.dtype == torch.int32


def test_counts_grow_to_int64_before_they_overflow():
    many = seen(torch.ones(1, 2, 1, 1))
    for _ in range(31):
        many = many.merge(many)
    assert many.positions == 2**31
    assert many.state()["counts"].dtype == torch.int64
    assert many.state()["counts"].sum(1).tolist() == [2**31, 2**31]
    assert same(Histogram().restore(many.state()), many)


@pytest.mark.parametrize(
    ("name", "spoilt"),
    [
        ("counts", lambda counts: counts[:, :-1]),
        ("counts", lambda counts: counts.float()),
        ("counts", lambda counts: counts.long()),
        ("counts", lambda counts: counts[0]),
        ("counts", lambda counts: counts + 1),
        ("counts", lambda counts: counts - 1),
        ("counts", lambda counts: counts[:, :0]),
        ("extremes", lambda extremes: extremes.double()),
        ("extremes", lambda extremes: extremes[:, :-1]),
        ("extremes", lambda extremes: extremes.flip(0)),
        ("extremes", lambda extremes: extremes * torch.nan),
        ("place", lambda place: place + 1),
        ("place", lambda place: -place),
        ("place", lambda place: place[:2]),
    ],
)
def test_a_state_of_something_else_is_refused(name: str, spoilt):
    state = seen(drawn(4, 3, 5, 5)).state()
    with pytest.raises(ValueError):  # noqa: PT011 - the store tells nobody which
        Histogram().restore({**state, name: spoilt(state[name])})


def test_a_state_of_another_width_is_refused():
    with pytest.raises(ValueError, match="do not span"):
        Histogram(6).restore(seen(drawn(4, 3, 5, 5)).state())


# Quantiles


@pytest.mark.parametrize("mantissa_bits", [1, 5, 7])
def test_quantiles_of_hostile_distributions_are_within_their_bound(mantissa_bits: int):
    keys = hostile_keys()
    shares = [*SHARES, *torch.rand(40, generator=torch.Generator().manual_seed(3)).tolist()]
    histogram = seen(keys, mantissa_bits)
    values, bound = histogram.quantile(shares), histogram.rank_error(shares)
    assert (rank_distance(keys, values, shares) <= bound + 1e-12).all()
    assert (values >= histogram.least[:, None]).all()
    assert (values <= histogram.greatest[:, None]).all()
    exact = [list(hostile()).index(name) for name in ("constant", "all zero", "zeros of both signs")]
    assert (bound[exact] == 0).all()
    assert (bound[:, [0, 8]] == 0).all()
    ordered = torch.tensor(shares).sort().indices
    assert (values[:, ordered].diff() >= 0).all()


@quick
@given(rows, st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_any_quantile_of_any_values_is_within_its_bound(values: list[float], shares: list[float]):
    keys = torch.tensor(values).reshape(1, 1, 1, -1)
    histogram = seen(keys)
    found = histogram.quantile(shares)
    assert (rank_distance(keys, found, shares) <= histogram.rank_error(shares) + 1e-12).all()
    assert float(histogram.quantile([0])) == min(values)
    assert float(histogram.quantile([1])) == max(values)


def test_values_are_within_a_bin_of_the_exact_quantile():
    keys = drawn(20, 3, 16, 16)
    exact = torch.quantile(
        per_unit(keys), torch.tensor([0.01, 0.3, 0.9, 0.999], dtype=torch.float64), dim=1
    ).T
    found = seen(keys).quantile([0.01, 0.3, 0.9, 0.999])
    assert ((found - exact).abs() <= 2.0**-5 * exact.abs()).all()


def test_interpolated_quantiles_are_far_better_than_their_bound():
    keys = drawn(60, 4, 64, 64)
    histogram, shares = seen(keys), (0.01, 0.5, 0.99, 0.995, 0.999)
    assert rank_distance(keys, histogram.quantile(shares), shares).max() < 2e-4
    assert histogram.rank_error(shares).max() < 2e-3


def test_one_position_is_every_quantile():
    keys = torch.tensor([0.3, -4e-20, 0.0, 7e20]).reshape(1, 4, 1, 1)
    assert torch.equal(seen(keys).quantile(SHARES), keys.double().reshape(4, 1).expand(4, len(SHARES)))


def test_a_quantile_that_does_not_exist_is_refused():
    for share in (-0.1, 1.5, float("nan")):
        with pytest.raises(RequestError, match="quantiles from 0 to 1"):
            seen(drawn(1, 2, 3, 3)).quantile([0.5, share])


# Ranks and bars


def test_ranks_are_within_the_share_of_the_value_s_bin():
    keys = hostile_keys()
    histogram = seen(keys)
    values = per_unit(keys)[:, ::37].contiguous()
    ordered = per_unit(keys).sort(dim=1).values
    below = torch.searchsorted(ordered, values).double() / 1800
    upto = torch.searchsorted(ordered, values, right=True).double() / 1800
    _, inside = histogram.masses(bins_of(values.float(), 5).long())
    assert ((histogram.rank(values) - (below + upto) / 2).abs() <= inside / 1800 + 1e-12).all()
    above = torch.stack([histogram.share_above(column) for column in values.T], dim=1)
    assert ((above - (1 - upto)).abs() <= inside / 1800 + 1e-12).all()


def test_ties_at_zero_count_half_and_nothing_equal_is_above():
    keys = torch.tensor([-1.0, 0, 0, 0, 0, 0, 2, 3]).reshape(1, 1, 2, 4)
    histogram = seen(keys)
    assert histogram.rank(torch.tensor([[0.0]])).item() == (1 + 2.5) / 8
    assert histogram.share_above(torch.tensor([0.0])).item() == 2 / 8
    assert histogram.share_above(torch.tensor([3.0])).item() == 0
    assert histogram.share_above(torch.tensor([-5.0])).item() == 1
    assert histogram.rank(torch.tensor([[-5.0, 5.0]])).tolist() == [[1 / 16, 15 / 16]]


def test_a_rank_undoes_a_quantile():
    histogram = seen(drawn(20, 3, 16, 16))
    shares = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    torch.testing.assert_close(
        histogram.rank(histogram.quantile(shares.tolist())), shares.expand(3, -1), rtol=0, atol=1e-9
    )


def test_bars_hold_every_position_once():
    keys = hostile_keys()
    histogram = seen(keys)
    for unit, values in enumerate(per_unit(keys)):
        bars = histogram.bars(unit, 12)
        assert bars.edges.shape == (13,)
        assert (bars.edges.diff() > 0).all()
        assert (bars.shares >= 0).all()
        assert float(bars.shares.sum()) + bars.zeros == pytest.approx(1)
        assert bars.zeros == float((values == 0).double().mean())


def test_bars_are_those_of_the_values_up_to_the_bins_at_their_edges():
    values = drawn(40, 1, 32, 32)
    bars = seen(values).bars(0, 10)
    expected, _ = np.histogram(values.numpy(), bars.edges.numpy())
    np.testing.assert_allclose(bars.shares.numpy(), expected / values.numel(), atol=5e-4)


def test_a_summary_is_json():
    summary = seen(hostile_keys()).summary()
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert (summary["units"], summary["positions"]) == (12, 1800)


# In a sweep


def test_a_sweep_sees_what_one_batch_shows():
    small = small_generator()
    found = sweep(small, spec(30), {layer: [Histogram()] for layer in (UP, PLAIN, DOWN)})
    for layer, (histogram,) in found.items():
        blocks = spec(30).blocks(small.micro_batch)
        keys = torch.cat([small.keys(small.latents(block), layer).keys for block in blocks])
        assert isinstance(histogram, Histogram)
        assert same(histogram, seen(keys))


def test_keys_that_are_not_finite_are_refused_by_the_name_of_layer_and_unit():
    stack = small_stack()
    with torch.no_grad():  # finite weights whose products are not
        stack.get_submodule("start").get_parameter("weight")[5 * 16 : (5 + 1) * 16] *= 1e38
    with pytest.raises(PalimpsestError, match=r"unit 5 of layer 'up' is NaN or infinite in picture 1"):
        sweep(from_sequential(stack, name="damaged"), spec(4), {UP: [Histogram()]})


# Published


@pytest.fixture(scope="module")
def sketch() -> dict[str, Tensor]:
    with np.load(REFERENCE / "quantile_sketch.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


def test_published_quantiles_are_met_within_the_bound(sketch: dict[str, Tensor]):
    keys = sketch["small_data"].T.reshape(1, 3, 40, 25)
    shares = sketch["ps"].double().tolist()
    histogram, expected = seen(keys), sketch["small_quantiles"].double()
    found, bound = histogram.quantile(shares), histogram.rank_error(shares)
    assert torch.equal(found[:, [0, -1]], expected[:, [0, -1]])
    assert torch.equal(
        torch.stack([histogram.least, histogram.greatest], dim=1), sketch["small_minmax"].double()
    )
    assert (rank_distance(keys, found, shares) <= bound + 1e-12).all()
    between = (histogram.rank(expected) - torch.tensor(shares)).abs()
    assert (between <= bound + 1e-3).all()  # one position of 1,000


def test_published_ranks_are_met_within_the_bound(sketch: dict[str, Tensor]):
    histogram, values = seen(sketch["small_data"].T.reshape(1, 3, 40, 25)), sketch["small_normalize_in"]
    error = (histogram.rank(values) - sketch["small_normalize"]).abs()
    _, inside = histogram.masses(bins_of(values, 5).long())
    assert (error <= inside / 1000).all()


def test_quantiles_of_a_long_stream_are_the_published_ones_but_for_their_sketch(sketch: dict[str, Tensor]):
    draw = np.random.RandomState(int(sketch["big_seed"]))
    draw.randn(1000, 3)
    keys = torch.from_numpy(draw.randn(100_000, 3).astype(np.float32)).T.reshape(1, 3, 250, 400)
    assert torch.equal(seen(keys).quantile([0, 1]).float(), sketch["big_quantiles"][:, [0, -1]])
    shares = sketch["ps"].double().tolist()
    assert rank_distance(keys, seen(keys).quantile(shares), shares).max() <= 1e-3
    assert rank_distance(keys, sketch["big_quantiles"].double(), shares).max() <= 1e-3


@pytest.mark.parametrize(
    ("name", "weights"),
    [("sg_layer6", "small_stylegan2.pt"), ("pg_layer6", "small_proggan.pth")],
)
def test_quantiles_of_published_units_have_the_sketch_s_accuracy(name: str, weights: str):
    with np.load(REFERENCE / f"{name}_context.npz") as arrays:
        expected = torch.from_numpy(arrays["unit_quantiles_0_.01_.5_.99_.999_1"]).double()
    units = published_units(as_published(open_generator(REFERENCE / weights)), name[3:], 200)  # [51,200, I]
    keys = units.float().T.reshape(1, units.shape[1], 200, -1)
    histogram, shares = seen(keys), [0, 0.01, 0.5, 0.99, 0.999, 1]
    assert rank_distance(keys, histogram.quantile(shares), shares).max() <= 1e-3
    torch.testing.assert_close(histogram.quantile([0, 1]), expected[:, [0, -1]], rtol=0, atol=1e-5)
    assert (histogram.rank(expected[:, 1:-1]) - torch.tensor(shares[1:-1])).abs().max() <= 2e-3
