"""Maxima: which pictures turn a unit on most; the order is fixed, ties included."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rewrite_core.errors import PalimpsestError
from rewrite_core.generators import from_sequential
from rewrite_core.statistics import Batch, sweep
from rewrite_core.statistics.maxima import Maxima
from tests.generators import DOWN, UP, small_generator, small_stack, spec

REFERENCE = Path(__file__).parent / "reference"

quick = settings(max_examples=60, deadline=None, derandomize=True, database=None)
pictures = st.dictionaries(st.integers(0, 20), st.integers(-2, 2), min_size=1, max_size=8)
"""Seed → value of the one unit; few values, so that there are ties."""


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def seen(values: dict[int, int]) -> Maxima:
    keys = torch.tensor(list(values.values()), dtype=torch.float32).reshape(-1, 1, 1, 1)
    return Maxima().update(Batch(keys, tuple(values)))


def same(one: Maxima, other: Maxima) -> bool:
    a, b = one.state(), other.state()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def listed(found: tuple[Tensor, Tensor]) -> list[tuple[int, float]]:
    return list(zip(*(part.tolist() for part in found), strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_maxima_are_those_of_every_picture_s_positions(dtype: torch.dtype):
    keys = drawn(7, 5, 4, 6).to(dtype)
    maxima = Maxima().update(Batch.of(keys, first=3))
    assert maxima.maxima is not None
    assert maxima.seeds is not None
    assert torch.equal(maxima.maxima, keys.float().amax((2, 3)))
    assert maxima.maxima.dtype == torch.float32
    assert maxima.seeds.tolist() == list(range(3, 10))


@quick
@given(pictures)
def test_the_top_is_sorted_by_value_and_then_by_seed(values: dict[int, int]):
    maxima = seen(values)
    down = sorted(values.items(), key=lambda picture: (-picture[1], picture[0]))
    up = sorted(values.items(), key=lambda picture: (picture[1], picture[0]))
    for k in (1, 3, 100):
        assert listed(maxima.top(0, k)) == down[:k]
        assert listed(maxima.bottom(0, k)) == up[:k]
        assert maxima.top_seeds(k).tolist() == [[seed for seed, _ in down[:k]]]


@quick
@given(pictures, pictures, pictures)
def test_merging_is_associative_and_commutative_and_a_picture_counts_once(
    one: dict[int, int], two: dict[int, int], three: dict[int, int]
):
    a, b, c = seen(one), seen(two), seen(three)
    together = a.merge(b).merge(c)
    assert same(together, a.merge(b.merge(c)))
    assert same(together, c.merge(b).merge(a))
    assert same(together, together.merge(b))
    assert together.summary()["samples"] == len(one | two | three)


def test_a_picture_twice_in_a_batch_counts_once():
    maxima = Maxima().update(Batch(drawn(3, 4, 2, 2)[[0, 1, 2, 1]], (9, 4, 2, 4)))
    assert same(maxima, Maxima().update(Batch(drawn(3, 4, 2, 2)[[2, 1, 0]], (2, 4, 9))))


def test_the_empty_statistic_is_neutral_and_a_statistic_is_a_value():
    first = Maxima().update(Batch.of(drawn(4, 3, 5, 5)))
    kept = {name: tensor.clone() for name, tensor in first.state().items()}
    first.update(Batch.of(drawn(4, 3, 5, 5, seed=1)))
    first.merge(Maxima().update(Batch.of(drawn(4, 3, 5, 5, seed=2), first=2)))
    assert all(torch.equal(tensor, kept[name]) for name, tensor in first.state().items())
    assert Maxima().merge(first) is first
    assert first.merge(Maxima()) is first
    assert Maxima().state() == {}
    assert same(Maxima().restore(first.state()), first)
    assert same(first.restore({}), Maxima())


@pytest.mark.parametrize(
    ("name", "spoilt"),
    [
        ("maxima", lambda maxima: maxima.double()),
        ("maxima", lambda maxima: maxima[0]),
        ("maxima", lambda maxima: maxima[1:]),
        ("seeds", lambda seeds: seeds.flip(0)),
        ("seeds", lambda seeds: seeds * 0),
        ("seeds", lambda seeds: seeds.float()),
    ],
)
def test_a_state_of_something_else_is_refused(name: str, spoilt):
    state = Maxima().update(Batch.of(drawn(4, 3, 5, 5))).state()
    with pytest.raises(ValueError, match=r"maxima of shape|pictures"):
        Maxima().restore({**state, name: spoilt(state[name])})


def test_a_summary_is_json():
    summary = Maxima().update(Batch.of(drawn(4, 3, 5, 5))).summary()
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert (summary["units"], summary["samples"]) == (3, 4)
    assert Maxima().summary() == {"samples": 0}


def test_a_sweep_finds_the_pictures_that_a_look_at_all_of_them_finds():
    small = small_generator()
    ((maxima,),) = sweep(small, spec(60), {DOWN: [Maxima()]}).values()
    assert isinstance(maxima, Maxima)
    blocks = spec(60).blocks(small.micro_batch)
    keys = torch.cat([small.keys(small.latents(block), DOWN).keys for block in blocks])
    expected = np.argsort(-keys.amax((2, 3)).numpy(), axis=0, kind="stable")[:5].T
    assert maxima.top_seeds(5).tolist() == expected.tolist()
    assert maxima.top(2, 5)[0].tolist() == expected[2].tolist()


def test_keys_that_are_not_finite_are_refused_by_the_name_of_layer_and_unit():
    stack = small_stack()
    with torch.no_grad():  # finite weights whose products are not
        stack.get_submodule("start").get_parameter("weight")[7 * 16 : (7 + 1) * 16] *= 1e38
    with pytest.raises(PalimpsestError, match="unit 7 of layer 'up' is NaN or infinite in picture 1"):
        sweep(from_sequential(stack, name="damaged"), spec(4), {UP: [Maxima()]})


def test_the_published_top_pictures_are_met():
    with np.load(REFERENCE / "quantile_sketch.npz") as arrays:
        data, values, seeds = (
            torch.from_numpy(arrays[name]) for name in ("small_data", "topk_values", "topk_index")
        )
    maxima = Maxima()
    for start in range(0, 1000, 100):
        maxima = maxima.update(Batch.of(data[start : start + 100, :, None, None], first=start))
    assert torch.equal(maxima.top_seeds(5), seeds)
    assert torch.equal(torch.stack([maxima.top(unit, 5)[1] for unit in range(3)]), values)


@pytest.mark.parametrize("name", ["sg_layer6", "sg_layer7", "pg_layer6"])
def test_the_published_ranking_of_a_search_is_met(name: str):
    with np.load(REFERENCE / f"{name}_context.npz") as arrays:
        greatest, top = torch.from_numpy(arrays["search_max_per_image"]), arrays["search_top12_imgnums"]
    maxima = Maxima().update(Batch.of(greatest.float().reshape(200, 1, 1, 1)))
    assert sorted(maxima.top(0, 12)[0].tolist()) == sorted(top.tolist())
